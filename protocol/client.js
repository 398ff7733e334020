// The browser client: a session that outlives its connections, and with `persist` its page.
//
//     while not closed: token -> WebSocket -> hello -> welcome -> read and write until it is gone
//
// Errors, Call (one request, no I/O), RequestHandle (what users hold of it), Rules (one session:
// window, order, acknowledgement, resume; no I/O), Store (what outlives the page), Patience (when
// to try again), Session (the loop above). The API is described in client.d.ts, the wire in SPEC.md.

/**
 * @typedef {import("./client.js").ConnectOptions} ConnectOptions
 * @typedef {import("./client.js").Session} PublicSession
 * @typedef {import("./client.js").Loss & {fatal?: boolean, cause?: unknown}} Loss
 * @typedef {{index: number, data: any, bytes: number}} Item
 * @typedef {{seq: number, bytes: number}} Mark How far events, and their bytes, have been counted.
 */

const SUBPROTOCOL = "queuesystem.v1";
const VERSION = "0.1.0";

/** Unfinished requests, and characters of those that are not accepted; then TooManyRequests. */
const REQUESTS_MAX = 10_000;
const REQUEST_BYTES_MAX = 64 * 2 ** 20;
/** Frames are joined up to this size, or the server's limit when that is less. */
const MESSAGE_BYTES_MAX = 256 * 1024;
/** What a result is counted for beside its text, so that tiny ones add up. */
const ITEM_BYTES = 128;
/** So many events are acknowledged at once, or so many bytes, or whatever came so long ago. */
const ACK_EVENTS = 128;
const ACK_BYTES = 256 * 1024;
const ACK_SECONDS = 0.05;
/** With `persist`, so much stays unacknowledged that a page gets it again after a reload. */
const KEEP_BYTES = 2 ** 20;
/** Waits after a refusal: a random time up to the first, doubled each time up to the second. */
const RETRY_SECONDS = [0.05, 5];
/** The same between connections. A connection that stood for less than a second is a failure. */
const RECONNECT_SECONDS = [0.1, 10];
const STEADY_SECONDS = 1;
/** How long the server may take to open a connection and to answer `hello`. */
const WELCOME_SECONDS = 20;
/** After so much silence the server is asked whether it is there, and so long may it take. */
const SILENT_SECONDS = 30;
const ANSWER_SECONDS = 10;
/** How long `close` waits for the server to take its leave. */
const CLOSE_SECONDS = 5;
/** The wait before a refresh when, by this clock, the token has expired although it is taken. */
const REFRESH_AGAIN_SECONDS = 30;
/** Timers of browsers cannot wait for more than 24 days; refreshing too soon does no harm. */
const REFRESH_SECONDS_MAX = 86_400;
const TOKEN_EXPIRED = 4401;
const TAKEN_OVER = 4509;

/** Where a request is: not with the server, perhaps there, certainly there, or ended. */
const WAITING = 0;
const SENT = 1;
const ACCEPTED = 2;
const ENDED = 3;

export class ClientError extends Error {}

export class ConnectionFailed extends ClientError {
  name = "ConnectionFailed";

  /** @param {string} message @param {number} [code] @param {unknown} [cause] */
  constructor(message, code, cause) {
    super(message, { cause });
    this.code = code;
  }
}

export class RequestFailed extends ClientError {
  name = "RequestFailed";

  /** @param {string} id @param {string} code @param {string} message @param {any} [frame] */
  constructor(id, code, message, frame) {
    super(`${code}: ${message}`);
    this.id = id;
    this.code = code;
    this.details = frame?.details;
    this.retryable = !!frame?.retryable;
  }
}

export class TooManyRequests extends ClientError {
  name = "TooManyRequests";
}

/** @param {string} id @param {string} what */
const lost = (id, what) =>
  new RequestFailed(id, "results_lost", `${what} expired, or were acknowledged before`);

/** @param {Call} call */
const cancelled = ({ id }) =>
  new RequestFailed(id, "cancelled", "before the server accepted it");

/** @param {Call} call */
const sessionLost = ({ id }) =>
  new RequestFailed(id, "session_lost", "it may have run or not");

/** The frame in `line`; undefined for what is none. @param {string} line */
function parse(line) {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** @param {number} tries @param {number[]} seconds Exponential, with full jitter. */
const backoff = (tries, [base, cap]) => Math.random() * Math.min(cap, base * 2 ** tries);

/** Seconds of a clock that only goes forward. */
const now = () => performance.now() / 1000;

const encoder = new TextEncoder();

/** @param {string} text @param {number} hash FNV-1a. */
function checksum(text, hash) {
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619);
  return hash;
}

/**
 * One request: which of its results have come, and how it ended.
 *
 * An event counts once per (attempt, index); a higher attempt drops the partial results of the
 * older one. `doubtful`: the server may have it although it has not said so. `suspect`: numbered
 * events were skipped while it was unfinished. `expected`: the index of the result that comes next.
 */
class Call {
  phase = WAITING;
  doubtful = false;
  cancelling = false;
  suspect = false;
  live = false;
  dropped = false;
  /** @type {number | null} */
  n = null;
  attempt = 0;
  expected = 0;
  /** @type {any} */
  last = null;
  /** @type {ClientError | null} */
  error = null;
  /** What nobody took yet is from `head` on. @type {(Item | undefined)[]} */
  items = [];
  head = 0;
  /** @type {(() => void)[]} */
  wakeups = [];
  /** Called at the end. @type {(() => void) | undefined} */
  onend;

  /**
   * `frame` is emptied once it need not be sent again.
   *
   * @param {Rules} rules @param {string} id @param {number} number @param {string} [frame]
   * @param {string} [method] @param {Record<string, unknown>} [params]
   */
  constructor(rules, id, number, frame = "", method, params) {
    this.rules = rules;
    this.id = id;
    this.number = number;
    this.frame = frame;
    this.bytes = encoder.encode(frame).length;
    this.method = method;
    this.params = params;
  }

