// What the backend is asked about clients and told of them, by a backend of the test's own: each
// proxy's answers, refusals and failures, and hooks over a backend that fails for a while.

import assert from "node:assert/strict";
import { createServer } from "node:http";

import { Centrifuge } from "centrifuge";
import { Centrifuge as Binary } from "centrifuge/build/protobuf";
import WebSocket from "ws";

import { Server, freePort, until, within } from "../common/server.mjs";

const server = new Server(await freePort());
process.on("exit", () => server.kill());

/** A backend whose paths answer as `on` says; it remembers what it was asked. */
class Backend {
  constructor() {
    this.on = {};
    this.asked = [];
    this.server = createServer((request, answer) => this.#serve(request, answer));
  }

  async listen(port = 0) {
    await new Promise((resolve) => this.server.listen(port, "127.0.0.1", resolve));
    this.port = this.server.address().port;
    return this;
  }

  /** Nobody is reached at its port any more. */
  async close() {
    const closed = new Promise((resolve) => this.server.close(resolve));
    this.server.closeAllConnections();
    await closed;
  }

  async #serve(request, answer) {
    const parts = [];
    for await (const part of request) parts.push(part);
    const path = request.url.slice(1);
    const body = JSON.parse(Buffer.concat(parts).toString());
    this.asked.push({ path, body, headers: request.headers, method: request.method });
    const said = await this.on[path]?.(body, request.headers);
    if (said === undefined) return;
    if (typeof said === "number") return answer.writeHead(said).end();
    answer.setHeader("Content-Type", "application/json");
    answer.end(typeof said === "string" ? said : JSON.stringify(said));
  }

  /** What a path was asked since the last look. */
  take(path) {
    const taken = this.asked.filter((one) => one.path === path);
    this.asked = this.asked.filter((one) => one.path !== path);
    return taken;
  }

  url(path) {
    return `http://127.0.0.1:${this.port}/${path}`;
  }
}

const never = () => undefined;

function client(options = {}, Kind = Centrifuge) {
  const made = new Kind(server.websocket, {
    websocket: WebSocket, minReconnectDelay: 100, maxReconnectDelay: 200, ...options,
  });
  made.errors = [];
  made.on("error", ({ error }) => made.errors.push(error));
  return made;
}

const event = (of, name) => within(10_000, name, new Promise((resolve) => of.once(name, resolve)));

async function connected(options, Kind) {
  const made = client(options, Kind);
  const context = event(made, "connected");
  made.connect();
  return [made, await context];
}

/** How a connect that fails ends. */
async function refused(options) {
  const made = client(options);
  const end = event(made, "disconnected");
  made.connect();
  const { code, reason } = await end;
  return [code, reason];
}

