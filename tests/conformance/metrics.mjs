// Compares the metrics of both servers after the same traffic: every metric of Centrifugo that is not
// listed as missing has the same name, type, labels and buckets in Drumline's scrape.
//
// Usage: node tests/conformance/metrics.mjs

import { createHmac } from "node:crypto";

import { Centrifuge } from "centrifuge";
import { Centrifuge as Binary } from "centrifuge/build/protobuf";
import { EventSource } from "eventsource";
import WebSocket from "ws";

import { within } from "../common/server.mjs";
import { startBackend } from "./backend.mjs";
import { call } from "./clients/http.mjs";
import { start } from "./servers.mjs";

const KEY = "metrics-api-key";
const SECRET = "metrics-secret";
/** Metrics of parts that Drumline does not have. */
const MISSING = /^(broker_|map_broker_|shared_poll_|node_survey_|node_pub_sub_lag_)/;

/** A connection token of a user. */
function token(user) {
  const parts = [{ alg: "HS256", typ: "JWT" }, { sub: user }];
  const text = parts.map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
}
const CONFIG = {
  client: {
    token: { hmac_secret_key: SECRET }, allow_anonymous_connect_without_token: true, ping_interval: "1s", pong_timeout: "900ms",
  },
  channel: {
    without_namespace: {
      presence: true, join_leave: true, force_push_join_leave: true, history_size: 10, history_ttl: "60s",
      force_recovery: true, allow_subscribe_for_client: true, allow_subscribe_for_anonymous: true, allow_publish_for_client: true,
      allow_presence_for_client: true, allow_history_for_client: true, allow_tags_filter: true,
    },
  },
  rpc: { proxy: { endpoint: "$BACKEND/rpc", timeout: "1s" }, without_namespace: { proxy_enabled: true } },
  http_api: { key: KEY },
  uni_sse: { enabled: true },
  sse: { enabled: true },
  http_stream: { enabled: true },
  prometheus: { enabled: true, recovered_publications_histogram: true },
};

const api = (port, method, body) => call(port, {
  method: "POST", path: `/api/${method}`, headers: { "X-API-Key": KEY }, body: JSON.stringify(body),
});

function client(Sdk, port, options = {}) {
  const made = new Sdk(`ws://127.0.0.1:${port}/connection/websocket`, { websocket: WebSocket, ...options });
  made.on("error", () => {});
  return made;
}

const once = (emitter, event) =>
  within(20_000, event, new Promise((resolve) => emitter.once(event, resolve)));

async function subscribed(made, channel, options) {
  const subscription = made.newSubscription(channel, options);
  subscription.subscribe();
  await once(subscription, "subscribed");
  return subscription;
}

/** Traffic that touches every metric of the shared list. */
async function traffic(port) {
  const one = client(Centrifuge, port, { token: token("ann") });
  const two = client(Binary, port, { name: "", version: "" });
  for (const each of [one, two]) {
    each.connect();
    await once(each, "connected");
  }
  const news = await subscribed(one, "news");
  await subscribed(two, "news", { joinLeave: true });
  await one.publish("news", { nth: 1 });
  await api(port, "publish", { channel: "news", data: { nth: 2 } });
  await api(port, "publish", { channel: "", data: {} });
  await api(port, "broadcast", { channels: ["news"], data: 3 });
  await news.presence();
  await news.presenceStats();
  await news.history({ limit: 5 });
  await one.rpc("method", {});
  const unknown = two.newSubscription("unknown:namespace");
  unknown.subscribe();
  await once(unknown, "unsubscribed");
  await one.history("nowhere", {}).catch(() => {});
  await one.presence("not allowed").catch(() => {});
  // Recovery: the position is older than what follows.
  news.unsubscribe();
  await api(port, "publish", { channel: "news", data: { nth: 4 } });
  news.subscribe();
  await once(news, "subscribed");
  news.unsubscribe();
  one.removeSubscription(news);
  await within(20_000, "recovery", subscribed(one, "news", {
    since: { offset: 1, epoch: "other" },
  }));
  await api(port, "unsubscribe", { user: "ann", channel: "news" });
  const stream = new EventSource(`http://127.0.0.1:${port}/connection/uni_sse?cf_connect=`
    + encodeURIComponent(JSON.stringify({ name: "page", subs: { news: {} } })));
  await within(20_000, "uni_sse", new Promise((resolve) => { stream.onmessage = resolve; }));
  const emulated = new Centrifuge([
    { transport: "http_stream", endpoint: `http://127.0.0.1:${port}/connection/http_stream` },
  ], { emulationEndpoint: `http://127.0.0.1:${port}/emulation`, websocket: WebSocket });
  emulated.connect();
  await once(emulated, "connected");
  await api(port, "publish", { channel: "news", data: { nth: 5 } });
  await new Promise((resolve) => setTimeout(resolve, 2_200));
  await api(port, "disconnect", { user: "ann" });
  for (const each of [one, two, emulated]) each.disconnect();
  stream.close();
}

