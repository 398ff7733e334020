// The browser client: a session that outlives its connections, and with `persist` its page.
//
//     while not closed: token -> WebSocket -> hello -> welcome -> read and write until it is gone
//
// Errors, Call (one request, no I/O), RequestHandle (what users hold of it), Rules (one session:
// window, order, acknowledgement, resume; no I/O), Store (what outlives the page), Session (the loop
// above). The API is described in client.d.ts, the wire in SPEC.md. Its size is bounded by a test.

/**
 * @typedef {import("./client.js").ConnectOptions} ConnectOptions
 * @typedef {import("./client.js").Session} PublicSession
 * @typedef {import("./client.js").Loss & {fatal?: boolean, cause?: unknown}} Loss
 * @typedef {{index: number, data: any, bytes: number, next?: Item}} Item
 */

const SUBPROTOCOL = "queuesystem.v1";

/** So many requests may be unfinished, sent or not. */
const REQUESTS_MAX = 10_000;
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
/** The same while the server is expected any moment: so long after the time `goaway` named. */
const EXPECTED_RECONNECT_SECONDS = [0.1, 1];
const EXPECTED_SECONDS = 30;
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
/** So many tokens in a row that the server calls expired mean that the clocks differ. */
const TOKENS_REFUSED_MAX = 3;

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

/** @param {string} id @param {string} what */
const lost = (id, what) =>
  new RequestFailed(id, "results_lost", `${what} expired, or were acknowledged`);

/** @param {Call} call */
const cancelled = ({ id }) => new RequestFailed(id, "cancelled", "before the server accepted it");

/** @param {Call} call */
const sessionLost = ({ id }) => new RequestFailed(id, "session_lost", "it may have run or not");

/** The frame in `line`; an empty one for what is none. @param {string} line */
function parse(line) {
  try {
    return Object(JSON.parse(line));
  } catch {
    return {};
  }
}

/** @param {number} tries @param {number[]} seconds Exponential, with full jitter. */
const backoff = (tries, [base, cap]) => Math.random() * Math.min(cap, base * 2 ** tries);

/** Seconds of a clock that only goes forward. */
const now = () => performance.now() / 1000;

const encode = JSON.stringify;
const encoder = new TextEncoder();

