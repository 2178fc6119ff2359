// Where a text has masked numbers, names and addresses, whose stars are no emphasis: 1234-****-****-5678, 홍*동님.

const CANDIDATE = new RegExp([
  String.raw`(?<mail>(?<![\w.+-])\w[\w.+-]{0,63}\*[\w.*+-]{0,63}@[\w.-]+)`,
  String.raw`(?<name>(?<![가-힣\w])[가-힣]{1,2}\*{1,3}[가-힣]*)`,
  String.raw`(?<number>[\d*]+(?:-[\d*]+| (?=\d{2}|\*{4})[\d*]+)*)`,
].join("|"), "g");
const NEVER_A_MARK = 4; // as many stars in a row
const LONG_NUMBER = 6; // digits

const starsAt = (text, at) => /^\*+/.exec(text.slice(at, at + NEVER_A_MARK))?.[0].length ?? 0;

/** The masked parts of a text, in order, as [start, end]. */
export function masks(text) {
  const found = [];
  let open = 0; // the stars of an emphasis that has begun: the same again end it
  const isSpace = (at) => !text[at]?.trim();
  const mark = (at, stars) => {
    if (open && open === stars && !isSpace(at - 1)) open = 0;
    else if (!open && !isSpace(at + stars)) open = stars;
  };

  const endOfName = (name, from, to) => {
    const at = from + name.indexOf("*");
    const stars = starsAt(text, at);
    const next = starsAt(text, to);
    const isEmphasis = stars === open || (name.endsWith("*") ? open : next && next !== open); // **홍**님, or 이*강조*는
    if (isEmphasis) mark(at, stars);
    return isEmphasis ? from : to;
  };

  const placeOfNumber = (number, start, end) => {
    const lead = /^\*+/.exec(number)?.[0].length ?? 0;
    if (lead === number.length) {
      if (lead >= NEVER_A_MARK) return [start, end];
      mark(start, lead);
      return [start, start];
    }
    const isOwn = lead >= NEVER_A_MARK || (lead === 3 && number[lead] === "-");
    const from = start + (isOwn ? 0 : lead);
    if (from > start) mark(start, lead);
    const tail = /\*+$/.exec(number)?.[0].length ?? 0;
    const body = text.slice(from, end - tail);
    const isMasked = tail >= NEVER_A_MARK || (!open && (body.includes("*") || body.length >= LONG_NUMBER));
    if (tail && !isMasked) mark(end - tail, tail);
    return [from, isMasked ? end : end - tail];
  };

  for (const { 0: part, index: start, groups: { name, number } } of text.matchAll(CANDIDATE)) {
    const end = start + part.length;
    const [from, to] = name ? [start, endOfName(name, start, end)] : number ? placeOfNumber(number, start, end) : [start, end];
    if (text.slice(from, to).includes("*")) found.push([from, to]);
  }
  return found;
}
