// The documentation page: shows openapi.json and asyncapi.json, and tries both out.
import { copy, el, jsonBlock, uuid } from "./dom.js";
import { markdown } from "./markdown.js";

const COPIED_MS = 1500;
const $ = (id) => document.getElementById(id);

// --- Pieces of both documents --------------------------------------------------------------------

/** The document with every `$ref` replaced by what it points to; what stands beside a `$ref` goes first. */
function resolved(document, value = document) {
  if (Array.isArray(value)) return value.map((entry) => resolved(document, entry));
  if (value === null || typeof value !== "object") return value;
  const { $ref, ...own } = value;
  const target = $ref ? $ref.slice(2).split("/").reduce((at, key) => at[key.replaceAll("~1", "/")], document) : {};
  const entries = Object.entries(own).map(([key, entry]) => [key, resolved(document, entry)]);
  return { ...resolved(document, $ref ? target : null), ...Object.fromEntries(entries) };
}

const prose = (text) => el("div", { class: "markdown" }, markdown(text ?? ""));
const code = (text) => el("code", { text });
const slug = (text) => text.replace(/[^a-z0-9]+/gi, "-").replace(/^-|-$/g, "").toLowerCase();

function table(heads, rows) {
  return el("div", { class: "table" }, el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { text, scope: "col" })))),
    el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, cell)))))));
}

function copyButton(text, label = "Copy") {
  const button = el("button", { class: "copy", type: "button", text: label });
  button.onclick = async () => {
    await copy(typeof text === "function" ? text() : text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), COPIED_MS);
  };
  return button;
}

function typeOf(schema) {
  if (schema === true) return "anything";
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `${typeOf(schema.items)}[]`;
  const limits = ["minimum", "maximum"].map((key) => schema[key]);
  const range = limits.some((limit) => limit !== undefined) ? ` ${limits.join("–")}` : "";
  const type = [schema.type ?? "anything"].flat().join(" | ");
  return (schema.format ? `${type} (${schema.format})` : type) + range;
}

/** A row for every property, those of nested objects and arrays with their path. */
function rowsOf(schema, prefix = "") {
  return Object.entries(schema.properties ?? {}).flatMap(([name, property]) => {
    const isRequired = schema.required?.includes(name);
    const inner = property.items?.properties || property.items?.oneOf ? property.items : property;
    const path = prefix + name;
    const about = [property.description, property.default !== undefined ? `Default ${property.default}.` : ""];
    const row = [el("code", { text: path, class: isRequired ? "required" : "optional" }), typeOf(property),
      prose(about.filter(Boolean).join(". ").replace("..", "."))];
    const nested = inner.oneOf ?? [inner.properties ? inner : inner.additionalProperties ?? {}];
    const below = inner === property.items ? `${path}[].` : inner.properties ? `${path}.` : `${path}.*.`;
    return [row, ...nested.flatMap((one) => rowsOf(one, below))];
  });
}

function schemaTable(schema) {
  const of = schema.type === "array" ? schema.items : schema;
  const rows = rowsOf(of);
  if (!rows.length) return null;
  return el("div", {}, schema.type === "array" ? el("p", { class: "soft", text: "A list of:" }) : null,
    table(["Field", "Type", ""], rows));
}

const examplesOf = (content) =>
  "example" in content ? [["", content.example]] : Object.entries(content.examples ?? {}).map(([name, { value }]) => [name, value]);

function exampleBlocks(examples) {
  return examples.flatMap(([name, value]) =>
    [copyButton(JSON.stringify(value)), el("p", { class: "soft", text: name ? `Example: ${name}` : "Example" }), jsonBlock(value)]);
}

// --- REST ------------------------------------------------------------------------------------------

function showRest(api) {
  const section = $("rest");
  section.querySelector(".loading").remove();
  section.append(prose(api.info.description));
  for (const { name, description } of api.tags) {
    section.append(el("h2", { text: name[0].toUpperCase() + name.slice(1) }), el("p", { class: "soft", text: description }));
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (operation.tags[0] === name) section.append(showOperation(method, path, operation));
      }
    }
  }
}

