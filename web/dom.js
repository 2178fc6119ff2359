// Small helpers for building pages. Text from a server only ever becomes text nodes.

/** Makes an element; `text` sets its text, `onclick` and the like listen, the rest are attributes. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

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

const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\d[\d.eE+-]*|true|false|null/g;

/** A `<pre>` with a JSON value, keys and values in their colours. */
export function jsonBlock(value) {
  const pre = el("pre", { tabindex: "0" });
  const text = JSON.stringify(value, null, 2);
  let at = 0;
  for (const { 0: token, 1: string, 2: colon = "", index } of text.matchAll(TOKEN)) {
    const kind = colon ? "key" : string ? "string" : "literal";
    pre.append(text.slice(at, index), el("span", { class: kind, text: string ?? token }), colon);
    at = index + token.length;
  }
  pre.append(text.slice(at));
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
