// The chat page: puts the session, the view, the question field, the menu and the side panel together.
import { api, call } from "./api.js";
import * as composer from "./composer.js";
import { kept } from "./dom.js";
import { showCall, showFrame } from "./inspector.js";
import * as menu from "./menu.js";
import { MAX_WAITING } from "./prompts.js";
import { Session } from "./session.js";
import { say, speak, spoken, text } from "./texts.js";
import * as title from "./title.js";
import { View } from "./view.js";

const LOGIN_TIMEOUT_MS = 330_000; // the tool behind a login may take minutes
const HISTORY_ROWS = 500;
const HISTORY_PAUSE_MS = 3000;

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
  ask: choose,
  login,
  retry: (prompt) => session.retry(prompt),
  rate: (id, value) => call("POST", "/api/chat/feedback", { message_id: id, is_helpful: value }),
  drawn: showSeconds,
  personas,
});

const session = new Session({
  state: showState,
  wire: showFrame,
  answer(frame) {
    view.answer(frame);
    title.mark();
  },
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

let beginning = null; // the start that counts: of two, the later

/** Shows the conversation that this tab had, if any, and connects; where its history cannot be had, that comes later. */
async function start(isFirst = true) {
  const { id, visit } = session;
  const own = (beginning = {});
  const isOver = () => own !== beginning || visit !== session.visit; // meanwhile it has become another conversation
  const history = id ? await fetchHistory(session) : [];
  if (isOver()) return;
  if (history) {
    session.recall(history);
    view.clear();
    view.recall(history);
    view.draft(session.draft);
  } else {
    setTimeout(() => isOver() || session.state === "taken" || start(false), HISTORY_PAUSE_MS);
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

function show(prompt, later) {
  view.prompt(prompt, later);
  showState();
}

/** What stands in the way of one more prompt, as a hint's key and values; otherwise it is asked. */
function ask(message) {
  const n = session.pending.length;
  if (n > MAX_WAITING) return ["full", { n }];
  show(session.ask(message), session.state !== "online");
  return null;
}

// A question that was clicked and not written.
function choose(message) {
  const refusal = menu.isMeant(message) && ask(message);
  if (refusal) say($("hint"), ...refusal);
}

async function login({ id, name }) {
  const { visit } = session;
  await call("POST", "/api/login", { session_id: session.id, persona_id: id }, { timeout: LOGIN_TIMEOUT_MS });
  if (visit !== session.visit) return;
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
  const { state, persona, pending } = session;
  say($("state"), `state.${state}`);
  $("dot").className = `dot ${state}`;
  $("persona").textContent = persona ?? "";
  $("banner").hidden = ["online", "connecting"].includes(state);
  say($("why"), `state.${state}`);
  say($("reconnect"), state === "taken" ? "takeover" : "reconnect");
  if (pending.length <= MAX_WAITING) composer.unsay("full");
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
  menu.showExamples(choose);
  showSeconds();
};
$("fresh").onclick = () => ($("log").firstChild ? $("confirm").showModal() : startAnew());
$("fresh-no").onclick = () => $("confirm").close();
$("fresh-yes").onclick = () => {
  $("confirm").close();
  startAnew();
};

showFrames(matchMedia("(min-width: 80rem)").matches && framesWanted.get() !== false);
composer.listen(ask);
menu.showExamples(choose);
personas.load().catch(() => {}); // a login tries again
menu.load(choose);
setInterval(showSeconds, 1000);
start();
