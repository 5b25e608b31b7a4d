// A client of one server: it sends what a script says and records each message that arrives.

import WebSocket from "ws";

import { begin, call } from "./http.mjs";
import { decode, encode, frame, unframe } from "./protobuf.mjs";

const PATHS = {
  websocket: "/connection/websocket",
  http_stream: "/connection/http_stream",
  sse: "/connection/sse",
  uni_websocket: "/connection/uni_websocket",
  uni_http_stream: "/connection/uni_http_stream",
  uni_sse: "/connection/uni_sse",
};

/**
 * options: by (transport), protobuf (bool), query, headers, path, pong (false: leave pings alone),
 * protocols (subprotocols of the WebSocket), recordPings, recordJoined (whether a frame had several
 * messages).
 */
export class Client {
  constructor(side, name, options) {
    this.side = side;
    this.name = name;
    this.options = options;
    this.by = options.by ?? "websocket";
    this.uni = this.by.startsWith("uni_");
    this.replies = [];
    this.pushes = [];
    /** The commands by their ids, and what arrived, in order: {channel, what}. */
    this.commands = new Map();
    this.arrivals = [];
    this.pings = 0;
    this.nextId = 1;
    this.waiting = new Map();
    this.head = undefined;
    this.end = undefined;
    this.ended = new Promise((resolve) => { this.finish = resolve; });
  }

  /** How many things have arrived, so that the runner can wait until both servers sent as many. */
  get count() {
    const pings = this.options.recordPings ? this.pings : 0;
    return this.replies.length + this.pushes.length + pings + (this.end === undefined ? 0 : 1);
  }

  get path() {
    const query = new URLSearchParams(this.options.query ?? {}).toString();
    return `${this.options.path ?? PATHS[this.by]}${query === "" ? "" : `?${query}`}`;
  }

  /** Opens the transport with the first commands, which streams carry in their request. */
  async open(first) {
    if (this.by === "websocket" || this.by === "uni_websocket") {
      await this.#openWebSocket();
      if (first !== undefined && this.end === undefined) this.write(first);
    } else {
      await this.#openStream(first);
    }
  }

  #openWebSocket() {
    const { protobuf, headers, protocols } = this.options;
    const wanted = protocols ?? (protobuf ? ["centrifuge-protobuf"] : []);
    this.socket = new WebSocket(`ws://127.0.0.1:${this.side.port}${this.path}`, wanted, {
      headers, perMessageDeflate: this.options.deflate ?? false, skipUTF8Validation: false,
      autoPong: this.options.pong ?? true,
    });
    const socket = this.socket;
    socket.on("message", (data, binary) => this.#frame(data, binary));
    socket.on("ping", () => { if (this.options.recordPings) this.pings += 1; });
    socket.on("close", (code, reason) => this.#finish({ code, reason: reason.toString() }));
    socket.on("error", () => {});
    return new Promise((resolve) => {
      socket.on("open", () => {
        this.head = { subprotocol: socket.protocol, extensions: socket.extensions };
        resolve();
      });
      socket.on("unexpected-response", (_, response) => {
        this.#finish({ status: response.statusCode });
        response.resume();
        socket.removeAllListeners("close");
        socket.terminate();
        resolve();
      });
      socket.on("close", resolve);
    });
  }

  async #openStream(first) {
    const { protobuf, headers = {}, method } = this.options;
    let path = this.path;
    let body;
    let type = headers;
    if (this.by.endsWith("sse") && method !== "POST") {
      if (first !== undefined) {
        const packed = encodeURIComponent(this.#pack(first));
        path += `${path.includes("?") ? "&" : "?"}cf_connect=${packed}`;
      }
    } else {
      body = first === undefined ? undefined : this.#pack(first);
      const kind = protobuf ? "application/octet-stream" : "application/json";
      type = { "Content-Type": kind, ...headers };
    }
    const verb = method ?? (this.by.endsWith("sse") ? "GET" : "POST");
    const answer = await begin(this.side.port, { method: verb, path, headers: type, body });
    this.head = { status: answer.status, type: answer.headers?.["content-type"] };
    if (answer.response === undefined) return this.#finish({ ...this.head, error: answer.error });
    this.request = answer.sent;
    this.rest = Buffer.alloc(0);
    answer.response.on("data", (chunk) => this.#chunk(chunk));
    answer.response.on("end", () => this.#finish({ ended: "by the server" }));
    answer.response.on("error", () => this.#finish({ ended: "cut off" }));
  }

  /** The bytes or text of commands: an array of objects, or text or bytes as they are. */
  #pack(what) {
    if (typeof what === "string" || Buffer.isBuffer(what)) return what;
    const list = Array.isArray(what) ? what : [what];
    if (this.uni) return list.map((one) => JSON.stringify(one)).join("\n");
    if (this.options.protobuf) return frame(list.map((command) => encode("Command", command)));
    return list.map((command) => JSON.stringify(command)).join("\n");
  }

  /** Sends what was packed: on the socket, or by an emulation request. */
  write(what) {
    const packed = this.#pack(what);
    if (this.socket) {
      if (this.socket.readyState === WebSocket.OPEN) this.socket.send(packed);
      return undefined;
    }
    return this.emulate(packed);
  }

  async emulate(packed, { session = this.session, node = this.node } = {}) {
    const protobuf = this.options.protobuf;
    const body = protobuf
      ? encode("EmulationRequest", { node, session, data: Buffer.from(packed) })
      : JSON.stringify({ node, session, data: packed });
    const type = protobuf ? "application/octet-stream" : "application/json";
    const headers = { "Content-Type": type };
    const answer = await call(this.side.port, { method: "POST", path: "/emulation", headers, body });
    if (answer.status !== 204) this.replies.push({ emulation: answer.status ?? answer.error });
    return answer;
  }

  /** Gives a command its id. A command that holds an id, or only `send`, keeps it. */
  number(command) {
    const numbered = "id" in command || "send" in command ? command : { id: this.nextId++, ...command };
    const what = Object.keys(numbered).find((key) => key !== "id");
    this.commands.set(numbered.id, { what, channel: numbered[what]?.channel });
    return numbered;
  }

  /** Resolves when the reply to this id has come, or the connection ended, or time is over. */
  replied(id) {
    const has = () => this.replies.some((reply) => reply.id === id) || this.end !== undefined;
    return this.side.until(has);
  }

  #chunk(chunk) {
    this.rest = Buffer.concat([this.rest, chunk]);
    if (this.options.protobuf && !this.uni) {
      let messages;
      [messages, this.rest] = unframe(this.rest);
      for (const message of messages) this.#message(decode("Reply", message));
      return;
    }
    for (;;) {
      const at = this.rest.indexOf("\n");
      if (at < 0) return;
      const line = this.rest.subarray(0, at).toString().replace(/\r$/, "");
      this.rest = this.rest.subarray(at + 1);
      if (line === "") continue;
      if (this.by.endsWith("sse") && line.startsWith("id:")) {
        this.eventIds = true;
        continue;
      }
      this.#text(this.by.endsWith("sse") ? line.replace(/^data: ?/, "") : line);
    }
  }

  #frame(data, binary) {
    if (binary !== (this.options.protobuf ?? false)) {
      this.replies.push({ "unexpected frame": binary ? "binary" : "text" });
    }
    if (!binary) {
      const lines = data.toString().split("\n").filter((line) => line !== "");
      if (lines.length > 1) this.joined = true;
      for (const line of lines) this.#text(line);
      return;
    }
    const [messages, rest] = unframe(data);
    for (const message of messages) this.#message(decode("Reply", message));
    if (rest.length > 0) this.replies.push({ "unfinished message": rest.toString("hex") });
  }

  #text(line) {
    let message;
    try {
      message = JSON.parse(line);
    } catch {
      this.replies.push({ "not JSON": line });
      return;
    }
    this.#message(message);
  }

