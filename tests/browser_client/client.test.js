// What the scripted servers cannot show: events of session and page, what outlives the page, when
// results are acknowledged. Sockets, storage and page are fakes; run by test_client.py.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { ConnectionFailed, RequestFailed, connect } from "../../protocol/client.js";

const WELCOME = {
  type: "welcome",
  session: "s",
  resumed: false,
  epoch: "e1",
  seq: 0,
  requests: [],
  expires_at: 4_000_000_000,
  limits: { window: 4, max_message_bytes: 4096, max_result_bytes: 40_000, resume_seconds: 60 },
};
const AGAIN = { ...WELCOME, resumed: true };
const GENEROUS = { ...WELCOME.limits, max_result_bytes: 2 ** 24 };

class Socket {
  constructor(url, protocol) {
    this.protocol = protocol;
    this.sent = [];
    this.closed = false;
    sockets.push(this);
  }

  send(message) {
    this.sent.push(...message.split("\n").map((line) => JSON.parse(line)));
  }

  close() {
    this.closed = true;
  }

  say(...frames) {
    this.onmessage({ data: frames.map((frame) => JSON.stringify(frame)).join("\n") });
  }

  gone(code = 1006, reason = "") {
    this.onclose({ code, reason });
  }

  /** The frames of one type that were sent. */
  all(type) {
    return this.sent.filter((frame) => frame.type === type);
  }
}

class FakeStorage {
  getItem(key) {
    return Object.hasOwn(this, key) ? this[key] : null;
  }

  setItem(key, value) {
    this[key] = value;
  }

  removeItem(key) {
    delete this[key];
  }
}

let sockets;
let sessions;
let page;

/** Let everything happen that can happen now. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** Answer the `hello` of the newest socket. */
async function welcome(frame = WELCOME, ...more) {
  await settled();
  const socket = sockets.at(-1);
  socket.onopen();
  socket.say(frame, ...more);
  await settled();
  return socket;
}

async function open(options = {}, frame = WELCOME) {
  const opening = connect("/ws", { token: "t", WebSocket: Socket, ...options });
  const socket = await welcome(frame);
  const session = await opening;
  sessions.push(session);
  return { session, socket };
}

const accepted = (id, n = 1) => ({ type: "accepted", id, n });
const result = (id, seq, index, data, attempt = 1) => {
  return { type: "result", id, seq, attempt, index, data };
};
const done = (id, seq, results, attempt = 1) => ({ type: "done", id, seq, attempt, results });
const listed = (id, n, state = "running") => ({ id, n, state, attempt: 1, results: 0 });

/** Record the events of a session. */
function eventsOf(session) {
  const seen = [];
  for (const type of ["connecting", "online", "resumed", "offline", "taken-over", "closed"]) {
    session.addEventListener(type, ({ detail }) => seen.push([type, detail]));
  }
  return seen;
}

const types = (events) => events.map(([type]) => type);

/** What happens to the window, or to the document. */
function happens(type, fields = {}) {
  page.dispatchEvent(Object.assign(new Event(type), fields));
}

beforeEach(() => {
  sockets = [];
  sessions = [];
  page = new EventTarget();
  globalThis.addEventListener = page.addEventListener.bind(page);
  globalThis.document = { visibilityState: "visible" };
  Object.defineProperty(globalThis, "sessionStorage", {
    configurable: true,
    writable: true,
    value: new FakeStorage(),
  });
});

afterEach(async () => {
  mock.timers.reset();
  const closing = sessions.map((session) => session.close());
  for (const socket of sockets) socket.gone(1000);
  await Promise.all(closing);
});

// The session