// OpenAPI takes this header for no parameter; on this page it is filled in like one.
const KEY = {
  name: "key", in: "header", required: true, schema: { type: "string" },
  description: "From the first frame of the WebSocket; sent as `Authorization: Bearer <key>`",
};

function showOperation(method, path, operation) {
  const id = slug(`${method} ${path}`);
  const badge = () => el("span", { class: `method ${method}`, text: method.toUpperCase() });
  const link = el("a", { href: `#${id}` }, badge(), path.replace("/api", ""));
  $("rest-contents").append(el("li", {}, link));

  const { parameters: own = [], requestBody, responses, security } = operation;
  const parameters = security ? [...own, KEY] : own;
  const inside = el("div", { class: "inside" }, prose(operation.description));
  if (parameters.length) {
    inside.append(el("h3", { text: "Parameters" }), table(["Name", "Type", ""], parameters.map((parameter) => [
      el("code", { text: parameter.name, class: parameter.required ? "required" : "optional" }),
      `${typeOf(parameter.schema)}, in the ${parameter.in}`,
      prose([parameter.description, "default" in parameter.schema ? `default ${parameter.schema.default}` : ""].filter(Boolean).join(", ")),
    ])));
  }
  if (requestBody) {
    const content = requestBody.content["application/json"];
    inside.append(el("h3", { text: "Body" }), schemaTable(content.schema), ...exampleBlocks(examplesOf(content)));
  }
  inside.append(el("h3", { text: "Responses" }));
  for (const [status, response] of Object.entries(responses)) {
    const kind = status < 300 ? "good" : "bad";
    const content = response.content?.["application/json"];
    const summary = el("summary", {}, el("span", { class: `status ${kind}`, text: status }), el("span", { class: "about", text: response.description }));
    const details = el("details", {}, summary);
    if (content) {
      const fields = schemaTable(content.schema);
      details.append(el("div", { class: "inside" }, fields, ...exampleBlocks(examplesOf(content))));
    }
    inside.append(details);
  }
  inside.append(tryForm(id, method, path, parameters, requestBody));
  return el("details", { id }, el("summary", {}, badge(), el("span", { class: "path", text: path }), el("span", { class: "about", text: operation.summary })), inside);
}

function tryForm(id, method, path, parameters, requestBody) {
  const inputs = parameters.map((parameter) => {
    const value = parameter.example ?? parameter.schema.default ?? "";
    const input = el("input", { id: `${id}-${parameter.name}`, name: parameter.name, value, autocomplete: "off" });
    return { parameter, input };
  });
  const example = requestBody && examplesOf(requestBody.content["application/json"])[0][1];
  const body = example && el("textarea", { id: `${id}-body`, spellcheck: "false", text: JSON.stringify(example, null, 2) });
  const result = el("div", { "aria-live": "polite" });
  const send = el("button", { class: "button strong", text: "Send" });

  const request = () => {
    const query = new URLSearchParams();
    let target = path;
    for (const { parameter, input } of inputs) {
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (parameter.in === "query" && input.value) query.set(parameter.name, input.value);
    }
    return target + (query.size ? `?${query}` : "");
  };
  const headers = () => ({
    ...(body && { "content-type": "application/json" }),
    ...Object.fromEntries(inputs.filter(({ parameter, input }) => parameter === KEY && input.value)
      .map(({ input }) => ["authorization", `Bearer ${input.value.trim()}`])),
  });
  const curl = () => {
    const quoted = (value) => `'${value.replaceAll("'", "'\\''")}'`;
    const sent = Object.entries(headers()).map(([name, value]) => ` -H ${quoted(`${name}: ${value}`)}`).join("");
    const data = sent + (body ? ` -d ${quoted(body.value)}` : "");
    return `curl -X ${method.toUpperCase()} ${quoted(location.origin + request())}${data}`;
  };
  const form = el("form", { class: "try" }, el("h3", { text: "Try it" }),
    ...inputs.flatMap(({ parameter, input }) => [el("label", { for: input.id, text: parameter.name }), input]),
    ...(body ? [el("label", { for: body.id, text: "Body" }), body] : []),
    el("div", { class: "buttons" }, send, copyButton(curl, "Copy as curl")), result);
  form.onsubmit = async (event) => {
    event.preventDefault();
    send.disabled = true;
    const started = performance.now();
    try {
      const options = { method: method.toUpperCase(), headers: headers(), ...(body && { body: body.value }) };
      const response = await fetch(request(), options);
      showResult(result, response, await response.text(), Math.round(performance.now() - started));
    } catch (error) {
      result.replaceChildren(el("p", { class: "status bad", text: `No answer: ${error.message}` }));
    }
    send.disabled = false;
    send.focus();
  };
  return form;
}