  #message(received) {
    if (Object.keys(received).length === 0) return this.#ping();
    const message = this.side.receive(this, received);
    if (message === undefined) return undefined;
    this.#keep(message);
    // A planted fault: the message comes after the next one.
    const late = this.late?.shift();
    if (late !== undefined) this.#keep(late);
    return undefined;
  }

  #keep(message) {
    const push = this.uni ? message : message.push;
    const connected = message.connect ?? push?.connect;
    if (connected !== undefined) this.#connected(connected);
    if (push !== undefined) this.pushes.push(push);
    else this.replies.push(message);
    const command = connected === undefined ? this.commands.get(message.id) : { what: "connect" };
    this.arrivals.push(push === undefined || connected !== undefined
      ? { ...command } : { what: "pushes", channel: push.channel });
    this.side.changed();
  }

  #connected(connect) {
    this.side.clients.set(connect.client, this.name);
    this.id = connect.client;
    this.session = connect.session;
    this.node = connect.node;
    if (connect.session) this.side.sessions.set(connect.session, this.name);
    if (connect.node) this.side.nodes.add(connect.node);
  }

  #ping() {
    this.pings += 1;
    if (this.options.pong !== false && !this.uni) {
      this.write(this.options.protobuf ? Buffer.from([0]) : "{}");
    }
    this.side.changed();
  }

  #finish(end) {
    if (this.end !== undefined) return;
    this.end = this.side.receiveEnd(this, end);
    this.finish();
    this.side.changed();
  }

  /** Ends the connection from this side; what follows is not recorded. */
  close(code, reason) {
    const end = { closed: "by the client" };
    if (this.end === undefined) this.end = end;
    if (code !== undefined) this.socket?.close(code, reason);
    else this.socket?.terminate();
    this.request?.destroy();
  }

  /**
   * The order of replies and pushes, by channel: pushes that follow one another count once. The replies
   * to publish commands, or all others, are left out: servers differ in how they order the former.
   */
  #order(publishes) {
    const order = {};
    const channels = new Set(this.arrivals.map(({ channel }) => channel).filter(Boolean));
    for (const name of channels) {
      const list = this.arrivals
        .filter(({ channel, what }) => channel === name || (what === "connect" && !publishes))
        .map(({ what }) => what)
        .filter((what) => what === "pushes" || (what === "publish") === publishes)
        .filter((what, index, all) => what !== "pushes" || all[index - 1] !== "pushes");
      if (list.includes("pushes") && list.length > 1) order[name] = list;
    }
    return order;
  }

  /** All that this client has seen, in the shape that is compared. */
  transcript() {
    const byChannel = {};
    for (const push of this.pushes) {
      const { channel = "", ...rest } = push;
      (byChannel[channel] ??= []).push(rest);
    }
    const seen = { head: this.head, replies: this.replies, pushes: byChannel, end: this.end,
      order: this.#order(false), publishes: this.#order(true) };
    if (this.options.recordPings) seen.pings = this.pings > 0;
    if (this.options.recordJoined) seen.joined = this.joined ?? false;
    if (this.eventIds) seen.eventIds = true;
    return seen;
  }
}
