// The chat page: puts the session, the view, the menu and the side panel together.
import { api, call } from "./api.js";
import { el, kept } from "./dom.js";
import { showCall, showFrame } from "./inspector.js";
import { MAX_WAITING, Session } from "./session.js";
import { EXAMPLES, say, speak, spoken, text } from "./texts.js";
import { View } from "./view.js";

const LOGIN_TIMEOUT_MS = 330_000; // the tool behind a login may take minutes
const HISTORY_ROWS = 500;
const HISTORY_PAUSE_MS = 3000;
const LONG_LIST = 100;
const COUNT_FROM = 500; // characters left when the counter appears

const $ = (id) => document.getElementById(id);

speak(spoken());
api.onCall = showCall;

const personas = {
  known: [],
  async load() {
    ({ personas: this.known } = await call("GET", "/api/chat/personas"));
    return this.known;
  },
};
const view = new View({
  ask,
  login,
  retry: (prompt) => session.retry(prompt),
  rate: (id, value) => call("POST", "/api/chat/feedback", { message_id: id, is_helpful: value }),
  drawn: showSeconds,
  personas,
});

const session = new Session({
  state: showState,
  wire: showFrame,
  answer: (frame) => view.answer(frame),
  draft: (draft) => view.draft(draft),
  sent: (prompt) => view.sent(prompt),
  failed: (prompt, key) => view.failed(prompt, key),
  renamed: (oldId, prompt) => view.renamed(oldId, prompt),
  replaced() {
    view.draft(null);
    view.note("replaced");
  },
  problem: (key) => view.note(key),
});

// --- The conversation ---

/** Shows the conversation that this tab had, if any, and connects; where its history cannot be had, that comes later. */
async function start(isFirst = true) {
  const { id } = session;
  const history = id ? await fetchHistory(session) : [];
  if (history) {
    view.clear();
    session.rewind();
    view.quietly(() => history.forEach(showRow));
    view.draft(session.draft);
  } else {
    setTimeout(() => session.id === id && session.state !== "taken" && start(false), HISTORY_PAUSE_MS);
  }
  session.pending.filter((prompt) => !view.knows(prompt)).forEach((prompt) => show(prompt, true));
  if (history || isFirst) session.connect();
}

/** Null where there may be a history but it could not be had. */
async function fetchHistory({ id, key }) {
  try {
    return (await call("GET", `/api/chat/history/${id}?limit=${HISTORY_ROWS}`, null, { key })).history;
  } catch ({ status }) {
    return status === 404 || status === 422 ? [] : null; // who has no key to a session gets a new one when the socket connects
  }
}

function showRow(row) {
  const { is_user: isUser, content: message, message_id, timestamp } = row;
  if (isUser) {
    session.awaits(row);
    view.prompt({ message_id, message }, timestamp);
  } else {
    session.note(row);
    view.answer({ ...row, message });
  }
}

function show(prompt, later) {
  view.prompt(prompt, new Date(prompt.sentAt).toISOString(), later);
  showState();
}

function ask(message) {
  const waiting = session.pending.length;
  if (waiting > MAX_WAITING) say($("hint"), "full", { n: waiting });
  else show(session.ask(message), session.state !== "online");
  return waiting <= MAX_WAITING;
}

async function login({ id, name }) {
  await call("POST", "/api/login", { session_id: session.id, persona_id: id }, { timeout: LOGIN_TIMEOUT_MS });
  session.setPersona(name);
  showState();
}

function startAnew() {
  session.forget();
  view.clear();
  session.connect();
  $("prompt").focus();
}

// --- The connection in words ---

function showState() {
  const { state, persona } = session;
  say($("state"), `state.${state}`);
  $("dot").className = `dot ${state}`;
  $("persona").textContent = persona ?? "";
  $("banner").hidden = ["online", "connecting"].includes(state);
  say($("why"), `state.${state}`);
  say($("reconnect"), state === "taken" ? "takeover" : "reconnect");
  showSeconds();
}

