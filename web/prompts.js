// A prompt that waits for its answer: {message_id, message, at, since}, and `stopped` once that was asked for.
import { uuid, wellFormed } from "./dom.js";
import { now } from "./time.js";

export const MAX_WAITING = 8; // the gateway keeps this many beside the one it answers

const REASONS = [
  [/^Invalid/, "error.invalid"],
  [/DB operation/, "error.db"],
  [/pending/, "error.pending"],
  [/^Too many messages/, "error.rate"],
  [/^/, "error.unknown"],
];
const FRAME_LIMIT = /frame is longer than (\d+) bytes/;

/** A new prompt, at the server's time. */
export const made = (message) => ({ message_id: uuid(), message: wellFormed(message), at: new Date(now()).toISOString() });

/** Its waiting begins. */
export function begin(prompt) {
  prompt.since = performance.now(); // which nobody can set
}

/** The seconds that it has waited. */
export const waited = ({ since }) => Math.max(0, Math.floor((performance.now() - since) / 1000));

/** What is sent of it. */
export const frame = ({ message_id, message }) => ({ message_id, message });

const bytes = (prompt) => new TextEncoder().encode(JSON.stringify(frame(prompt))).length;

/** The longest of them, which is the one that a frame too big can belong to; null for none. */
export const longest = (pending) =>
  pending.reduce((most, prompt) => (most && bytes(most) >= bytes(prompt) ? most : prompt), null);

/** The text for an error of the gateway. */
export const reason = (error) => REASONS.find(([pattern]) => pattern.test(error))[1];

/** The prompt that an error is about: the one it names, or one so long that its id was not read. */
export function blamed(error, id, pending) {
  const [, limit] = FRAME_LIMIT.exec(error) ?? [];
  return pending.find((prompt) => (limit ? bytes(prompt) > Number(limit) : prompt.message_id === id));
}