  get ended() {
    return this.phase === ENDED;
  }

  // What the server says

  /** @param {any} frame @param {number} bytes */
  result(frame, bytes) {
    if (frame.attempt < this.attempt) return;
    this.#restart(frame.attempt);
    if (frame.index < this.expected) return;
    if (!frame.seq) this.live = true;
    this.expected = frame.index + 1;
    this.last = frame.data;
    if (this.dropped) return;
    this.items.push({ index: frame.index, data: frame.data, bytes });
    this.rules.hold(bytes);
    this.#wake();
  }

  /** @param {any} frame */
  done(frame) {
    this.#restart(frame.attempt);
    const missing = frame.results - this.expected;
    // Results of live methods are not numbered: if there was none, nothing tells that they were
    // live but that no number is missing.
    const gap = missing && !this.live && (this.expected || this.suspect);
    this.end(gap ? lost(this.id, `${missing} of its ${frame.results} results`) : null);
  }

  /** @param {any} frame */
  failed(frame) {
    this.#restart(frame.attempt ?? 0);
    this.end(new RequestFailed(this.id, frame.code, frame.message, frame));
  }

  /** @param {ClientError | null} [error] */
  end(error = null) {
    this.rules.remove(this);
    this.phase = ENDED;
    this.error = error;
    if (!this.items.length) this.rules.release(this);
    this.onend?.();
    this.#wake();
  }

  /** @param {number} attempt */
  #restart(attempt) {
    if (attempt <= this.attempt) return;
    this.#clear();
    this.attempt = attempt;
    this.expected = 0;
    this.last = null;
  }

  #wake() {
    const wakeups = this.wakeups;
    if (!wakeups.length) return;
    this.wakeups = [];
    for (const wake of wakeups) wake();
  }

  // What its consumer does

  /** Wait until a result has come, or the end, or `accepted`. @returns {Promise<void>} */
  change() {
    return new Promise((resolve) => this.wakeups.push(resolve));
  }

  /** The server has it. @param {number} n */
  accept(n) {
    this.phase = ACCEPTED;
    this.n = n;
    this.#wake();
  }

  /** The next result that has come. */
  take() {
    const item = this.items[this.head];
    if (item) {
      this.items[this.head++] = undefined;
      if (this.head === this.items.length || this.head === 4096) {
        this.items = this.items.slice(this.head);
        this.head = 0;
      }
      this.rules.hold(-item.bytes);
      if (this.ended && !this.items.length) this.rules.release(this);
    }
    return item;
  }

  /** Keep no results any more but the last one. */
  drop() {
    if (this.dropped) return;
    this.dropped = true;
    this.#clear();
    if (this.ended) this.rules.release(this);
  }

  #clear() {
    for (const item of this.items) if (item) this.rules.hold(-item.bytes);
    this.items = [];
    this.head = 0;
  }
}

/** Nobody can take the results of a handle that is gone. @type {FinalizationRegistry<Call>} */
const thrownAway = new FinalizationRegistry((call) => call.drop());

/**
 * @template T
 * @typedef {import("./client.js").RequestHandle<T>} PublicHandle
 */

/** @template T @implements {PublicHandle<T>} */
export class RequestHandle {
  #call;
  // What was given out: so many results, with this checksum.
  #position = 0;
  #checksum = 0;
  // What was taken of the newest attempt, given out or not: the same two numbers.
  #attempt = 0;
  #next = 0;
  #running = 0;

  /** @param {Call} call */
  constructor(call) {
    this.#call = call;
    thrownAway.register(this, call);
  }

  get id() {
    return this.#call.id;
  }

  get method() {
    return this.#call.method;
  }

  get params() {
    return this.#call.params;
  }

  get n() {
    return this.#call.n;
  }

  get attempt() {
    return this.#call.attempt;
  }

  get ended() {
    return this.#call.ended;
  }

  cancel() {
    this.#call.rules.cancel(this.#call);
  }

  async accepted() {
    const call = this.#call;
    while (call.n === null && !call.ended) await call.change();
    if (call.n === null) throw call.error;
    return call.n;
  }

  /**
   * @template [A=T] @template [B=never]
   * @param {((value: T) => A | PromiseLike<A>) | null} [fulfilled]
   * @param {((reason: unknown) => B | PromiseLike<B>) | null} [rejected]
   * @returns {Promise<A | B>}
   */
  then(fulfilled, rejected) {
    return this.#last().then(fulfilled, rejected);
  }