function showResult(result, response, text, ms) {
  let block;
  try {
    block = jsonBlock(JSON.parse(text));
  } catch {
    block = text ? el("pre", { text, tabindex: "0" }) : el("p", { class: "soft", text: "An empty body" });
  }
  const status = el("span", { class: `status ${response.ok ? "good" : "bad"}`, text: response.status });
  result.replaceChildren(copyButton(text), el("p", {}, status, `${ms} ms`), block);
}

// --- WebSocket ---------------------------------------------------------------------------------------

function showWebSocket(api) {
  const section = $("websocket");
  const channel = api.channels.chat;
  const query = channel.bindings.ws.query;
  const part = (title, ...content) => {
    const id = slug(`ws ${title}`);
    $("websocket-contents").append(el("li", {}, el("a", { href: `#${id}`, text: title })));
    section.append(el("h2", { id, text: title }), ...content);
  };
  section.append(el("p", {}, code(channel.address)), prose(api.info.description), prose(channel.description));
  const { prompt, stop } = api.components.messages;
  part("Console", consolePanel(query, prompt.examples[0].payload, stop.examples[0].payload));
  part("Query parameters", el("div", { class: "panel" }, table(["Name", "Type", ""], rowsOf(query))));
  for (const { action, summary, messages } of Object.values(api.operations)) {
    const direction = action === "receive" ? "client → gateway" : "gateway → client";
    part(summary, ...messages.map((message) => showMessage(message, direction)));
  }
  part("Refused handshakes", el("div", { class: "panel" }, table(["Status", "When"],
    channel["x-handshake-refusals"].map(({ status, reason }) => [code(status), prose(reason)]))));
  part("Close codes", el("div", { class: "panel" }, table(["Code", "When", "What the client does"],
    channel["x-close-codes"].map(({ code: number, reason, client }) => [code(number), prose(reason), prose(client)]))));
}

function showMessage(message, direction) {
  return el("div", { class: "panel" },
    el("h3", { text: message.title }), el("p", { class: "soft", text: `${message.summary} (${direction})` }),
    prose(message.description), table(["Field", "Type", ""], rowsOf(message.payload)),
    ...exampleBlocks(message.examples.map(({ name, summary, payload }) => [summary ?? name, payload])));
}

/** Connects, sends and shows frames. Its ids replace those of the examples in the forms above. */
function consolePanel(query, examplePrompt, exampleStop) {
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

// --- Start -------------------------------------------------------------------------------------------

/** Opens what the address points to, also after a click in the contents. */
function openTarget() {
  const target = location.hash && $(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.tagName === "DETAILS") target.open = true;
  target.scrollIntoView();
}

try {
  const load = async (path) => {
    const document = await (await fetch(path)).json();
    return resolved(document);
  };
  const [rest, events] = await Promise.all([load("/openapi.json"), load("/asyncapi.json")]);
  showRest(rest);
  showWebSocket(events);
  addEventListener("hashchange", openTarget);
  openTarget();
} catch {
  document.querySelector(".loading")?.replaceChildren("The descriptions could not be loaded. Please try again.");
}
