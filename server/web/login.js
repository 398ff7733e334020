// Who uses this page: a token, and how to get the next one.
//
// The token is kept in this tab (sessionStorage), so that a reload goes on. The password is kept in
// memory only, as long as the page is open: the server has no other way to renew a token.

const KEY = "queuesystem-console-token";

/** The server refused a login or a token; `status` is that of HTTP. */
export class Refused extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Ask this server. Nothing that the browser would add by itself is sent along, so no dialogue of
 * its own asks for passwords. Throws {@link Refused}, and the TypeError of `fetch` without a
 * network.
 *
 * @param {string} method @param {string} path @param {string} authorization
 */
export async function ask(method, path, authorization) {
  const headers = { Authorization: authorization };
  const response = await fetch(path, { method, headers, credentials: "omit", cache: "no-store" });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body.error ?? `HTTP ${response.status}`);
  return body;
}

/** @param {string} name @param {string} password @returns {Promise<string>} */
async function fetchToken(name, password) {
  const bytes = new TextEncoder().encode(`${name}:${password}`);
  const login = btoa(String.fromCharCode(...bytes));
  return (await ask("POST", "token", `Basic ${login}`)).access_token;
}

/** Whom a token is for; to be shown, not to be believed. @param {string} token */
function subjectOf(token) {
  try {
    const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(payload), (sign) => sign.charCodeAt(0));
    return `${JSON.parse(new TextDecoder().decode(bytes)).sub}`;
  } catch {
    return "";
  }
}

/** Remove the token, and what client.js keeps of a session that is not even connected. */
export function forgetTab() {
  try {
    for (const key of Object.keys(sessionStorage)) {
      if (key.startsWith("queuesystem")) sessionStorage.removeItem(key);
    }
  } catch {
    // forbidden, so nothing is there
  }
}

export class Login {
  /** Whose it is; stays when the token is forgotten. */
  subject = "";
  #token = "";
  /** @type {string | undefined} */
  #password;
  /** The server called the token expired. */
  #refused = false;
  /** Waits for somebody to log in again. @type {Promise<string> | undefined} */
  #answer;
  /** @type {(token: string) => void} */
  #answered = () => {};

  /** Called when somebody must log in again, and when that is over. @param {boolean} _needed */
  onneeded = (_needed) => {};

  /** @param {string} token @param {string} [password] */
  constructor(token, password) {
    this.#keep(token, password);
  }

  /** @param {string} name @param {string} password */
  static async withPassword(name, password) {
    return new Login(await fetchToken(name, password), password);
  }

  /** The login of this tab before it was loaded again. */
  static stored() {
    try {
      const token = sessionStorage.getItem(KEY);
      return token ? new Login(token) : undefined;
    } catch {
      return undefined;
    }
  }

  get authorization() {
    return `Bearer ${this.#token}`;
  }

  /** The token to say hello with. */
  current() {
    return this.#refused ? this.renewed() : this.#token;
  }

  /** A fresh token; waits for somebody to log in again where there is no password. */
  async renewed() {
    if (this.#password !== undefined) {
      try {
        return this.#keep(await fetchToken(this.subject, this.#password), this.#password);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        // What may be otherwise later (429, 503) looks like a lost network: it is tried again.
        if (error.status !== 401) throw new TypeError(error.message, { cause: error });
        this.#password = undefined;
      }
    }
    this.onneeded(true);
    this.#answer ??= new Promise((resolve) => (this.#answered = resolve));
    return this.#answer;
  }

  /**
   * Take the password again, or a token in its place. Throws {@link Refused}.
   *
   * @param {string} secret
   */
  async again(secret) {
    const { subject } = this;
    const token = secret.trim();
    if (subjectOf(token)) {
      if (subjectOf(token) !== subject) throw new Refused(401, `that token is not ${subject}'s`);
      await ask("GET", "methods", `Bearer ${token}`);
      this.#keep(token);
    } else this.#keep(await fetchToken(subject, secret), secret);
    this.onneeded(false);
    this.#answered(this.#token);
    this.#answer = undefined;
  }

  /** The server closed a connection because the token had expired. */
  refused() {
    this.#refused = true;
  }

  /** Neither token nor password will be used again; the session waits for the next login. */
  forget() {
    this.#token = "";
    this.#password = undefined;
    try {
      sessionStorage.removeItem(KEY);
    } catch {
      // forbidden, so nothing is there
    }
  }

  /** @param {string} token @param {string} [password] */
  #keep(token, password) {
    this.subject = subjectOf(token);
    this.#token = token;
    this.#password = password;
    this.#refused = false;
    try {
      sessionStorage.setItem(KEY, token);
    } catch {
      // forbidden or full: a reload asks for it again
    }
    return token;
  }
}