  /** @returns {Promise<T>} */
  async #last() {
    const call = this.#call;
    call.drop();
    while (!call.ended) await call.change();
    if (call.error) throw call.error;
    return call.last;
  }

  /** @returns {Promise<T[]>} */
  async results() {
    if (this.#position) throw new Error("some results were already taken one by one");
    /** @type {T[]} */
    let found = [];
    for await (const event of this.events()) {
      if (event.type === "restarted") found = [];
      else if (event.index !== found.length && !this.#call.live) {
        throw this.#gap(found.length, event.index);
      } else found.push(event.data);
    }
    return found;
  }

  /** @returns {AsyncIterator<T, void, undefined>} */
  [Symbol.asyncIterator]() {
    return { next: () => this.#step() };
  }

  /** @returns {Promise<IteratorResult<T, void>>} */
  async #step() {
    const call = this.#call;
    for (;;) {
      let item;
      while ((item = call.take())) {
        if (this.#isNext(item)) return { done: false, value: item.data };
      }
      if (call.ended) {
        this.#checkEnd();
        return { done: true, value: undefined };
      }
      await call.change();
    }
  }

  /** Whether to give out this result, or whether it was given out before. @param {Item} item */
  #isNext(item) {
    this.#note(item, false);
    if (this.#next > this.#position || this.#call.live) {
      this.#position = this.#next;
      this.#checksum = this.#running;
      return true;
    }
    if (this.#next === this.#position && this.#running !== this.#checksum) {
      throw this.#changed("gave other results");
    }
    return false;
  }

  /** Count a result of the newest attempt. @param {Item} item @param {boolean} gaps */
  #note({ index, data }, gaps) {
    const call = this.#call;
    if (call.attempt !== this.#attempt) {
      this.#attempt = call.attempt;
      this.#next = this.#running = 0;
    }
    if (index !== this.#next && !gaps && !call.live) throw this.#gap(this.#next, index);
    this.#next = index + 1;
    this.#running = checksum(JSON.stringify(data), this.#running);
  }

  #checkEnd() {
    const { error, expected, live } = this.#call;
    if (error) throw error;
    if (live) return;
    if (expected > this.#position) {
      throw new Error("`await` dropped results: use results()");
    }
    if (expected < this.#position) throw this.#changed("ended with fewer results");
  }

  /** @returns {AsyncGenerator<import("./client.js").RequestEvent<T>, void, undefined>} */
  async *events() {
    const call = this.#call;
    for (;;) {
      let item;
      if (this.#position && call.attempt !== this.#attempt) {
        this.#position = 0;
        yield { type: "restarted", attempt: call.attempt };
      } else if ((item = call.take())) {
        this.#note(item, true);
        this.#position = this.#next;
        this.#checksum = this.#running;
        yield { type: "result", attempt: call.attempt, index: item.index, data: item.data };
      } else if (!call.ended) await call.change();
      else if (call.error) throw call.error;
      else return;
    }
  }

  /** @param {number} first @param {number} upto */
  #gap(first, upto) {
    return lost(this.id, `its results ${first} to ${upto - 1}`);
  }

  /** @param {string} what */
  #changed(what) {
    return new RequestFailed(
      this.id,
      "results_changed",
      `attempt ${this.attempt} ${what} than given out before: use events()`,
    );
  }
}

/**
 * The rules of a session on its client's side. No I/O.
 *
 *     submit -> pending -> take() -> sent -> accepted -> result ... -> done or error
 *     lost() ... welcome(): what the manifest does not know is sent again, the rest goes on
 *
 * A request the server refused for now goes back to the head of the line; then nothing is sent
 * until every request that is on its way has been answered, and next only that one alone. So only
 * requests that were already on their way can overtake a refused one.
 */
class Rules {
  /** @type {string | undefined} */
  session;
  /** What the server allows. @type {any} */
  limits = {};
  online = false;
  expiresAt = 0;
  /** What `goaway` asked for. @type {number | undefined} */
  wishSeconds;
  /** The session goes on from an earlier connection. */
  resumed = false;
  /** There is a connection, and it said welcome; `online` until `bye` is sent. */
  greeted = false;
  /** The unfinished requests, in the order of submission. @type {Map<string, Call>} */
  calls = new Map();
  /** The requests of another program or page, once they are known. @type {Call[]} */
  adopted = [];

  /** Whether there is such a session to take over. */
  #adopting = false;
  #strict = false;
  /** @type {string | undefined} */
  #epoch;
  // Not ids that another page gave in the same session.
  #prefix = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);
  #number = 0;
  #frameBytes = 0;
  // Outgoing; `unanswered` counts what is SENT.
  /** @type {Call[]} */
  #pending = [];
  /** @type {string[]} */
  #control = [];
  /** @type {string | undefined} */
  #bye;
  #inFlight = 0;
  #unanswered = 0;
  // After a refusal.
  #held = false;
  #refusals = 0;
  #retryAt = Infinity;
  /** @type {Call | undefined} */
  #probe;
  // Events: how far they were counted, and acknowledged.
  /** @type {Mark} */
  #seen = { seq: 0, bytes: 0 };
  /** @type {Mark} */
  #acked = { seq: 0, bytes: 0 };
  #ackNow = false;
  #ackAt = Infinity;
  // Results that nobody took: while they fill the buffer nothing is acknowledged.
  #bufferBytes;
  #untakenBytes = 0;
  #full = false;
  // With a store: where the events of each request begin whose results are not all there and taken,
  // and whether they are to be acknowledged nevertheless.
  /** @type {Map<string, Mark>} */
  #kept = new Map();
  #pressed = false;
  /** Requests that ended, but whose results were not taken. @type {Map<string, Call>} */
  #untaken = new Map();

  #store;
  #wake;
  #client;

  /**
   * `wake` is called when there may be something to send, or a new `deadline`.
   *
   * @param {number} bufferBytes @param {object} client
   * @param {Store | undefined} store @param {() => void} wake
   */
  constructor(bufferBytes, client, store, wake) {
    this.#bufferBytes = bufferBytes;
    this.#client = client;
    this.#store = store;
    this.#wake = wake;
  }

