// The conversation on the screen: bubbles, the typing dots, and where it is scrolled to.
import * as parts from "./answers.js";
import { el } from "./dom.js";
import { renew, settled } from "./draft.js";
import { markdown } from "./markdown.js";
import { clock, hasText, say, text, translate } from "./texts.js";

const NEAR_BOTTOM_PX = 120;
const TOP_PX = 16; // above the first line of what is new
const DRAW_MS = 100; // between two drawings of an answer in the making
const TOGETHER_MS = 20; // what begins and its first text come in two frames
const QUOTE_CHARS = 40;
const TROUBLE = /^LLM 서버 (통신 )?오류/;

const [log, scroll, typing, latest] = ["log", "scroll", "typing", "latest"].map((id) => document.getElementById(id));

export class View {
  #prompts = new Map(); // message_id → {node, message}
  #answers = new Map(); // message_id → the newest answer's node, which is the one that is rated
  #actions;
  #draft = null; // as the session has it
  #drawn = null; // {node, text, about, attempt}
  #drawnAt = 0;
  #timer = 0;
  #top = 0; // where the conversation was scrolled to
  #isHeld = false; // the reader has scrolled up, to stay there

  /** `actions` has a function for each thing the visitor can do. */
  constructor(actions) {
    this.#actions = actions;
    latest.onclick = () => this.#show(this.#drawn?.node ?? log.lastChild);
    scroll.onscroll = () => this.#scrolled();
  }

  clear() {
    log.replaceChildren();
    this.draft(null);
    this.#prompts.clear();
    this.#answers.clear();
    latest.hidden = true;
  }

  /** Runs `fill`, which adds many rows at once, without having all of them read out. */
  quietly(fill) {
    log.ariaLive = "off";
    fill();
    scroll.scrollTop = scroll.scrollHeight;
    setTimeout(() => (log.ariaLive = "polite"), 500);
  }

  knows = ({ message_id: id }) => this.#prompts.has(id);

  prompt({ message_id: id, message }, timestamp, later) {
    const node = el("div", { class: "row me" },
      say(el("span", { class: "sr" }), "you"),
      el("div", { class: "bubble", text: message }),
      el("p", { class: "meta" }, el("span", { class: "note" }), clock(el("time"), timestamp)));
    this.#prompts.set(id, { node, message });
    if (later) this.#note(id, "later");
    log.append(node);
    this.#show(node, true);
  }

  renamed(oldId, { message_id: id }) {
    this.#prompts.set(id, this.#prompts.get(oldId));
    this.#prompts.delete(oldId);
  }

  /** Marks a prompt as sent, or as put off until the next connection. */
  sent({ message_id: id, refused }) {
    this.#note(id, refused ? "later" : null);
  }

  failed(prompt, key) {
    const again = say(el("button", { class: "link" }), "resend");
    again.onclick = () => {
      this.#note(prompt.message_id, null);
      this.#actions.retry(prompt);
    };
    this.#note(prompt.message_id, key, key === "error.invalid" ? "" : again); // which would be refused again
  }