/** Goes on from `hash`, 32 bits. @param {string} text @param {number} hash */
function checksum(text, hash) {
  for (let i = 0; i < text.length; i++) hash = (hash * 31 + text.charCodeAt(i)) | 0;
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
  /** What nobody took yet comes after `head`. @type {Partial<Item>} */
  head = {};
  tail = this.head;
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
    const { index, data } = frame;
    this.tail = this.tail.next = { index, data, bytes };
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
    this.end(gap ? lost(this.id, `${missing} results`) : null);
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
    if (!this.head.next) this.rules.release(this);
    this.onend?.();
    this.#wake();
  }

  /** @param {number} attempt */
  #restart(attempt) {
    if (attempt <= this.attempt) return;
    while (this.take());
    this.attempt = attempt;
    this.expected = 0;
    this.last = null;
  }

  #wake() {
    for (const wake of this.wakeups.splice(0)) wake();
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
    const item = this.head.next;
    if (item) {
      this.head = item;
      this.rules.hold(-item.bytes);
      if (this.ended && !item.next) this.rules.release(this);
    }
    return item;
  }

  /** Keep no results any more but the last one. */
  drop() {
    this.dropped = true;
    while (this.take());
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
    this.id = call.id;
    this.method = call.method;
    this.params = call.params;
    thrownAway.register(this, call);
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
    if (this.#position) throw new Error("some results were taken already");
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
      throw this.#changed();
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
    this.#running = checksum(encode(data), this.#running);
  }

  #checkEnd() {
    const { error, expected, live } = this.#call;
    if (error) throw error;
    if (live) return;
    if (expected > this.#position) {
      throw new Error("`await` dropped results: use results()");
    }
    if (expected < this.#position) throw this.#changed();
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
    return lost(this.id, `results ${first} to ${upto - 1}`);
  }

  #changed() {
    const text = `attempt ${this.attempt} gave other results: use events()`;
    return new RequestFailed(this.id, "results_changed", text);
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

  #resume;
  /** There is a session to take over. */
  #adopting;
  /** @type {string | undefined} */
  #epoch;
  // Not ids that another page gave in the same session.
  #prefix = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);
  #number = 0;
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
  // Events: the last one that came, the last one acknowledged, the bytes that came after that.
  #seq = 0;
  #acked = 0;
  #bytes = 0;
  #ackNow = false;
  #ackAt = Infinity;
  // Results that nobody took: while they fill the buffer nothing is acknowledged.
  #bufferBytes;
  #untakenBytes = 0;
  #full = false;
  // With a store: the event before those of each request whose results are not all there and taken,
  // and whether they are to be acknowledged nevertheless.
  /** @type {Map<string, number>} */
  #kept = new Map();
  #pressed = false;
  /** Requests that ended, but whose results were not taken. @type {Map<string, Call>} */
  #untaken = new Map();

  #store;
  #wake;

  /**
   * `wake` is called when there may be something to send, or a new `deadline`.
   *
   * It takes over the session `resume`, which must be there, or the one that an earlier page left.
   *
   * @param {number} bufferBytes @param {Store | undefined} store
   * @param {string | undefined} resume @param {() => void} wake
   */
  constructor(bufferBytes, store, resume, wake) {
    this.#bufferBytes = bufferBytes;
    this.#store = store;
    this.#wake = wake;
    this.#resume = resume;
    this.session = resume ?? store?.get("") ?? undefined;
    this.#adopting = !!this.session;
    const ids = store?.ids().filter(Boolean) ?? [];
    const kept = ids.map((id) => JSON.parse(store?.get(id) ?? ""));
    kept.sort((a, b) => a[0] - b[0]);
    for (const [number, n, frame] of kept) {
      const { id, method, params } = JSON.parse(frame);
      const call = new Call(this, id, number, frame, method, params);
      if (n) call.accept(n);
      else call.doubtful = true;
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
    else if (!id || id.length > 128 || this.calls.has(id)) {
      throw new RangeError("an id is new, and has 1 to 128 characters");
    }
    // Should it be the id of a request that ended, the server shall know that its end was seen: it
    // then says so, instead of leaving it at events that were sent long ago.
    else this.#ackNow = true;
    const frame = encode({
      type: "request",
      id,
      method,
      params,
      timeout,
      on_disconnect: onDisconnect,
    });
    if (this.calls.size >= REQUESTS_MAX) throw new RangeError("await ready() before each request");
    const call = new Call(this, id, number, frame, method, params);
    this.#number = number;
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
    this.#control.push(encode({ type: "cancel", id: call.id }));
  }

  get hasRoom() {
    return this.calls.size < this.limits.window;
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
    if (frame) this.#store?.set(id, encode([number, n, frame]));
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
    return encode({
      type: "hello",
      token,
      session: this.session,
      epoch: this.#epoch,
      seq: this.#epoch && this.#seq,
      client: { name: "queuesystem-js" },
    });
  }

  /** @param {string} token */
  refresh(token) {
    if (!this.online) return;
    this.#control.push(encode({ type: "refresh", token }));
    this.#wake();
  }

  /** End the session, after the requests that may be sent now. @param {boolean} cancel */
  bye(cancel) {
    this.#bye = encode({ type: "bye", cancel });
  }

  /** The next message, empty when there is nothing to send now. */
  take() {
    if (!this.online) return "";
    /** @type {string[]} */
    const frames = [];
    let room = Math.min(this.limits.max_message_bytes, MESSAGE_BYTES_MAX);
    const add = (/** @type {string} */ frame, bytes = frame.length) => {
      if (frames.length && bytes >= room) return false;
      frames.push(frame);
      room -= bytes + 1;
      return true;
    };
    const control = this.#control;
    const seq = this.#ackable;
    if (this.#ackNow && seq > this.#acked) {
      add(encode({ type: "ack", seq }));
      this.#acked = seq;
      this.#bytes = 0;
      this.#ackAt = Infinity;
      if (seq === this.#seq) {
        this.#pressed = false;
        this.#kept.clear();
      }
    }
    this.#ackNow = false;
    while (control.length && add(control[0])) control.shift();
    let call;
    while ((call = this.#head()) && add(call.frame, call.bytes)) this.#send(call);
    if (this.#bye && !call && !control.length && add(this.#bye)) {
      this.#bye = undefined;
      this.online = false;
    }
    return frames.join("\n");
  }

  /** How far events may be acknowledged. */
  get #ackable() {
    if (this.#full) return this.#acked;
    if (!this.#pressed) for (const seq of this.#kept.values()) return seq;
    return this.#seq;
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
        const text = `the server takes ${bytesMax} bytes`;
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
    this.#acked = 0; // the last acknowledgement may not have arrived
  }

  /** Go on (or begin) on a new connection. @param {any} frame */
  #welcome(frame) {
    if (this.#adopting) this.#adopt(frame);
    if (!frame.resumed) this.#beginAnew();
    if (frame.epoch !== this.#epoch || !frame.resumed) {
      this.#seq = this.#acked = this.#bytes = 0;
      this.#kept.clear();
    }
    this.session = frame.session;
    this.resumed = frame.resumed;
    this.#epoch = frame.epoch;
    this.limits = frame.limits;
    this.expiresAt = frame.expires_at;
    this.wishSeconds = undefined;
    this.online = this.greeted = true;
    this.#store?.set("", frame.session);
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
    if (!resumed && this.#resume) {
      throw new ConnectionFailed("the session is not there");
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
    this.#sendFreely();
    this.#retryAt = Infinity;
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
        call.end(lost(call.id, "results"));
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
      if (this.greeted) this.#take(frame, line.length + ITEM_BYTES);
      else if (frame.type === "welcome") this.#welcome(frame);
    }
    this.#planAck();
    this.#wake();
  }

  /** @param {any} frame @param {number} bytes */
  #take(frame, bytes) {
    const { type, id, seq } = frame;
    if (seq && !this.#isNew(frame)) return;
    const call = this.calls.get(id);
    if (type === "result") {
      this.#bytes += bytes;
      call?.result(frame, bytes);
    } else if (type === "refreshed") this.expiresAt = frame.expires_at;
    else if (type === "goaway") this.wishSeconds = frame.reconnect_after;
    else if (!call) return;
    else if (type === "accepted") this.#accepted(call, frame);
    else if (type === "done") call.done(frame);
    else if (type === "error") this.#error(call, frame);
  }

  /** Count the event `seq`; tell whether it was not seen yet. @param {any} frame */
  #isNew({ seq, id }) {
    if (seq <= this.#seq) return false;
    if (seq > this.#seq + 1) for (const call of this.calls.values()) call.suspect = true;
    if (this.#store && !this.#kept.has(id) && (this.calls.has(id) || this.#untaken.has(id))) {
      this.#kept.set(id, seq - 1);
    }
    this.#seq = seq;
    return true;
  }

  /** @param {Call} call @param {any} frame */
  #error(call, frame) {
    // Without a number: the request was refused, or else a cancel that came too late, or the like.
    if (!frame.seq && call.phase !== SENT) return;
    if (frame.seq || !frame.retryable) call.failed(frame);
    else if (call.cancelling) call.end(cancelled(call));
    else this.#refused(call, frame);
  }

  /** @param {Call} call @param {any} frame */
  #accepted(call, { state, n }) {
    if (state === "acknowledged") {
      call.end(lost(call.id, "results"));
      return;
    }
    if (call.phase === SENT) this.#unanswered--;
    else if (call.phase === WAITING) this.#inFlight++; // its commit was on the way
    this.#accept(call, n);
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
    call.frame = "";
    // It was sent alone after a refusal, and was not refused.
    if (this.#probe === call) this.#sendFreely();
  }

  #sendFreely() {
    this.#probe = undefined;
    this.#held = false;
    this.#refusals = 0;
  }

  #planAck() {
    if (this.#ackNow) return;
    const bytesMax = this.limits.max_result_bytes / 4;
    if (this.#bytes >= Math.min(KEEP_BYTES, bytesMax)) this.#pressed = true;
    const events = this.#ackable - this.#acked;
    if (events <= 0) return;
    if (events >= ACK_EVENTS || this.#bytes >= Math.min(ACK_BYTES, bytesMax)) this.#ackNow = true;
    else this.#ackAt = Math.min(this.#ackAt, now() + ACK_SECONDS);
  }
}

/**
 * What outlives the page, in `sessionStorage`: the session's id under "", and under its id each
 * request whose results are not all there and taken, as [number, n, frame]. A storage that is full
 * or forbidden keeps less, and fails nothing.
 */
class Store {
  #start;
  /** @type {Storage | undefined} */
  #storage;

  /** @param {string} name */
  constructor(name) {
    this.#start = `queuesystem:${name}\n`; // no name begins with another one and that
    try {
      this.#storage = globalThis.sessionStorage;
    } catch {
      // forbidden
    }
  }

  /** @param {string} id */
  get(id) {
    return this.#storage?.getItem(this.#start + id);
  }

  /** @param {string} id @param {string} value */
  set(id, value) {
    try {
      this.#storage?.setItem(this.#start + id, value);
    } catch {
      // full
    }
  }

  /** @param {string} id */
  remove(id) {
    this.#storage?.removeItem(this.#start + id);
  }

  ids() {
    const start = this.#start;
    const keys = Object.keys(this.#storage ?? {}).filter((key) => key.startsWith(start));
    return keys.map((key) => key.slice(start.length));
  }
}

/** Whether to come back after this close code (SPEC.md, section 6). @param {number} code */
const returns = (code) =>
  code < 4000 ? ![1000, 1002, 1003, 1007, 1009].includes(code) : code < 4500;

/** @type {typeof import("./client.js").connect} */
export function connect(url, options) {
  return new Promise((resolve, reject) => {
    const session = /** @type {any} */ (new Session(url, options, reject));
    session.addEventListener("online", () => resolve(session));
  });
}

/** @implements {PublicSession} */
export class Session extends EventTarget {
  reconnects = 0;
  /** @type {Map<string, any>} */
  requests = new Map();

  #url;
  #options;
  #rules;
  #store;
  // When to try again, and when to give up.
  #outageSince = now();
  /** When the server that went away is to be back. */
  #expectedAt = -Infinity;
  #patienceSeconds;
  #onlineSince = Infinity;
  #failures = 0;
  #tokensRefused = 0;
  /** @type {import("./client.js").SessionState} */
  #state = "connecting";
  /** @type {ConnectionFailed | undefined} */
  #failure;
  #closing = false;
  /** @type {() => string | Promise<string>} */
  #fetchToken;
  /** The token in use. */
  #token = "";
  /** @type {WebSocket | undefined} */
  #socket;
  /** Ends the connection, or the attempt to make one. @type {((loss: Loss) => void) | undefined} */
  #lose;
  /** Ends the wait for the next attempt. @type {(() => void) | undefined} */
  #hurry;
  #failed;
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

  /**
   * @param {string | URL} url @param {ConnectOptions} options
   * @param {(error: ConnectionFailed) => void} failed Told at the end.
   */
  constructor(url, options, failed) {
    super();
    this.#url = `${url}`;
    this.#options = options;
    const {
      token,
      persist,
      resume,
      connectTimeoutSeconds = 10,
      bufferBytes = 16 * 2 ** 20,
    } = options;
    const store = persist ? new Store(persist === true ? this.#url : persist) : undefined;
    this.#store = store;
    if (resume) this.#forsake();
    this.#rules = new Rules(bufferBytes, store, resume, () => this.#wake());
    this.#fetchToken = typeof token === "string" ? () => token : token;
    this.#patienceSeconds = connectTimeoutSeconds;
    this.#failed = failed;
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
    while (!this.#rules.hasRoom) {
      await new Promise((resolve) => this.#ready.push(() => resolve(0)));
      this.#checkOpen();
    }
  }

  async close({ cancel = false } = {}) {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#rules.online) {
      this.#rules.bye(cancel);
      this.#wake();
      this.#time("close", () => this.#lose?.({ reason: "the server is silent" }), CLOSE_SECONDS);
      await this.#loop;
    }
    this.#forsake();
    this.#fail(new ConnectionFailed("the session is closed"));
    this.#lose?.({ reason: "" });
    this.#hurry?.();
  }

  /** A later page shall not go on with this session. */
  #forsake() {
    for (const id of this.#store?.ids() ?? []) this.#store?.remove(id);
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
          this.#forsake();
          this.#emit("taken-over", { code, reason });
        }
        const retrySeconds = this.#secondsAfter(loss);
        this.#emit("offline", { code, reason, retrySeconds });
        await new Promise((resolve) => {
          this.#hurry = () => resolve(0);
          this.#time("retry", this.#hurry, retrySeconds);
        });
      }
    } catch (error) {
      this.#fail(/** @type {any} */ (error));
    }
  }

  /** The seconds to wait after a loss. Throws when it is over. @param {Loss} loss */
  #secondsAfter({ code, reason, fatal, cause }) {
    const time = now();
    if (time - this.#onlineSince >= STEADY_SECONDS) this.#failures = 0;
    this.#onlineSince = Infinity;
    this.#outageSince = Math.min(this.#outageSince, time);
    const left = this.#outageSince + this.#patienceSeconds - time;
    if (code === TOKEN_EXPIRED) this.#tokensRefused++;
    if (fatal || left <= 0 || this.#tokensRefused >= TOKENS_REFUSED_MAX) {
      throw new ConnectionFailed(fatal ? reason : `gave up: ${reason}`, code, cause);
    }
    const { wishSeconds } = this.#rules;
    this.#rules.wishSeconds = undefined;
    if (wishSeconds !== undefined) {
      this.#expectedAt = time + wishSeconds;
      return Math.min(wishSeconds, left);
    }
    const expected = time - this.#expectedAt < EXPECTED_SECONDS;
    const range = expected ? EXPECTED_RECONNECT_SECONDS : RECONNECT_SECONDS;
    return Math.min(backoff(this.#failures++, range), left);
  }

  /** Connect, and stay until the connection is gone. */
  async #visit() {
    const loss = await new Promise((/** @type {(loss: Loss) => void} */ lose) => {
      this.#lose = lose;
      const seconds = Math.min(WELCOME_SECONDS, this.#patienceSeconds);
      this.#time("silence", () => lose({ reason: "the server is silent" }), seconds);
      this.#dial(lose);
    });
    this.#lose = undefined;
    this.#stopTimers();
    this.#expiresAt = 0;
    this.#socket?.close(); // which may take long
    this.#socket = undefined;
    this.#rules.lost();
    if (this.#state === "online") this.#state = "offline";
    return loss;
  }

  /** @param {(loss: Loss) => void} lose */
  async #dial(lose) {
    try {
      this.#token = await this.#fetchToken();
      if (this.#lose !== lose) return; // it took too long, or the session was closed
      const socket = new (this.#options.WebSocket ?? WebSocket)(this.#url, SUBPROTOCOL);
      this.#socket = socket;
      socket.onopen = () => {
        if (socket.protocol === SUBPROTOCOL) socket.send(this.#rules.hello(this.#token));
        else lose({ reason: `the server speaks no ${SUBPROTOCOL}`, fatal: true });
      };
      socket.onmessage = ({ data }) => this.#lose === lose && this.#message(data);
      socket.onclose = ({ code, reason }) => {
        lose({ code, reason: reason || "connection lost", fatal: !returns(code) });
      };
      // `close` follows, but not in every Node.js.
      socket.onerror = () => setTimeout(lose, 0, { code: 1006, reason: "connection lost" });
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
    this.#patienceSeconds = this.#options.giveUpAfterSeconds ?? rules.limits.resume_seconds;
    this.#outageSince = Infinity;
    this.#onlineSince = now();
    this.#tokensRefused = 0;
    for (const call of rules.adopted.splice(0)) this.requests.set(call.id, new RequestHandle(call));
    if (this.#state !== "connecting") this.reconnects++;
    this.#state = "online";
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
    for (let message; (message = rules.take());) this.#socket?.send(message);
    if (rules.deadline < Infinity) this.#time("rules", () => rules.tick(), rules.deadline - now());
    if (rules.hasRoom) this.#letGo();
  }

  /** Let those see who wait in `ready`. */
  #letGo() {
    for (const resolve of this.#ready.splice(0)) resolve();
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
    this.#stopTimers();
    this.#over.abort();
    this.#failed(error);
    this.#letGo();
    this.#emit("closed", { code: error.code, reason: error.message });
  }

  /**
   * Do `action` in `seconds`, and not what was planned under this name before.
   *
   * @param {string} name @param {() => void} action @param {number} seconds
   */
  #time(name, action, seconds) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(action, Math.max(0, seconds * 1000));
  }

  #stopTimers() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
  }

  /** @param {string} type @param {object} [detail] */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
