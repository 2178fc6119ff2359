// The text of an answer that is still being made, drawn without flicker.

// At the end of a text: a table row, or the mark of a list or a heading, that is not whole yet.
const UNFINISHED = /(^|\n)[ \t]*(\|[^\n]*(\n[|: \t-]*){0,2}|[-+*•#>]+[ \t]*|\d{1,9}[.)]?[ \t]*)$/;

/** What can be shown of a growing text: nothing of a mark that comes in halves, and bold is closed where it is open. */
export function settled(text) {
  const whole = text.replace(UNFINISHED, "").trimEnd().replace(/\*{1,3}$/, "").trimEnd();
  const line = whole.slice(whole.lastIndexOf("\n") + 1);
  return line.split("**").length % 2 ? whole : `${whole}**`;
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
