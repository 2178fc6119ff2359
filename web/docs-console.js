// The documentation page: a WebSocket to try frames on.
import { copyButton } from "./docs-parts.js";
import { el, jsonBlock, uuid } from "./dom.js";

/** Connects, sends and shows frames. Its ids replace those of the examples in the forms above. */
export function consolePanel(query, examplePrompt, exampleStop) {
  let socket = null;
  let asked = ""; // the id of the last prompt, which is the one to stop
  const examples = { session_id: query.properties.session_id.examples[0], message_id: examplePrompt.message_id };
  const fields = Object.entries(query.properties).map(([name, { enum: values }]) => values
    ? el("input", { id: `ws-${name}`, name, type: "checkbox", value: values[0] })
    : el("input", { id: `ws-${name}`, name, autocomplete: "off" }));
  const key = el("input", { id: "ws-key", name: "key", autocomplete: "off" });
  const frame = el("textarea", { id: "ws-frame", spellcheck: "false" });
  const frames = el("ol", { id: "frames", tabindex: "0", "aria-label": "Frames" });
  const state = el("span", { class: "soft", role: "status", text: "not connected" });
  const button = (text, onclick, kind = "") => el("button", { class: `button ${kind}`, type: "button", text, onclick });
  const connect = button("Connect", () => (socket ? socket.close() : open()), "strong");
  const transmit = (text) => {
    add("↑ sent", text);
    socket.send(text);
  };
  const send = button("Send", () => {
    transmit(frame.value);
    try {
      asked = JSON.parse(frame.value).message_id;
    } catch {
      // No JSON is worth a try, too.
    }
    propose();
    show(state.textContent);
  }, "strong");
  const stop = button("Stop", () => transmit(JSON.stringify({ ...exampleStop, message_id: asked })));

  const propose = () => {
    frame.value = JSON.stringify({ ...examplePrompt, message_id: uuid() }, null, 2);
  };
  const show = (text) => {
    state.textContent = text;
    connect.textContent = socket ? "Disconnect" : "Connect";
    send.disabled = socket?.readyState !== WebSocket.OPEN;
    stop.disabled = send.disabled || !asked || !new URL(socket.url).searchParams.has("stream");
  };
  const add = (kind, text) => {
    let block;
    try {
      block = jsonBlock(JSON.parse(text));
    } catch {
      block = el("pre", { text, tabindex: "0" });
    }
    frames.append(el("li", {}, copyButton(text), el("p", { text: `${kind} ${new Date().toLocaleTimeString()}` }), block));
    frames.scrollTop = frames.scrollHeight;
  };
  const use = (name, value) => {
    for (const field of document.querySelectorAll(".try input, .try textarea")) {
      field.value = field.value.replaceAll(examples[name], value);
    }
    examples[name] = value;
  };
  function open() {
    const url = new URL("/api/chat/ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    fields.filter(({ type, checked, value }) => (type === "checkbox" ? checked : value)).forEach(({ name, value }) => url.searchParams.set(name, value));
    socket = new WebSocket(url, ["chat", ...(key.value.trim() ? [`key.${key.value.trim()}`] : [])]);
    add("connecting", url.href);
    show("connecting");
    socket.onopen = () => show("connected");
    socket.onmessage = ({ data }) => {
      add("↓ received", data);
      const { session_id: session, key: own, message_id: message, sender } = JSON.parse(data);
      if (session) use("session_id", session);
      if (own) document.querySelectorAll(".try input[name=key]").forEach((field) => (field.value = own));
      if (sender) use("message_id", message);
    };
    socket.onclose = ({ code: number, reason }) => {
      socket = null;
      add("closed", `${number} ${reason}`.trim());
      show(`closed (${number})`);
    };
  }
  propose();
  show("not connected");
  return el("div", { class: "panel" },
    el("p", { class: "soft", text: "The ids and the key of this connection are filled into the forms above, so that a login, feedback or the history can be tried on it. To go on with a session, give its session_id and its key." }),
    el("div", { class: "row" }, ...[...fields, key].map((field) => el("div", {}, el("label", { for: field.id, text: `${field.name} (optional)` }), field))),
    el("div", { class: "buttons" }, connect, state),
    el("label", { for: frame.id, text: "Frame" }), frame, el("div", { class: "buttons" }, send, stop, button("Clear", () => frames.replaceChildren())),
    frames);
}