test("events tell of a loss and of the return", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const { session, socket } = await open();
  const events = eventsOf(session);
  socket.gone(1012, "restart");
  await settled();
  assert.equal(session.state, "offline");
  mock.timers.tick(10_000);
  await welcome(AGAIN);
  assert.deepEqual(types(events), ["offline", "connecting", "online", "resumed"]);
  const { retrySeconds, ...loss } = events[0][1];
  assert.deepEqual(loss, { code: 1012, reason: "restart" });
  assert(retrySeconds >= 0 && retrySeconds <= 0.1);
  assert.equal(session.state, "online");
  assert.equal(session.reconnects, 1);
});

test("a session that was lost is not resumed", async () => {
  const { session, socket } = await open();
  const events = eventsOf(session);
  socket.gone();
  await settled();
  happens("online");
  await welcome({ ...WELCOME, session: "s2" });
  assert.deepEqual(types(events), ["offline", "connecting", "online"]);
  assert.equal(session.id, "s2");
});

test("a session that was taken over does not come back", async () => {
  const { session, socket } = await open();
  const events = eventsOf(session);
  const handle = session.request("m");
  socket.gone(4509, "taken_over");
  await assert.rejects(async () => handle, { name: "ConnectionFailed", code: 4509 });
  happens("online");
  happens("visibilitychange");
  await settled();
  assert.deepEqual(types(events), ["taken-over", "closed"]);
  assert.equal(session.state, "closed");
  assert.equal(sockets.length, 1);
  assert.throws(() => session.request("m"), ConnectionFailed);
});

test("waits grow with failures, at random, up to ten seconds", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const { session, socket } = await open();
  const events = eventsOf(session);
  mock.method(Math, "random", () => 0.999);
  socket.gone();
  for (let i = 0; i < 9; i++) {
    await settled();
    mock.timers.tick(10_000);
    await settled();
    sockets.at(-1).gone();
  }
  await settled();
  mock.restoreAll();
  const waits = events
    .filter(([type]) => type === "offline")
    .map(([, { retrySeconds }]) => retrySeconds);
  const expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10];
  assert.equal(waits.length, expected.length);
  waits.forEach((wait, i) => assert(wait > expected[i] * 0.99 && wait <= expected[i]));
  happens("online");
  await welcome(AGAIN);
});

test("goaway says when to come back", async () => {
  const { session, socket } = await open();
  const events = eventsOf(session);
  socket.say({ type: "goaway", reason: "restart", reconnect_after: 7 });
  socket.gone(1012);
  await settled();
  assert.equal(events[0][1].retrySeconds, 7);
  happens("online");
  await welcome(AGAIN);
});

test("waits stay short when the server that went away is not back at once", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const { session, socket } = await open();
  const events = eventsOf(session);
  mock.method(Math, "random", () => 0.999);
  socket.say({ type: "goaway", reason: "restart", reconnect_after: 2 });
  socket.gone(1012);
  for (let i = 0; i < 6; i++) {
    await settled();
    mock.timers.tick(10_000);
    await settled();
    sockets.at(-1).gone();
  }
  await settled();
  mock.restoreAll();
  const waits = events
    .filter(([type]) => type === "offline")
    .map(([, { retrySeconds }]) => retrySeconds);
  const expected = [2, 0.1, 0.2, 0.4, 0.8, 1, 1];
  assert.equal(waits.length, expected.length);
  waits.forEach((wait, i) => assert(wait > expected[i] * 0.99 && wait <= expected[i]));
  happens("online");
  await welcome(AGAIN);
});

test("a token that cannot be fetched for want of a network is fetched later", async () => {
  let calls = 0;
  const token = async () => {
    if (++calls === 1) throw new TypeError("Failed to fetch");
    return "t";
  };
  const opening = connect("/ws", { token, WebSocket: Socket });
  await settled();
  assert.equal(sockets.length, 0);
  happens("online");
  await welcome();
  sessions.push(await opening);
});

test("whatever else the token function throws ends the session, and is the cause", async () => {
  const error = new Error("log in again");
  const token = () => {
    throw error;
  };
  const opening = connect("/ws", { token, WebSocket: Socket });
  await assert.rejects(opening, { name: "ConnectionFailed", cause: error });
});