  #note(id, key, action = "") {
    const node = this.#prompts.get(id)?.node;
    node?.classList.toggle("failed", Boolean(key?.startsWith("error.")));
    node?.querySelector(".note").replaceChildren(...(key ? [say(el("span"), key), " ", action] : []));
  }

  /** Shows an answer in the making, or takes it away (null); it is drawn soon, and not more often than can be read. */
  draft(draft) {
    this.#draft = draft;
    if (draft) this.#timer ||= setTimeout(() => this.#draw(), Math.max(TOGETHER_MS, this.#drawnAt + DRAW_MS - Date.now()));
    else this.#undraw();
  }

  #draw() {
    this.#timer = 0;
    this.#drawnAt = Date.now();
    if (!this.#draft) return;
    const { message_id: id, attempt, message, tool_name: tool } = this.#draft;
    const words = settled(message);
    const about = `${id} ${tool}`;
    const follow = this.#follows();
    if (this.#drawn && (this.#drawn.about !== about || this.#drawn.attempt < attempt)) this.#undraw();
    if (words) {
      this.#drawn ??= this.#row(id, tool);
      Object.assign(this.#drawn, { about, attempt });
      const { node, text } = this.#drawn;
      renew(text, markdown(words));
      // Further than its first line only for a reader who has gone there.
      if (follow) this.#show(node, scroll.scrollTop > node.offsetTop - TOP_PX + 1);
      else this.#point(node);
    }
    this.#actions.drawn();
  }

  // Beside the log, which is read out: the answer is, once it is whole.
  #row(id, tool) {
    const { bubble, text } = this.#bubble(id, tool);
    const node = el("div", { class: "row bot", id: "draft", "aria-busy": "true" }, say(el("span", { class: "sr" }), "bot"), bubble);
    typing.before(node);
    return { node, text };
  }

  #undraw() {
    this.#drawn?.node.remove();
    this.#drawn = null;
  }

  #bubble(id, tool) {
    const asked = this.#prompts.get(id);
    const text = el("div", { class: "text", lang: "ko" });
    const bubble = el("div", { class: "bubble" });
    if (asked && !this.#answers.has(id) && asked.node !== [...log.querySelectorAll(".me")].at(-1)) {
      const quote = asked.message.slice(0, QUOTE_CHARS) + (asked.message.length > QUOTE_CHARS ? "…" : "");
      bubble.append(say(el("p", { class: "reply" }), "reply", { text: quote }));
    }
    if (hasText(`tool.${tool}`)) bubble.append(say(el("p", { class: "tool" }), `tool.${tool}`));
    bubble.append(text);
    return { bubble, text };
  }

  answer(frame) {
    const { message_id: id, message, tool_name: tool, timestamp } = frame;
    const actions = this.#actions;
    const asked = this.#prompts.get(id);
    const older = this.#answers.get(id);
    this.#note(id, null);
    older?.classList.add("answered"); // the newer answer takes over the rating, and ends the login
    older?.querySelector(".personas")?.setAttribute("inert", "");

    const { bubble, text } = this.#bubble(id, tool);
    text.append(markdown((frame.stopped && settled(message)) || String(message))); // as it was shown when it was stopped
    if (asked && TROUBLE.test(message)) {
      const again = el("button", { class: "chip", onclick: () => actions.ask(asked.message) });
      bubble.append(say(again, "again"));
    }
    if (frame.login_required) bubble.append(parts.login(actions.personas, actions.login));
    const node = el("div", { class: "row bot" },
      say(el("span", { class: "sr" }), "bot"), bubble,
      parts.cards(frame.card_list, actions.ask),
      parts.related(frame.related_questions, actions.ask),
      el("div", { class: "meta" }, frame.stopped ? say(el("span"), "stopped") : null, clock(el("time"), timestamp),
        parts.rating(frame.is_helpful, (value) => actions.rate(id, value))));
    translate(node);
    this.#answers.set(id, node);

    const follow = this.#follows();
    typing.hidden = true; // the answer takes its place, so that nothing moves
    if (this.#draft?.message_id === id || this.#drawn?.about.startsWith(id)) this.draft(null);
    log.append(node);
    if (follow) this.#show(node);
    else this.#point(node);
  }

  /** A line in the conversation that is nobody's words. */
  note(key) {
    log.append(say(el("p", { class: "line" }), key));
    this.#show(log.lastChild);
  }

  /** Shows how long the oldest unanswered prompt has waited; unless `connected`, its answer cannot come now. */
  typing(pending, connected) {
    const follow = typing.hidden && this.#follows();
    typing.hidden = !pending.length;
    if (typing.hidden) return;
    const { message, tool_name: tool } = this.#draft ?? {};
    const doing = pending[0].stopped ? "stopping" : message ? "typing.on" : hasText(`doing.${tool}`) ? `doing.${tool}` : "typing";
    const n = Math.max(0, Math.floor((Date.now() - pending[0].sentAt) / 1000));
    const [label, seconds] = typing.querySelectorAll("span");
    say(label, connected ? doing : "typing.cut");
    seconds.textContent = text("seconds", { n });
    typing.classList.toggle("still", !connected);
    if (follow) scroll.scrollTop = scroll.scrollHeight;
  }

  #atBottom() {
    return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR_BOTTOM_PX;
  }

  #scrolled() {
    const { scrollTop: top, scrollHeight, clientHeight } = scroll;
    const isAtEnd = scrollHeight - top - clientHeight < 2;
    if (top < this.#top && !isAtEnd) this.#isHeld = true;
    else if (this.#atBottom()) this.#isHeld = false;
    this.#top = top;
    if (this.#atBottom()) latest.hidden = true;
  }

  #follows() {
    return this.#atBottom() && !this.#isHeld;
  }

  // To the end, but never past the first line of what is new, and never back up.
  #show(node, toEnd = false) {
    const end = scroll.scrollHeight - scroll.clientHeight;
    scroll.scrollTop = toEnd || !node ? end : Math.max(scroll.scrollTop, Math.min(end, node.offsetTop - TOP_PX));
    latest.hidden = true;
    this.#isHeld = false;
  }

  // Offers the way to what is new, unless it begins on the screen already.
  #point(node) {
    latest.hidden = node.offsetTop < scroll.scrollTop + scroll.clientHeight;
  }
}
