// The client protocol by the JavaScript SDK, unchanged, in JSON and in protobuf, by every
// transport: tokens, permissions, presence, history, recovery, and what the API does to connections.
//
// Usage: node tests/sdk/protocol.mjs [KIND]     every kind, each with a server of its own, or one

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { Centrifuge as JsonCentrifuge } from "centrifuge";
import { Centrifuge as ProtobufCentrifuge } from "centrifuge/build/protobuf";
import { EventSource } from "eventsource";
import OldEventSource from "eventsource2";
import WebSocket from "ws";

import { Server, freePort, sleep, within } from "../common/server.mjs";

const SECRET = "a-secret-for-tests";
/** Seconds that the server waits for a refresh after a token has expired. */
const GRACE = 4;
const folder = mkdtempSync(join(tmpdir(), "drumline-protocol-"));
const config = join(folder, "config.json");
const server = new Server(await freePort());
process.on("exit", () => {
  server.kill();
  rmSync(folder, { recursive: true, force: true });
});

// As Centrifugo 6 reads it.
writeFileSync(config, JSON.stringify({
  client: {
    token: { hmac_secret_key: SECRET },
    allowed_origins: ["*"],
    // A client on a busy machine answers and refreshes late: each has seconds for it.
    ping_interval: "5s",
    pong_timeout: "4s",
    expired_close_delay: `${GRACE}s`,
    expired_sub_close_delay: `${GRACE}s`,
    subscribe_to_user_personal_channel: {
      enabled: true,
      personal_channel_namespace: "personal",
    },
  },
  channel: {
    without_namespace: { allow_subscribe_for_client: true, allow_user_limited_channels: true },
    namespaces: [
      {
        name: "chat",
        presence: true,
        join_leave: true,
        force_push_join_leave: true,
        allow_subscribe_for_client: true,
        allow_publish_for_subscriber: true,
        allow_presence_for_subscriber: true,
      },
      {
        name: "log",
        history_size: 50,
        history_ttl: "300s",
        force_recovery: true,
        allow_subscribe_for_client: true,
        allow_history_for_subscriber: true,
      },
      { name: "last", history_size: 1, history_ttl: "300s", force_recovery: true,
        force_recovery_mode: "cache", allow_subscribe_for_client: true },
      {
        name: "short",
        allow_channel_compaction: true,
        allow_subscribe_for_client: true,
        join_leave: true,
        force_push_join_leave: true,
        history_size: 50,
        history_ttl: "300s",
        force_recovery: true,
        allowed_delta_types: ["fossil"],
        delta_publish: true,
      },
      { name: "personal" },
      { name: "push" },
    ],
  },
  shutdown: { spread: "0s" },
}));