function showSeconds() {
  const { pending, retryAt, state } = session;
  view.typing(pending, state === "online");
  showStop();
  $("countdown").textContent = retryAt ? text("next", { n: Math.max(0, Math.ceil((retryAt - Date.now()) / 1000)) }) : "";
}

$("reconnect").onclick = () => {
  // Another tab may have gone on with the conversation: all of it is in the history.
  if (session.state === "taken") start();
  else session.connect();
};
setInterval(showSeconds, 1000);

// --- Writing ---

const prompt = $("prompt");

function showLength() {
  const left = prompt.maxLength - prompt.value.length;
  say($("hint"), left < COUNT_FROM ? "left" : "keys", { n: left });
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

$("composer").onsubmit = (event) => {
  event.preventDefault();
  const message = prompt.value.replaceAll("\0", "").trim();
  prompt.focus();
  if (!message || !ask(message)) return;
  prompt.value = "";
  showLength();
};
prompt.oninput = showLength;
prompt.onkeydown = (event) => {
  // While a Korean syllable is being composed, Enter only ends the composing.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  $("composer").requestSubmit();
};

// --- Stopping ---

function showStop() {
  const prompt = session.stoppable;
  const hadFocus = document.activeElement === $("stop");
  $("stop").hidden = !prompt;
  $("stop").ariaDisabled = Boolean(prompt?.stopped);
  if (hadFocus && !prompt) $("send").focus(); // which is in its place again
}

$("stop").onclick = () => session.stop();
addEventListener("keydown", (event) => {
  const closes = $("confirm").open || $("menu").matches(":popover-open");
  if (event.key === "Escape" && !event.isComposing && event.keyCode !== 229 && !closes) session.stop();
});

// --- The menu ---

const item = (question, kind, meaning) => el("li", {},
  el("button", { class: kind, onclick: () => choose(question) },
    el("span", { lang: "ko", text: question }), meaning ? el("small", { text: meaning }) : null));

function choose(question) {
  if ($("menu").matches(":popover-open")) $("menu").hidePopover();
  ask(question);
}

function showExamples() {
  $("examples").replaceChildren(
    ...EXAMPLES.map(([question, meaning]) => item(question, "example", spoken() === "en" && meaning)));
}

async function loadMenu(name, key, kind, count) {
  const hadFocus = $(name).contains(document.activeElement);
  const last = (words, next) => {
    const button = say(el("button", { class: "link" }), words);
    button.onclick = () => loadMenu(name, key, kind, next);
    return el("li", {}, button);
  };
  try {
    const entries = await call("GET", `/api/qna/${name}?top_k=${count}`);
    const items = entries.map((entry) => item(entry[key], kind));
    if (entries.length === count && count < LONG_LIST) items.push(last("more", LONG_LIST));
    $(name).replaceChildren(...items);
    if (!items.length) $(name).append(say(el("li"), "list.empty"));
  } catch {
    $(name).replaceChildren(say(el("li"), "list.failed"), last("again", count));
  }
  if (hadFocus) $(name).querySelector("button")?.focus();
}

// --- Side panel, language, new conversation ---

const framesWanted = kept("localStorage", "chat-frames");

function showFrames(value) {
  document.body.classList.toggle("frames", value);
  $("frames-open").setAttribute("aria-expanded", value);
}

$("frames-open").onclick = () => {
  const value = !document.body.classList.contains("frames");
  showFrames(value);
  framesWanted.set(value);
};
$("clear").onclick = () => $("frames").replaceChildren();
$("language").onclick = () => {
  speak(spoken() === "ko" ? "en" : "ko");
  showExamples();
  showSeconds();
};
$("fresh").onclick = () => ($("log").firstChild ? $("confirm").showModal() : startAnew());
$("fresh-no").onclick = () => $("confirm").close();
$("fresh-yes").onclick = () => {
  $("confirm").close();
  startAnew();
};

showFrames(matchMedia("(min-width: 80rem)").matches && framesWanted.get() !== false);
showExamples();
showLength();
personas.load().catch(() => {}); // a login tries again
loadMenu("faq", "question", "question", 4);
loadMenu("terms", "term", "chip", 8);
start();
