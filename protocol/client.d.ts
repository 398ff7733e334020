/**
 * The browser client of queueSystem: a session that outlives its connections, and the page.
 *
 *     const session = await connect("/ws", { token });
 *     for await (const word of session.request("words", { text: "to be" })) show(word);
 *     const total = await session.request("echo", { text: "x" });
 *
 * A lost connection or a restarted server is no error: the session is resumed, requests that never
 * arrived are sent again, none runs twice for that, results go on where they were.
 */

/** A JWT, or a function that returns one; see {@link ConnectOptions.token}. */
export type TokenSource = string | (() => string | Promise<string>);

export interface ConnectOptions {
  /**
   * A JWT or a function (async or not) that returns one within 20 seconds: it is called for each
   * connection, and again before the token expires. When it throws a `TypeError`, as `fetch` does without a
   * network, it is called again later; anything else it throws ends the session.
   */
  token: TokenSource;
  /**
   * Keep the session in `sessionStorage` under this name (`true`: under one made of the URL), so
   * that the page goes on with it after a reload: `session.requests` has what is unfinished then.
   * The params of unfinished requests are kept there, too. Default: no.
   */
  persist?: boolean | string;
  /** Take over the session of this id, of the same user. Fails when it is not there. */
  resume?: string;
  /** Give up when there is no first connection for so long. Default: 10. */
  connectTimeoutSeconds?: number;
  /**
   * Give up when there is no later connection for so long. Default: as long as the server keeps
   * the session (`limits.resume_seconds` of its welcome, 24 hours unless configured).
   */
  giveUpAfterSeconds?: number;
  /**
   * When results of so many bytes wait to be taken, no more are acknowledged until half of them
   * are. A browser cannot stop reading, so the server's own bound (`limits.max_result_bytes`)
   * comes on top: a page holds up to the sum of both, then requests end with `result_too_large`.
   * Default: 16 MiB.
   */
  bufferBytes?: number;
  /** The WebSocket class, where there is no global one (Node.js before 22). */
  WebSocket?: new (url: string, protocols: string) => WebSocket;
}

/**
 * Open a session. `url` is what the WebSocket class takes: in current browsers it may be relative
 * to the page, as "/ws".
 *
 * Rejects with {@link ConnectionFailed}.
 */
export function connect(url: string | URL, options: ConnectOptions): Promise<Session>;

export interface RequestOptions {
  /** A name of 1 to 128 characters; use no name twice in a session. Default: made up. */
  id?: string;
  /** Seconds from the start of the handler, at most 86,400. Default: what the server allows. */
  timeout?: number;
  /** What a lost connection does to the request. Default: `"continue"`. */
  onDisconnect?: "continue" | "cancel";
  /** Aborting it is {@link RequestHandle.cancel}. */
  signal?: AbortSignal;
}

/** Connecting for the first time, connected, not connected for now, or over. */
export type SessionState = "connecting" | "online" | "offline" | "closed";

/** Why there is no connection. */
export interface Loss {
  /** The close code; 1006 is all a browser tells of a connection that was cut or never made. */
  code?: number;
  reason: string;
}

/** The events of a session, each with its `detail`. */
export interface SessionEventMap {
  /** It tries to connect (again). */
  connecting: CustomEvent<null>;
  /** It is connected. */
  online: CustomEvent<null>;
  /** Follows `online` when the session goes on from an earlier connection of this page. */
  resumed: CustomEvent<null>;
  /** The connection is lost, or was not made; the next attempt comes in `retrySeconds`. */
  offline: CustomEvent<Loss & { retrySeconds: number }>;
  /** Another page or program resumed the session; `closed` follows, and nothing is tried again. */
  "taken-over": CustomEvent<Loss>;
  /** It is over: `close()` was called, or there is no use in trying again. */
  closed: CustomEvent<Loss>;
}

/**
 * A session with a server; made by {@link connect}.
 *
 * Requests run in the order of `request`, one at a time. A request the server refuses for now
 * (`window_exceeded`, `rate_limited`, `journal_unavailable`, `overloaded`) is sent again by itself;
 * those that were on their way behind it may overtake it, later ones not.
 */