function token(claims, secret = SECRET, header = { alg: "HS256", typ: "JWT" }) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part(header)}.${part(claims)}`;
  if (header.alg === "none") return `${signed}.`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

const seconds = () => Math.floor(Date.now() / 1000);
const secondsPast = async (time) => sleep(Math.max(0, time * 1000 + 500 - Date.now()));

/** What an emitter says, one after the other, each awaited with a bound. */
function listen(emitter, ...events) {
  const seen = [];
  const waiting = [];
  for (const event of events) {
    emitter.on(event, (context) => {
      const next = waiting.shift();
      if (next) next({ event, ...context });
      else seen.push({ event, ...context });
    });
  }
  const next = (what = events.join(" or ")) =>
    seen.length > 0
      ? Promise.resolve(seen.shift())
      : within(30_000, what, new Promise((resolve) => waiting.push(resolve)));
  next.count = () => seen.length;
  return next;
}

/** An encoding's clients: what they send and get is JSON, or its bytes. */
const json = { Centrifuge: JsonCentrifuge, pack: (value) => value, unpack: (data) => data };
const protobuf = {
  Centrifuge: ProtobufCentrifuge,
  pack: (value) => new TextEncoder().encode(JSON.stringify(value)),
  unpack: (data) => JSON.parse(new TextDecoder().decode(data)),
};
const kinds = {
  "websocket-json": { ...json, transport: "websocket" },
  "websocket-protobuf": { ...protobuf, transport: "websocket" },
  "http_stream-json": { ...json, transport: "http_stream" },
  "http_stream-protobuf": { ...protobuf, transport: "http_stream" },
  "sse-json": { ...json, transport: "sse" },
  // Version 2 of npm's package, which much of Node's world still has.
  "sse-json-eventsource-2": { ...json, transport: "sse", eventsource: OldEventSource },
};

const kind = process.argv[2];
const encoding = { ...kinds[kind], name: kind };
const made = [];

function client(options = {}) {
  const { transport } = encoding;
  const base = transport === "websocket" ? server.websocket : `${server.base}/connection/${transport}`;
  const it = new encoding.Centrifuge([{ transport, endpoint: base }], {
    websocket: WebSocket,
    eventsource: encoding.eventsource ?? EventSource,
    emulationEndpoint: `${server.base}/emulation`,
    minReconnectDelay: 50,
    maxReconnectDelay: 300,
    ...options,
  });
  it.on("error", () => {}); // attempts while the server is down
  made.push(it);
  return it;
}

const as = (user, claims = {}) => ({ token: token({ sub: user, ...claims }) });

async function connected(options) {
  const it = client(options);
  const states = listen(it, "connected", "disconnected");
  it.connect();
  const state = await states();
  assert.equal(state.event, "connected", JSON.stringify(state));
  return { it, states, state };
}

async function subscribed(it, channel, options) {
  const subscription = it.newSubscription(channel, options);
  const states = listen(subscription, "subscribed", "unsubscribed");
  const heard = listen(subscription, "publication");
  subscription.subscribe();
  const state = await states(`subscribed to ${channel}`);
  return { subscription, states, heard, state };
}

async function refusal(it, channel, options) {
  const { state } = await subscribed(it, channel, options);
  assert.equal(state.event, "unsubscribed", channel);
  return state.code;
}

/** What becomes of a client that does not refresh its token. */
async function withoutRefresh(user) {
  // On a busy machine a token may expire before the client is connected: then a longer one is due.
  for (let life = 2; ; life *= 2) {
    const it = client(as(user, { exp: seconds() + life }));
    const states = listen(it, "connected", "disconnected");
    const gone = listen(it, "connecting", "disconnected");
    it.connect();
    assert.equal((await gone("an attempt to connect")).event, "connecting");
    if ((await states()).event === "connected") return gone("the end of a token without refresh");
    assert.ok(life < 30, "no token is long enough");
  }
}

const parts = {
  async "tokens open the door, and only right ones"() {
    const closes = async (options, code) => {
      const it = client(options);
      const states = listen(it, "connected", "disconnected");
      it.connect();
      const state = await states(`close ${code}`);
      assert.deepEqual([state.event, state.code], ["disconnected", code]);
    };
    await connected(as("42"));
    await closes({ token: token({ sub: "42" }, "another") }, 3500);
    await closes({ token: token({ sub: "42" }, SECRET, { alg: "none" }) }, 3500);
    await closes({ token: token({ sub: "42", channel: "news" }) }, 3500);
    await closes({}, 3501);
    let asked = 0;
    const late = client({
      ...as("42", { exp: seconds() - 10 }),
      getToken: async () => { asked += 1; return token({ sub: "42" }); },
    });
    const states = listen(late, "connected");
    late.connect();
    await states("a connect with a new token");
    assert.equal(asked, 1, "an expired token is asked for again");
  },

  async "every close code says whether to come back"() {
    const back = [3001, 3004, 3005, 3006, 3008, 3010, 3011, 3012, 3013, 3499, 4000, 4499];
    const stay = [3500, 3501, 3502, 3503, 3504, 3505, 3506, 3507, 3508, 3999, 4500, 4999];
    await Promise.all([...back, ...stay].map(async (code) => {
      const user = `code-${code}`;
      const { it, states } = await connected(as(user));
      const away = listen(it, "connecting", "disconnected");
      await server.api("disconnect", { user, disconnect: { code, reason: "told" } });
      const { event, code: seen, reason } = await away(`what ${code} leads to`);
      const expected = back.includes(code) ? "connecting" : "disconnected";
      assert.deepEqual([event, seen, reason], [expected, code, "told"]);
      if (expected === "connecting") assert.equal((await states("back")).event, "connected");
    }));
  },

  async "code 3000 is a transport that closed"() {
    const user = "code-3000";
    const { it, states } = await connected(as(user));
    const away = listen(it, "connecting", "disconnected");
    await server.api("disconnect", { user, disconnect: { code: 3000, reason: "told" } });
    const { event, reason } = await away("the end of the transport");
    assert.equal(event, "connecting");
    assert.notEqual(reason, "told", "nothing was said");
    assert.equal((await states("back")).event, "connected");
  },

  async "a connection and a subscription outlive their tokens by refreshing them"() {
    let asked = 0;
    let subAsked = 0;
    const silence = withoutRefresh("43");
    const { it, states } = await connected({
      ...as("42", { exp: seconds() + 2 }),
      getToken: async () => { asked += 1; return token({ sub: "42", exp: seconds() + 60 }); },
    });
    const secret = (life) => token({ sub: "42", channel: "$secret", exp: seconds() + life });
    const { state } = await subscribed(it, "$secret", {
      getToken: async () => { subAsked += 1; return secret(subAsked === 1 ? 2 : 60); },
    });
    assert.equal(state.event, "subscribed");
    // Both first tokens have expired by then, and the time for their refresh is over.
    await secondsPast(seconds() + 2 + GRACE);
    const { channels } = await server.api("channels", { pattern: "$secret" });
    assert.deepEqual([asked, subAsked, states.count()], [1, 2, 0]);
    assert.ok(channels.$secret, "still subscribed");
    const why = await silence;
    assert.ok([3005, 3500].includes(why.code) || why.event === "disconnected", JSON.stringify(why));
  },

  async "channels are open to whom they should be"() {
    const { it } = await connected(as("42"));
    assert.equal((await subscribed(it, "news")).state.event, "subscribed");
    assert.equal((await subscribed(it, "dialog#42,43")).state.event, "subscribed");
    assert.equal(await refusal(it, "dialog#43"), 103);
    assert.equal(await refusal(it, "nowhere:1"), 102);
    assert.equal(await refusal(it, "push:1"), 103);
    assert.equal(await refusal(it, "$private"), 103);
    const open = async () => token({ sub: "42", channel: "$private2" });
    assert.equal((await subscribed(it, "$private2", { getToken: open })).state.event, "subscribed");
    const refused = await it.publish("news", encoding.pack(1)).catch((error) => error);
    assert.equal(refused.code, 103);
    const call = await it.rpc("anything", encoding.pack({})).catch((error) => error);
    assert.equal(call.code, 108);
  },

  async "presence knows who is there, and tells who comes and goes"() {
    const one = await connected(as("42", { info: { name: "Ann" } }));
    const first = await subscribed(one.it, "chat:room");
    const changes = listen(first.subscription, "join", "leave");
    assert.equal((await changes()).info.user, "42", "its own join");
    const two = await connected(as("43"));
    const second = await subscribed(two.it, "chat:room");
    const join = await changes("a join");
    assert.deepEqual([join.event, join.info.user], ["join", "43"]);
    assert.equal(join.info.client, two.state.client);
    const { clients } = await first.subscription.presence();
    assert.deepEqual(Object.values(clients).map((info) => info.user).sort(), ["42", "43"]);
    const info = encoding.unpack(clients[one.state.client].connInfo);
    assert.deepEqual(info, { name: "Ann" });
    const stats = await first.subscription.presenceStats();
    assert.deepEqual([stats.numClients, stats.numUsers], [2, 2]);
    await second.subscription.publish(encoding.pack({ said: 1 }));
    const said = await first.heard("what the other says");
    assert.deepEqual(encoding.unpack(said.data), { said: 1 });
    assert.equal(said.info.user, "43");
    two.it.disconnect();
    const leave = await changes("a leave");
    assert.deepEqual([leave.event, leave.info.user], ["leave", "43"]);
    const { presence } = await server.api("presence", { channel: "chat:room" });
    assert.deepEqual(Object.keys(presence), [one.state.client]);
    const numbers = await server.api("presence_stats", { channel: "chat:room" });
    assert.deepEqual(numbers, { num_clients: 1, num_users: 1 });
    const none = await one.it.presence("chat:other").catch((error) => error);
    assert.equal(none.code, 103);
  },

  async "history is read both ways, and forgotten"() {
    const channel = `log:history-${encoding.name}`;
    const { it } = await connected(as("42"));
    const { subscription, state } = await subscribed(it, channel);
    assert.ok(state.recoverable && state.positioned);
    for (let nth = 1; nth <= 10; nth++) {
      const { offset } = await server.api("publish", { channel, data: { nth }, tags: { t: "x" } });
      assert.equal(offset, nth);
    }
    const numbers = (result) => result.publications.map((one) => encoding.unpack(one.data).nth);
    const { epoch, offset, publications } = await subscription.history();
    assert.deepEqual([offset, publications.length], [10, 0]);
    assert.deepEqual(numbers(await subscription.history({ limit: 3 })), [1, 2, 3]);
    assert.deepEqual(numbers(await subscription.history({ limit: 3, reverse: true })), [10, 9, 8]);
    const since = { offset: 4, epoch };
    assert.deepEqual(numbers(await subscription.history({ limit: 2, since })), [5, 6]);
    const before = await subscription.history({ limit: 9, since, reverse: true });
    assert.deepEqual(numbers(before), [3, 2, 1]);
    assert.deepEqual(before.publications[0].tags, { t: "x" });
    const wrong = { offset: 4, epoch: "nonsense" };
    const lost = await subscription.history({ limit: 1, since: wrong }).catch((error) => error);
    assert.equal(lost.code, 112);
    const told = await server.api("history", { channel, limit: 2, reverse: true });
    assert.deepEqual(told.publications.map((one) => [one.offset, one.data.nth]), [[10, 10], [9, 9]]);
    await server.api("history_remove", { channel });
    const after = await subscription.history({ limit: -1 });
    assert.deepEqual([after.offset, after.publications.length, after.epoch], [10, 0, epoch]);
  },

  async "what was missed over a cut is recovered, and over a restart it is said that it is not"() {
    const channel = `log:cut-${encoding.name}`;
    const { it } = await connected({ ...as("44"), minReconnectDelay: 700, maxReconnectDelay: 900 });
    const { heard, states } = await subscribed(it, channel);
    await server.api("publish", { channel, data: 0 });
    assert.equal(encoding.unpack((await heard()).data), 0);
    const away = listen(it, "connecting");
    await server.api("disconnect", { user: "44", disconnect: { code: 3011, reason: "again" } });
    assert.equal((await away()).code, 3011);
    for (let nth = 1; nth <= 10; nth++) await server.api("publish", { channel, data: nth });
    const back = await states("back");
    assert.deepEqual([back.wasRecovering, back.recovered], [true, true]);
    for (let nth = 1; nth <= 10; nth++) {
      const publication = await heard(`missed publication ${nth}`);
      assert.deepEqual([encoding.unpack(publication.data), publication.offset], [nth, nth + 1]);
    }
    assert.equal(await server.stop(), 0);
    await server.run(["--config", config]);
    const reborn = await states("back after a restart");
    assert.deepEqual([reborn.wasRecovering, reborn.recovered], [true, false]);
    await server.api("publish", { channel, data: "new" });
    assert.equal(encoding.unpack((await heard()).data), "new");
  },

  async "numbers stand for the names of channels where their namespace says so"() {
    const seen = [];
    class Overheard extends WebSocket {
      constructor(...options) {
        super(...options);
        this.on("message", (data) => seen.push(data.toString("latin1")));
      }
    }
    const { it } = await connected({
      ...as("47"), websocket: Overheard, minReconnectDelay: 500, maxReconnectDelay: 600,
    });
    const name = (part) => `short:a-name-of-some-length-${part}-${encoding.name}`;
    const all = [];
    for (const part of ["a", "b", "c"]) {
      all.push(await subscribed(it, name(part), part === "c" ? { delta: "fossil" } : {}));
    }
    const joins = listen(all[0].subscription, "join", "leave");
    // The number of one that has left may become another's.
    all[1].subscription.unsubscribe();
    const fourth = await subscribed(it, name("d"));
    all[1].subscription.subscribe();
    assert.equal((await all[1].states("unsubscribed")).event, "unsubscribed");
    assert.equal((await all[1].states("subscribed again")).event, "subscribed");
    const guest = await connected(as("48"));
    await subscribed(guest.it, name("a"));
    const join = await joins("a join");
    assert.deepEqual([join.event, join.info.user], ["join", "48"]);
    seen.length = 0;
    const text = "a text that is long enough for a difference to it to be shorter than it is";
    const say = async (nth) => {
      for (const part of ["a", "b", "c", "d"]) {
        await server.api("publish", { channel: name(part), data: { part, nth, text } });
      }
      for (const [part, one] of [["a", all[0]], ["b", all[1]], ["c", all[2]], ["d", fourth]]) {
        const { data } = await one.heard(`what is said in ${part}`);
        assert.deepEqual(encoding.unpack(data), { part, nth, text });
      }
    };
    await say(1);
    await say(2);
    if (kind === "websocket-json") {
      assert.ok(seen.length >= 8 && seen.every((frame) => !frame.includes("a-name-of-some")));
    }
    guest.it.disconnect();
    assert.equal((await joins("a leave")).event, "leave");
    const away = listen(it, "connecting");
    await server.api("disconnect", { user: "47", disconnect: { code: 3011, reason: "again" } });
    await away();
    await say(3);
    assert.equal(all[0].heard.count() + fourth.heard.count(), 0);
  },

  async "a cache gives the latest to who comes back"() {
    const channel = `last:${encoding.name}`;
    const { it } = await connected(as("45"));
    const { heard, states } = await subscribed(it, channel);
    it.disconnect();
    for (let nth = 1; nth <= 5; nth++) await server.api("publish", { channel, data: nth });
    it.connect();
    assert.ok((await states("back")).recovered);
    assert.equal(encoding.unpack((await heard()).data), 5);
    assert.equal(heard.count(), 0);
  },

  async "128 subscriptions in the first frame"() {
    const it = client(as("42"));
    const all = [];
    for (let nth = 0; nth < 127; nth++) {
      const subscription = it.newSubscription(`first-${nth}`);
      all.push(listen(subscription, "subscribed", "unsubscribed"));
      subscription.subscribe();
    }
    it.connect();
    for (const states of all) assert.equal((await states()).event, "subscribed");
    // The personal channel is the 128th.
    assert.equal(await refusal(it, "one-too-many"), 106);
  },

  async "the server subscribes clients: by token, by name, by the API"() {
    const it = client({ token: token({ sub: "46", channels: ["push:token"] }) });
    const joined = listen(it, "subscribed");
    const left = listen(it, "unsubscribed");
    const heard = listen(it, "publication");
    it.connect();
    const names = [(await joined()).channel, (await joined()).channel];
    assert.deepEqual(names.sort(), ["personal:#46", "push:token"]);
    for (const channel of names) {
      await server.api("publish", { channel, data: { channel } });
      const publication = await heard();
      assert.equal(publication.channel, channel);
      assert.deepEqual(encoding.unpack(publication.data), { channel });
    }
    await server.api("subscribe", { user: "46", channel: "push:api", data: { hello: 1 } });
    const late = await joined("a subscription by the API");
    assert.equal(late.channel, "push:api");
    await server.api("publish", { channel: "push:api", data: 1 });
    assert.equal((await heard()).channel, "push:api");
    await server.api("unsubscribe", { user: "46", channel: "push:api" });
    assert.equal((await left("an unsubscription by the API")).channel, "push:api");
    const gone = listen(it, "disconnected");
    await server.api("disconnect", { user: "46" });
    assert.equal((await gone()).code, 3503);
  },

  async "the API publishes once, and many things at once"() {
    const channel = `log:once-${encoding.name}`;
    const { it } = await connected(as("42"));
    const { heard } = await subscribed(it, channel);
    const once = { channel, data: 1, idempotency_key: "k" };
    const first = await server.api("publish", once);
    assert.deepEqual(await server.api("publish", once), first);
    const version = { channel, data: 2, version: 7, version_epoch: "v" };
    const second = await server.api("publish", version);
    assert.deepEqual(await server.api("publish", { ...version, version: 6 }), second);
    const commands = [
      { publish: { channel, data: 3 } },
      { history: { channel, limit: 1, reverse: true } },
      { publish: { channel: "nowhere:1", data: 4 } },
    ];
    const answer = await fetch(`${server.base}/api/batch`, {
      method: "POST",
      headers: { "X-API-Key": "a-key-for-tests" },
      body: JSON.stringify({ commands }),
    });
    const { replies } = await answer.json();
    assert.equal(replies[0].publish.offset, 3);
    assert.equal(replies[1].history.publications[0].data, 3);
    assert.equal(replies[2].error.code, 102);
    for (const data of [1, 2, 3]) assert.equal(encoding.unpack((await heard()).data), data);
    assert.equal(heard.count(), 0);
  },
};

async function steps() {
  await server.run(["--config", config]);
  for (const [what, part] of Object.entries(parts)) {
    await part();
    made.splice(0).forEach((it) => it.disconnect());
    console.log(`${kind}: ${what}`);
  }
  assert.equal(await server.stop(), 0);
}

/** Mostly they wait, so they do it at the same time. */
async function all() {
  const ends = Object.keys(kinds).map((name) => new Promise((resolve) => {
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), name], { stdio: "inherit" });
    child.once("exit", (code, signal) => resolve({ name, how: code ?? signal }));
  }));
  const failed = (await Promise.all(ends)).filter(({ how }) => how !== 0);
  assert.deepEqual(failed, []);
}

assert.ok(kind === undefined || kind in kinds, `no kind ${kind}: ${Object.keys(kinds)}`);
await within(240_000, "the whole test", kind ? steps() : all());
process.exit(0);