test("a fixed token is not refreshed", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const { socket } = await open({}, { ...WELCOME, expires_at: Date.now() / 1000 + 20 });
  mock.timers.tick(25_000);
  await settled();
  assert.deepEqual(socket.all("refresh"), []);
});

test("a token is refreshed on every connection", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const expiring = { ...AGAIN, expires_at: Date.now() / 1000 + 20 };
  const { socket } = await open({ token: () => "t" }, expiring);
  socket.gone();
  await settled();
  happens("online");
  const next = await welcome(expiring);
  mock.timers.tick(19_000);
  await settled();
  assert.equal(next.all("refresh").length, 1);
});

test("a server that does not speak the protocol ends the session", async () => {
  const opening = connect("/ws", { token: "t", WebSocket: Socket });
  await settled();
  sockets[0].protocol = "";
  sockets[0].onopen();
  await assert.rejects(opening, { name: "ConnectionFailed", message: /queuesystem\.v1/ });
});

test("a token that lives for months does not overflow a timer", async () => {
  const { socket } = await open({ token: () => "t" });
  await settled();
  assert.deepEqual(socket.all("refresh"), []);
});

test("frames of one moment are one message", async () => {
  const { session, socket } = await open();
  const send = mock.method(socket, "send");
  session.request("a");
  session.request("b");
  await settled();
  assert.equal(send.mock.callCount(), 1);
  assert.equal(socket.all("request").length, 2);
});

test("ready waits while the window is full", async () => {
  const { session, socket } = await open();
  const handles = [1, 2, 3, 4].map((n) => session.request("m", { n }, { id: `r${n}` }));
  let ready = false;
  const waiting = session.ready().then(() => (ready = true));
  await settled();
  assert(!ready);
  socket.say(accepted("r1"), done("r1", 1, 0));
  await waiting;
  assert.equal(await handles[0], null);
});

test("closing says bye, and ends what is unfinished here", async () => {
  const { session, socket } = await open();
  const events = eventsOf(session);
  const handle = session.request("m");
  const closing = session.close({ cancel: true });
  assert.throws(() => session.request("m"), ConnectionFailed);
  await settled();
  assert.deepEqual(
    socket.sent.slice(1).map(({ type }) => type),
    ["request", "bye"],
  );
  assert.equal(socket.sent.at(-1).cancel, true);
  socket.gone(1000);
  await closing;
  await assert.rejects(async () => handle, ConnectionFailed);
  assert.deepEqual(types(events), ["closed"]);
});

test("closing while offline tries no more", async () => {
  const { session, socket } = await open();
  socket.gone();
  await settled();
  await session.close();
  happens("online");
  await settled();
  assert.equal(sockets.length, 1);
});

// Requests

test("accepted tells when a request is safe", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  const safe = handle.accepted();
  await settled();
  socket.say(accepted("a", 5));
  assert.equal(await safe, 5);
  assert.equal(handle.n, 5);
});

test("accepted fails when a request is refused", async () => {
  const { session, socket } = await open();
  const safe = session.request("m", undefined, { id: "a" }).accepted();
  await settled();
  socket.say({ type: "error", id: "a", code: "unknown_method", message: "m", retryable: false });
  await assert.rejects(safe, { code: "unknown_method", id: "a" });
});

test("an error tells its details", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  const error = { code: "sold_out", message: "no", retryable: false, details: { left: 1 } };
  await settled();
  socket.say(accepted("a"), { type: "error", id: "a", seq: 1, attempt: 1, ...error });
  await assert.rejects(async () => handle, {
    message: "sold_out: no",
    code: "sold_out",
    details: { left: 1 },
    retryable: false,
  });
});

