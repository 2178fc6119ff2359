// A WebSocket that mends itself: it comes back with growing pauses, and one that has fallen silent is left.
import { call } from "./api.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 20_000;
const HELLO_MS = 15_000; // a server that accepts and then says nothing is left again
const HEALTH_MS = 10_000;
const STABLE_MS = 5_000; // a connection that lived this long starts the pauses anew
const SILENCE_MS = 28_000; // after a prompt without a sign of life; with HELLO_MS it is known within 45 s
const OVERTAKEN_MS = 30_000; // for which an abandoned attempt of ours may still arrive, and close what came after it
const FRESH_MS = 1_000; // what was heard from so lately is alive

// Close codes: what to say, and the least pause before the next attempt.
const ENDINGS = { 1008: ["limited", 60_000], 1012: ["restarting", 0], 1013: ["busy", 5_000] };
const SUPERSEDED = 4001;

export class Connection {
  #on;
  #socket = null;
  #attempt = null; // what comes of an earlier one is nobody's
  #timer = 0;
  #failures = 0;
  #heardAt = 0;
  #hasBegun = false;
  #abandonedAt = -OVERTAKEN_MS;
  #patience = SILENCE_MS;

  state = "connecting";
  retryAt = 0; // when the next attempt to connect is due, 0 for none

  /** `on`: `address()` gives URL and protocols, `waits()` whether an answer is due; frame, closed, state, wire happen. */
  constructor(on) {
    this.#on = on;
    const again = () => this.state === "taken" || this.connect();
    addEventListener("online", again);
    addEventListener("offline", () => this.lost("offline"));
    addEventListener("pageshow", (event) => event.persisted && again());
    document.addEventListener("visibilitychange", () => document.hidden || this.#lookedAt());
    setInterval(() => this.#watch(), 1000);
  }

  async connect() {
    this.drop();
    const attempt = (this.#attempt = {});
    this.#to(["online", "taken"].includes(this.state) ? "connecting" : this.state);
    // After a failure Firefox would hold the next WebSocket back, up to a minute: so none is opened that must fail.
    if (this.#failures && !(await isHealthy())) {
      if (attempt === this.#attempt) this.lost(this.#cause());
    } else if (attempt === this.#attempt) {
      this.#open();
    }
  }

  #open() {
    const [url, protocols] = this.#on.address();
    this.#on.wire("open", url.href);
    const socket = new WebSocket(url, protocols);
    this.#socket = socket;
    const limit = () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.lost("waiting"), HELLO_MS);
    };
    socket.onopen = () => socket === this.#socket && limit();
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
    socket.onclose = ({ code }) => socket === this.#socket && this.#closed(code);
    limit();
  }

  /** The first frame has come. */
  begun() {
    this.#hasBegun = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#failures = 0), STABLE_MS);
    this.#to("online");
  }

  send(value) {
    const frame = JSON.stringify(value);
    this.#socket.send(frame);
    this.#on.wire("sent", frame);
  }

  /** From here on an answer is waited for. */
  expects() {
    this.#heardAt = Date.now();
    this.#patience = SILENCE_MS;
  }

  #receive(data) {
    this.#heardAt = Date.now();
    this.#on.wire("got", data);
    this.#on.frame(data);
  }

  // A server may be slow and not dead: looking whether it is alive gets rarer while it is found so.
  #watch() {
    if (this.state !== "online" || !this.#on.waits() || Date.now() - this.#heardAt < this.#patience) return;
    this.#patience *= 2;
    this.connect();
  }

  #lookedAt() {
    const isQuiet = this.state === "online" && Date.now() - this.#heardAt > FRESH_MS;
    if (isQuiet || (this.retryAt && this.state !== "limited")) this.connect();
  }

  #closed(code) {
    this.#on.wire("close", code);
    this.#on.closed(code);
    if (code === SUPERSEDED && Date.now() - this.#abandonedAt < OVERTAKEN_MS) {
      this.#abandonedAt = -OVERTAKEN_MS; // once: it may be another tab after all
      this.lost("waiting");
    } else if (code === SUPERSEDED) {
      this.drop();
      this.#to("taken");
    } else {
      this.lost(...(ENDINGS[code] ?? [this.#cause()]));
    }
  }

  // Attempts may fail until a restart is over.
  #cause() {
    return navigator.onLine ? (this.state === "restarting" ? "restarting" : "waiting") : "offline";
  }

  /** Leaves the connection and tries again later; `state` says why. */
  lost(state, leastPause = 0) {
    if (this.state === "taken") return;
    this.drop();
    const growing = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#failures);
    const pause = leastPause + growing * (0.5 + Math.random()); // by chance, so that not all come back at once
    this.#failures += 1;
    this.retryAt = Date.now() + pause;
    this.#timer = setTimeout(() => this.connect(), pause);
    this.#to(state);
  }

  drop() {
    clearTimeout(this.#timer);
    this.retryAt = 0;
    this.#attempt = null;
    const socket = this.#socket;
    this.#socket = null; // its late events are nobody's from here on
    if (socket?.readyState < WebSocket.CLOSING && !this.#hasBegun) this.#abandonedAt = Date.now();
    this.#hasBegun = false;
    socket?.close();
  }

  #to(state) {
    this.state = state;
    this.#on.state();
  }
}

async function isHealthy() {
  try {
    await call("GET", "/api/health", null, { timeout: HEALTH_MS });
    return true;
  } catch {
    return false;
  }
}