/** name -> {type, series: name and labels -> value}. */
function parse(text) {
  const families = new Map();
  for (const line of text.split("\n")) {
    const type = /^# TYPE (\S+) (\S+)$/.exec(line);
    if (type) families.set(type[1], { type: type[2], series: new Map() });
  }
  for (const line of text.split("\n")) {
    const sample = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!sample) continue;
    const base = families.has(sample[1]) ? sample[1] : sample[1].replace(/_(sum|count|bucket)$/, "");
    const family = families.get(base);
    if (family === undefined) throw new Error(`no TYPE for ${line}`);
    family.series.set(`${sample[1]}{${sample[2] ?? ""}}`, Number(sample[3]));
  }
  return families;
}

async function scrape(port) {
  const answer = await call(port, { path: "/metrics" });
  return answer.body.toString();
}

async function run(kind, backend) {
  const flags = kind === "drumline" ? ["--prometheus.namespace", "centrifugo"] : [];
  const group = { name: "metrics", config: CONFIG, flags };
  const fill = (value) => JSON.parse(JSON.stringify(value).replaceAll("$BACKEND", backend.url));
  const server = await start(kind, group, fill);
  await traffic(server.port);
  const text = await scrape(server.port);
  await server.stop();
  return text;
}

/** Names of series without the base, each with the names of its labels. */
function shape(name, family) {
  const shapes = new Set();
  for (const series of family.series.keys()) {
    const [, whole, labels] = /^([^{]*)\{(.*)\}$/.exec(series);
    const found = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)];
    const bound = found.find(([, label]) => label === "le" || label === "quantile")?.[2] ?? "";
    shapes.add(`${whole.slice(name.length)} ${found.map(([, label]) => label).sort()} ${bound}`);
  }
  return shapes;
}

const backend = await startBackend();
const [theirs, ours] = (await Promise.all([run("centrifugo", backend), run("drumline", backend)])).map(parse);
const problems = [];
let compared = 0;
for (const [name, family] of theirs) {
  if (!name.startsWith("centrifugo_") || MISSING.test(name.slice("centrifugo_".length))) continue;
  compared += 1;
  const own = ours.get(name);
  if (own === undefined) {
    problems.push(`${name} is missing`);
    continue;
  }
  if (own.type !== family.type) problems.push(`${name}: ${own.type} instead of ${family.type}`);
  const [left, right] = [shape(name, family), shape(name, own)];
  for (const one of left) if (!right.has(one)) problems.push(`${name}: no series like ${one}`);
  for (const one of right) if (!left.has(one)) problems.push(`${name}: a series of its own: ${one}`);
}
if (compared < 25) problems.push(`only ${compared} metrics were compared`);
for (const problem of problems) console.log(`PROBLEM: ${problem}`);
console.log(`${compared} metrics compared, ${problems.length} problems`);
process.exit(problems.length > 0 ? 1 : 0);
