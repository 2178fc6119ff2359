// Small helpers for building pages. Text from a server only ever becomes text nodes.

const LONGEST_CHARACTER = 40; // UTF-16 units that look like one: families, flags

/** Makes an element; `text` sets its text, `onclick` and the like listen, the rest are attributes. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  for (const child of children) if (child !== null) node.append(child);
  return node;
}

/** The beginning of a text, at most `most` code points; no emoji is cut in the middle. */
export function cut(text, most) {
  if (text.length <= most) return text;
  const start = [...text.slice(0, 2 * most)].slice(0, most).join("");
  if (start.length === text.length || !globalThis.Intl?.Segmenter) return start;
  const edge = start.slice(-LONGEST_CHARACTER);
  const around = edge + text.slice(start.length, start.length + LONGEST_CHARACTER);
  const { index, segment } = new Intl.Segmenter().segment(around).containing(edge.length);
  return index === edge.length || segment.length > LONGEST_CHARACTER ? start : start.slice(0, index - edge.length);
}

/** A text as it can be sent: half a surrogate pair becomes the sign for a character that cannot be shown. */
export const wellFormed = (text) => text.replace(/\p{Surrogate}/gu, "\ufffd");

/** A random UUID. Over plain HTTP `crypto.randomUUID` is missing; the address of a blob ends in one. */
export const uuid = () => crypto.randomUUID?.() ?? URL.createObjectURL(new Blob()).slice(-36);

/** Puts `text` on the clipboard, also where the clipboard API is missing (plain HTTP). */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "sr" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

const MAX_JSON_CHARS = 20_000;
const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\d[\d.eE+-]*|true|false|null/g;

/** A `<pre>` with a JSON value, keys and values in their colours. */
export function jsonBlock(value) {
  const pre = el("pre", { tabindex: "0" });
  const whole = JSON.stringify(value, null, 2);
  const text = cut(whole, MAX_JSON_CHARS);
  let at = 0;
  for (const { 0: token, 1: string, 2: colon = "", index } of text.matchAll(TOKEN)) {
    const kind = colon ? "key" : string ? "string" : "literal";
    pre.append(text.slice(at, index), el("span", { class: kind, text: string ?? token }), colon);
    at = index + token.length;
  }
  pre.append(text.slice(at), text === whole ? "" : ` … +${(whole.length - text.length).toLocaleString()}`);
  return pre;
}

/** A value kept in the browser; a browser that forbids keeping just forgets. */
export const kept = (storage, key) => ({
  get() {
    try { return JSON.parse(window[storage].getItem(key)); } catch { return null; }
  },
  set(value) {
    try { window[storage].setItem(key, JSON.stringify(value)); } catch { /* the page works on without */ }
  },
});
