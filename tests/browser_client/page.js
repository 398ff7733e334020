// A page of the tests at a real server: it says what happens, line by line, as JSON.
//
//     node page.js '{"url": ..., "token": ..., "requests": [...], "storage": FILE}'
//
// It tells {"event": TYPE} of its session, {"id": ..., "result": ...} and in the end
// {"id": ..., "end": "done" or the code of an error, "n": ..., "attempt": ...} of each request, also
// of those that an earlier page left in `storage`. With "probe", it asks the server whether it is
// there.

import { readFileSync, writeFileSync } from "node:fs";
import { connect } from "../../protocol/client.js";

const { url, token, requests, storage, probe } = JSON.parse(process.argv[2]);

/** A sessionStorage that outlives this process. */
class FileStorage {
  constructor() {
    try {
      Object.assign(this, JSON.parse(readFileSync(storage, "utf8")));
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
  }

  getItem(key) {
    return Object.hasOwn(this, key) ? this[key] : null;
  }

  setItem(key, value) {
    this[key] = value;
    writeFileSync(storage, JSON.stringify(this));
  }

  removeItem(key) {
    delete this[key];
    writeFileSync(storage, JSON.stringify(this));
  }
}

const tell = (what) => console.log(JSON.stringify(what));

async function follow(handle) {
  const { id } = handle;
  try {
    for await (const result of handle) tell({ id, result });
    tell({ id, end: "done", n: handle.n, attempt: handle.attempt });
  } catch (error) {
    tell({ id, end: error.code, n: handle.n, attempt: handle.attempt });
  }
}

const page = new EventTarget();
globalThis.addEventListener = page.addEventListener.bind(page);
if (storage) Object.defineProperty(globalThis, "sessionStorage", { value: new FileStorage() });

/** A WebSocket that tells when the server answers the probe. */
class Watched extends WebSocket {
  constructor(...args) {
    super(...args);
    this.addEventListener("message", ({ data }) => {
      if (data.includes('"refreshed"')) tell({ event: "refreshed" });
    });
  }
}

const session = await connect(url, { token, persist: !!storage, WebSocket: Watched });
for (const type of ["offline", "online", "resumed", "taken-over", "closed"]) {
  session.addEventListener(type, ({ detail }) => tell({ event: type, code: detail?.code }));
}
if (probe) page.dispatchEvent(new Event("online"));
const found = [...session.requests.values()];
const made = requests.map(({ method, params, id }) => session.request(method, params, { id }));
await Promise.all([...found, ...made].map(follow));
await session.close();
