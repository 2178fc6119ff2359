// Markdown as elements: markdown-it reads it, its tokens become nodes, and no text ever becomes markup.
import { cut, el } from "./dom.js";
import { masks } from "./masks.js";
import { cjkFriendly, MarkdownIt } from "./vendor/markdown-it.js";

const MAX_CHARS = 20_000;
const MAX_NODES = 2_000;
const MAX_LINK = 2_000; // characters
const MAX_DEPTH = 20;
const MAX_MS = 120;
const SHORT = 2_000; // characters, which take no time whatever they are
const SAFE_LINK = /^(https?:\/\/|mailto:|tel:)/i;
const IDENTIFIER = /__[a-z\d]+(?:_[a-z\d]+)*__(?!\w)/y;

const reader = new MarkdownIt({ breaks: true, linkify: true }).use(cjkFriendly);
reader.disable(["code", "lheading", "reference"]); // indented text, and a line above ---, mean nothing by it
reader.validateLink = (url) => SAFE_LINK.test(url);
reader.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
// A Korean particle ends an address.
for (const [name, most] of [["match", MAX_CHARS], ["matchAtStart", MAX_LINK]]) {
  const search = reader.linkify[name].bind(reader.linkify);
  reader.linkify[name] = (text) => search(text.slice(0, most).replace(/[^\x20-\x7e]/g, " "));
}

// Before each of the library's rules: it is given up where it takes too long or goes too deep.
let deadline = 0;
const watch = ({ level }) => {
  if (level > MAX_DEPTH || performance.now() > deadline) throw new RangeError("too much Markdown");
  return false;
};
reader.block.ruler.before("table", "watch", watch, { alt: ["paragraph", "blockquote", "list"] });
reader.inline.ruler.before("text", "watch", watch);
reader.inline.ruler.before("text", "literal", (state, silent) => {
  const end = literalEnd(state);
  if (!end) return false;
  if (!silent) state.pending += state.src.slice(state.pos, end);
  state.pos = end;
  return true;
});
reader.inline.ruler.before("text", "line", (state, silent) => {
  const [line] = state.src[state.pos] === "<" ? /^<br\s?\/?>/i.exec(state.src.slice(state.pos, state.pos + 6)) ?? [] : [];
  if (line && !silent) state.push("hardbreak", "br", 0);
  state.pos += line?.length ?? 0;
  return Boolean(line);
});

// Where what stands here, and is no emphasis, ends.
function literalEnd(state) {
  const { src, pos } = state;
  if (src[pos] === "*") {
    state.masks ??= new Map(masks(src).map(([from, to]) => [src.indexOf("*", from), to]));
    return state.masks.get(pos);
  }
  IDENTIFIER.lastIndex = pos;
  return src[pos] === "_" && IDENTIFIER.test(src) ? IDENTIFIER.lastIndex : 0;
}

/** The nodes for a Markdown text, in bounded time and number; a line to be translated says where something was cut. */
export function markdown(source) {
  const out = document.createDocumentFragment();
  const room = { nodes: MAX_NODES };
  const shown = cut(source, MAX_CHARS);
  try {
    if (shown !== source) throw new RangeError("too much text");
    deadline = source.length < SHORT ? Infinity : performance.now() + MAX_MS;
    build(reader.parse(source, {}), out, room);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // of ours, or the stack's
    out.replaceChildren(el("p", { class: "plain", text: shown }));
  }
  if (room.nodes < 0 || shown !== source) out.append(el("p", { class: "note", "data-t": "cut.answer" }));
  return out;
}

function build(tokens, into, room) {
  const open = [into];
  for (const token of tokens) {
    if (token.hidden) continue; // the paragraphs of a list without blank lines
    if (token.nesting < 0) open.pop();
    else if (token.type === "inline") build(token.children, open.at(-1), room);
    else if ((room.nodes -= 1) < 0) return;
    else if (token.nesting > 0) open.push(opened(token, open.at(-1)));
    else open.at(-1).append(leaf(token));
  }
}

function opened(token, parent) {
  const { tag } = token;
  const [, level] = /^h([1-6])$/.exec(tag) ?? [];
  const node = level ? el(`h${Math.min(Number(level) + 2, 6)}`) : tag === "a" ? link(token.attrGet("href")) : el(tag);
  const align = /\w+$/.exec(token.attrGet("style") ?? "");
  if (align) node.align = align[0]; // the policy of the page allows no style
  if (token.attrGet("start")) node.start = token.attrGet("start");
  parent.append(tag === "table" ? el("div", { class: "table", tabindex: "0" }, node) : node);
  return node;
}

function leaf(token) {
  const { type, tag, content } = token;
  if (type === "text") return content;
  if (type === "fence") return el("pre", { tabindex: "0", text: content.replace(/\n$/, "") });
  if (type === "image") return link(token.attrGet("src"), content || token.attrGet("src")); // nothing is loaded from elsewhere
  return type === "softbreak" ? el("br") : el(tag, content ? { text: content } : {});
}

const link = (href, text = "") => el("a", { href, target: "_blank", rel: "noopener noreferrer", text });