export class Session extends EventTarget {
  private constructor();
  /** The server's name of the session; it changes when the server lost the session. */
  readonly id: string;
  readonly state: SessionState;
  /** How often it was connected again. */
  readonly reconnects: number;
  /**
   * The requests that were found in a session taken over by `resume` or `persist`, by id, in the
   * order in which they run. With `persist` they have their `method` and `params`, and those that
   * had not reached the server are sent now.
   */
  readonly requests: ReadonlyMap<string, RequestHandle>;

  /**
   * Put a request at the end of the line and return at once.
   *
   * Throws {@link ConnectionFailed} when the session is closed, `RangeError` when 10,000 requests
   * are unfinished (see `ready`) and for an id of an unfinished request or of a wrong length, and
   * `TypeError` for params that JSON cannot hold.
   */
  request<T = unknown>(
    method: string,
    params?: Record<string, unknown>,
    options?: RequestOptions,
  ): RequestHandle<T>;

  /**
   * Wait until fewer requests are unfinished than the server's window holds. Await it before each
   * request of a long series. Rejects with {@link ConnectionFailed}.
   */
  ready(): Promise<void>;

  /**
   * End the session; with `cancel`, its requests too. Requests the server accepted still run, their
   * results are not kept, what waits on this side is not sent. Does nothing when it is closed.
   */
  close(options?: { cancel?: boolean }): Promise<void>;

  addEventListener<K extends keyof SessionEventMap>(
    type: K,
    listener: (event: SessionEventMap[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof SessionEventMap>(
    type: K,
    listener: (event: SessionEventMap[K]) => void,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

/** What {@link RequestHandle.events} gives. */
export type RequestEvent<T = unknown> =
  /** One result; `index` counts the results of one attempt from 0. */
  | { type: "result"; attempt: number; index: number; data: T }
  /** A crash interrupted the request: results of attempts before `attempt` do not count. */
  | { type: "restarted"; attempt: number };

/**
 * A request and its results. Results that nobody takes count against `bufferBytes`.
 *
 *     for await (const result of handle) ...          each result as it arrives, each index once
 *     const result = await handle                     the last result, null without one; drops others
 *     const results = await handle.results()          all results
 *     for await (const event of handle.events()) ...  attempts as they are: for handlers that are
 *                                                     not the same each time
 *
 * All of them fail with {@link RequestFailed} when the request ends with an error, and with
 * {@link ConnectionFailed} when the client gives up. Going on after a `break` is possible. A handle
 * that is thrown away lets its request run and drops its results.
 */
export class RequestHandle<T = unknown> implements AsyncIterable<T>, PromiseLike<T> {
  private constructor();
  readonly id: string;
  /** Undefined for a request of another program. */
  readonly method: string | undefined;
  /** Undefined for a request of another program. */
  readonly params: Record<string, unknown> | undefined;
  /** The position of the request in its session; null until the server accepted it. */
  readonly n: number | null;
  /** Which execution the newest results belong to: 0 before the first, more after crashes. */
  readonly attempt: number;
  /** No further result will come. */
  readonly ended: boolean;

  /** Wait until the request is on stable storage: it will run whatever happens. Returns `n`. */
  accepted(): Promise<number>;
  /** All results of the attempt that ended. Throws after `for await` has taken some. */
  results(): Promise<T[]>;
  events(): AsyncGenerator<RequestEvent<T>, void, undefined>;
  /**
   * Ask the server to end the request; it then fails with `cancelled`. A request that waits on this
   * side ends at once; one that has ended stays as it is.
   */
  cancel(): void;

  then<A = T, B = never>(
    fulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B>;
  [Symbol.asyncIterator](): AsyncIterator<T, void, undefined>;
}

/** The errors of this client. */
export class ClientError extends Error {}

/** There is no connection, and no use in trying again; `code` is the close code that says so. */
export class ConnectionFailed extends ClientError {
  readonly code: number | undefined;
}

/**
 * Request `id` ended with `code`: one of SPEC.md ("Error codes"), or one of
 *
 * - `session_lost`: the server does not know the session any more; the request may have run,
 * - `results_lost`: results are gone, they expired or were acknowledged before,
 * - `results_changed`: a replay gave other results than those already handed out.
 */
export class RequestFailed extends ClientError {
  readonly id: string;
  readonly code: string;
  readonly details: unknown;
  readonly retryable: boolean;
}
