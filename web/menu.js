// Questions to choose from: the examples, and the lists of FAQs and terms.
import { call } from "./api.js";
import { el } from "./dom.js";
import { EXAMPLES, say, spoken } from "./texts.js";

const LONG_LIST = 100;
const LISTS = { faq: ["question", "question", 4], terms: ["term", "chip", 8] }; // what is shown of an entry, as what, how many
const DOUBLE_MS = 800;

const $ = (id) => document.getElementById(id);
const calls = {}; // of each list the newest, which alone is shown

let chosen = { at: -Infinity };
let place = []; // of the last click
addEventListener("click", ({ clientX, clientY }) => (place = [clientX, clientY]), true);

/** Whether a question is chosen by a click of its own: of a double click, or a key that is held, the first is meant. */
export function isMeant(question) {
  const before = chosen;
  chosen = { question, place, at: performance.now() };
  const isSame = before.question === question || String(before.place) === String(place); // what was there has gone
  return !isSame || chosen.at - before.at > DOUBLE_MS;
}

const item = (question, kind, ask, meaning) => el("li", {},
  el("button", { class: kind, onclick: () => choose(question, ask) },
    el("span", { lang: "ko", text: question }), meaning ? el("small", { text: meaning }) : null));

function choose(question, ask) {
  if ($("menu").matches(":popover-open")) $("menu").hidePopover();
  ask(question);
}

export function showExamples(ask) {
  $("examples").replaceChildren(
    ...EXAMPLES.map(([question, meaning]) => item(question, "example", ask, spoken() === "en" && meaning)));
}

/** Fills the lists; a click has `ask(question)` called. */
export function load(ask) {
  Object.entries(LISTS).forEach(([name, [, , count]]) => fill(name, count, ask));
}

async function fill(name, count, ask) {
  const [key, kind] = LISTS[name];
  const own = (calls[name] = {});
  const last = (words, next) => el("li", {}, say(el("button", { class: "link", onclick: () => fill(name, next, ask) }), words));
  const shown = await listed(name, count).then(
    (entries) => [
      ...entries.map((entry) => item(entry[key], kind, ask)),
      ...(entries.length === count && count < LONG_LIST ? [last("more", LONG_LIST)] : []),
      ...(entries.length ? [] : [say(el("li"), "list.empty")]),
    ],
    () => [say(el("li"), "list.failed"), last("again", count)],
  );
  if (own !== calls[name]) return;
  const hadFocus = $(name).contains(document.activeElement);
  $(name).replaceChildren(...shown);
  if (hadFocus) $(name).querySelector("button")?.focus();
}

const listed = (name, count) => call("GET", `/api/qna/${name}?top_k=${count}`);
