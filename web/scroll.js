// Where the conversation is scrolled to: at its end, until the reader goes elsewhere.
const NEAR_BOTTOM_PX = 120;
const TOP_PX = 16; // above the first line of what is new

const [scroll, latest] = ["scroll", "latest"].map((id) => document.getElementById(id));

export class Scroll {
  #top = 0;
  #isHeld = false; // the reader has scrolled up, to stay there

  /** `newest` is the node to go to when the reader asks for what is new. */
  constructor(newest) {
    latest.onclick = () => this.show(newest());
    scroll.onscroll = () => this.#scrolled();
  }

  /** Whether what is new is gone along with. */
  follows() {
    return this.#atBottom() && !this.#isHeld;
  }

  /** To the end, but never past the first line of what is new, and never back up. */
  show(node, toEnd = false) {
    const end = scroll.scrollHeight - scroll.clientHeight;
    scroll.scrollTop = toEnd || !node ? end : Math.max(scroll.scrollTop, Math.min(end, node.offsetTop - TOP_PX));
    latest.hidden = true;
    this.#isHeld = false;
  }

  /** Whether the first line of this node has left the screen. */
  isPast = (node) => scroll.scrollTop > node.offsetTop - TOP_PX + 1;

  /** Offers the way to what is new, unless it begins on the screen already. */
  point(node) {
    latest.hidden = node.offsetTop < scroll.scrollTop + scroll.clientHeight;
  }

  /** Has `fill` add something above what is on the screen, which does not move. */
  above(fill) {
    const below = scroll.scrollHeight - scroll.scrollTop;
    fill();
    scroll.scrollTop = scroll.scrollHeight - below;
  }

  #atBottom() {
    return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR_BOTTOM_PX;
  }

  #scrolled() {
    const { scrollTop: top, scrollHeight, clientHeight } = scroll;
    const isAtEnd = scrollHeight - top - clientHeight < 2;
    if (top < this.#top && !isAtEnd) this.#isHeld = true;
    else if (this.#atBottom()) this.#isHeld = false;
    this.#top = top;
    if (this.#atBottom()) latest.hidden = true;
  }
}
