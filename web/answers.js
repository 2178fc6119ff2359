// The parts of an answer beside its text: cards, related questions, the login, the rating.
import { el } from "./dom.js";
import { hasText, say } from "./texts.js";

const SHADES = 5;

const list = (value) => (Array.isArray(value) ? value : []);
const button = (key, props) => say(el("button", { ...props }), key);

function plain(value) {
  if (Array.isArray(value)) return value.map(plain).join("\n");
  if (typeof value === "number") return value.toLocaleString();
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Cards to look at; an entry is a name, or an object with whatever the tool knows of the card. */
export function cards(entries, ask) {
  const shown = list(entries).map((entry) => card(entry, ask));
  return shown.length ? el("ul", { class: "cards", lang: "ko", "data-label": "cards" }, ...shown) : null;
}

function card(entry, ask) {
  const { name, card_name, title, summary, description, ...facts } = typeof entry === "object" ? entry ?? {} : { name: entry };
  const called = plain(name ?? card_name ?? title ?? "");
  const about = summary ?? description;
  const shade = [...called].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 1009, 0) % SHADES;
  const rows = Object.entries(facts).flatMap(([key, value]) => {
    const dt = el("dt", { text: key.replaceAll("_", " ") });
    return [hasText(`fact.${key}`) ? say(dt, `fact.${key}`) : dt, el("dd", { text: plain(value) })];
  });
  return el("li", { class: "card" },
    el("h3", { class: `plastic shade-${shade}`, text: called }),
    about ? el("p", { text: plain(about) }) : null,
    rows.length ? el("dl", {}, ...rows) : null,
    button("card.ask", { class: "link", onclick: () => ask(`${called} 카드에 대해 알려 주세요`) }));
}

/** Buttons that ask the questions which the tool thinks come next. */
export function related(questions, ask) {
  const chips = list(questions).filter((question) => typeof question === "string").map((question) =>
    el("button", { class: "chip", lang: "ko", text: question, onclick: () => ask(question) }));
  return chips.length ? el("div", { class: "related", role: "group", "data-label": "related" }, ...chips) : null;
}

/** Thumbs up and down; `send(value)` stores true, false or null, and the shown state follows it. */
export function rating(value, send) {
  const node = document.getElementById("rating").content.cloneNode(true).firstElementChild;
  const [up, down, note] = node.children;
  const show = (next) => {
    value = next;
    up.ariaPressed = value === true;
    down.ariaPressed = value === false;
  };
  const choose = async (next) => {
    const before = value;
    show(value === next ? null : next);
    note.textContent = "";
    try {
      await send(value);
    } catch {
      show(before);
      say(note, "rate.failed");
    }
  };
  up.onclick = () => choose(true);
  down.onclick = () => choose(false);
  show(value);
  return node;
}

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
        enable(true);
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
