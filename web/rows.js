// A prompt or an answer as a row of the conversation.
import * as parts from "./answers.js";
import { copy, cut, el } from "./dom.js";
import { settled } from "./draft.js";
import { markdown } from "./markdown.js";
import { clock, hasText, known, say } from "./texts.js";

const QUOTE_CHARS = 40;
const COPIED_MS = 1500;
const TROUBLE = /^LLM 서버 (통신 )?오류/;

const speaker = (key) => say(el("span", { class: "sr" }), key);

export const promptRow = ({ message, at }) => el("div", { class: "row me" },
  speaker("you"),
  el("div", { class: "bubble", text: message }),
  el("p", { class: "meta" }, el("span", { class: "note" }), clock(el("time"), at)));

/** An answer's row without its words, which go into `text`; `quoted` is the prompt, where it is not the last one. */
export function botRow(quoted, tool, props = {}) {
  const text = el("div", { class: "text", lang: "ko" });
  const bubble = el("div", { class: "bubble" });
  if (quoted) {
    const start = cut(quoted, QUOTE_CHARS);
    bubble.append(say(el("p", { class: "reply" }), "reply", { text: start === quoted ? quoted : `${start}…` }));
  }
  if (hasText(`tool.${tool}`)) bubble.append(say(el("p", { class: "tool" }), `tool.${tool}`));
  bubble.append(text);
  return { node: el("div", { class: "row bot", ...props }, speaker("bot"), bubble), bubble, text };
}

/** `entry` has what the view knows of the answer: its frame, `asked`, `quoted`, and `isOver` once a newer one has come. */
export function answerRow({ frame, asked, quoted, isOver }, actions) {
  const { message, tool_name: tool, timestamp } = frame;
  const { node, bubble, text } = botRow(quoted, tool);
  const said = known(message);
  if (said) {
    text.removeAttribute("lang"); // it is the page's
    text.append(say(el("p"), ...said));
  } else {
    text.append(markdown((frame.stopped && settled(message)) || String(message))); // as it was shown when it was stopped
  }
  if (asked && TROUBLE.test(message)) {
    bubble.append(say(el("button", { class: "chip", onclick: () => actions.ask(asked.message) }), "again"));
  }
  if (frame.login_required) bubble.append(isOver ? parts.loggedIn() : parts.login(actions.personas, actions.login));
  const rate = (value) => actions.rate(frame.message_id, value);
  const below = el("div", { class: "meta" },
    frame.stopped ? say(el("span"), "stopped") : null, clock(el("time"), timestamp), copier(message),
    parts.rating(frame.is_helpful, rate));
  node.append(...[parts.cards(frame, actions.ask), parts.related(frame.related_questions, actions.ask), below].filter(Boolean));
  if (isOver) end(node);
  return node;
}

/** A newer answer takes over the rating, and ends the login; what has the focus keeps it. */
export function end(node) {
  node.classList.add("answered");
  node.querySelectorAll(".persona").forEach((button) => {
    button.ariaDisabled = "true";
    button.tabIndex = -1;
  });
}

function copier(message) {
  const button = say(el("button", { class: "link" }), "copy");
  button.onclick = async () => {
    await copy(String(message));
    say(button, "copied");
    setTimeout(() => say(button, "copy"), COPIED_MS);
  };
  return button;
}
