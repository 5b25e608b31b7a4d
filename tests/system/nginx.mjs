// The load of nginx.sh: rounds of API calls, health checks, pages and WebSockets through one pool.

import assert from "node:assert/strict";

import WebSocket from "ws";

import { KEY, within } from "../common/server.mjs";

const [front, direct] = process.argv.slice(2);
const ROUNDS = 12;
const bound = () => ({ signal: AbortSignal.timeout(15_000) });

async function api(method, body) {
  const answer = await fetch(`${front}/api/${method}`, {
    method: "POST",
    headers: { "X-API-Key": KEY, "Content-Type": "application/json" },
    body: JSON.stringify(body),
    ...bound(),
  });
  assert.equal(answer.status, 200, method);
  return answer.json();
}

async function get(path, status, pattern) {
  const answer = await fetch(front + path, bound());
  assert.equal(answer.status, status, path);
  assert.match(await answer.text(), pattern, path);
}

/** A client of the protocol whose every text is awaited in order. */
class Client {
  constructor() {
    this.texts = [];
    this.waiting = [];
    this.socket = new WebSocket(`${front.replace("http", "ws")}/connection/websocket`);
    this.socket.on("message", (data) => {
      for (const text of data.toString().split("\n")) {
        const next = this.waiting.shift();
        if (next) next(text);
        else this.texts.push(text);
      }
    });
    this.opened = new Promise((resolve, reject) => {
      this.socket.on("open", resolve);
      this.socket.on("error", reject);
      this.socket.on("close", (code, reason) => reject(new Error(`closed: ${code} ${reason}`)));
    });
    this.opened.catch(() => {});
  }

  text() {
    const text = this.texts.shift();
    if (text !== undefined) return Promise.resolve(text);
    return within(15_000, "a text", new Promise((resolve) => this.waiting.push(resolve)));
  }

  async open(channel) {
    await within(15_000, "an upgrade", this.opened);
    this.socket.send('{"id":1,"connect":{}}');
    assert.match(await this.text(), /^\{"id":1,"connect":\{/);
    this.socket.send(JSON.stringify({ id: 2, subscribe: { channel } }));
    assert.equal(await this.text(), '{"id":2,"subscribe":{}}');
    return this;
  }
}

async function metric(name) {
  const text = await (await fetch(`${direct}/metrics`, bound())).text();
  const [line, ...others] = text.split("\n").filter((line) => line.startsWith(`${name} `));
  assert.ok(line !== undefined && others.length === 0, `${name} is not one series`);
  return Number(line.split(" ").at(-1));
}

let requests = 0;
async function requestsOf(round) {
  const some = [];
  for (let nth = 0; nth < 6; nth++) {
    const data = { round, nth };
    some.push(api("publish", { channel: "nobody", data }).then((body) => assert.deepEqual(body, { result: {} })));
    some.push(get("/health", 200, /^\{\}/));
    some.push(get("/", 200, /id="messages"/));
    some.push(get(`/nothing-${round}-${nth}`, 404, /.*/));
  }
  requests += some.length;
  await Promise.all(some);
}

const clients = [];
for (let round = 0; round < ROUNDS; round++) {
  // Requests first: the pool is full of connections of the control plane when the upgrades come.
  await requestsOf(round);
  const fresh = await Promise.all(
    [0, 1, 2].map((nth) => new Client().open(`room-${round}-${nth}`)),
  );
  clients.push(...fresh);
  await Promise.all([requestsOf(round), ...clients.map(async (client, index) => {
    const channel = `room-${Math.floor(index / 3)}-${index % 3}`;
    const data = `${round}:${index}`;
    requests += 1;
    assert.deepEqual(await api("publish", { channel, data }), { result: {} });
    assert.equal(await client.text(), JSON.stringify({ push: { channel, pub: { data } } }));
  })]);
}
assert.equal(await metric("drumline_node_num_clients"), clients.length);
assert.equal((await api("channels", {})).result.channels["room-0-0"].num_clients, 1);
const [handed, accepted] = [await metric("drumline_handed_over_total"), await metric("drumline_accepted_total")];
assert.ok(requests >= 200);
for (const { socket } of clients) socket.terminate();
for (let tries = 0; (await metric("drumline_node_num_clients")) > 0; tries++) assert.ok(tries < 500);
console.log(`${requests} requests and ${clients.length} upgrades over ${accepted} connections, ${handed} handed over`);
process.exit(0);
