// The question field: what Enter does, and how long a question may be.
import { say } from "./texts.js";

const MAX_CHARS = 4000; // code points, as the gateway counts
const COUNT_FROM = 500; // characters left when the counter appears
const HANGUL = /[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]$/;

const [form, field, hint] = ["composer", "prompt", "hint"].map((id) => document.getElementById(id));
const keys = matchMedia("(hover: hover) and (pointer: fine)");

/** Has `ask(message)` called for each question; it returns a hint's key and values where it is not taken. */
export function listen(ask) {
  const send = () => {
    const message = field.value.replaceAll("\0", "").trim();
    field.focus();
    const refusal = message ? ask(message) : [];
    if (refusal) return refusal.length ? say(hint, ...refusal) : null;
    field.value = "";
    return measure();
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  field.oninput = ({ isComposing }) => measure(!isComposing && shorten());
  listenToKeys(() => form.requestSubmit());
  keys.onchange = () => measure();
  measure();
}

// A Korean syllable is whole when Enter is pressed, so that Enter sends; what Japanese makes of its letters is still to be
// chosen, with Enter. Browsers tell of the key before the end of the composition, after it, or before and after.
function listenToKeys(send) {
  let isDue = false; // Enter was pressed on a syllable that is not in the field yet
  let composed = "";
  const isKorean = () => HANGUL.test(composed || field.value.slice(0, field.selectionStart));

  field.addEventListener("compositionstart", () => (composed = ""));
  field.addEventListener("compositionupdate", ({ data }) => (composed = data || composed));
  field.addEventListener("compositionend", ({ data }) => {
    composed = data || composed;
    if (shorten()) measure(true);
    if (isDue) setTimeout(() => isDue && finish()); // once the field has all of it
  });
  const finish = () => {
    isDue = false;
    send();
  };
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.code !== "Enter") {
      isDue = false;
    } else if (event.isComposing) {
      isDue = !event.shiftKey && isKorean();
    } else if (!event.shiftKey && (event.keyCode !== 229 || isKorean())) {
      event.preventDefault();
      finish();
    }
  });
  field.addEventListener("beforeinput", (event) => {
    if (isDue && event.inputType === "insertLineBreak") event.preventDefault();
  });
}

// Takes away what is too much where it was put in, and no half of a character; returns whether there was any.
function shorten() {
  const over = field.value.length > MAX_CHARS ? [...field.value].length - MAX_CHARS : 0;
  if (over <= 0) return false;
  const end = field.selectionEnd;
  const characters = [...new Intl.Segmenter().segment(field.value.slice(0, end))];
  let [start, taken] = [end, 0];
  while (taken < over && characters.length) {
    const { segment, index } = characters.pop();
    taken += [...segment].length;
    start = index;
  }
  field.setRangeText("", start, end, "end");
  return true;
}

/** Gives the field the height of its text, and says how much room is left, or that something was cut off. */
export function measure(isCut = false) {
  const left = MAX_CHARS - (field.value.length > MAX_CHARS - COUNT_FROM ? [...field.value].length : 0);
  const key = isCut ? "cut" : left < COUNT_FROM ? "left" : keys.matches ? "keys" : "touch";
  say(hint, key, { n: Math.max(0, left) });
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

/** Takes back a hint that holds no longer. */
export function unsay(key) {
  if (hint.dataset.t === key) measure();
}
