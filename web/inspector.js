// The side panel with every frame and every REST call as it passes: the protocol by example.
import { copy, el, jsonBlock } from "./dom.js";
import { clock, say } from "./texts.js";

const MAX_ENTRIES = 200;
const COPIED_MS = 1500;
const NEAR_BOTTOM_PX = 80;

const list = document.getElementById("frames");

/** A WebSocket event: `kind` is open, sent, got or close; `data` is the frame as it was on the wire. */
export function showFrame(kind, data) {
  let block;
  try {
    block = jsonBlock(JSON.parse(data));
  } catch {
    block = el("pre", { tabindex: "0", text: data });
  }
  add(kind, say(el("b"), `frame.${kind}`), "WebSocket", String(data), block);
}

/** A REST call as `api.onCall` reports it; what is copied can be pasted into a shell. */
export function showCall({ method, path, body, status, answer, ms }) {
  const quoted = (value) => `'${value.replaceAll("'", "'\\''")}'`;
  const data = body ? ` -H 'content-type: application/json' -d ${quoted(JSON.stringify(body))}` : "";
  const curl = `curl -X ${method} ${quoted(location.origin + path)}${data}\n# ${status}\n${JSON.stringify(answer)}`;
  add(status < 200 || status > 299 ? "bad" : "rest", el("b", { text: method }), `${path} → ${status || "✕"}, ${ms} ms`,
    curl, ...[body, answer].filter(Boolean).map(jsonBlock));
}

function add(kind, title, detail, raw, ...blocks) {
  const follow = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_BOTTOM_PX;
  const button = say(el("button", { class: "link" }), "copy");
  button.onclick = async () => {
    await copy(raw);
    say(button, "copied");
    setTimeout(() => say(button, "copy"), COPIED_MS);
  };
  list.append(el("li", { class: kind },
    el("p", {}, title, el("span", { text: detail }), clock(el("time"), new Date().toISOString()), button), ...blocks));
  if (list.children.length > MAX_ENTRIES) list.firstChild.remove();
  if (follow) list.scrollTop = list.scrollHeight;
}
