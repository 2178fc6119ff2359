// The documentation page: asyncapi.json.
import { consolePanel } from "./docs-console.js";
import { code, exampleBlocks, prose, rowsOf, slug, table } from "./docs-parts.js";
import { entry } from "./docs-search.js";
import { el } from "./dom.js";

/** Shows the WebSocket in `section`: a console, the frames, the ways to be refused and closed. */
export function showWebSocket(section, api) {
  const channel = api.channels.chat;
  const query = channel.bindings.ws.query;
  const part = (title, ...content) => {
    const id = slug(`ws ${title}`);
    const heading = el("h2", { id, text: title });
    section.append(heading, ...content);
    entry("websocket-contents", id, [title], heading, ...content);
  };
  section.append(el("p", {}, code(channel.address)), prose(api.info.description), prose(channel.description));
  const { prompt, stop } = api.components.messages;
  part("Console", consolePanel(query, prompt.examples[0].payload, stop.examples[0].payload));
  part("Query parameters", el("div", { class: "panel" }, table(["Name", "Type", "Description"], rowsOf(query))));
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
    prose(message.description), table(["Field", "Type", "Description"], rowsOf(message.payload)),
    ...exampleBlocks(message.examples.map(({ name, summary, payload }) => [summary ?? name, payload])));
}