  /**
   * Take over the session of an earlier page, or of another program: `strict`, it must be there.
   *
   * @param {string} session @param {boolean} strict
   */
  adopt(session, strict) {
    this.session = session;
    this.#adopting = true;
    this.#strict = strict;
    const kept = (this.#store?.ids() ?? []).map((id) => JSON.parse(this.#store?.get(id) ?? ""));
    for (const [number, n, frame] of kept.sort((a, b) => a[0] - b[0])) {
      const { id, method, params } = JSON.parse(frame);
      const call = new Call(this, id, number, frame, method, params);
      if (n) {
        call.accept(n);
        call.frame = "";
      } else {
        call.doubtful = true;
        this.#frameBytes += frame.length;
      }
      this.calls.set(id, call);
      this.#number = Math.max(this.#number, number);
    }
  }

  // Requests

  /**
   * @param {string} method @param {Record<string, unknown> | undefined} params
   * @param {import("./client.js").RequestOptions} options
   */
  submit(method, params, { id, timeout, onDisconnect }) {
    const number = this.#number + 1;
    if (id === undefined) id = `${this.#prefix}-${number}`;
    else if (!id || id.length > 128) throw new RangeError("an id has 1 to 128 characters");
    else if (this.calls.has(id)) throw new RangeError(`the request ${id} is not finished`);
    // Should it be the id of a request that ended, the server shall know that its end was seen: it
    // then says so, instead of leaving it at events that were sent long ago.
    else this.#ackNow = true;
    const frame = JSON.stringify({
      type: "request",
      id,
      method,
      params,
      timeout,
      on_disconnect: onDisconnect,
    });
    if (this.calls.size >= REQUESTS_MAX || this.#frameBytes >= REQUEST_BYTES_MAX) {
      throw new TooManyRequests("await ready() before each request");
    }
    const call = new Call(this, id, number, frame, method, params);
    this.#number = number;
    this.#frameBytes += frame.length;
    this.calls.set(id, call);
    this.#pending.push(call);
    this.#keep(call);
    this.#wake();
    return call;
  }

  /** @param {Call} call */
  cancel(call) {
    if (call.ended || call.cancelling) return;
    call.cancelling = true;
    if (call.phase !== WAITING) {
      if (this.online) this.#sendCancel(call);
    } else if (!call.doubtful) call.end(cancelled(call));
    this.#wake();
  }

  /** @param {Call} call */
  #sendCancel(call) {
    this.#control.push(JSON.stringify({ type: "cancel", id: call.id }));
  }

  get room() {
    return this.limits.window - this.calls.size;
  }

  /** Count `bytes` more (or less) of results that nobody took. @param {number} bytes */
  hold(bytes) {
    this.#untakenBytes += bytes;
    if (this.#untakenBytes >= this.#bufferBytes) this.#full = true;
    else if (this.#full && this.#untakenBytes <= this.#bufferBytes / 2) {
      this.#full = false;
      this.#planAck();
      this.#wake();
    }
  }

  /** Let a later page have it, as long as its text is here. @param {Call} call */
  #keep({ id, number, n, frame }) {
    if (frame) this.#store?.set(JSON.stringify([number, n, frame]), id);
  }

  /** Note that a request has ended and that its results were taken. @param {Call} call */
  release(call) {
    this.#store?.remove(call.id);
    this.#untaken.delete(call.id);
    if (this.#kept.delete(call.id)) {
      this.#planAck();
      this.#wake();
    }
  }

  // Outgoing

  /** @param {string} token */
  hello(token) {
    return JSON.stringify({
      type: "hello",
      token,
      session: this.session,
      epoch: this.#epoch,
      seq: this.#epoch && this.#seen.seq,
      client: this.#client,
    });
  }

  /** @param {string} token */
  refresh(token) {
    if (!this.online) return;
    this.#control.push(JSON.stringify({ type: "refresh", token }));
    this.#wake();
  }

  /** End the session, after the requests that may be sent now. @param {boolean} cancel */
  bye(cancel) {
    this.#bye = JSON.stringify({ type: "bye", cancel: cancel || undefined });
  }

  /** Acknowledge everything that has come with the next message. */
  acknowledge() {
    this.#full = false;
    this.#pressed = this.#ackNow = true;
  }

