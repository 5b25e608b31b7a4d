// One server's side of a script: it carries out the steps and keeps all that it sees.

import { createHmac, sign as signWith } from "node:crypto";

import { Client } from "./clients/client.mjs";
import { call } from "./clients/http.mjs";

export const API_KEY = "conformance-api-key";
export const SECRET = "conformance-secret";
/** Longest wait for something that the script expects. */
const LONG = 8_000;

export class Side {
  /** plant: a function that may change a message or drop it; see plant.mjs. */
  constructor({ kind, port, marker, backend, plant }) {
    Object.assign(this, { kind, port, marker, backend, plant });
    // A dropped message never comes, so a planted run does not wait long for it.
    this.patience = plant === undefined ? LONG : 1_500;
    this.actors = new Map();
    this.clients = new Map();
    this.sessions = new Map();
    this.nodes = new Set();
    this.results = [];
    this.saved = {};
    this.listeners = new Set();
  }

  // --- what arrives -----------------------------------------------------------------------------

  receive(client, message) {
    const kept = this.plant?.message(message, client) ?? message;
    if (kept === "dropped") return undefined;
    this.remember(kept);
    return kept;
  }

  receiveEnd(client, end) {
    return this.plant?.end(end, client) ?? end;
  }

  /** Keeps the latest epoch, for the placeholder {epoch}. */
  remember(value) {
    if (value === null || typeof value !== "object") return;
    if (typeof value.epoch === "string" && value.epoch !== "") this.saved.epoch = value.epoch;
    for (const inner of Object.values(value)) this.remember(inner);
  }

  /** Records an answer of HTTP; `keep` names the headers that are compared. */
  recordAnswer(what, answer, keep) {
    const kept = Object.fromEntries(keep.map((name) => [name, answer.headers?.[name]]));
    let body = answer.body?.toString() ?? "";
    try {
      body = JSON.parse(body);
    } catch {
      body = textOrLines(body, answer.status);
    }
    const result = { status: answer.status ?? answer.error, headers: kept, body };
    const planted = this.plant?.answer(result) ?? result;
    this.remember(planted.body);
    this.record(what, planted);
  }

  changed() {
    for (const listener of this.listeners) listener();
  }

  get count() {
    let count = this.results.length + (this.backend?.requests(this.marker).length ?? 0);
    for (const client of this.actors.values()) count += client.count;
    return count;
  }

  /** Resolves to true when `holds` does, or to false after the given time. */
  until(holds, milliseconds = this.patience) {
    if (holds()) return Promise.resolve(true);
    return new Promise((resolve) => {
      const done = (value) => {
        this.listeners.delete(check);
        clearTimeout(timer);
        clearInterval(beat);
        resolve(value);
      };
      const check = () => { if (holds()) done(true); };
      const timer = setTimeout(() => done(holds()), milliseconds);
      const beat = setInterval(check, 50);
      this.listeners.add(check);
    });
  }

  // --- placeholders -----------------------------------------------------------------------------