test("await gives the last result", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  socket.say(accepted("a"), result("a", 1, 0, "x"), result("a", 2, 1, { y: 1 }), done("a", 3, 2));
  assert.deepEqual(await handle, { y: 1 });
  assert.deepEqual(await handle, { y: 1 });
  await assert.rejects(async () => {
    for await (const _ of handle);
  }, /dropped/);
});

test("iteration goes on after a break", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  socket.say(accepted("a"), result("a", 1, 0, "x"), result("a", 2, 1, "y"), done("a", 3, 2));
  const found = [];
  for await (const one of handle) {
    found.push(one);
    break;
  }
  for await (const one of handle) found.push(one);
  assert.deepEqual(found, ["x", "y"]);
});

test("results are those of the last attempt only", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  const all = handle.results();
  await settled();
  socket.say(accepted("a"), result("a", 1, 0, "old"), result("a", 2, 1, "older"));
  await settled();
  socket.say(result("a", 3, 0, "new", 2), done("a", 4, 1, 2));
  assert.deepEqual(await all, ["new"]);
});

test("events show where an attempt ends", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  const seen = [];
  const reading = (async () => {
    for await (const event of handle.events()) seen.push(event);
  })();
  await settled();
  socket.say(accepted("a"), result("a", 1, 0, "old"));
  await settled();
  socket.say(result("a", 2, 0, "new", 2), done("a", 3, 1, 2));
  await reading;
  assert.deepEqual(seen, [
    { type: "result", attempt: 1, index: 0, data: "old" },
    { type: "restarted", attempt: 2 },
    { type: "result", attempt: 2, index: 0, data: "new" },
  ]);
});

test("a signal that is aborted already keeps a request from being sent", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { signal: AbortSignal.abort() });
  await assert.rejects(async () => handle, { name: "RequestFailed", code: "cancelled" });
  assert.deepEqual(socket.all("request"), []);
});

test("a request that ended lets go of its signal", async () => {
  const { session, socket } = await open();
  const { signal } = new AbortController();
  const remove = mock.method(signal, "removeEventListener");
  const handle = session.request("m", undefined, { id: "a", signal });
  await settled();
  socket.say(accepted("a"), done("a", 1, 0));
  await handle;
  assert.equal(remove.mock.callCount(), 1);
});

test("options of a request are sent", async () => {
  const { session, socket } = await open();
  session.request("m", { x: 1 }, { id: "a", timeout: 2, onDisconnect: "cancel" });
  await settled();
  const expected = { id: "a", method: "m", params: { x: 1 }, timeout: 2, on_disconnect: "cancel" };
  assert.deepEqual(socket.all("request"), [{ type: "request", ...expected }]);
});

test("an id in use, or of a wrong length, is refused", async () => {
  const { session } = await open();
  session.request("m", undefined, { id: "a" });
  for (const id of ["a", "", "x".repeat(129)]) {
    assert.throws(() => session.request("m", undefined, { id }), RangeError);
  }
});

test("there is a bound on unfinished requests", async () => {
  const { session } = await open();
  for (let i = 0; i < 10_000; i++) session.request("m");
  assert.throws(() => session.request("m"), RangeError);
});

test("results that are missing at the end are an error", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  socket.say(accepted("a"), result("a", 1, 0, "x"), done("a", 2, 2));
  await assert.rejects(async () => handle, { code: "results_lost" });
});

test("a replay that ends with fewer results than were given out is an error", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  socket.say(accepted("a"), result("a", 1, 0, "x"), result("a", 2, 1, "y"));
  const found = [];
  const reading = (async () => {
    for await (const one of handle) found.push(one);
  })();
  await settled();
  socket.say(result("a", 3, 0, "x", 2), done("a", 4, 1, 2));
  await assert.rejects(reading, { code: "results_changed" });
  assert.deepEqual(found, ["x", "y"]);
});

test("cancelling twice is cancelling once", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  handle.cancel();
  handle.cancel();
  await settled();
  assert.equal(socket.all("cancel").length, 1);
});