async function metric(name) {
  const text = await (await fetch(`${server.base}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line.match(`^drumline_${name}[ {]`));
  assert.ok(lines.length > 0, name);
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

// ---- proxies ---------------------------------------------------------------------------------

async function proxies() {
  const backend = await new Backend().listen();
  const flags = ["--client.ping_interval=1s", "--client.pong_timeout=500ms"];
  const place = (section, path) => flags.push(`--${section}.endpoint=${backend.url(path)}`);
  for (const one of ["connect", "refresh"]) {
    flags.push(`--client.proxy.${one}.enabled`);
    place(`client.proxy.${one}`, one);
  }
  for (const one of ["subscribe", "publish", "sub_refresh"]) {
    flags.push(`--channel.without_namespace.${one}_proxy_enabled`);
    place(`channel.proxy.${one}`, one);
  }
  flags.push("--rpc.without_namespace.proxy_enabled", "--rpc.proxy.include_connection_meta");
  place("rpc.proxy", "rpc");
  const of = "--client.proxy.connect";
  flags.push(`${of}.http_headers=Cookie X-Real-Ip`, `${of}.emulated_headers=Authorization`);
  flags.push(`${of}.http.static_headers={"X-Key":"secret","Cookie":"none"}`);
  flags.push("--channel.proxy.publish.binary_encoding");
  flags.push("--channel.without_namespace.allow_user_limited_channels");
  flags.push(`--proxies=[{"name":"spare","endpoint":"${backend.url("spare")}"}]`);
  flags.push(`--rpc.namespaces=[{"name":"math","proxy_enabled":true,"proxy_name":"spare"}]`);
  await server.run(flags);
  const on = backend.on;

  on.connect = () => ({ result: {
    user: "56", info: { name: "x" }, data: { hello: 1 }, channels: ["own"], meta: { m: 1 },
  } });
  class Headed extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols, { headers: { Cookie: "id=9", "X-Real-Ip": "10.0.0.1", "X-No": "1" } });
    }
  }
  const [first, context] = await connected({
    websocket: Headed, data: { from: "client" }, name: "js-test",
    headers: { authorization: "Bearer 1", other: "2", "X-Real-Ip": "forged" },
  });
  assert.deepEqual(context.data, { hello: 1 });
  const [asked] = backend.take("connect");
  const { client: id, ...rest } = asked.body;
  assert.equal(id, context.client);
  assert.deepEqual(rest, {
    transport: "websocket", protocol: "json", encoding: "json", name: "js-test",
    data: { from: "client" },
  });
  assert.equal(asked.method, "POST");
  assert.equal(asked.headers["content-type"], "application/json");
  assert.equal(asked.headers.authorization, "Bearer 1");
  assert.equal(asked.headers.other, undefined);
  assert.equal(asked.headers["x-key"], "secret");
  assert.equal(asked.headers.cookie, "id=9", "what came wins over what is configured");
  assert.equal(asked.headers["x-real-ip"], "10.0.0.1");
  assert.equal(asked.headers["x-no"], undefined);
  const channels = (await server.api("channels", {})).channels;
  assert.deepEqual(Object.keys(channels), ["own"]);

  await commands(backend, first);
  await renewals(backend);
  await refusedConnects(backend);
  assert.equal(await server.stop(), 0);
  await backend.close();
  console.log("proxies");
}

async function commands(backend, first) {
  const on = backend.on;
  on.rpc = ({ data }) => ({ result: { data: { twice: data.n * 2 } } });
  assert.deepEqual((await first.rpc("double", { n: 21 })).data, { twice: 42 });
  const [call] = backend.take("rpc");
  assert.deepEqual([call.body.method, call.body.user, call.body.meta], ["double", "56", { m: 1 }]);
  const fails = async (doing, code) => {
    const error = await doing().then(() => assert.fail("it was let through"), (found) => found);
    assert.equal(error.code, code);
    return error;
  };
  on.rpc = () => ({ error: { code: 1000, message: "not so" } });
  assert.equal((await fails(() => first.rpc("m", 1), 1000)).message, "not so");
  on.rpc = () => 500;
  assert.equal((await fails(() => first.rpc("m", 1), 100)).temporary, true);
  on.rpc = () => "no JSON";
  await fails(() => first.rpc("m", 1), 100);
  on.rpc = never;
  const start = Date.now();
  await fails(() => first.rpc("m", 1), 100);
  assert.ok(Date.now() - start > 900, "the backend has a second");

  on.subscribe = () => ({ result: { data: { top: 3 }, info: { of: "channel" } } });
  const news = first.newSubscription("news", { data: { why: "so" } });
  let subscribed = event(news, "subscribed");
  news.subscribe();
  assert.deepEqual((await subscribed).data, { top: 3 });
  const { channel, data, user } = backend.take("subscribe")[0].body;
  assert.deepEqual([channel, data, user], ["news", { why: "so" }, "56"]);
  on.subscribe = () => ({ error: { code: 403, message: "not you" } });
  const secret = first.newSubscription("secret");
  const unsubscribed = event(secret, "unsubscribed");
  secret.subscribe();
  const { code, reason } = await unsubscribed;
  assert.deepEqual([code, reason], [403, "not you"]);
  // A failure is temporary: the client subscribes again by itself.
  on.subscribe = () => 503;
  const soon = { minResubscribeDelay: 50, maxResubscribeDelay: 50 };
  const later = first.newSubscription("later", soon);
  subscribed = event(later, "subscribed");
  later.subscribe();
  await until("a repeated subscribe", () => backend.asked.filter((one) =>
    one.path === "subscribe" && one.body.channel === "later").length > 1);
  on.subscribe = () => ({ result: {} });
  await subscribed;

  // Who is named in a channel need not be asked about; who has no token for a private one may not.
  backend.asked = [];
  const own = first.newSubscription("dialog#56");
  subscribed = event(own, "subscribed");
  own.subscribe();
  await subscribed;
  const closedTo = first.newSubscription("$private");
  const kept = event(closedTo, "unsubscribed");
  closedTo.subscribe();
  assert.equal((await kept).code, 103);
  assert.equal(backend.take("subscribe").length, 0);
  on.spare = () => ({ result: { data: 3 } });
  assert.equal((await first.rpc("math:add", [1, 2])).data, 3);
  await fails(() => first.rpc("other:x", 1), 104);

  on.publish = () => ({ result: { data: { said: "changed" }, tags: { a: "b" } } });
  let publication = event(news, "publication");
  await news.publish({ said: "mine" });
  const published = await publication;
  assert.deepEqual([published.data, published.tags], [{ said: "changed" }, { a: "b" }]);
  assert.deepEqual(published.info.chanInfo, { of: "channel" });
  const [{ body }] = backend.take("publish");
  assert.equal(body.encoding, "binary");
  assert.equal(Buffer.from(body.b64data, "base64").toString(), '{"said":"mine"}');
  on.publish = () => ({ error: { code: 1001, message: "too loud" } });
  await fails(() => news.publish({}), 1001);
  on.publish = never;
  await fails(() => news.publish({}), 100);

  on.rpc = () => ({ result: { b64data: Buffer.from([0, 255]).toString("base64") } });
  const [second] = await connected({}, Binary);
  const binary = await second.rpc("bytes", new TextEncoder().encode("1"));
  assert.deepEqual([...binary.data], [0, 255]);
  const closed = event(first, "disconnected");
  on.rpc = () => ({ disconnect: { code: 4501, reason: "enough" } });
  first.rpc("m", 1).catch(() => {});
  const end = await closed;
  assert.deepEqual([end.code, end.reason], [4501, "enough"]);
  second.disconnect();
}

/** What ends is renewed without the client, or is over. */
async function renewals(backend) {
  const on = backend.on;
  const soon = (seconds) => Math.floor(Date.now() / 1000) + seconds;
  on.connect = () => ({ result: { user: "7", expire_at: soon(2) } });
  on.subscribe = () => ({ result: { expire_at: soon(2) } });
  on.refresh = () => ({ result: { expire_at: soon(3600) } });
  on.sub_refresh = () => ({ result: { expire_at: soon(2) } });
  const [renewed] = await connected();
  const sub = renewed.newSubscription("leased");
  const subscribed = event(sub, "subscribed");
  sub.subscribe();
  await subscribed;
  backend.asked = [];
  await until("a refresh", () => backend.asked.some((one) => one.path === "refresh"));
  assert.equal(backend.take("refresh")[0].body.user, "7");
  await until("a sub_refresh", () => backend.asked.some((one) => one.path === "sub_refresh"));
  assert.equal(backend.take("sub_refresh")[0].body.channel, "leased");
  on.sub_refresh = () => ({ result: { expired: true } });
  const over = event(sub, "subscribing");
  assert.equal((await over).code, 2501);
  assert.equal(backend.take("refresh").length, 0, "it holds for an hour");
  renewed.disconnect();
  on.refresh = () => ({ result: { expired: true } });
  const [late] = await connected();
  assert.equal((await event(late, "connecting")).code, 3005);
  late.disconnect();
}

/** What a unidirectional client is told, as text. */
async function uni() {
  const path = `${server.base.replace("http", "ws")}/connection/uni_websocket`;
  const socket = new WebSocket(`${path}?cf_connect={}`);
  const [text] = await new Promise((resolve) => socket.once("message", (...all) => resolve(all)));
  socket.terminate();
  return JSON.parse(text);
}

async function refusedConnects(backend) {
  const on = backend.on;
  on.connect = () => ({ result: { user: "2", data: [1] } });
  assert.deepEqual((await uni()).connect.data, [1]);
  assert.equal(backend.take("connect").at(-1).body.transport, "uni_websocket");
  on.connect = () => ({ error: { code: 1002, message: "unknown" } });
  assert.deepEqual(await uni(), { disconnect: { code: 3004, reason: "internal server error" } });
  on.connect = () => ({ disconnect: { code: 4500, reason: "go away" } });
  assert.deepEqual(await refused(), [4500, "go away"]);
  on.connect = () => ({ error: { code: 1002, message: "unknown" } });
  assert.deepEqual(await refused(), [1002, "unknown"]);
  on.connect = () => ({});
  assert.deepEqual(await refused(), [3501, "bad request"]);
  // A backend that fails, keeps silent or is down is tried again until it is back.
  for (const failing of [() => 500, never, undefined]) {
    on.connect = failing ?? on.connect;
    if (failing === undefined) await backend.close();
    const made = client();
    const there = event(made, "connected");
    made.connect();
    await until("a failed connect", () => made.errors.length > 0);
    assert.equal(made.errors[0].code, 100);
    if (failing === undefined) await backend.listen(backend.port);
    on.connect = () => ({ result: { user: "1" } });
    await there;
    made.disconnect();
  }
  assert.ok(await metric("proxy_errors") >= 3);
  assert.equal(await metric("proxy_waiting"), 0);
}

// ---- hooks -----------------------------------------------------------------------------------

/** Flags of both hooks, and of who connects. */
function hooks(backend, more = []) {
  const flags = ["--client.hook.disconnect.enabled"];
  flags.push(`--client.hook.disconnect.endpoint=${backend.url("hook")}`);
  flags.push("--channel.without_namespace.unsubscribe_hook_enabled");
  flags.push(`--channel.hook.unsubscribe.endpoint=${backend.url("hook")}`);
  return [...flags, ...more];
}

async function subscribed(on, channel) {
  const sub = on.getSubscription(channel) ?? on.newSubscription(channel);
  const there = event(sub, "subscribed");
  sub.subscribe();
  await there;
  return sub;
}

/** What the backend was told of a client, in order: channels and codes. */
const told = (backend, id) => backend.asked
  .filter((one) => one.path === "hook" && one.body.client === id)
  .map(({ body: { channel, code } }) => (channel ? `${channel} ${code}` : code));

async function everyEndIsTold() {
  const backend = await new Backend().listen();
  backend.on.hook = () => ({});
  await server.start(hooks(backend));
  const [one, { client: id }] = await connected();
  (await subscribed(one, "a")).unsubscribe();
  await until("an unsubscribe", () => told(backend, id).length === 1);
  await subscribed(one, "b");
  await subscribed(one, "c");
  one.disconnect();
  await until("a disconnect", () => told(backend, id).length === 4);
  const order = told(backend, id);
  assert.equal(order[0], "a 0");
  assert.deepEqual(order.slice(1, 3).sort(), ["b 1", "c 1"]);
  assert.equal(order[3], 3000);
  const { body } = backend.asked.at(-1);
  assert.deepEqual(body, {
    client: id, transport: "websocket", protocol: "json", encoding: "json", user: "",
    code: 3000, reason: "connection closed",
  });

  // What the server ends has the server's code; a client that never connected is no news.
  const [two, { client: other }] = await connected();
  await subscribed(two, "d");
  const socket = new WebSocket(server.websocket);
  await new Promise((resolve) => socket.once("open", resolve));
  socket.terminate();
  // The peer vanishes without a word.
  const raw = new WebSocket(server.websocket);
  await new Promise((resolve) => raw.once("open", resolve));
  raw.send('{"id":1,"connect":{}}');
  const [answer] = await new Promise((resolve) => raw.once("message", (...all) => resolve(all)));
  const gone = JSON.parse(answer).connect.client;
  raw.terminate();
  await until("the lost one", () => told(backend, gone).length === 1);
  assert.deepEqual(told(backend, gone), [3000]);
  assert.equal(await server.stop(), 0);
  assert.deepEqual(told(backend, other), ["d 1", 3001], "told of within the shutdown");
  const clients = new Set(backend.asked.map(({ body: { client } }) => client));
  assert.deepEqual([...clients].sort(), [id, other, gone].sort());
  two.disconnect();
  await backend.close();
  console.log("hooks: every end");
}

/** Nothing is lost and nothing overtakes while the backend fails in every way. */
async function aBackendThatFails() {
  const backend = await new Backend().listen();
  const taken = new Map();
  let failing = true;
  let tried = 0;
  backend.on.hook = (body) => {
    tried += 1;
    if (failing) return tried % 3 === 0 ? never() : 500;
    const seen = taken.get(body.client) ?? [];
    taken.set(body.client, [...seen, body.channel ? `${body.channel} ${body.code}` : body.code]);
    return {};
  };
  const timeouts = ["client.hook.disconnect", "channel.hook.unsubscribe"]
    .map((section) => `--${section}.timeout=200ms`);
  await server.start(hooks(backend, timeouts));
  const expected = new Map();
  await Promise.all(Array.from({ length: 40 }, async (_, nth) => {
    const [one, { client: id }] = await connected();
    for (let round = 0; round < 3; round++) (await subscribed(one, `r${round}`)).unsubscribe();
    await subscribed(one, `last${nth}`);
    one.disconnect();
    expected.set(id, ["r0 0", "r1 0", "r2 0", `last${nth} 1`, 3000]);
  }));
  await until("attempts", () => tried > 100);
  assert.equal(await metric("hooks_delivered_total"), 0);
  assert.equal(await metric("hooks_waiting"), 200);
  assert.equal(await metric("hook_events_total"), 200);
  const { port } = backend;
  await backend.close();
  const retried = await metric("hooks_retried_total");
  await until("attempts without a backend", async () =>
    (await metric("hooks_retried_total")) > retried);
  failing = false;
  await backend.listen(port);
  await until("everything told", async () => (await metric("hooks_waiting")) === 0);
  for (const [id, order] of expected) {
    // At least once: an answer that was lost is followed by the same again.
    const once = taken.get(id).filter((news, at, all) => news !== all[at - 1]);
    assert.deepEqual(once, order, id);
  }
  assert.equal(await metric("hooks_delivered_total"), 200);
  assert.equal(await metric("hooks_dropped_total"), 0);
  assert.ok(await metric("hooks_retried_total") > 0);
  assert.equal(await server.stop(), 0);
  await backend.close();
  console.log("hooks: a backend that fails");
}

/** What finds no room is counted, and what is too old; the way out does not wait for ever. */
async function aBackendThatIsDown() {
  const backend = await new Backend().listen();
  const flags = hooks(backend, ["--engine.hooks_max=5", "--shutdown.timeout=2s"]);
  await backend.close();
  await server.start(flags);
  for (let nth = 0; nth < 8; nth++) (await connected())[0].disconnect();
  await until("drops", async () => (await metric("hooks_dropped_total")) === 3);
  assert.equal(await metric("hooks_waiting"), 5);
  assert.equal(await server.stop(), 0, "it ends although the backend is down");

  await server.start([...flags, "--engine.hook_ttl=300ms"]);
  (await connected())[0].disconnect();
  await until("an old one dropped", async () => (await metric("hooks_dropped_total")) === 1);
  assert.equal(await metric("hooks_waiting"), 0);
  assert.equal(await server.stop(), 0);
  console.log("hooks: a backend that is down");
}

await within(120_000, "the whole test", (async () => {
  await proxies();
  await everyEndIsTold();
  await aBackendThatFails();
  await aBackendThatIsDown();
})());
process.exit(0);