  /** The next message, empty when there is nothing to send now. */
  take() {
    if (!this.online) return "";
    /** @type {string[]} */
    const frames = [];
    let room = Math.min(this.limits.max_message_bytes, MESSAGE_BYTES_MAX);
    const fits = (/** @type {number} */ bytes) => !frames.length || bytes < room;
    const add = (/** @type {string} */ frame, bytes = frame.length) => {
      frames.push(frame);
      room -= bytes + 1;
    };
    const seq = this.#takeAck();
    if (seq) add(`{"type":"ack","seq":${seq}}`);
    while (this.#control.length && fits(this.#control[0].length)) {
      add(/** @type {string} */ (this.#control.shift()));
    }
    for (let call; (call = this.#head()) && fits(call.bytes); ) {
      this.#send(call);
      add(call.frame, call.bytes);
    }
    if (this.#bye && !this.#control.length && !this.#head() && fits(this.#bye.length)) {
      add(this.#bye);
      this.#bye = undefined;
      this.online = false;
    }
    return frames.join("\n");
  }

  /** The number to acknowledge now, 0 for none. */
  #takeAck() {
    if (!this.#ackNow) return 0;
    this.#ackNow = false;
    this.#ackAt = Infinity;
    const mark = this.#ackable();
    if (mark.seq <= this.#acked.seq) return 0;
    this.#acked = { ...mark };
    if (mark.seq === this.#seen.seq) {
      this.#pressed = false;
      this.#kept.clear();
    }
    return mark.seq;
  }

  /** How far events may be acknowledged. */
  #ackable() {
    if (this.#full) return this.#acked;
    if (!this.#pressed) for (const mark of this.#kept.values()) return mark;
    return this.#seen;
  }

  /** The request at the head of the line if it may be sent now. */
  #head() {
    const pending = this.#pending;
    while (pending.length) {
      const call = pending[0];
      const bytesMax = this.limits.max_message_bytes;
      if (call.phase !== WAITING) pending.shift();
      else if (call.bytes > bytesMax) {
        pending.shift();
        const text = `it has ${call.bytes} bytes, the server takes ${bytesMax}`;
        call.end(new RequestFailed(call.id, "message_too_big", text));
      } else if (this.#held) {
        return this.#retryAt === Infinity && !this.#unanswered ? call : undefined;
      } else return this.#inFlight < this.limits.window ? call : undefined;
    }
    return undefined;
  }

  /** @param {Call} call */
  #send(call) {
    this.#pending.shift();
    call.phase = SENT;
    call.doubtful = true;
    this.#inFlight++;
    this.#unanswered++;
    if (this.#held) this.#probe = call;
    // It was sent before, and its commit may have been on the way: only the server can tell
    // whether it runs.
    if (call.cancelling) this.#sendCancel(call);
  }

  // Time

  /** When `tick` is to be called; Infinity for never. */
  get deadline() {
    return Math.min(this.#ackAt, this.#retryAt);
  }

  /** Do what is due. */
  tick() {
    const time = now();
    if (this.#ackAt <= time) {
      this.#ackAt = Infinity;
      this.#ackNow = true;
    }
    if (this.#retryAt <= time) this.#retryAt = Infinity;
    this.#wake();
  }

  // Connections

  /** Note that the connection is gone. */
  lost() {
    this.online = this.greeted = false;
    this.#ackAt = this.#retryAt = Infinity;
    this.#acked.seq = 0; // the last acknowledgement may not have arrived
  }

  /** Go on (or begin) on a new connection. @param {any} frame */
  #welcome(frame) {
    if (this.#adopting) this.#adopt(frame);
    if (!frame.resumed) this.#beginAnew();
    if (frame.epoch !== this.#epoch || !frame.resumed) {
      this.#seen.seq = 0;
      this.#acked = { ...this.#seen };
      this.#kept.clear();
    }
    this.session = frame.session;
    this.resumed = frame.resumed;
    this.#epoch = frame.epoch;
    this.limits = frame.limits;
    this.expiresAt = frame.expires_at;
    this.wishSeconds = undefined;
    this.online = this.greeted = true;
    this.#store?.set(frame.session);
    this.#continue(frame.requests);
  }

  /** Begin a session; of an older one that the server does not know, save what can be. */
  #beginAnew() {
    for (const call of [...this.calls.values()]) {
      call.doubtful = false;
      if (call.phase === ACCEPTED) call.end(sessionLost(call));
      else if (call.cancelling) call.end(cancelled(call));
    }
  }

  /** Find the requests of another program or page. @param {any} frame */
  #adopt({ resumed, requests }) {
    this.#adopting = false;
    if (!resumed && this.#strict) {
      throw new ConnectionFailed("the session is not there: it ended or expired");
    }
    const known = this.calls;
    this.calls = new Map();
    for (const { id } of requests) {
      this.calls.set(id, known.get(id) ?? new Call(this, id, ++this.#number));
    }
    for (const [id, call] of known) this.calls.set(id, call); // keeps the place of one it has
    this.adopted = [...this.calls.values()];
    for (const call of this.adopted) {
      call.suspect = true; // what was acknowledged does not come again
      // What was not sent goes with it: it may have been another user's.
      if (!resumed) call.end(sessionLost(call));
    }
  }

  /** Put what was never accepted into the line again, in order. @param {any[]} requests */
  #continue(requests) {
    const manifest = new Map(requests.map((status) => [status.id, status]));
    this.#held = false;
    this.#refusals = 0;
    this.#retryAt = Infinity;
    this.#probe = undefined;
    this.#control = [];
    this.#pending = [];
    this.#unanswered = this.#inFlight = 0;
    for (const call of [...this.calls.values()]) {
      const status = manifest.get(call.id);
      if (status) {
        this.#inFlight++;
        this.#accept(call, status.n);
        if (call.cancelling && status.state !== "ended") this.#sendCancel(call);
      } else if (call.phase === ACCEPTED) {
        // Sent again it could run again: the server remembers ids for a while only.
        this.#inFlight++;
        call.end(lost(call.id, "its end and its results"));
      } else {
        call.phase = WAITING;
        this.#pending.push(call);
      }
    }
    this.#planAck();
  }

  /** End every request: there will be no further connection. @param {ConnectionFailed} error */
  fail(error) {
    this.online = false;
    this.#store = undefined; // a later page may go on with them
    for (const call of [...this.calls.values()]) call.end(error);
  }

  // What the server says

  /** Take a message; what this client does not know is ignored. @param {string} message */
  receive(message) {
    for (const line of message.split("\n")) {
      const frame = parse(line);
      const type = frame?.type;
      if (!this.greeted) {
        if (type === "welcome") this.#welcome(frame);
      } else if (type === "result") this.#result(frame, line.length + ITEM_BYTES);
      else if (type === "accepted") this.#accepted(frame);
      else if (type === "done") this.#done(frame);
      else if (type === "error") this.#error(frame);
      else if (type === "refreshed") this.expiresAt = frame.expires_at;
      else if (type === "goaway") this.wishSeconds = frame.reconnect_after;
    }
    this.#planAck();
    this.#wake();
  }

  /** Count the event `seq`; tell whether it was not seen yet. @param {any} frame */
  #isNew({ seq, id }) {
    const seen = this.#seen;
    if (seq <= seen.seq) return false;
    if (seq > seen.seq + 1) for (const call of this.calls.values()) call.suspect = true;
    if (this.#store && !this.#kept.has(id) && (this.calls.has(id) || this.#untaken.has(id))) {
      this.#kept.set(id, { seq: seq - 1, bytes: seen.bytes });
    }
    seen.seq = seq;
    return true;
  }

  /** @param {any} frame @param {number} bytes */
  #result(frame, bytes) {
    if (frame.seq) {
      if (!this.#isNew(frame)) return;
      this.#seen.bytes += bytes;
    }
    this.calls.get(frame.id)?.result(frame, bytes);
  }

  /** @param {any} frame */
  #done(frame) {
    if (this.#isNew(frame)) this.calls.get(frame.id)?.done(frame);
  }

  /** @param {any} frame */
  #error(frame) {
    if (frame.seq && !this.#isNew(frame)) return;
    const call = this.calls.get(frame.id);
    // Without a number: the request was refused, or else a cancel that came too late, or the like.
    if (!call || !(frame.seq || call.phase === SENT)) return;
    if (frame.seq || !frame.retryable) call.failed(frame);
    else if (call.cancelling) call.end(cancelled(call));
    else this.#refused(call, frame);
  }

  /** @param {any} frame */
  #accepted(frame) {
    const call = this.calls.get(frame.id);
    if (!call) return;
    if (frame.state === "acknowledged") {
      call.end(lost(call.id, "its end and its results"));
      return;
    }
    if (call.phase === SENT) this.#unanswered--;
    else if (call.phase === WAITING) this.#inFlight++; // its commit was on the way
    this.#accept(call, frame.n);
  }

  /** @param {Call} call @param {number} n */
  #accept(call, n) {
    call.accept(n);
    this.#keep(call);
    this.#forget(call);
  }

  /** Put `call` back into the line, to be sent again later. @param {Call} call @param {any} frame */
  #refused(call, frame) {
    call.phase = WAITING;
    call.doubtful = false;
    this.#unanswered--;
    this.#inFlight--;
    if (this.#probe === call) this.#probe = undefined;
    this.#pending.push(call);
    this.#pending.sort((a, b) => a.number - b.number);
    this.#held = true;
    const time = now();
    const planned = this.#retryAt < Infinity;
    this.#retryAt = Math.max(
      time + (frame.retry_after ?? 0),
      planned ? this.#retryAt : time + backoff(this.#refusals++, RETRY_SECONDS),
    );
    if (frame.code === "window_exceeded") this.#ackNow = this.#pressed = true;
  }

  /** Forget a request that ends now. @param {Call} call */
  remove(call) {
    this.calls.delete(call.id);
    this.#untaken.set(call.id, call);
    if (call.phase !== WAITING) this.#inFlight--;
    if (call.phase === SENT) this.#unanswered--;
    this.#forget(call);
  }

  /** Give up the text of `call`, which need not be sent again. @param {Call} call */
  #forget(call) {
    this.#frameBytes -= call.frame.length;
    call.frame = "";
    if (this.#probe === call) {
      // It was sent alone after a refusal, and not refused: send freely again.
      this.#probe = undefined;
      this.#held = false;
      this.#refusals = 0;
    }
  }

  #planAck() {
    if (this.#ackNow) return;
    if (this.#store && this.#seen.bytes - this.#acked.bytes >= this.#bytesMax(KEEP_BYTES)) {
      this.#pressed = true;
    }
    const { seq, bytes } = this.#ackable();
    const unacked = seq - this.#acked.seq;
    if (unacked <= 0) return;
    const many = bytes - this.#acked.bytes >= this.#bytesMax(ACK_BYTES);
    if (unacked >= ACK_EVENTS || many) this.#ackNow = true;
    else this.#ackAt = Math.min(this.#ackAt, now() + ACK_SECONDS);
  }

  /** @param {number} bytes */
  #bytesMax(bytes) {
    return Math.min(bytes, this.limits.max_result_bytes / 4);
  }
}


