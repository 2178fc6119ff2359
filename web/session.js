// One visitor's conversation over a WebSocket that mends itself: it reconnects with growing pauses,
// resumes where it was, and sends every unanswered prompt again under its own id.
import { kept, uuid } from "./dom.js";

export const MAX_WAITING = 8; // the gateway keeps this many prompts beside the one it answers

const EPOCH = "1970-01-01T00:00:00+00:00"; // `since` before the first answer: replay all of them
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 20_000;
const HELLO_MS = 15_000; // a server that accepts and then says nothing is left again
const MEMORY_MS = 1_000; // an answer from memory never takes so long
const STABLE_MS = 5_000; // a connection that lived this long starts the pauses anew

// Close codes: what to say, and the least pause before the next attempt.
const ENDINGS = { 1008: ["limited", 60_000], 1012: ["restarting", 0], 1013: ["busy", 5_000] };
const ERRORS = [
  [/^Invalid/, "error.invalid"],
  [/DB operation/, "error.db"],
  [/pending/, "error.pending"],
  [/^Too many messages/, "error.rate"],
  [/^/, "error.unknown"],
];

const DRAFTS = ["start", "tool", "delta"];

export class Session {
  #on;
  #store = kept("sessionStorage", "chat-session");
  #seen = new Set();
  #since;
  #socket = null;
  #timer = 0;
  #streams = false; // the gateway shows answers in the making, and lets them be stopped
  #failures = 0;

  id; // null before the first connection
  key; // what it takes to go on with the session and to read its history
  persona; // the name of the demo customer who is logged in
  pending; // prompts without an answer, oldest first: {message_id, message, sentAt}, and `stopped` once it was asked for
  draft = null; // the answer in the making: {message_id, attempt, message, tool_name}
  state = "connecting";
  retryAt = 0; // when the next attempt to connect is due, 0 for none

