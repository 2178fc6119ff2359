// The conversation on the screen: its rows, the dots of an answer to come, and what is marked on either.
import { el } from "./dom.js";
import { Growing } from "./growing.js";
import { waited } from "./prompts.js";
import { answerRow, end, promptRow } from "./rows.js";
import { Scroll } from "./scroll.js";
import { hasText, say, text, translate } from "./texts.js";

const BATCH_MS = 12; // of making rows at a time
const SCREENFUL = 6; // rows, more or less
const QUIET_MS = 500;
const LONG_S = 15; // from here on waiting is worth a word

const [log, typing] = ["log", "typing"].map((id) => document.getElementById(id));

export class View {
  #prompts = new Map(); // message_id → {message, at, node}, and `note` for what is to be said beside it
  #answers = new Map(); // message_id → the newest answer, which is the one that is rated: see answerRow
  #last = null; // the last prompt
  #older = []; // rows of the history that are not made yet, oldest first
  #actions;
  #scroll = new Scroll(() => this.#growing.node ?? log.lastChild);
  #growing = new Growing({
    scroll: this.#scroll,
    quote: (id) => this.#quoted(id),
    done: () => this.#actions.drawn(),
  });

  /** `actions` has a function for each thing the visitor can do. */
  constructor(actions) {
    this.#actions = actions;
  }

  clear() {
    log.replaceChildren();
    this.draft(null);
    this.#older = [];
    this.#last = null;
    this.#prompts.clear();
    this.#answers.clear();
    document.getElementById("latest").hidden = true;
  }

  /** Shows a history: its end at once, the rest upwards, little by little; none of it is read out. */
  recall(history) {
    log.ariaLive = "off";
    this.#older = history.map(({ is_user: isUser, content: message, timestamp: at, ...row }) => {
      if (isUser) return this.#prompt({ ...row, message, at });
      return this.#answer({ ...row, message, timestamp: at });
    });
    this.#fill();
    this.#scroll.show(null, true);
  }

  #fill() {
    const older = this.#older;
    const rows = [];
    const until = performance.now() + BATCH_MS;
    while (older.length && (rows.length < SCREENFUL || performance.now() < until)) rows.unshift(this.#row(older.pop()));
    this.#scroll.above(() => log.prepend(...rows));
    if (older.length) requestAnimationFrame(() => setTimeout(() => older === this.#older && this.#fill()));
    else setTimeout(() => (log.ariaLive = "polite"), QUIET_MS);
  }

  knows = ({ message_id: id }) => this.#prompts.has(id);

  prompt(prompt, later) {
    const entry = this.#prompt(prompt);
    if (later) this.#note(prompt.message_id, "later");
    log.append(this.#row(entry));
    this.#scroll.show(entry.node, true);
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
    const prompt = this.#prompts.get(id);
    if (!prompt) return;
    prompt.note = key ? [say(el("span"), key), " ", action] : [];
    prompt.isFailed = Boolean(key?.startsWith("error."));
    if (prompt.node) mark(prompt.node, prompt);
  }

  /** Shows an answer in the making, or takes it away (null). */
  draft(draft) {
    this.#growing.show(draft);
  }

  answer(frame) {
    this.#note(frame.message_id, null);
    const node = this.#row(this.#answer(frame));
    const follows = this.#scroll.follows();
    typing.hidden = true; // the answer takes its place, so that nothing moves
    this.#growing.end(frame.message_id);
    log.append(node);
    if (follows) this.#scroll.show(node);
    else this.#scroll.point(node);
  }

  /** A line in the conversation that is nobody's words. */
  note(key) {
    log.append(say(el("p", { class: "line" }), key));
    this.#scroll.show(log.lastChild);
  }

  /** Shows how long the oldest unanswered prompt has waited; unless `connected`, its answer cannot come now. */
  typing(pending, connected) {
    const follows = typing.hidden && this.#scroll.follows();
    typing.hidden = !pending.length;
    if (typing.hidden) return;
    const { message, tool_name: tool } = this.#growing.draft ?? {};
    const n = waited(pending[0]);
    const long = n >= LONG_S ? "typing.long" : hasText(`doing.${tool}`) ? `doing.${tool}` : "typing";
    const doing = pending[0].stopped ? "stopping" : message ? "typing.on" : long;
    const [label, seconds] = typing.querySelectorAll("span");
    say(label, connected ? doing : "typing.cut");
    seconds.textContent = text("seconds", { n });
    typing.classList.toggle("still", !connected);
    if (follows) this.#scroll.show(null, true);
  }

  #prompt(prompt) {
    this.#last = { ...prompt };
    this.#prompts.set(prompt.message_id, this.#last);
    return this.#last;
  }

  #answer(frame) {
    const { message_id: id } = frame;
    const entry = { frame, asked: this.#prompts.get(id), quoted: this.#quoted(id) };
    const older = this.#answers.get(id);
    if (older) older.isOver = true;
    if (older?.node) end(older.node);
    this.#answers.set(id, entry);
    return entry;
  }

  // What an answer has to say that it answers: the prompt, unless that is the last one.
  #quoted(id) {
    const asked = this.#prompts.get(id);
    return asked && asked !== this.#last && !this.#answers.has(id) ? asked.message : null;
  }

  #row(entry) {
    entry.node = entry.frame ? answerRow(entry, this.#actions) : promptRow(entry);
    if (entry.note) mark(entry.node, entry);
    translate(entry.node);
    return entry.node;
  }
}

function mark(node, { note, isFailed }) {
  node.classList.toggle("failed", isFailed);
  node.querySelector(".note").replaceChildren(...note);
}
