// An answer in the making on the screen: drawn soon, and not more often than can be read.
import { renew, settled } from "./draft.js";
import { markdown } from "./markdown.js";
import { botRow } from "./rows.js";
import { translate } from "./texts.js";

const DRAW_MS = 100; // between two drawings
const TOGETHER_MS = 20; // what begins and its first text come in two frames
const IDLE = 4; // times that a drawing took, before the next one

const typing = document.getElementById("typing");

export class Growing {
  #draft = null; // as the session has it
  #drawn = null; // {node, text, about, attempt}
  #next = 0; // when it may be drawn again
  #timer = 0;
  #quote;
  #scroll;
  #done;

  /** `quote(id)` is the prompt to be quoted, if any; `done()` is called after each drawing. */
  constructor({ scroll, quote, done }) {
    this.#quote = quote;
    this.#scroll = scroll;
    this.#done = done;
  }

  get draft() {
    return this.#draft;
  }

  get node() {
    return this.#drawn?.node;
  }

  /** Takes an answer in the making, or takes it away (null). */
  show(draft) {
    this.#draft = draft;
    if (draft) this.#timer ||= setTimeout(() => this.#draw(), Math.max(TOGETHER_MS, this.#next - Date.now()));
    else this.#undraw();
  }

  /** Takes away what is drawn of this prompt's answer. */
  end(id) {
    if (this.#draft?.message_id === id || this.#drawn?.about.startsWith(id)) this.show(null);
  }

  #draw() {
    const started = Date.now();
    this.#timer = 0;
    if (this.#draft) this.#put(this.#draft);
    this.#next = started + Math.max(DRAW_MS, IDLE * (Date.now() - started));
    if (this.#draft) this.#done();
  }

  #put({ message_id: id, attempt, message, tool_name: tool }) {
    const words = settled(message);
    const about = `${id} ${tool}`;
    const follows = this.#scroll.follows();
    if (this.#drawn && (this.#drawn.about !== about || this.#drawn.attempt < attempt)) this.#undraw();
    if (!words) return;
    this.#drawn ??= this.#row(id, tool);
    Object.assign(this.#drawn, { about, attempt });
    const { node, text } = this.#drawn;
    renew(text, markdown(words));
    translate(text);
    // Further than its first line only for a reader who has gone there.
    if (follows) this.#scroll.show(node, this.#scroll.isPast(node));
    else this.#scroll.point(node);
  }

  // Beside the log, which is read out: the answer is, once it is whole.
  #row(id, tool) {
    const row = botRow(this.#quote(id), tool, { id: "draft", "aria-busy": "true" });
    typing.before(row.node);
    return row;
  }

  #undraw() {
    this.#drawn?.node.remove();
    this.#drawn = null;
  }
}