  /**
   * Fills a value in: {n} is the marker of the script, {epoch} the latest epoch seen, {client:a} the
   * id of client a, {session:a} and {node:a} its session and node. A function is called with this.
   */
  fill(value) {
    if (typeof value === "function") return this.fill(value(this));
    if (typeof value === "string") return this.#fillText(value);
    if (value === null || typeof value !== "object" || Buffer.isBuffer(value)) return value;
    if (Array.isArray(value)) return value.map((one) => this.fill(one));
    return Object.fromEntries(
      Object.entries(value).map(([key, one]) => [this.#fillText(key), this.fill(one)]));
  }

  #fillText(text) {
    return text.replace(/\{(n|epoch|client|session|node)(?::(\w+))?\}/g, (_, what, name) => {
      if (what === "n") return this.marker;
      if (what === "epoch") return this.saved.epoch ?? "none";
      const client = this.actors.get(name);
      return { client: client?.id, session: client?.session, node: client?.node }[what] ?? "none";
    });
  }

  // --- steps ------------------------------------------------------------------------------------

  async step(step) {
    const [kind] = Object.keys(step);
    await STEPS[kind](this, step[kind], step);
    this.changed();
  }

  record(what, result) {
    this.results.push({ [what]: result });
  }

  transcript() {
    const clients = {};
    for (const [name, client] of this.actors) clients[name] = client.transcript();
    const transcript = { results: this.results, clients };
    const requests = structuredClone(this.backend?.requests(this.marker) ?? []);
    this.plant?.requests(requests);
    if (requests.length > 0) transcript.backend = requests;
    return transcript;
  }

  close() {
    for (const client of this.actors.values()) client.close();
  }
}

/** JSON lines as a list. The words of a refusal are not compared: they are for people. */
function textOrLines(text, status) {
  try {
    return text.trim().split("\n").map((line) => JSON.parse(line));
  } catch {
    return status >= 400 ? "<text>" : text;
  }
}

/** The kinds of steps. Each gets the side and its unfilled argument. */
const STEPS = {
  /** {open: NAME, ...options of the client, connect: request or undefined} */
  async open(side, name, { connect, first, ...options }) {
    const client = new Client(side, name, side.fill({ ...options, open: undefined }));
    side.actors.set(name, client);
    const request = side.fill(connect);
    const rest = (side.fill(first) ?? []).map((command) => client.number(command));
    const raw = typeof request === "string" || Buffer.isBuffer(request);
    if (request === undefined && rest.length === 0) return client.open(undefined);
    if (raw) {
      await client.open(request);
      return side.until(() => client.count > 0);
    }
    if (client.uni) {
      await client.open(request);
      return side.until(() => client.pushes.length > 0 || client.end !== undefined);
    }
    const commands = request === undefined ? rest : [client.number({ connect: request }), ...rest];
    await client.open(commands);
    for (const { id } of commands) if (id) await client.replied(id);
    return undefined;
  },

  /** {on: NAME, send: commands of one frame, or text, or {hex}} */
  async on(side, name, { send }) {
    const client = side.actors.get(name);
    const what = side.fill(send);
    if (!Array.isArray(what)) {
      const before = client.count;
      client.write(what?.hex === undefined ? what : Buffer.from(what.hex, "hex"));
      await side.until(() => client.count > before, 400);
      return;
    }
    const commands = what.map((command) => client.number(command));
    await client.write(commands);
    for (const { id } of commands) if (id) await client.replied(id);
  },

  /** {pushes: NAME, at_least: N}: both servers must send as many. */
  async pushes(side, name, { at_least: count }) {
    const client = side.actors.get(name);
    const came = await side.until(() => client.pushes.length >= count || client.end !== undefined);
    if (!came) side.record("missing", `${name} waited for ${count} pushes`);
  },

  /** {end: NAME}: the connection must end; with `within`, it may end in that time. */
  async end(side, name, { within }) {
    const client = side.actors.get(name);
    const came = await side.until(() => client.end !== undefined, within);
    if (!came && within === undefined) side.record("missing", `${name} waited for the end of its connection`);
  },

  /** {replies: NAME, at_least: N} */
  async replies(side, name, { at_least: count }) {
    const client = side.actors.get(name);
    await side.until(() => client.replies.length >= count || client.end !== undefined);
  },

  async pings(side, name, { at_least: count }) {
    const client = side.actors.get(name);
    const came = await side.until(() => client.pings >= count || client.end !== undefined);
    if (!came) side.record("missing", `${name} waited for ${count} pings`);
  },

  /** {close: NAME, code, reason} */
  async close(side, name, { code, reason }) {
    side.actors.get(name).close(code, reason);
  },

  /** {api: METHOD, body, headers, path}: a call of the HTTP API with the right key. */
  async api(side, method, { body, headers = {}, path }) {
    const filled = side.fill(body ?? {});
    const text = typeof filled === "string" ? filled : JSON.stringify(filled);
    const answer = await call(side.port, {
      method: "POST",
      path: path ?? `/api/${method}`,
      headers: { "X-API-Key": API_KEY, "Content-Type": "application/json", ...side.fill(headers) },
      body: text,
    });
    side.recordAnswer(`api ${method}`, answer, []);
  },

  /** {http: METHOD and path, headers, body, keep: names of response headers that are compared} */
  async http(side, line, { headers, body, keep = [] }) {
    const [method, path] = side.fill(line).split(" ");
    const filled = side.fill(body);
    const text = filled === undefined || typeof filled === "string" || Buffer.isBuffer(filled)
      ? filled : JSON.stringify(filled);
    const answer = await call(side.port, { method, path, headers: side.fill(headers ?? {}), body: text });
    side.recordAnswer(`http ${method} ${path.split("?")[0]}`, answer, keep);
  },

  /** {emulate: NAME, data, session, node}: an emulation request with values of the script. */
  async emulate(side, name, { data, session, node }) {
    const client = side.actors.get(name);
    const answer = await client.emulate(side.fill(data), side.fill({ session, node }));
    side.record("emulation", { status: answer.status });
  },

  async sleep(side, milliseconds) {
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  },

  /** {backend: PATH, answer: {status, headers, body}, delay}: what the backend answers this script. */
  async backend(side, path, { answer, delay }) {
    side.backend.answer(side.marker, path, side.fill(answer), delay);
  },
};

/** Adds a kind of step: used by tables that need one of their own. */
export function defineStep(kind, run) {
  if (STEPS[kind] !== undefined) throw new Error(`there is already a step ${kind}`);
  STEPS[kind] = run;
}

// --- helpers of the tables ------------------------------------------------------------------------

/** A function whose meaning is `of`, so that two scripts can be told from one another. */
const lazy = (of, make) => Object.assign(make, { of });
const meaning = (value) =>
  JSON.stringify(value, (_, one) => (typeof one === "function" ? one.of ?? String(one) : one));

export const soon = (seconds) =>
  lazy(`soon ${seconds}`, () => Math.floor(Date.now() / 1000) + seconds);
const part = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value))
  .toString("base64url");