test("a request that may have arrived is cancelled by the server only", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  socket.gone();
  await settled();
  happens("online");
  await settled();
  // The manifest says that it is not there, but its commit may be on its way.
  const next = await welcome({ ...AGAIN, limits: { ...WELCOME.limits, window: 0 } });
  handle.cancel();
  await settled();
  assert(!handle.ended);
  next.gone();
  await settled();
  happens("online");
  const last = await welcome(AGAIN);
  assert.deepEqual(
    last.sent.slice(1).map(({ type, id }) => [type, id]),
    [
      ["request", "a"],
      ["cancel", "a"],
    ],
  );
});

test("requests that do not fit one message are sent in several", async () => {
  const { session, socket } = await open();
  const send = mock.method(socket, "send");
  const text = "x".repeat(3000);
  session.request("m", { text });
  session.request("m", { text });
  await settled();
  assert.equal(send.mock.callCount(), 2);
});

test("requests are sent freely again when one sent alone after a refusal is accepted", async () => {
  const { session, socket } = await open();
  for (const id of ["a", "b", "c"]) session.request("m", undefined, { id });
  await settled();
  const refusal = { type: "error", code: "overloaded", message: "", retryable: true };
  socket.say(...["a", "b", "c"].map((id) => ({ ...refusal, id })));
  while (socket.all("request").length < 4) await settled();
  socket.say(accepted("a"));
  await settled();
  assert.deepEqual(
    socket.all("request").map(({ id }) => id),
    ["a", "b", "c", "a", "b", "c"],
  );
});

test("an id that is used again goes with the acknowledgement of what it named before", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  socket.say(accepted("a"), done("a", 1, 0));
  await handle;
  session.request("m", undefined, { id: "a" });
  await settled();
  assert.deepEqual(
    socket.sent.slice(2).map(({ type }) => type),
    ["ack", "request"],
  );
});

// Acknowledgement

test("many events are acknowledged at once, by their last number", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  socket.say(accepted("a"), ...Array.from({ length: 300 }, (_, i) => result("a", i + 1, i, i)));
  await settled();
  assert.deepEqual(socket.all("ack"), [{ type: "ack", seq: 300 }]);
  handle.cancel();
});

test("nothing is acknowledged while results that nobody takes fill the buffer", async () => {
  const { session, socket } = await open({ bufferBytes: 1000 });
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  const sent = Array.from({ length: 200 }, (_, i) => result("a", i + 1, i, i));
  socket.say(accepted("a"), ...sent);
  await settled();
  assert.deepEqual(socket.all("ack"), []);
  let taken = 0;
  for await (const _ of handle) if (++taken === 200) break;
  await settled();
  assert.deepEqual(socket.all("ack"), [{ type: "ack", seq: 200 }]);
});

test("results of a handle that is thrown away take no room", { skip: !globalThis.gc }, async () => {
  const { session, socket } = await open({ bufferBytes: 1000 });
  session.request("m", undefined, { id: "a" });
  await settled();
  const sent = Array.from({ length: 200 }, (_, i) => result("a", i + 1, i, i));
  socket.say(accepted("a"), ...sent);
  for (let i = 0; i < 100 && !socket.all("ack").length; i++) {
    globalThis.gc();
    await settled();
  }
  assert.deepEqual(socket.all("ack"), [{ type: "ack", seq: 200 }]);
});

// The page

test("a network that is back ends the wait", async () => {
  const { socket } = await open();
  socket.say({ type: "goaway", reason: "restart", reconnect_after: 60 });
  socket.gone();
  await settled();
  happens("online");
  await welcome(AGAIN);
  assert.equal(sockets.length, 2);
});

