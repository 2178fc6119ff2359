// The title of the tab, which says how many answers have come while nobody looked.
import { text } from "./texts.js";

let unread = 0;

const show = () => (document.title = (unread ? `(${unread}) ` : "") + text("title"));

/** Takes note of an answer. */
export function mark() {
  if (!document.hidden) return;
  unread += 1;
  show();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unread = 0;
  show();
});