/**
 * What outlives the page, in `sessionStorage`: the session's id below `name`, and below `name/id`
 * each request whose results are not all there and taken, as [number, n, frame]. A storage that is
 * full or forbidden keeps less, and fails nothing.
 */
class Store {
  #name;
  /** @type {Storage | undefined} */
  #storage;

  /** @param {string} name */
  constructor(name) {
    this.#name = `queuesystem:${name}`;
    try {
      this.#storage = globalThis.sessionStorage;
    } catch {
      // forbidden
    }
  }

  /** @param {string} [id] Default: what is kept for the session itself. */
  #key(id) {
    return id === undefined ? this.#name : `${this.#name}/${id}`;
  }

  /** @param {string} [id] */
  get(id) {
    return this.#storage?.getItem(this.#key(id));
  }

  /** @param {string} value @param {string} [id] */
  set(value, id) {
    try {
      this.#storage?.setItem(this.#key(id), value);
    } catch {
      // full
    }
  }

  /** @param {string} [id] */
  remove(id) {
    this.#storage?.removeItem(this.#key(id));
  }

  /** The ids of all requests. */
  ids() {
    const start = this.#key("");
    const keys = Object.keys(this.#storage ?? {});
    return keys.filter((key) => key.startsWith(start)).map((key) => key.slice(start.length));
  }

  clear() {
    for (const id of [undefined, ...this.ids()]) this.remove(id);
  }
}

/** When to try again, and when to give up. */
class Patience {
  #limitSeconds;
  /** @type {number | undefined} */
  #since = now();
  /** @type {number | undefined} */
  #welcomedAt;
  #failures = 0;
  #refused = 0;
  #tokens;

  /** @param {number} firstSeconds @param {number} tokens So many may be refused in a row. */
  constructor(firstSeconds, tokens) {
    this.#limitSeconds = firstSeconds;
    this.#tokens = tokens;
  }

  /** Note that there is a connection. @param {number} laterSeconds */
  welcomed(laterSeconds) {
    this.#welcomedAt = now();
    this.#since = undefined;
    this.#limitSeconds = laterSeconds;
    this.#refused = 0;
  }

  /** The seconds until it gives up, if there is no connection until then. */
  get left() {
    return this.#since === undefined ? this.#limitSeconds : this.#since + this.#limitSeconds - now();
  }

