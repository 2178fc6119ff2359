// The parts of an answer beside its text: cards, related questions, the login, the rating.
import { cut, el } from "./dom.js";
import { hasText, say } from "./texts.js";

const SHADES = 5;
const MAX_CARDS = 30;
const MAX_FACTS = 20;
const MAX_QUESTIONS = 10;
const MAX_CHARS = 1_000; // of anything that is said of a card
const MAX_NAME = 100;
const DETAILS = "get_card_description"; // the tool that tells all about a card

const list = (value) => (Array.isArray(value) ? value : []);
const button = (key, props) => say(el("button", { ...props }), key);

function plain(value, most = MAX_CHARS) {
  const shown = Array.isArray(value) ? value.slice(0, MAX_FACTS).map((one) => plain(one, most)).join("\n")
    : typeof value === "number" ? value.toLocaleString()
    : typeof value === "object" ? JSON.stringify(value) : String(value);
  return shown.length > most ? `${cut(shown, most)}…` : shown;
}

/** The cards of an answer; an entry is a name, or an object with whatever the tool knows of the card. */
export function cards({ card_list: entries, tool_name: tool }, ask) {
  const shown = list(entries).slice(0, MAX_CARDS).map((entry) => card(entry, tool === DETAILS ? null : ask));
  const more = list(entries).length - shown.length;
  if (more > 0) shown.push(say(el("li", { class: "note" }), "cut.cards", { n: more.toLocaleString() }));
  return shown.length ? el("ul", { class: "cards", lang: "ko", "data-label": "cards" }, ...shown) : null;
}

// `ask` is null where there is no more to be told.
function card(entry, ask) {
  const { name, card_name, title, summary, description, ...facts } = typeof entry === "object" ? entry ?? {} : { name: entry };
  const called = plain(name ?? card_name ?? title ?? "", MAX_NAME);
  const about = summary ?? description;
  const shade = [...called].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 1009, 0) % SHADES;
  const rows = Object.entries(facts).slice(0, MAX_FACTS).flatMap(([key, value]) => {
    const dt = el("dt", { text: plain(key.replaceAll("_", " "), MAX_NAME) });
    return [hasText(`fact.${key}`) ? say(dt, `fact.${key}`) : dt, el("dd", { text: plain(value) })];
  });
  return el("li", { class: "card" },
    el("h3", { class: `plastic shade-${shade}`, text: called }),
    about ? el("p", { text: plain(about) }) : null,
    rows.length ? el("dl", {}, ...rows) : null,
    ask && !rows.length ? button("card.ask", { class: "link", onclick: () => ask(`${called} 카드에 대해 알려 주세요`) }) : null);
}

/** Buttons that ask the questions which the tool thinks come next. */
export function related(questions, ask) {
  const chips = list(questions).slice(0, MAX_QUESTIONS).filter((question) => typeof question === "string").map((question) =>
    el("button", { class: "chip", lang: "ko", text: plain(question), onclick: () => ask(question) }));
  return chips.length ? el("div", { class: "related", role: "group", "data-label": "related" }, ...chips) : null;
}

/** Thumbs up and down; `send(value)` stores true, false or null: one call at a time, and the newest value last. */
export function rating(value, send) {
  const node = document.getElementById("rating").content.cloneNode(true).firstElementChild;
  const [up, down, note] = node.children;
  let stored = value ?? null;
  let isSending = false;
  const show = (next) => {
    value = next;
    up.ariaPressed = value === true;
    down.ariaPressed = value === false;
  };
  const store = async () => {
    isSending = true;
    while (stored !== value) {
      const sent = value;
      try {
        await send(sent);
        stored = sent;
      } catch {
        if (sent !== value) continue; // chosen meanwhile
        show(stored);
        say(note, "rate.failed");
      }
    }
    isSending = false;
  };
  const choose = (next) => {
    note.textContent = "";
    delete note.dataset.t;
    show(value === next ? null : next);
    if (!isSending) store();
  };
  up.onclick = () => choose(true);
  down.onclick = () => choose(false);
  show(stored);
  return node;
}

/** What is left of the choice once it has been made. */
export const loggedIn = () => el("section", { class: "login" }, say(el("p", { class: "note" }), "login.over"));

/** The choice of a demo customer. `personas` are `known` or can be had by `load`; `enter(persona)` logs in. */
export function login(personas, enter) {
  const status = el("p", { class: "note", role: "status" });
  const choice = el("div", { class: "personas" });
  const enable = (value) => choice.querySelectorAll("button").forEach((node) => node.setAttribute("aria-disabled", !value));

  const persona = (one) => el("button", {
    class: "persona", "aria-pressed": "false",
    async onclick({ currentTarget: chosen }) {
      if (chosen.ariaDisabled === "true") return;
      enable(false);
      chosen.ariaPressed = "true";
      say(status, "login.busy", one);
      try {
        await enter(one);
        say(status, "login.done", one);
      } catch {
        chosen.ariaPressed = "false";
        say(status, "login.failed");
        if (!choice.closest(".answered")) enable(true);
      }
    },
  }, el("strong", { text: one.name }), el("span", { text: one.description ?? "" }));

  const show = (found) => {
    say(status, found.length ? "login.why" : "list.empty");
    choice.replaceChildren(...found.map(persona));
  };
  const load = async () => {
    try {
      show(await personas.load());
    } catch {
      say(status, "list.failed");
      choice.replaceChildren(button("again", { class: "chip", onclick: load }));
    }
  };
  if (personas.known.length) show(personas.known);
  else load();
  return el("section", { class: "login" }, say(el("h3"), "login"), status, choice);
}
