// What users write, against the types; compiled by test_package.py, never run.

import {
  ConnectionFailed,
  RequestFailed,
  connect,
  type RequestHandle,
  type Session,
} from "../../protocol/client.js";

export async function example(): Promise<void> {
  const session: Session = await connect("/ws", {
    token: async () => (await fetch("/token", { method: "POST" })).text(),
    persist: true,
  });
  session.addEventListener("offline", ({ detail }) => {
    const seconds: number = detail.retrySeconds;
    console.log(detail.reason, detail.code?.toFixed(), seconds);
  });
  session.addEventListener("taken-over", ({ detail }) => console.log(detail.reason));

  const handle: RequestHandle<string> = session.request<string>("words", { text: "to be" });
  for await (const word of handle) console.log(word.length);
  const total: number = await session.request<number>("count", {}, { timeout: 2 });
  for await (const event of session.request("words").events()) {
    if (event.type === "result") console.log(total, event.index, event.data);
    else console.log(event.attempt);
  }
  for (const { id, method, params } of session.requests.values()) console.log(id, method, params);

  const { signal } = new AbortController();
  try {
    await session.request("sleep", { seconds: 1 }, { signal, onDisconnect: "cancel" });
  } catch (error) {
    if (error instanceof RequestFailed) console.log(error.code, error.details, error.retryable);
    if (error instanceof ConnectionFailed) console.log(error.code);
  }

  // @ts-expect-error: a token is needed
  await connect("/ws", {});
  // @ts-expect-error: sessions are made by connect
  new (session.constructor as typeof Session)();
  // @ts-expect-error: params are an object
  session.request("words", "to be");
  await session.close({ cancel: true });
}