  /**
   * The seconds to wait. Throws ConnectionFailed when it is over.
   *
   * @param {Loss} loss @param {number} [wishSeconds]
   */
  after(loss, wishSeconds) {
    if (loss.code === TOKEN_EXPIRED) this.#refused++;
    if (loss.fatal || this.#refused >= this.#tokens) {
      throw new ConnectionFailed(loss.reason, loss.code, loss.cause);
    }
    if (this.#welcomedAt !== undefined) {
      if (now() - this.#welcomedAt >= STEADY_SECONDS) this.#failures = 0;
      this.#welcomedAt = undefined;
    }
    this.#since ??= now();
    if (this.left <= 0) {
      const text = `gave up after ${this.#limitSeconds} s: ${loss.reason}`;
      throw new ConnectionFailed(text, loss.code, loss.cause);
    }
    const seconds = wishSeconds ?? backoff(this.#failures, RECONNECT_SECONDS);
    this.#failures++;
    return Math.min(seconds, this.left);
  }
}

/** Whether to come back after this close code (SPEC.md, section 6). @param {number} code */
const returns = (code) =>
  code < 4000 ? ![1000, 1002, 1003, 1007, 1009].includes(code) : code < 4500;

/** @type {typeof import("./client.js").connect} */
export async function connect(url, options) {
  const session = new Session(url, options);
  await session.opened;
  return /** @type {any} */ (session);
}

/** @implements {PublicSession} */
export class Session extends EventTarget {
  reconnects = 0;
  /** @type {Map<string, any>} */
  requests = new Map();
  /** For `connect`. @type {Promise<void>} */
  opened;

  #url;
  #options;
  #rules;
  #store;
  #patience;
  /** @type {import("./client.js").SessionState} */
  #state = "connecting";
  /** @type {ConnectionFailed | undefined} */
  #failure;
  #closing = false;
  /** The token in use. */
  #token = "";
  /** @type {WebSocket | undefined} */
  #socket;
  /** Ends the connection, or the attempt to make one. @type {((loss: Loss) => void) | undefined} */
  #lose;
  /** Ends the wait for the next attempt. @type {(() => void) | undefined} */
  #hurry;
  #opened = () => {};
  /** @type {(error: ConnectionFailed) => void} */
  #unopened = () => {};
  /** Those who wait in `ready`. @type {(() => void)[]} */
  #ready = [];
  #flushing = false;
  /** Aborted at the end. */
  #over = new AbortController();
  /** @type {Record<string, ReturnType<typeof setTimeout>>} */
  #timers = {};
  #expiresAt = 0;
  /** @type {Promise<void>} */
  #loop;

  /** @param {string | URL} url @param {ConnectOptions} options */
  constructor(url, options) {
    super();
    const full = new URL(url, globalThis.location?.href);
    full.protocol = full.protocol.replace("http", "ws");
    this.#url = full.href;
    this.#options = { WebSocket: globalThis.WebSocket, ...options };
    const {
      token,
      persist,
      resume,
      connectTimeoutSeconds = 10,
      bufferBytes = 16 * 2 ** 20,
      client = { name: "queuesystem-js", version: VERSION },
    } = options;
    const store = persist ? new Store(persist === true ? this.#url : persist) : undefined;
    if (resume) store?.clear();
    this.#store = store;
    this.#rules = new Rules(bufferBytes, client, store, () => this.#wake());
    const earlier = resume ?? store?.get();
    if (earlier) this.#rules.adopt(earlier, !!resume);
    this.#patience = new Patience(connectTimeoutSeconds, typeof token === "string" ? 2 : 3);
    this.opened = new Promise((resolve, reject) => {
      this.#opened = resolve;
      this.#unopened = reject;
    });
    this.#watchPage();
    this.#loop = this.#run();
  }

  // What users do

  get id() {
    return this.#rules.session ?? "";
  }

  get state() {
    return this.#state;
  }

  /**
   * @param {string} method @param {Record<string, unknown>} [params]
   * @param {import("./client.js").RequestOptions} [options]
   * @returns {any}
   */
  request(method, params, { signal, ...options } = {}) {
    this.#checkOpen();
    const rules = this.#rules;
    const call = rules.submit(method, params, options);
    if (signal) {
      const cancel = () => rules.cancel(call);
      signal.addEventListener("abort", cancel);
      call.onend = () => signal.removeEventListener("abort", cancel);
      if (signal.aborted) cancel();
    }
    return new RequestHandle(call);
  }

  async ready() {
    this.#checkOpen();
    while (this.#rules.room <= 0) {
      await new Promise((resolve) => this.#ready.push(() => resolve(0)));
      this.#checkOpen();
    }
  }

  detach() {
    if (!this.#closing) {
      this.#rules.acknowledge();
      this.#flush();
      this.#leave("the session was detached: resume it to go on");
    }
    return this.id;
  }

  async close({ cancel = false } = {}) {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#rules.online) {
      this.#rules.bye(cancel);
      this.#wake();
      this.#time("close", () => this.#lose?.({ reason: "no answer to bye" }), CLOSE_SECONDS);
      await this.#loop;
    }
    this.#leave("the session was closed");
  }

  /** @param {string} reason */
  #leave(reason) {
    this.#closing = true;
    this.#store?.clear();
    this.#lose?.({ reason });
    this.#hurry?.();
    this.#fail(new ConnectionFailed(reason));
  }

  #checkOpen() {
    if (this.#closing) throw this.#failure ?? new ConnectionFailed("the session is closed");
  }

  // The life of the session

  async #run() {
    try {
      while (!this.#closing) {
        this.#emit("connecting");
        const loss = await this.#visit();
        if (this.#closing) return;
        const { code, reason } = loss;
        if (code === TAKEN_OVER) {
          // Whoever has it now goes on with it: a reload of this page must not take it back.
          this.#store?.clear();
          this.#emit("taken-over", { code, reason });
        }
        const wish = this.#rules.wishSeconds;
        this.#rules.wishSeconds = undefined;
        const retrySeconds = this.#patience.after(loss, wish);
        this.#emit("offline", { code, reason, retrySeconds });
        await this.#pause(retrySeconds);
      }
    } catch (error) {
      this.#fail(/** @type {any} */ (error));
    }
  }

  /** Wait, unless there is a reason to hope for a connection. @param {number} seconds */
  async #pause(seconds) {
    await new Promise((resolve) => {
      this.#hurry = () => resolve(0);
      this.#time("pause", this.#hurry, seconds);
    });
  }

  /** Connect, and stay until the connection is gone. */
  async #visit() {
    const loss = await new Promise((/** @type {(loss: Loss) => void} */ lose) => {
      this.#lose = lose;
      const seconds = Math.min(WELCOME_SECONDS, this.#patience.left);
      this.#time("greeting", () => lose({ reason: "no answer in time" }), seconds);
      this.#dial(lose);
    });
    this.#lose = undefined;
    for (const name of ["greeting", "rules", "silence"]) clearTimeout(this.#timers[name]);
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket) {
      // It may take long to close: what it still says is not for the next connection.
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    this.#rules.lost();
    if (this.#state === "online") this.#state = "offline";
    return loss;
  }

  /** @param {(loss: Loss) => void} lose */
  async #dial(lose) {
    try {
      this.#token = await this.#fetchToken();
      if (this.#lose !== lose) return; // it took too long, or the session was closed
      const socket = new this.#options.WebSocket(this.#url, SUBPROTOCOL);
      this.#socket = socket;
      socket.onopen = () => {
        if (socket.protocol === SUBPROTOCOL) socket.send(this.#rules.hello(this.#token));
        else lose({ reason: `the server does not speak ${SUBPROTOCOL}`, fatal: true });
      };
      socket.onmessage = ({ data }) => this.#message(data);
      socket.onclose = ({ code, reason }) => {
        lose({ code, reason: reason || "connection lost", fatal: !returns(code) });
      };
    } catch (cause) {
      // What `fetch` throws when the network is away is worth another try.
      lose({ reason: `${cause}`, fatal: !(cause instanceof TypeError), cause });
    }
  }

  /** @param {string} text */
  #message(text) {
    try {
      const rules = this.#rules;
      const greeted = rules.greeted;
      rules.receive(text);
      if (!rules.greeted) return;
      if (!greeted) this.#welcomed();
      this.#time("silence", () => this.#ask(), SILENT_SECONDS);
      if (rules.expiresAt !== this.#expiresAt) this.#planRefresh();
    } catch (cause) {
      this.#lose?.({ reason: `${cause}`, fatal: true, cause });
    }
  }

  #welcomed() {
    const rules = this.#rules;
    clearTimeout(this.#timers.greeting);
    this.#patience.welcomed(this.#options.giveUpAfterSeconds ?? rules.limits.resume_seconds);
    for (const call of rules.adopted.splice(0)) this.requests.set(call.id, new RequestHandle(call));
    const first = this.#state === "connecting";
    if (!first) this.reconnects++;
    this.#state = "online";
    this.#opened();
    this.#emit("online");
    if (rules.resumed) this.#emit("resumed");
  }

  /** Send soon what there is to send, joined. */
  #wake() {
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => this.#flush());
  }

  #flush() {
    this.#flushing = false;
    const rules = this.#rules;
    for (let message; (message = rules.take()); ) this.#socket?.send(message);
    if (rules.deadline < Infinity) this.#time("rules", () => rules.tick(), rules.deadline - now());
    for (let { room } = rules; room > 0 && this.#ready.length; room--) this.#ready.shift()?.();
  }

  /** The server is silent, or the network has changed: ask for an answer. */
  #ask() {
    // A browser cannot ping. A token that was taken is taken again, and answered.
    this.#rules.refresh(this.#token);
    const lose = () => this.#lose?.({ reason: "the server is silent" });
    this.#time("silence", lose, ANSWER_SECONDS);
  }

  // The token

  #planRefresh() {
    this.#expiresAt = this.#rules.expiresAt;
    if (typeof this.#options.token === "string") return;
    // Not all clients at the same moment.
    const seconds = (this.#expiresAt - Date.now() / 1000) * (0.7 + 0.2 * Math.random());
    this.#time(
      "refresh",
      () => this.#refresh(),
      seconds > 0 ? Math.min(seconds, REFRESH_SECONDS_MAX) : REFRESH_AGAIN_SECONDS,
    );
  }

  async #refresh() {
    try {
      this.#token = await this.#fetchToken();
      this.#rules.refresh(this.#token);
    } catch {
      // Should the token expire for that, the next connection asks for one again.
    }
  }

  async #fetchToken() {
    const { token } = this.#options;
    return typeof token === "string" ? token : token();
  }

