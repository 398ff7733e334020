// The page: log in, hold a session, send requests, show what happens to it all.
//
// Login (login.js) -> connect (client.js) -> methods (methods.js) -> requests (requests.js)

import { connect } from "./client.js";
import { ask, forgetTab, Login, Refused } from "./login.js";
import { ParamsForm, signatureOf, traitsOf } from "./methods.js";
import { counted, Requests, show } from "./requests.js";

/**
 * @typedef {import("./client.js").Session} Session
 * @typedef {import("./methods.js").Method} Method
 */

/** How long the connection stays away when it was dropped on purpose. */
const AWAY_MS = 3000;
/** A server that is being restarted is waited for so long by a page that is loaded meanwhile. */
const CONNECT_SECONDS = 60;
/** So many lines the history of the connection has. */
const HISTORY_MAX = 50;
/** Announcements are joined for so long, and of many only so many are read out. */
const ANNOUNCE_MS = 700;
const ANNOUNCED_MAX = 3;

/** Close codes of SPEC.md: the token expired, is no good, or is not that of this session's user. */
const EXPIRED = 4401;
const LOGIN_CODES = [EXPIRED, 4501, 4503];
const TAKEN_OVER = 4509;
const TAKEN_OVER_TEXT = "Another tab or program goes on with this session.";

/** @template {HTMLElement} [T=HTMLElement] @param {string} id @returns {T} */
const byId = (id) => /** @type {T} */ (document.getElementById(id));
/** @param {string} id */
const field = (id) => /** @type {HTMLInputElement} */ (byId(id));
/** @param {string} id */
const button = (id) => /** @type {HTMLButtonElement} */ (byId(id));

/** @type {Login | undefined} */
let login;
/** @type {Session | undefined} */
let session;
/** Counts logins and new sessions: what belongs to an older one does not count any more. */
let era = 0;
/** The WebSocket in use. @type {WebSocket | undefined} */
let socket;
/** The connection stays away until then. @type {Promise<unknown> | undefined} */
let away;

// What is read out

/** @type {string[]} */
let news = [];

/** @param {string} text */
function announce(text) {
  news.push(text);
  if (news.length > 1) return;
  setTimeout(() => {
    const more = news.length - ANNOUNCED_MAX;
    const texts = news.slice(-ANNOUNCED_MAX);
    news = [];
    byId("announcements").textContent = (more > 0 ? [`${more} more`, ...texts] : texts).join(". ");
  }, ANNOUNCE_MS);
}

const requests = new Requests(
  {
    list: byId("requests"),
    queue: byId("queue"),
    length: byId("queue-length"),
    empty: byId("no-requests"),
    clear: byId("clear"),
  },
  announce,
);

// Views

/** @param {"login" | "console"} name */
function view(name) {
  byId("login").hidden = name !== "login";
  byId("console").hidden = byId("account").hidden = byId("state").hidden = name !== "console";
  document.documentElement.dataset.view = name;
}

/** @param {string} [problem] */
function showLogin(problem = "") {
  view("login");
  problemAt("login-problem", problem);
  field("name").value ||= login?.subject ?? "";
  field(field("name").value ? "password" : "name").focus();
}

/** @param {string} id @param {unknown} problem */
function problemAt(id, problem) {
  const text = problem instanceof TypeError ? "The server does not answer." : `${problem}`;
  byId(id).hidden = !problem;
  show(byId(id), text.replace(/^Error: /, ""));
}

/**
 * Do what a form is for, with its button off meanwhile; show at `id` why it failed.
 *
 * @param {string} form @param {string} id @param {() => Promise<void>} action
 */
function onSubmit(form, id, action) {
  byId(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    const submit = /** @type {HTMLButtonElement} */ (byId(form).querySelector("button"));
    submit.disabled = true;
    problemAt(id, "");
    try {
      await action();
    } catch (error) {
      problemAt(id, error instanceof Refused ? error.message : error);
    } finally {
      submit.disabled = false;
    }
  });
}

