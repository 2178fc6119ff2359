// What is known of one visitor's conversation, kept as long as the tab is open.
import { kept } from "./dom.js";
import { begin } from "./prompts.js";
import { now } from "./time.js";

const EPOCH = "1970-01-01T00:00:00+00:00"; // `since` before the first answer: replay all of them

export class Conversation {
  #store = kept("sessionStorage", "chat-session");
  #seen = new Set();

  id; // of the session; null before the first connection
  key; // what it takes to go on with the session and to read its history
  persona; // the name of the demo customer who is logged in
  pending; // prompts without an answer, oldest first: see prompts.js
  since; // the time of the newest answer
  visit; // an object that is another one once this is another conversation

  constructor() {
    this.begin(this.#store.get() ?? {});
    this.pending.forEach(begin); // until the history tells
  }

  /** Becomes another conversation: what is not given is that of a new one. */
  begin({ id = null, key = null, persona = null, pending = [], since = EPOCH }) {
    Object.assign(this, { id, key, persona, pending, since, visit: {} });
  }

  forget() {
    this.begin({});
    this.#seen.clear();
    this.save();
  }

  save() {
    const { id, key, persona, pending, since } = this;
    this.#store.set({ id, key, persona, pending, since });
  }

  setPersona(name) {
    this.persona = name;
    this.save();
  }

  /** Takes the history for all that has been seen; a prompt in it is unanswered unless its answer comes along. */
  recall(history) {
    this.#seen.clear();
    this.since = EPOCH;
    history.forEach((row) => (row.is_user ? this.#awaits(row) : this.note(row)));
    this.save();
  }

  #awaits({ message_id, content: message, timestamp: at }) {
    const since = performance.now() - (now() - Date.parse(at));
    const known = this.pending.find((prompt) => prompt.message_id === message_id);
    if (known) Object.assign(known, { since, at });
    else this.pending.push({ message_id, message, at, since });
  }

  /** Takes note of an answer; returns false for one that has been seen before. */
  note({ message_id, timestamp }) {
    this.pending = this.pending.filter((prompt) => prompt.message_id !== message_id);
    const key = message_id + timestamp;
    const isNew = !this.#seen.has(key);
    if (isNew) this.since = timestamp;
    this.#seen.add(key);
    return isNew;
  }
}