  /** `on` has a function for each thing that happens; `replaced` is a new session in place of the old one. */
  constructor(on) {
    this.#on = on;
    this.#set(this.#store.get() ?? {});
    const again = () => this.state === "taken" || this.connect();
    addEventListener("online", again);
    addEventListener("offline", () => this.#lost("offline"));
    addEventListener("pageshow", (event) => event.persisted && again());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.retryAt && this.state !== "limited") this.connect();
    });
  }

  /** Forgets the conversation; `connect` then starts a new one. */
  forget() {
    this.#drop();
    this.#set({});
    this.draft = null;
    this.#seen.clear();
    this.#save();
  }

  /** Takes it that no answer has been seen yet: the history is about to be gone through. */
  rewind() {
    this.#seen.clear();
    this.#since = EPOCH;
  }

  /** Takes note of an answer, also of one in the history; returns false for one seen before. */
  note({ message_id, timestamp }) {
    this.pending = this.pending.filter((prompt) => prompt.message_id !== message_id);
    if (this.draft?.message_id === message_id) this.draft = null;
    const key = message_id + timestamp;
    const isNew = !this.#seen.has(key);
    if (isNew) this.#since = timestamp;
    this.#seen.add(key);
    this.#save();
    return isNew;
  }

  /** Takes note of a prompt in the history, which is unanswered until its answer comes along. */
  awaits({ message_id, content, timestamp }) {
    if (this.pending.some((prompt) => prompt.message_id === message_id)) return;
    this.pending.push({ message_id, message: content, sentAt: Date.parse(timestamp) });
  }

  setPersona(name) {
    this.persona = name;
    this.#save();
  }

  connect() {
    this.#drop();
    const url = new URL("/api/chat/ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = new URLSearchParams({ ...(this.id && { session_id: this.id, since: this.#since }), stream: true });
    this.#to(["online", "taken"].includes(this.state) ? "connecting" : this.state);
    this.#on.wire("open", url.href);
    const socket = new WebSocket(url, ["chat", ...(this.key ? [`key.${this.key}`] : [])]);
    this.#socket = socket;
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
    socket.onclose = ({ code }) => socket === this.#socket && this.#closed(code);
    this.#timer = setTimeout(() => this.#lost("waiting"), HELLO_MS);
  }

  /** A new prompt; it is sent now, or as soon as there is a connection. */
  ask(message) {
    return this.#queue({ message_id: uuid(), message, sentAt: Date.now() });
  }

  /** Sends a refused prompt again, under its own id. */
  retry(prompt) {
    this.#queue(Object.assign(prompt, { sentAt: Date.now(), stopped: false }));
  }

  /** The prompt whose answer can be stopped, if any: one from memory is there at once, and is not worth a button. */
  get stoppable() {
    const first = this.pending.find((prompt) => prompt.message_id === this.draft?.message_id) ?? this.pending[0];
    return this.#streams && this.state !== "taken" && (this.draft || Date.now() - first?.sentAt > MEMORY_MS) ? first : null;
  }

  /** Has the answer in the making end where it is; without a connection, as soon as there is one. */
  stop() {
    const prompt = this.stoppable;
    if (!prompt || prompt.stopped) return;
    prompt.stopped = true;
    this.#save();
    if (this.state === "online") this.#sendStop(prompt);
    this.#on.state();
  }

  #sendStop({ message_id }) {
    this.#sendFrame({ type: "stop", message_id });
  }

  #sendFrame(value) {
    const frame = JSON.stringify(value);
    this.#socket.send(frame);
    this.#on.wire("sent", frame);
  }

  #queue(prompt) {
    this.pending.push(prompt);
    this.#save();
    if (this.state === "online") this.#send(prompt);
    this.#on.state();
    return prompt;
  }

  #send(prompt) {
    const { message_id, message } = prompt;
    this.#sendFrame({ message_id, message });
    prompt.refused = false;
    this.#on.sent(prompt);
  }

  #rename(prompt) {
    const old = prompt.message_id;
    prompt.message_id = uuid();
    this.#on.renamed(old, prompt);
  }

  #receive(data) {
    this.#on.wire("got", data);
    let frame = {};
    try {
      frame = JSON.parse(data) ?? {};
    } catch {
      // Not of this protocol: seen in the side panel, of no use to the visitor.
    }
    if (frame.error) this.#refused(frame);
    else if (frame.sender) this.#answered(frame);
    else if (frame.session_id) this.#begun(frame);
    else if (DRAFTS.includes(frame.type)) this.#draws(frame);
  }

  // A piece may come twice, or begin anew: its offset says where it goes.
  #draws({ message_id, attempt, offset, text, tool_name }) {
    if (!this.pending.some((prompt) => prompt.message_id === message_id)) return;
    if (this.draft?.message_id !== message_id || attempt > this.draft.attempt) {
      this.draft = { message_id, attempt, message: "", tool_name: null };
    }
    const { draft } = this;
    if (attempt < draft.attempt || offset > draft.message.length) return;
    if (text) draft.message = draft.message.slice(0, offset) + text;
    if (tool_name) draft.tool_name = tool_name;
    this.#on.draft(draft);
  }

  #begun({ session_id: id, key, stream: streams }) {
    this.#streams = streams === true;
    this.draft = null; // what is being made comes again from its start
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#failures = 0), STABLE_MS);
    if (this.id && this.id !== id) {
      // New ids, since the old session may have stored these prompts, and an id is good in one session only.
      this.pending.forEach((prompt) => this.#rename(prompt));
      this.#set({ pending: this.pending });
      this.#on.replaced();
    }
    this.id = id;
    if (key) this.key = key; // a session that goes on keeps its own
    this.#save();
    this.#to("online");
    this.pending.forEach((prompt) => this.#send(prompt));
    if (streams) this.pending.filter((prompt) => prompt.stopped).forEach((prompt) => this.#sendStop(prompt));
  }

  #answered(frame) {
    if (this.note(frame)) this.#on.answer(frame);
    this.#on.state();
    this.#moveOn();
  }

  #refused({ error, message_id }) {
    const key = ERRORS.find(([pattern]) => pattern.test(error))[1];
    const named = this.pending.find((waiting) => waiting.message_id === message_id);
    const prompt = named ?? (key === "error.invalid" ? this.pending.at(-1) : null); // too long for its id to be read
    if (!prompt) {
      if (this.state === "online") this.#on.problem(key);
    } else if (error === "Server is restarting") {
      prompt.refused = true; // not stored there: it stays pending and is sent again
      this.#on.sent(prompt);
      this.#moveOn();
    } else if (error.endsWith("already used")) {
      this.#rename(prompt);
      this.#send(prompt);
    } else {
      this.#fail(prompt, key);
    }
  }

  // A stopping gateway finishes what it has; once nothing of ours is left there, another may take over.
  #moveOn() {
    if (this.pending.length && this.pending.every((prompt) => prompt.refused)) this.#lost("restarting");
  }

  #fail(prompt, key) {
    this.pending = this.pending.filter((waiting) => waiting !== prompt);
    this.#save();
    this.#on.failed(prompt, key);
    this.#on.state();
  }

  #closed(code) {
    this.#on.wire("close", code);
    if (code === 1009) this.pending.forEach((prompt) => this.#fail(prompt, "error.invalid"));
    if (code === 4001) {
      this.#drop();
      this.#to("taken");
    } else {
      const ongoing = this.state === "restarting" ? "restarting" : "waiting"; // attempts may fail until it is over
      this.#lost(...(ENDINGS[code] ?? [navigator.onLine ? ongoing : "offline"]));
    }
  }

  #lost(state, leastPause = 0) {
    if (this.state === "taken") return;
    this.#drop();
    const growing = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#failures);
    const pause = leastPause + growing * (0.5 + Math.random()); // by chance, so that not all come back at once
    this.#failures += 1;
    this.retryAt = Date.now() + pause;
    this.#timer = setTimeout(() => this.connect(), pause);
    this.#to(state);
  }

  #drop() {
    clearTimeout(this.#timer);
    this.retryAt = 0;
    const socket = this.#socket;
    this.#socket = null; // its late events are nobody's from here on
    socket?.close();
  }

  #to(state) {
    this.state = state;
    this.#on.state();
  }

  #set({ id = null, key = null, persona = null, pending = [], since = EPOCH }) {
    Object.assign(this, { id, key, persona, pending });
    this.#since = since;
  }

  #save() {
    const { id, key, persona, pending } = this;
    this.#store.set({ id, key, persona, pending, since: this.#since });
  }
}