  // The page

  #watchPage() {
    /** @type {(type: string, action: (event: any) => void) => void} */
    const on = (type, action) =>
      globalThis.addEventListener?.(type, action, { signal: this.#over.signal });
    on("online", () => this.#hasten());
    on("visibilitychange", () => document.visibilityState === "visible" && this.#hasten());
    on("pageshow", ({ persisted }) => persisted && this.#hasten());
    on("pagehide", ({ persisted }) => {
      // A page that may come back must not hold a connection; one that never will takes its leave.
      if (persisted) this.#lose?.({ reason: "the page was left" });
      else if (!this.#store) this.close();
    });
  }

  /** There is a reason to hope for a connection, or to doubt the one that there is. */
  #hasten() {
    if (this.#rules.online) this.#ask();
    else this.#hurry?.();
  }

  // The end

  /** End everything. @param {ConnectionFailed} error */
  #fail(error) {
    if (this.#failure) return;
    this.#failure = error;
    this.#closing = true;
    this.#state = "closed";
    this.#rules.fail(error);
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#over.abort();
    this.#unopened(error);
    for (const resolve of this.#ready.splice(0)) resolve(); // `ready` sees the failure itself
    this.#emit("closed", { code: error.code, reason: error.message });
  }

  /**
   * Do `action` in `seconds`, and not what was planned under this name before.
   *
   * @param {string} name @param {() => void} action @param {number} seconds
   */
  #time(name, action, seconds) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(action, Math.max(0, seconds) * 1000);
  }

  /** @param {string} type @param {object} [detail] */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
