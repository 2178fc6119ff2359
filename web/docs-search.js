// The documentation page: the contents, and the search, which goes through all that they lead to.
import { el } from "./dom.js";

const entries = [];
const headings = [];

/** Adds a line to the contents. A search shows it, and `parts` of the page, where these have all of the words. */
export function entry(list, id, label, ...parts) {
  const line = el("li", {}, el("a", { href: `#${id}` }, ...label));
  document.getElementById(list).append(line);
  entries.push({ line, parts });
}

/** Makes a search hide a heading of which it hides all `parts`. */
export function heading(nodes, parts) {
  headings.push({ nodes, parts });
}

/** Lets a form search. Enter goes to the first that was found. */
export function search(form) {
  const [field, found] = [form.querySelector("input"), form.querySelector("[role=status]")];
  field.oninput = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const { line, parts } of entries) {
      const text = parts.map((part) => part.textContent).join(" ").toLowerCase();
      [line, ...parts].forEach((node) => (node.hidden = !words.every((word) => text.includes(word))));
    }
    for (const { nodes, parts } of headings) {
      nodes.forEach((node) => (node.hidden = parts.every((part) => part.hidden)));
    }
    const count = entries.filter(({ line }) => !line.hidden).length;
    found.textContent = words.length ? `${count} of ${entries.length} found` : "";
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    entries.find(({ line }) => !line.hidden)?.line.firstChild.click();
  };
}