onSubmit("login-password", "login-problem", async () => {
  login = await Login.withPassword(field("name").value, field("password").value);
  await begin();
});

onSubmit("login-token", "login-problem", async () => {
  const candidate = new Login(field("token").value.trim());
  try {
    await ask("GET", "methods", candidate.authorization);
  } catch (error) {
    candidate.forget();
    throw error;
  }
  login = candidate;
  await begin();
});

onSubmit("renewal", "renewal-problem", async () => {
  await login?.again(field("renewal-secret").value);
  field("renewal-secret").value = "";
});

button("log-out").addEventListener("click", () => {
  era++;
  session?.close();
  session = undefined;
  login = undefined;
  forgetTab();
  requests.clear();
  byId("history").replaceChildren();
  field("name").value = "";
  showLogin();
});

button("begin-again").addEventListener("click", () => begin());

// The session

/** Open the session of this tab, or a new one. */
async function begin() {
  if (!login) return;
  const mine = ++era;
  const user = login;
  for (const id of ["password", "token", "renewal-secret"]) field(id).value = "";
  user.onneeded = (needed) => {
    byId("renewal").hidden = !needed;
    field("renewal-name").value = user.subject;
    if (needed) announce("Your token runs out, log in again to go on");
  };
  byId("over").hidden = byId("renewal").hidden = true;
  show(byId("subject"), user.subject);
  view("console");
  state("connecting", "Connecting");
  try {
    const opened = await connect(address(), {
      token: async () => {
        await away;
        if (mine !== era) throw new Error("logged out");
        // In the middle of a connection it is a fresh one that is asked for.
        return session?.state === "online" ? user.renewed() : user.current();
      },
      persist: "console",
      connectTimeoutSeconds: CONNECT_SECONDS,
      WebSocket: Wire,
    });
    if (mine !== era) return void opened.close();
    session = opened;
    watch(opened);
  } catch (error) {
    if (mine === era) over(/** @type {import("./client.js").ConnectionFailed} */ (error));
  }
}

