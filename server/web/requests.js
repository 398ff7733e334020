// The requests of this page: one row each, and the queue of those that are unfinished.
//
//     sending -> waiting -> running (results stream in) -> done | failed | cancelled
//
// The server does not say when a request starts; but it runs one at a time, in order: the first one
// that it accepted and that has not ended is running. Rows are drawn once a frame, whatever comes.

/**
 * @typedef {import("./client.js").RequestHandle} RequestHandle
 * @typedef {"sending" | "waiting" | "running" | "done" | "failed" | "cancelled"} State
 */

/** So many results of a request are shown, and so many characters of each. */
const RESULTS_MAX = 1000;
const CHARACTERS_MAX = 2000;
/** So many requests stay in the list after they have ended. */
const ENDED_MAX = 200;
/** So many of the queue are shown. */
const QUEUE_MAX = 24;
/** How often times are drawn while something is unfinished. */
const TICK_MS = 100;

/** @param {string} name @returns {HTMLElement} */
function copyOf(name) {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById(name));
  const copy = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
  return /** @type {HTMLElement} */ (copy.firstElementChild);
}

/**
 * Change what is shown only if it changes: it may be selected, or being read out.
 *
 * @param {Element} element @param {string} text
 */
export function show(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {number} ms */
function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
}

/** @param {number} count @param {string} noun */
export const counted = (count, noun) =>
  `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** @param {unknown} value */
function clipped(value) {
  const text = JSON.stringify(value);
  if (text.length <= CHARACTERS_MAX) return text;
  return `${text.slice(0, CHARACTERS_MAX)} … (${counted(text.length, "character")})`;
}

/** One request and its row. */
class Row {
  /** @type {State} */
  state = "sending";
  element = copyOf("request-template");
  /** How many results came in this attempt. */
  count = 0;
  /** Why there is something to read beside results. */
  note = "";

  #handle;
  #sentAt = performance.now();
  #startedAt = NaN;
  #endedAt = NaN;
  #attempt = 0;
  /** Results that are not drawn yet. @type {{index: number, data: unknown}[]} */
  #fresh = [];
  #anew = false;
  #parts;

  /** @param {RequestHandle} handle */
  constructor(handle) {
    this.#handle = handle;
    const part = (/** @type {string} */ name) =>
      /** @type {HTMLElement} */ (this.element.querySelector(name));
    this.#parts = {
      number: part(".number"),
      state: part(".state"),
      attempt: part(".attempt"),
      times: part(".times"),
      cancel: /** @type {HTMLButtonElement} */ (part(".cancel")),
      note: part(".note"),
      results: part(".results"),
    };
    const { method = "a request of another program", params } = handle;
    show(part(".name"), method);
    show(part(".arguments"), params ? clipped(params) : "");
    this.#parts.results.setAttribute("aria-label", `Results of ${method}`);
    this.#parts.cancel.setAttribute("aria-label", `Cancel ${method}`);
    this.#parts.cancel.addEventListener("click", () => {
      handle.cancel();
      this.#parts.cancel.disabled = true;
      show(this.#parts.cancel, "Cancelling");
    });
  }

  get n() {
    return this.#handle.n;
  }

  get method() {
    return this.#handle.method ?? "?";
  }

  get ended() {
    return !Number.isNaN(this.#endedAt);
  }

  get outcome() {
    return this.note ? `${this.state}, ${this.note}` : this.state;
  }

  start() {
    if (this.state === "running" || this.ended) return;
    this.state = "running";
    this.#startedAt = performance.now();
  }

  /** Follow the request to its end. @param {() => void} changed */
  async follow(changed) {
    const handle = this.#handle;
    const accepted = async () => {
      await handle.accepted();
      if (this.state === "sending") this.state = "waiting";
      changed();
    };
    accepted().catch(() => {}); // its end says why
    try {
      for await (const event of handle.events()) {
        if (event.type === "restarted") this.#restart();
        else this.#take(event);
        changed();
      }
      this.state = "done";
    } catch (error) {
      this.#fail(/** @type {any} */ (error));
    }
    this.#endedAt = performance.now();
    changed();
  }

  #restart() {
    const lost = this.#attempt || 1;
    this.note = `attempt ${lost} was interrupted after ${counted(this.count, "result")}`;
    this.count = 0;
    this.#fresh = [];
    this.#anew = true;
  }

  /** @param {{attempt: number, index: number, data: unknown}} event */
  #take({ attempt, index, data }) {
    this.start();
    this.#attempt = attempt;
    this.count++;
    this.#fresh.push({ index, data });
    // A page that is not shown draws nothing.
    if (this.#fresh.length > 2 * RESULTS_MAX) this.#fresh.splice(0, RESULTS_MAX);
  }

  /** @param {{code?: string | number, message: string, details?: unknown}} error */
  #fail({ code, message, details }) {
    if (code === "cancelled") {
      this.state = "cancelled";
      return;
    }
    this.state = "failed";
    this.note = details ? `${message} ${clipped(details)}` : message;
  }

  draw() {
    const { number, state, attempt, cancel, note } = this.#parts;
    this.element.dataset.state = this.state;
    show(number, this.n === null ? "" : `#${this.n}`);
    show(state, this.state);
    const attempts = Math.max(this.#attempt, this.#handle.attempt);
    attempt.hidden = attempts < 2;
    show(attempt, `attempt ${attempts}`);
    note.hidden = !this.note;
    show(note, this.note);
    if (this.ended) cancel.hidden = true;
    this.#drawResults();
    this.tick();
  }

  #drawResults() {
    const { results } = this.#parts;
    if (this.#anew) results.replaceChildren();
    this.#anew = false;
    const fresh = this.#fresh.splice(0).slice(-RESULTS_MAX);
    if (!fresh.length) return;
    const atEnd = results.scrollTop + results.clientHeight >= results.scrollHeight - 8;
    const items = fresh.map(({ index, data }) => {
      const item = document.createElement("li");
      item.value = index + 1;
      item.textContent = clipped(data);
      return item;
    });
    results.hidden = false;
    results.append(...items);
    while (results.children.length > RESULTS_MAX) results.firstElementChild?.remove();
    if (atEnd) results.scrollTop = results.scrollHeight;
  }

  /** Draw how long it has been what it is. */
  tick() {
    const now = this.ended ? this.#endedAt : performance.now();
    const started = Number.isNaN(this.#startedAt) ? now : this.#startedAt;
    const verb = this.ended && !this.#startedAt ? "ended after" : "waited";
    const parts = [`${verb} ${duration(started - this.#sentAt)}`];
    if (this.#startedAt) parts.push(`${this.ended ? "ran" : "runs"} ${duration(now - started)}`);
    if (this.count) parts.push(counted(this.count, "result"));
    // A line is broken between them only.
    show(this.#parts.times, parts.map((part) => part.replaceAll(" ", "\u00a0")).join(" · "));
  }
}

/** The list of rows and the queue above it. */
export class Requests {
  /** The newest last. @type {Row[]} */
  #rows = [];
  /** @type {Set<Row>} */
  #changed = new Set();
  #frame = 0;
  #timer = 0;
  #parts;
  #announce;

  /**
   * @param {Record<"list" | "queue" | "length" | "empty" | "clear", HTMLElement>} parts
   * @param {(text: string) => void} announce
   */
  constructor(parts, announce) {
    this.#parts = parts;
    this.#announce = announce;
    parts.clear.addEventListener("click", () => this.#drop(0));
  }

  /** Show a request and follow it to its end; return its row. @param {RequestHandle} handle */
  add(handle) {
    const row = new Row(handle);
    this.#rows.push(row);
    this.#parts.list.prepend(row.element);
    const changed = () => this.#note(row);
    row.follow(changed).then(() => this.#announce(`${row.method} ${row.n ?? ""}: ${row.outcome}`));
    changed();
    this.#timer ||= setInterval(() => this.#tick(), TICK_MS);
    return row.element;
  }

  clear() {
    this.#rows = [];
    this.#parts.list.replaceChildren();
    this.#plan();
  }

  /** @param {Row} row */
  #note(row) {
    this.#changed.add(row);
    this.#plan();
  }

  #plan() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const unfinished = this.#rows.filter((row) => !row.ended);
    const running = unfinished.find((row) => row.state !== "sending");
    if (running?.state === "waiting") {
      running.start();
      this.#changed.add(running);
    }
    for (const row of this.#changed) row.draw();
    this.#changed.clear();
    this.#drop(ENDED_MAX);
    this.#drawQueue(unfinished);
  }

  /** @param {Row[]} unfinished */
  #drawQueue(unfinished) {
    const { queue, length, empty, clear } = this.#parts;
    const places = unfinished.slice(0, QUEUE_MAX).map((row) => {
      const place = document.createElement("li");
      place.dataset.state = row.state;
      place.textContent = row.n === null ? row.method : `#${row.n} ${row.method}`;
      return place;
    });
    if (unfinished.length > QUEUE_MAX) {
      const rest = document.createElement("li");
      rest.textContent = `and ${unfinished.length - QUEUE_MAX} more`;
      places.push(rest);
    }
    queue.replaceChildren(...places);
    show(length, unfinished.length ? `${unfinished.length} unfinished` : "");
    empty.hidden = this.#rows.length > 0;
    clear.hidden = unfinished.length === this.#rows.length;
  }

  /** Keep `count` of those that have ended. @param {number} count */
  #drop(count) {
    const ended = this.#rows.filter((row) => row.ended);
    const dropped = new Set(ended.slice(0, Math.max(0, ended.length - count)));
    if (!dropped.size) return;
    for (const row of dropped) row.element.remove();
    this.#rows = this.#rows.filter((row) => !dropped.has(row));
    this.#plan();
  }

  #tick() {
    const unfinished = this.#rows.filter((row) => !row.ended);
    for (const row of unfinished) row.tick();
    if (unfinished.length) return;
    clearInterval(this.#timer);
    this.#timer = 0;
  }
}
