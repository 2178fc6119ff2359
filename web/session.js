// A conversation over its connection: it resumes where it was, and sends every unanswered prompt again under its own id.
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { uuid } from "./dom.js";
import { grown } from "./draft.js";
import * as prompts from "./prompts.js";
import { notBefore } from "./time.js";

const MEMORY_S = 1; // an answer from memory never takes so long
const TOO_BIG = 1009;
const DRAFTS = ["start", "tool", "delta"];

export class Session extends Conversation {
  #on;
  #connection;
  #streams = false; // the gateway shows answers in the making, and lets them be stopped

  draft = null; // the answer in the making: {message_id, attempt, message, tool_name}

  /** `on` has a function for each thing that happens; `replaced` is a new session in place of the old one. */
  constructor(on) {
    super();
    this.#on = on;
    this.#connection = new Connection({
      address: () => this.#address(),
      waits: () => this.pending.length > 0,
      frame: (data) => this.#receive(data),
      closed: (code) => code === TOO_BIG && this.#fail(prompts.longest(this.pending), "error.invalid"),
      state: () => on.state(),
      wire: on.wire,
    });
  }

  get state() {
    return this.#connection.state;
  }

  get retryAt() {
    return this.#connection.retryAt;
  }

  connect() {
    this.#connection.connect();
  }

  /** Forgets the conversation; `connect` then starts a new one. */
  forget() {
    this.#connection.drop();
    this.draft = null;
    super.forget();
  }

  note(answer) {
    if (this.draft?.message_id === answer.message_id) this.draft = null;
    return super.note(answer);
  }

  #address() {
    const url = new URL("/api/chat/ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = new URLSearchParams({ ...(this.id && { session_id: this.id, since: this.since }), stream: true });
    return [url, ["chat", ...(this.key ? [`key.${this.key}`] : [])]];
  }

  /** A new prompt; it is sent now, or as soon as there is a connection. */
  ask(message) {
    return this.#queue(prompts.made(message));
  }

  /** Sends a refused prompt again, under its own id. */
  retry(prompt) {
    this.#queue(Object.assign(prompt, { stopped: false }));
  }

  /** The prompt whose answer can be stopped, if any: one from memory is there at once, and is not worth a button. */
  get stoppable() {
    const first = this.pending.find((prompt) => prompt.message_id === this.draft?.message_id) ?? this.pending[0];
    return this.#streams && this.state !== "taken" && first && (this.draft || prompts.waited(first) >= MEMORY_S) ? first : null;
  }

  /** Has the answer in the making end where it is; without a connection, as soon as there is one. */
  stop() {
    const prompt = this.stoppable;
    if (!prompt || prompt.stopped) return;
    prompt.stopped = true;
    this.save();
    if (this.state === "online") this.#sendStop(prompt);
    this.#on.state();
  }

  #sendStop({ message_id }) {
    this.#connection.send({ type: "stop", message_id });
  }

  #queue(prompt) {
    prompts.begin(prompt);
    this.pending.push(prompt);
    this.save();
    if (this.state === "online") {
      this.#connection.expects();
      this.#send(prompt);
    }
    this.#on.state();
    return prompt;
  }

  #send(prompt) {
    this.#connection.send(prompts.frame(prompt));
    prompt.refused = false;
    this.#on.sent(prompt);
  }

  #rename(prompt) {
    const old = prompt.message_id;
    prompt.message_id = uuid();
    this.#on.renamed(old, prompt);
  }

  #receive(data) {
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

  #draws(frame) {
    if (!this.pending.some((prompt) => prompt.message_id === frame.message_id)) return;
    this.draft = grown(this.draft, frame);
    this.#on.draft(this.draft);
  }

  #begun({ session_id: id, key, stream: streams }) {
    this.#streams = streams === true;
    this.draft = null; // what is being made comes again from its start
    if (this.id && this.id !== id) {
      // New ids, since the old session may have stored these prompts, and an id is good in one session only.
      this.pending.forEach((prompt) => this.#rename(prompt));
      this.begin({ pending: this.pending });
      this.#on.replaced();
    }
    this.id = id;
    if (key) this.key = key; // a session that goes on keeps its own
    this.save();
    this.#connection.begun();
    this.pending.forEach((prompt) => this.#send(prompt));
    if (streams) this.pending.filter((prompt) => prompt.stopped).forEach((prompt) => this.#sendStop(prompt));
  }

  #answered(frame) {
    notBefore(frame.timestamp);
    const isNew = this.note(frame);
    this.save();
    if (this.pending.length) this.#connection.expects();
    if (isNew) this.#on.answer(frame);
    this.#on.state();
    this.#moveOn();
  }

  #refused({ error, message_id: id }) {
    const [key, prompt] = [prompts.reason(error), prompts.blamed(error, id, this.pending)];
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
    if (this.pending.length && this.pending.every((prompt) => prompt.refused)) this.#connection.lost("restarting");
  }

  #fail(prompt, key) {
    this.pending = this.pending.filter((waiting) => waiting !== prompt);
    this.save();
    if (prompt) this.#on.failed(prompt, key);
    this.#on.state();
  }
}