const DIGESTS = { 256: "sha256", 384: "sha384", 512: "sha512" };

/**
 * A token of these claims, made when the step runs. options: alg, key (secret or private key),
 * header (fields added to it), raw (payload as text).
 */
export function jwt(claims, { alg = "HS256", key = SECRET, header = {}, cut } = {}) {
  const name = key.export?.({ type: "pkcs8", format: "pem" }) ?? key;
  return lazy(meaning([claims, alg, name, header, cut]), (side) => {
    const filled = side.fill(claims);
    const signed = `${part({ alg, typ: "JWT", ...header })}.${part(filled)}`;
    let signature = "";
    const digest = DIGESTS[alg.slice(2)];
    if (alg.startsWith("HS")) signature = createHmac(digest, key).update(signed).digest("base64url");
    else if (alg.startsWith("RS")) signature = signWith(digest, Buffer.from(signed), key).toString("base64url");
    else if (alg.startsWith("ES")) {
      const pair = { key, dsaEncoding: "ieee-p1363" };
      signature = signWith(digest, Buffer.from(signed), pair).toString("base64url");
    } else if (alg === "EdDSA") signature = signWith(null, Buffer.from(signed), key).toString("base64url");
    const token = `${signed}.${signature}`;
    return cut === undefined ? token : token.slice(0, cut);
  });
}

/** A client opens a connection and connects: open("a", {token: ...}, {by: "sse"}). */
export const open = (name, connect = {}, options = {}) => ({ open: name, connect, ...options });
/** A client connects as user "u{n}-NAME". */
export const user = (name, claims = {}, options = {}) =>
  open(name, { token: jwt({ sub: `u{n}-${name}`, ...claims }) }, options);
/** Commands of a client in one frame: on("a", {subscribe: {...}}). */
export const on = (name, ...send) => ({ on: name, send });
/** Text or bytes of a client as they are. */
export const raw = (name, send) => ({ on: name, send });
export const pushes = (name, atLeast) => ({ pushes: name, at_least: atLeast });
export const end = (name, within) => ({ end: name, within });
export const api = (method, body, more = {}) => ({ api: method, body, ...more });
export const publish = (channel, data = { k: 1 }, more = {}) => api("publish", { channel, data, ...more });