test("a page that is shown again ends the wait", async () => {
  const { socket } = await open();
  socket.say({ type: "goaway", reason: "restart", reconnect_after: 60 });
  socket.gone();
  await settled();
  globalThis.document.visibilityState = "hidden";
  happens("visibilitychange");
  await settled();
  assert.equal(sockets.length, 1);
  globalThis.document.visibilityState = "visible";
  happens("visibilitychange");
  await welcome(AGAIN);
  assert.equal(sockets.length, 2);
});

test("a page in the back-forward cache holds no connection, and comes back", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const { session, socket } = await open();
  happens("pagehide", { persisted: true });
  await settled();
  assert(socket.closed);
  assert.equal(session.state, "offline");
  assert.deepEqual(socket.all("bye"), []);
  happens("pageshow", { persisted: true });
  await welcome(AGAIN);
  assert.equal(session.state, "online");
});

test("a page that is left for good says bye", async () => {
  const { socket } = await open();
  happens("pagehide", { persisted: false });
  await settled();
  assert.equal(socket.all("bye").length, 1);
});

test("a page that is left for good keeps a session that is to persist", async () => {
  const { socket } = await open({ persist: true });
  happens("pagehide", { persisted: false });
  await settled();
  assert.deepEqual(socket.all("bye"), []);
});

test("a server that is silent is asked, and left when it does not answer", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const { session, socket } = await open();
  const events = eventsOf(session);
  mock.timers.tick(30_000);
  await settled();
  assert.deepEqual(socket.all("refresh"), [{ type: "refresh", token: "t" }]);
  mock.timers.tick(10_000);
  await settled();
  assert(socket.closed);
  assert.deepEqual(types(events).slice(0, 1), ["offline"]);
  happens("online");
  await welcome(AGAIN);
});

test("a server that answers is not left", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const { socket } = await open();
  mock.timers.tick(30_000);
  await settled();
  socket.say({ type: "refreshed", expires_at: 4_000_000_000 });
  mock.timers.tick(29_000);
  await settled();
  assert(!socket.closed);
});

test("a change of the network makes it ask the server at once", async () => {
  const { socket } = await open();
  happens("online");
  await settled();
  assert.equal(socket.all("refresh").length, 1);
});

test("what an older connection still says does not count", async () => {
  const { session, socket } = await open();
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  socket.say(accepted("a"));
  socket.gone();
  await settled();
  happens("online");
  const next = await welcome({ ...AGAIN, requests: [listed("a", 1)] });
  socket.say(result("a", 1, 0, "from the grave"));
  next.say(result("a", 1, 0, "x"), done("a", 2, 1));
  assert.equal(await handle, "x");
});

// What outlives the page

/** Nothing that happens reaches the old page any more. */
function reload() {
  page = new EventTarget();
  globalThis.addEventListener = page.addEventListener.bind(page);
}

test("after a reload the page has its requests, with their results from the first", async () => {
  const { session, socket } = await open({ persist: true });
  session.request("words", { text: "to be" }, { id: "a" });
  session.request("echo", { text: "x" }, { id: "b" });
  await settled();
  socket.say(accepted("a"), result("a", 1, 0, "to"));
  await settled();
  reload();

  const requests = [listed("a", 1)];
  const again = await open({ persist: true }, { ...AGAIN, seq: 1, requests });
  const { session: id, epoch, seq } = again.socket.sent[0];
  assert.deepEqual({ id, epoch, seq }, { id: "s", epoch: undefined, seq: undefined });
  const handles = [...again.session.requests.values()];
  assert.deepEqual(
    handles.map(({ method, params, n }) => ({ method, params, n })),
    [
      { method: "words", params: { text: "to be" }, n: 1 },
      { method: "echo", params: { text: "x" }, n: null },
    ],
  );
  // What had not arrived is sent again, with the same id and the same text.
  assert.deepEqual(again.socket.all("request"), socket.all("request").slice(1));
  const [words, echo] = handles.map((handle) => handle.results());
  again.socket.say(accepted("b", 2), result("a", 1, 0, "to"), result("a", 2, 1, "be"));
  again.socket.say(done("a", 3, 2), result("b", 4, 0, "x"), done("b", 5, 1));
  assert.deepEqual(await words, ["to", "be"]);
  assert.deepEqual(await echo, ["x"]);
});

