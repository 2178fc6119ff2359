// The side panel with every frame and every REST call as it passes: the protocol by example.
import { copy, el, jsonBlock } from "./dom.js";
import { clock, say } from "./texts.js";

const MAX_ENTRIES = 200;
const COPIED_MS = 1500;
const NEAR_BOTTOM_PX = 80;

const list = document.getElementById("frames");
let last = {}; // a row of deltas: there are too many of them for a row each

/** A WebSocket event: `kind` is open, sent, got or close; `data` is the frame as it was on the wire. */
export function showFrame(kind, data) {
  let block, deltas;
  try {
    const frame = JSON.parse(data);
    block = jsonBlock(frame);
    if (kind === "got" && frame.type === "delta") deltas = frame.message_id;
  } catch {
    block = el("pre", { tabindex: "0", text: data });
  }
  if (deltas && deltas === last.deltas && list.lastChild === last.row) {
    last.row.lastChild.replaceWith(block);
    last.row.querySelector("p span").textContent = `WebSocket × ${(last.count += 1)}`;
    last.raw = String(data);
  } else {
    const own = { deltas, count: 1, raw: String(data) };
    own.row = add(kind, say(el("b"), `frame.${kind}`), "WebSocket", () => own.raw, block);
    last = own;
  }
}

/** A REST call as `api.onCall` reports it; what is copied can be pasted into a shell. */
export function showCall({ method, path, headers, body, status, answer, ms }) {
  const quoted = (value) => `'${value.replaceAll("'", "'\\''")}'`;
  const sent = Object.entries(headers).map(([name, value]) => ` -H ${quoted(`${name}: ${value}`)}`).join("");
  const data = sent + (body ? ` -d ${quoted(JSON.stringify(body))}` : "");
  const curl = `curl -X ${method} ${quoted(location.origin + path)}${data}\n# ${status}\n${JSON.stringify(answer)}`;
  add(status < 200 || status > 299 ? "bad" : "rest", el("b", { text: method }), `${path} → ${status || "✕"}, ${ms} ms`,
    () => curl, ...[body, answer].filter(Boolean).map(jsonBlock));
}

function add(kind, title, detail, raw, ...blocks) {
  const follow = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_BOTTOM_PX;
  const button = say(el("button", { class: "link" }), "copy");
  button.onclick = async () => {
    await copy(raw());
    say(button, "copied");
    setTimeout(() => say(button, "copy"), COPIED_MS);
  };
  const row = el("li", { class: kind },
    el("p", {}, title, el("span", { text: detail }), clock(el("time"), new Date().toISOString()), button), ...blocks);
  list.append(row);
  if (list.children.length > MAX_ENTRIES) list.firstChild.remove();
  if (follow) list.scrollTop = list.scrollHeight;
  return row;
}
