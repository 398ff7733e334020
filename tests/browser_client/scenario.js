// Follow scenarios of tests/integration/client_scripts.json, each a line {"url": ..., "scenario": ...}
// of stdin; print how the requests of each ended, a line [outcome, ...].

import { createInterface } from "node:readline/promises";
import { ConnectionFailed, RequestFailed, connect } from "../../protocol/client.js";

/** In the words of client_scripts.json. */
function inWords(error) {
  if (error instanceof RequestFailed) return { error: error.code };
  if (error instanceof ConnectionFailed) return { failed: error.code ?? null };
  throw error;
}

async function outcome(handle, cancel = () => {}, cancelAfter = -1) {
  const results = [];
  try {
    if (cancelAfter === 0) cancel();
    for await (const one of handle) {
      results.push(one);
      if (results.length === cancelAfter) cancel();
    }
  } catch (error) {
    return inWords(error);
  }
  return { results, ...(handle.attempt > 1 && { attempt: handle.attempt }) };
}

function send(session, { method, params, cancel_after: cancelAfter }) {
  const controller = new AbortController();
  const handle = session.request(method, params, { signal: controller.signal });
  return outcome(handle, () => controller.abort(), cancelAfter);
}

async function follow({ url, scenario }) {
  const tokens = scenario.tokens?.values();
  const options = {
    token: tokens ? () => tokens.next().value : "t",
    resume: scenario.resume,
  };
  let session;
  try {
    session = await connect(url, options);
  } catch (error) {
    return [inWords(error)];
  }
  const taken = [...session.requests.values()].map((handle) => outcome(handle));
  const sent = (scenario.requests ?? []).map((request) => send(session, request));
  const outcomes = await Promise.all([...taken, ...sent]);
  await session.close();
  return outcomes;
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await follow(JSON.parse(line))));
}