test("a page after a reload gives its requests other ids", async () => {
  const first = await open({ persist: true });
  const { id } = first.session.request("m");
  await settled();
  reload();
  const again = await open({ persist: true }, { ...AGAIN, requests: [listed(id, 1)] });
  assert.notEqual(again.session.request("m").id, id);
});

test("the order of requests outlives several pages", async () => {
  const limits = { ...WELCOME.limits, window: 0 };
  const first = await open({ persist: true }, { ...WELCOME, limits });
  first.session.request("m", undefined, { id: "a" });
  first.session.request("m", undefined, { id: "b" });
  reload();
  const second = await open({ persist: true }, { ...AGAIN, limits });
  second.session.request("m", undefined, { id: "c" });
  reload();
  const { session } = await open({ persist: true }, { ...AGAIN, limits });
  assert.deepEqual([...session.requests.keys()], ["a", "b", "c"]);
});

test("with persist, results are acknowledged when all of a request are there and taken", async () => {
  const { session, socket } = await open({ persist: true }, { ...WELCOME, limits: GENEROUS });
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  socket.say(accepted("a"), ...Array.from({ length: 130 }, (_, i) => result("a", i + 1, i, i)));
  await settled();
  assert.deepEqual(socket.all("ack"), []);
  socket.say(done("a", 131, 130));
  await settled();
  assert.deepEqual(socket.all("ack"), []);
  await handle.results();
  await settled();
  assert.deepEqual(socket.all("ack"), [{ type: "ack", seq: 131 }]);
});

test("with persist, a long stream is acknowledged before the server has too much of it", async () => {
  const { session, socket } = await open({ persist: true });
  session.request("m", undefined, { id: "a" });
  await settled();
  const text = "x".repeat(11_000); // a quarter of max_result_bytes
  socket.say(accepted("a"), result("a", 1, 0, text));
  await settled();
  assert.deepEqual(socket.all("ack"), [{ type: "ack", seq: 1 }]);
});

test("with persist, events that come again in a new epoch stay unacknowledged", async () => {
  const { session, socket } = await open({ persist: true });
  session.request("m", undefined, { id: "a" });
  await settled();
  socket.say(accepted("a"), result("a", 1, 0, "x"));
  socket.gone();
  await settled();
  happens("online");
  const requests = [listed("a", 1)];
  const next = await welcome({ ...AGAIN, epoch: "e2", requests, limits: GENEROUS });
  next.say(...Array.from({ length: 130 }, (_, i) => result("a", i + 1, i, "x")));
  await settled();
  assert.deepEqual(next.all("ack"), []);
});

test("with persist, what ended but was not taken stays unacknowledged after a crash", async () => {
  const { session, socket } = await open({ persist: true });
  session.request("m", undefined, { id: "a" });
  await settled();
  const end = [result("a", 1, 0, "x"), done("a", 2, 1)];
  socket.say(accepted("a"), ...end);
  socket.gone();
  await settled();
  happens("online");
  const requests = [listed("a", 1, "ended")];
  const next = await welcome({ ...AGAIN, epoch: "e2", requests, limits: GENEROUS }, ...end);
  const live = Array.from({ length: 130 }, (_, i) => result("other", i + 3, i, "x"));
  next.say(...live); // so many events would be acknowledged at once
  await settled();
  assert.deepEqual(next.all("ack"), []);
});

test("with persist, a full window makes it acknowledge what has come", async () => {
  const { session, socket } = await open({ persist: true });
  session.request("m", undefined, { id: "a" });
  session.request("m", undefined, { id: "b" });
  await settled();
  const refusal = { code: "window_exceeded", message: "", retryable: true, retry_after: 60 };
  socket.say(accepted("a"), result("a", 1, 0, "x"), { type: "error", id: "b", ...refusal });
  await settled();
  assert.deepEqual(socket.all("ack"), [{ type: "ack", seq: 1 }]);
});