function address() {
  const url = new URL("ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  return url;
}

/** A WebSocket that this page can reach, to cut it. */
class Wire extends WebSocket {
  /** @param {string | URL} url @param {string} protocol */
  constructor(url, protocol) {
    super(url, protocol);
    socket = this;
  }
}

/** @param {Session} opened */
function watch(opened) {
  const mine = era;
  /** @type {Session["addEventListener"]} */
  const on = (
    /** @type {string} */ type,
    /** @type {any} */ action,
  ) => opened.addEventListener(type, (event) => mine === era && action(event));
  on("connecting", () => state("connecting", away ? outage() : "Connecting"));
  on("online", online);
  on("resumed", () => {
    note("the session was resumed");
    announce("Connected again, the session was resumed");
  });
  on("offline", ({ detail }) => {
    if (detail.code === EXPIRED) login?.refused();
    const code = detail.code ? `, code ${detail.code}` : "";
    const seconds = detail.retrySeconds.toFixed(1);
    note(away ? "dropped on purpose" : `${detail.reason}${code}; next attempt in ${seconds} s`);
    if (byId("state").dataset.state === "online") announce("The connection is lost");
    state("offline", outage());
    button("drop").disabled = true;
  });
  on("closed", ({ detail: { code, reason } }) => {
    over({ code, message: code === TAKEN_OVER ? TAKEN_OVER_TEXT : reason });
  });
  announce("Connected");
  online();
  for (const handle of opened.requests.values()) requests.add(handle);
}

function online() {
  state("online", "Connected");
  note(`connected to session ${session?.id.slice(0, 8)}`);
  button("drop").disabled = false;
  show(
    byId("reconnects"),
    session?.reconnects ? counted(session.reconnects, "reconnect") : "no reconnect so far",
  );
  loadMethods();
}

/** Why there is no connection, in a few words. */
function outage() {
  if (away) return "Connection dropped";
  return navigator.onLine ? "Connection lost" : "This device is offline";
}

/** @param {{code?: number, message: string}} reason */
function over({ code, message }) {
  state("closed", "Closed");
  button("drop").disabled = button("send").disabled = true;
  byId("renewal").hidden = true;
  session = undefined;
  note(`closed: ${message}`);
  if (code && LOGIN_CODES.includes(code)) {
    login?.forget();
    showLogin(code === EXPIRED ? "Your token has expired. Log in again to go on." : message);
    return;
  }
  byId("over").hidden = false;
  show(byId("over-reason"), message);
  announce(`Not connected: ${message}`);
}

/** @param {"connecting" | "online" | "offline" | "closed"} name @param {string} text */
function state(name, text) {
  byId("state").dataset.state = name;
  show(byId("state"), text);
}

/** Add a line to the history of the connection. @param {string} text */
function note(text) {
  const line = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString("en-GB");
  line.append(time, ` ${text}`);
  const list = byId("history");
  list.prepend(line);
  while (list.children.length > HISTORY_MAX) list.lastElementChild?.remove();
}

button("drop").addEventListener("click", () => {
  button("drop").disabled = true;
  away = new Promise((resolve) => setTimeout(resolve, AWAY_MS)).then(() => (away = undefined));
  socket?.close();
});

// Methods and the form

/** @type {string} */
let offered = "";
/** @type {Map<string, ParamsForm>} */
const forms = new Map();

async function loadMethods() {
  if (!login) return;
  /** @type {{methods: Method[]}} */
  let answer;
  try {
    answer = await ask("GET", "methods", login.authorization);
  } catch {
    return; // it is asked again with the next connection
  }
  button("send").disabled = !answer.methods.length || session?.state === "closed";
  const text = JSON.stringify(answer.methods);
  if (text === offered) return; // what was filled in stays
  offered = text;
  const chosen = checked();
  forms.clear();
  const list = byId("methods");
  list.querySelectorAll(":not(legend)").forEach((element) => element.remove());
  for (const method of answer.methods) list.append(optionOf(method));
  const first = answer.methods.find(({ name }) => name === chosen) ?? answer.methods[0];
  if (first) choose(first.name);
}

/** @param {Method} method */
function optionOf(method) {
  const template = /** @type {HTMLTemplateElement} */ (byId("method-template"));
  const option = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
  const part = (/** @type {string} */ name) =>
    /** @type {HTMLElement} */ (option.querySelector(name));
  const input = /** @type {HTMLInputElement} */ (part("input"));
  input.value = method.name;
  input.addEventListener("change", () => choose(method.name));
  part(".signature").textContent = signatureOf(method);
  part(".summary").textContent = method.summary.replaceAll("`", "");
  part(".traits").textContent = traitsOf(method);
  // Only the signature is the radio button's name; the rest describes it.
  input.setAttribute("aria-label", signatureOf(method));
  part(".about").id = `about-${method.name}`;
  input.setAttribute("aria-describedby", part(".about").id);
  forms.set(method.name, new ParamsForm(method));
  return option;
}

const checked = () =>
  /** @type {HTMLInputElement | null} */ (byId("methods").querySelector("input:checked"))?.value;

/** @param {string} name */
function choose(name) {
  const inputs = byId("methods").querySelectorAll("input");
  for (const input of inputs) input.checked = input.value === name;
  const params = byId("params");
  params.querySelectorAll(":scope > :not(legend)").forEach((element) => element.remove());
  const form = forms.get(name);
  if (form) params.append(form.element);
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const method = checked();
  const params = method && forms.get(method)?.read();
  if (!method || !params || !session) return;
  try {
    requests.add(session.request(method, params)).scrollIntoView({ block: "nearest" });
    announce(`${method} sent`);
  } catch (error) {
    announce(`${/** @type {Error} */ (error).message}`);
  }
});

byId("composer").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  if (!button("send").disabled) /** @type {HTMLFormElement} */ (byId("composer")).requestSubmit();
});

addEventListener("offline", () => {
  if (session && session.state !== "online") state("offline", outage());
});

login = Login.stored();
if (login) begin();
else showLogin();
