// The text of an answer that is still being made, drawn without flicker.
import { masks } from "./masks.js";

// At the end of a text: a table row, or the mark of a list or a heading, that is not whole yet.
const UNFINISHED = /(^|\n)[ \t]*(\|[^\n]*(\n[|: \t-]*){0,2}|[-+*•#>]+[ \t]*|\d{1,9}[.)]?[ \t]*)$/;

/** What can be shown of a growing text: nothing of a mark that comes in halves, and bold is closed where it is open. */
export function settled(text) {
  const whole = text.replace(UNFINISHED, "").trimEnd().replace(/\*{1,3}$/, "").trimEnd();
  const line = whole.slice(whole.lastIndexOf("\n") + 1);
  let marks = line;
  for (const [from, to] of masks(line).reverse()) marks = marks.slice(0, from) + marks.slice(to);
  return marks.split("**").length % 2 ? whole : `${whole}**`;
}

/** Gives `into` the content of `fresh`; what is the same stays the same nodes, and what is selected stays selected. */
export function renew(into, fresh) {
  const before = [...into.childNodes];
  const after = [...fresh.childNodes];
  before.slice(after.length).forEach((node) => node.remove());
  after.forEach((node, at) => {
    const old = before[at];
    if (!old) into.append(node);
    else if (old.isEqualNode(node)) return;
    else if (old.data !== undefined && node.data?.startsWith(old.data)) old.appendData(node.data.slice(old.length));
    else if (old.data === undefined && old.cloneNode().isEqualNode(node.cloneNode())) renew(old, node);
    else old.replaceWith(node);
  });
}

/** The draft with one more frame: a piece may come twice, or begin anew, and its offset says where it goes. */
export function grown(draft, { message_id, attempt, offset, text, tool_name }) {
  const isNew = draft?.message_id !== message_id || attempt > draft.attempt;
  const next = isNew ? { message_id, attempt, message: "", tool_name: null } : draft;
  if (attempt < next.attempt || offset > next.message.length) return next;
  if (text) next.message = next.message.slice(0, offset) + text;
  if (tool_name) next.tool_name = tool_name;
  return next;
}