test("a request that is over is not kept", async () => {
  const { session, socket } = await open({ persist: true });
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  socket.say(accepted("a"), result("a", 1, 0, "x"), done("a", 2, 1));
  await handle;
  assert.deepEqual(Object.values(globalThis.sessionStorage), ["s"]);
});

test("a closed session is not kept", async () => {
  const { session, socket } = await open({ persist: true });
  session.request("m");
  const closing = session.close();
  socket.gone(1000);
  await closing;
  assert.deepEqual(Object.keys(globalThis.sessionStorage), []);
});

test("a session that was taken over is left to the page that has it", async () => {
  const { session, socket } = await open({ persist: true });
  session.request("m");
  await settled();
  socket.gone(4509);
  await settled();
  assert.deepEqual(Object.keys(globalThis.sessionStorage), []);
});

test("a session that the client gave up is kept for the next page", async () => {
  const { session, socket } = await open({ persist: true });
  session.request("m", undefined, { id: "a" });
  await settled();
  socket.gone(4501);
  await settled();
  assert.equal(session.state, "closed");
  reload();
  const again = await open({ persist: true }, { ...AGAIN, requests: [listed("a", 1)] });
  assert.equal(again.session.requests.get("a").method, "m");
});

test("requests of a session that is gone are not sent in a new one", async () => {
  const first = await open({ persist: true });
  first.session.request("m", undefined, { id: "a" });
  first.session.request("m", undefined, { id: "b" });
  await settled();
  first.socket.say(accepted("a"));
  await settled();
  reload();
  const again = await open({ persist: true }, { ...WELCOME, session: "s2" });
  await settled();
  assert.deepEqual(again.socket.all("request"), []);
  for (const handle of again.session.requests.values()) {
    await assert.rejects(async () => handle, { code: "session_lost" });
  }
  assert.deepEqual([...again.session.requests.keys()], ["a", "b"]);
  assert.deepEqual(Object.values(globalThis.sessionStorage), ["s2"]);
});

test("a request that had been accepted and is unknown now is not sent again", async () => {
  const first = await open({ persist: true });
  first.session.request("m", undefined, { id: "a" });
  await settled();
  first.socket.say(accepted("a"));
  await settled();
  reload();
  const again = await open({ persist: true }, AGAIN);
  await assert.rejects(async () => again.session.requests.get("a"), { code: "results_lost" });
  assert.deepEqual(again.socket.all("request"), []);
});

test("sessions of several names do not mix", async () => {
  const first = await open({ persist: "a" });
  first.session.request("m", undefined, { id: "x" });
  await settled();
  const other = await open({ persist: "a/x" });
  assert.equal(other.session.requests.size, 0);
  assert.equal(other.socket.sent[0].session, undefined);
});

test("a storage that is full keeps less, and fails nothing", async () => {
  globalThis.sessionStorage.setItem = () => {
    throw new DOMException("full", "QuotaExceededError");
  };
  const { session, socket } = await open({ persist: true });
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  socket.say(accepted("a"), done("a", 1, 0));
  assert.equal(await handle, null);
});

test("a storage that is forbidden fails nothing", async () => {
  Object.defineProperty(globalThis, "sessionStorage", {
    configurable: true,
    get() {
      throw new DOMException("forbidden", "SecurityError");
    },
  });
  const { session, socket } = await open({ persist: true });
  const handle = session.request("m", undefined, { id: "a" });
  await settled();
  socket.say(accepted("a"), done("a", 1, 0));
  assert.equal(await handle, null);
});

test("errors are of the classes the types promise", async () => {
  assert(new RequestFailed("a", "c", "m") instanceof Error);
});
