// The documentation page: what the descriptions of REST and WebSocket have in common.
import { copy, el, jsonBlock } from "./dom.js";
import { markdown } from "./markdown.js";

const COPIED_MS = 1500;

/** Text with marks in it, as a block. */
export const prose = (text) => el("div", { class: "markdown" }, markdown(text ?? ""));
export const code = (text) => el("code", { text });
/** An id made of some text. */
export const slug = (text) => text.replace(/[^a-z0-9]+/gi, "-").replace(/^-|-$/g, "").toLowerCase();

/** A table that scrolls by itself where it is too wide. */
export function table(heads, rows) {
  return el("div", { class: "table" }, el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { text, scope: "col" })))),
    el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, cell)))))));
}

/** A button that copies a text, or what a function returns. */
export function copyButton(text, label = "Copy") {
  const button = el("button", { class: "copy", type: "button", text: label });
  button.onclick = async () => {
    await copy(typeof text === "function" ? text() : text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), COPIED_MS);
  };
  return button;
}

/** A type in words. */
export function typeOf(schema) {
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
export function rowsOf(schema, prefix = "") {
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

/** The fields of an object, or of the objects in a list; nothing where there are none. */
export function schemaTable(schema) {
  const of = schema.type === "array" ? schema.items : schema;
  const rows = rowsOf(of);
  if (!rows.length) return "";
  return el("div", {}, schema.type === "array" ? el("p", { class: "soft", text: "A list of:" }) : null,
    table(["Field", "Type", "Description"], rows));
}

/** The examples of a body or a response, each with its name. */
export const examplesOf = (content) =>
  "example" in content ? [["", content.example]] : Object.entries(content.examples ?? {}).map(([name, { value }]) => [name, value]);

/** Examples, each with a button to copy it. */
export function exampleBlocks(examples) {
  return examples.flatMap(([name, value]) =>
    [copyButton(JSON.stringify(value)), el("p", { class: "soft", text: name ? `Example: ${name}` : "Example" }), jsonBlock(value)]);
}
