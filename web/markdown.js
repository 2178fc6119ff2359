// A safe subset of Markdown, built as DOM nodes: what is not understood stays plain text.
// Paragraphs with kept line breaks, headings, lists, quotes, tables, rules, code, emphasis, links.
import { el } from "./dom.js";

const FENCE = /^\s*```/;
const HEADING = /^(#{1,6})\s+(.+)/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
const QUOTE = /^\s*>\s?/;
const ITEM = /^(\s*)(?:[-*+•]|(\d{1,9})[.)])\s+(.*)/;
const DIVIDER = /^[\s|:-]*-[\s|:-]*$/;
const MAX_DEPTH = 5;

const isRow = (line) => line?.includes("|");

/** The nodes for a Markdown text. The time is linear in its length; no HTML is taken from it. */
export function markdown(source, depth = 0) {
  const lines = source.split(/\r?\n/);
  const out = document.createDocumentFragment();
  let at = 0;

  const take = (test) => {
    const from = at;
    while (at < lines.length && test(lines[at])) at += 1;
    return lines.slice(from, at);
  };
  const startsTable = () => isRow(lines[at]) && isRow(lines[at + 1]) && DIVIDER.test(lines[at + 1]);
  const isText = (line) => line.trim() && ![FENCE, HEADING, RULE, QUOTE, ITEM].some((block) => block.test(line)) && !startsTable();

  while (at < lines.length) {
    const line = lines[at];
    const heading = HEADING.exec(line);
    if (QUOTE.test(line) && depth < MAX_DEPTH) {
      const inner = take((next) => QUOTE.test(next)).map((next) => next.replace(QUOTE, ""));
      out.append(el("blockquote", {}, markdown(inner.join("\n"), depth + 1)));
    } else if (startsTable()) {
      out.append(table(take(isRow)));
    } else if (ITEM.test(line) && !RULE.test(line)) {
      out.append(list());
    } else {
      at += 1;
      if (FENCE.test(line)) {
        out.append(el("pre", { tabindex: "0", text: take((next) => !FENCE.test(next)).join("\n") }));
        at += 1;
      } else if (heading) {
        out.append(inline(heading[2], el(`h${Math.min(heading[1].length + 2, 6)}`)));
      } else if (RULE.test(line)) {
        out.append(el("hr"));
      } else if (line.trim()) {
        out.append(inline([line, ...take(isText)].join("\n"), el("p")));
      }
    }
  }
  return out;

  // Goes on over a blank line to the next item; indented text belongs to the item before it.
  function list() {
    const open = [];
    let item = null;
    for (; at < lines.length; at += 1) {
      const line = lines[at];
      const found = RULE.test(line) ? null : ITEM.exec(line);
      if (found) {
        const [, { length: indent }, number, words] = found;
        while (open.length > 1 && indent < open.at(-1).indent) open.pop();
        const isNested = open.length && indent > open.at(-1).indent + 1 && open.length < MAX_DEPTH;
        if (!open.length || isNested) {
          const node = number ? el("ol", { start: number }) : el("ul");
          item?.append(node);
          open.push({ indent, node });
        } else if (open.length === 1 && !number !== (open[0].node.tagName === "UL")) {
          break;
        }
        item = inline(words, el("li"));
        open.at(-1).node.append(item);
      } else if (line.trim() && /^\s/.test(line)) {
        item.append(el("br"));
        inline(line.trim(), item);
      } else if (line.trim() || !ITEM.test(lines[at + 1] ?? "")) {
        break;
      }
    }
    return open[0].node;
  }
}

function table([head, , ...body]) {
  const row = (tag) => (line) => el("tr", {},
    ...line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim(), el(tag))));
  return el("div", { class: "table", tabindex: "0" },
    el("table", {}, el("thead", {}, row("th")(head)), el("tbody", {}, ...body.map(row("td")))));
}

const MARKS = [["`", "code"], ["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"]];
const EM_END = /[^\s*]\*(?!\*)/g;
const LINK = /^\[([^[\]]+)\]\(((?:https?:\/\/|mailto:|tel:)[^()\s]+(?:\([^()\s]*\)[^()\s]*)?)\)/i;
const URL_HERE = /^https?:\/\/[\w\-.~:/?#@!$&'()*+,;=%]+/;
const BREAK = /^(<br\s?\/?>|\n)/i;
const MAX_LINK = 2000; // characters

function inline(text, into) {
  const missing = new Set(); // marks that have no end any more: not searched for twice
  let plain = "";
  let at = 0;
  const put = (node, length) => {
    into.append(plain, node);
    plain = "";
    at += length;
    return true;
  };
  const endOf = (mark) => {
    if (mark !== "*") return text.indexOf(mark, at + mark.length + 1);
    EM_END.lastIndex = at + 1;
    return EM_END.test(text) ? EM_END.lastIndex - 1 : -1;
  };
  const marked = ([mark, tag]) => {
    if (!text.startsWith(mark, at) || missing.has(mark)) return false;
    const end = endOf(mark);
    if (end < 0) missing.add(mark);
    const inner = text.slice(at + mark.length, end);
    if (end < 0 || /^\s|\s$/.test(inner)) return false;
    return put(tag === "code" ? el(tag, { text: inner }) : inline(inner, el(tag)), inner.length + 2 * mark.length);
  };
  const other = () => {
    if (!"[h<\n".includes(text[at])) return false;
    const ahead = text.slice(at, at + MAX_LINK);
    const [labelled, label, href] = LINK.exec(ahead) ?? [];
    if (labelled) return put(link(href, label), labelled.length);
    const [line] = BREAK.exec(ahead) ?? [];
    if (line) return put(el("br"), line.length);
    const bare = /\w/.test(text[at - 1] ?? "") ? "" : URL_HERE.exec(ahead)?.[0].replace(/[.,;:!?'*)]+$/, "");
    return bare ? put(link(bare, bare), bare.length) : false;
  };
  while (at < text.length) {
    if (MARKS.some(marked) || other()) continue;
    if (text[at] === "\\" && /[\\`*_~[\]#|>-]/.test(text[at + 1])) at += 1;
    plain += text[at];
    at += 1;
  }
  into.append(plain);
  return into;
}

const link = (href, text) => el("a", { href, target: "_blank", rel: "noopener noreferrer", text });
