// The documentation page: shows openapi.json and asyncapi.json, and tries both out.
import { showRest } from "./docs-rest.js";
import { search } from "./docs-search.js";
import { showWebSocket } from "./docs-websocket.js";

const $ = (id) => document.getElementById(id);

/** The document with every `$ref` replaced by what it points to; what stands beside a `$ref` goes first. */
function resolved(document, value = document) {
  if (Array.isArray(value)) return value.map((entry) => resolved(document, entry));
  if (value === null || typeof value !== "object") return value;
  const { $ref, ...own } = value;
  const target = $ref ? $ref.slice(2).split("/").reduce((at, key) => at[key.replaceAll("~1", "/")], document) : {};
  const entries = Object.entries(own).map(([key, entry]) => [key, resolved(document, entry)]);
  return { ...resolved(document, $ref ? target : null), ...Object.fromEntries(entries) };
}

/** Opens what the address points to, also after a click in the contents. */
function openTarget() {
  const target = location.hash && $(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.tagName === "DETAILS") target.open = true;
  target.scrollIntoView();
}

/** Links to the chat page, where there is one: a gateway in production may serve none. */
async function offerChat() {
  const { headers } = await fetch("/", { method: "HEAD" });
  $("chat").hidden = !headers.get("content-type")?.startsWith("text/html");
}

const load = async (path) => resolved(await (await fetch(path)).json());

try {
  const [rest, events] = await Promise.all([load("/openapi.json"), load("/asyncapi.json")]);
  document.querySelector(".loading").remove();
  $("version").textContent = `Version ${rest.info.version}`;
  showRest($("rest"), rest);
  showWebSocket($("websocket"), events);
  search($("search"));
  addEventListener("hashchange", openTarget);
  openTarget();
  await offerChat();
} catch {
  document.querySelector(".loading")?.replaceChildren("The descriptions could not be loaded. Please try again.");
}
