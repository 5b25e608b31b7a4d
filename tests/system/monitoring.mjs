// The alerts and the dashboard of packaging/ with Prometheus: promtool tests the rules, then two Prometheus
// servers scrape a node with TLS, clients, a proxy and hooks, and a node whose broker is down. One of them stores
// classic histograms and one native histograms. Every metric that is named must be in a scrape, and every
// expression must have a result on both.
//
// Usage: node monitoring.mjs    PROMETHEUS and PROMTOOL name other programs than those in the path

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createServer } from "node:http";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import WebSocket from "ws";

import { KEY, Server, freePort, sleep, until } from "../common/server.mjs";

const PROMETHEUS = process.env.PROMETHEUS ?? "prometheus";
const PROMTOOL = process.env.PROMTOOL ?? "promtool";
const packaging = fileURLToPath(new URL("../../packaging/", import.meta.url));
const rules = `${packaging}prometheus/rules.yml`;
const folder = await mkdtemp(join(tmpdir(), "drumline-monitoring-"));
const children = [];
const ended = [];
const begun = performance.now();

/** Unit tests of the rules, at least one in which each alert fires and one in which it does not. */
async function testRules() {
  const tests = `${packaging}prometheus/rules_test.yml`;
  for (const args of [["check", "rules", rules], ["test", "rules", tests]]) {
    process.stdout.write(execFileSync(PROMTOOL, args));
  }
  const alerts = [...(await readFile(rules, "utf8")).matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
  const text = await readFile(tests, "utf8");
  for (const alert of alerts) {
    assert.match(text, new RegExp(`alertname: ${alert}\\n +exp_alerts:`), `${alert} fires in no test`);
    assert.match(text, new RegExp(`alertname: ${alert} }`), `${alert} stays silent in no test`);
  }
  return alerts;
}

/** A certificate for localhost that it signs itself. */
function certificate() {
  const [cert, key] = ["tls.crt", "tls.key"].map((name) => join(folder, name));
  execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
    "-days", "300", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
  { stdio: "ignore" });
  return { cert, key };
}

/** A backend that answers each second question about an RPC, and takes every event. */
async function backend() {
  let asked = 0;
  const server = createServer((request, answer) => {
    request.resume().on("end", () => {
      if (request.url === "/rpc" && asked++ % 2 === 1) return answer.writeHead(500).end();
      answer.setHeader("Content-Type", "application/json");
      return answer.end(JSON.stringify({ result: { data: {} } }));
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  ended.push(() => server.close());
  return `http://127.0.0.1:${server.address().port}`;
}

/** A server with an internal port for the metrics. */
async function node(flags) {
  const internal = await freePort();
  const server = new Server(await freePort(), `http://127.0.0.1:${internal}`);
  ended.push(() => server.kill());
  await server.start(["--http_server.internal_port", internal, "--http_server.internal_address", "127.0.0.1", ...flags]);
  server.metrics = `127.0.0.1:${internal}`;
  return server;
}

/** A Prometheus that scrapes every second. */
async function prometheus(name, targets, flags) {
  const config = join(folder, `${name}.yml`);
  await writeFile(config, JSON.stringify({
    global: { scrape_interval: "1s", scrape_timeout: "1s", evaluation_interval: "1s" },
    rule_files: [rules],
    scrape_configs: [{ job_name: "drumline", static_configs: [{ targets }] }],
  }));
  const base = `http://127.0.0.1:${await freePort()}`;
  const child = spawn(PROMETHEUS, [`--config.file=${config}`, `--storage.tsdb.path=${join(folder, name)}`,
    `--web.listen-address=${base.slice(7)}`, "--log.level=warn", ...flags], { stdio: ["ignore", "inherit", "inherit"] });
  children.push(child);
  const ask = async (path, parameters = {}) => {
    const answer = await fetch(`${base}/api/v1/${path}?${new URLSearchParams(parameters)}`);
    const parsed = await answer.json();
    assert.equal(parsed.status, "success", `${name}: ${JSON.stringify(parameters)}: ${parsed.error}`);
    return parsed.data;
  };
  await until(`${name} to be ready`, async () => (await fetch(`${base}/-/ready`).catch(() => undefined))?.ok);
  return { name, ask };
}

/** A client that sends commands; `ca` is the certificate of the server. */
function client(server, ca, commands) {
  const socket = new WebSocket(`wss://localhost:${server.port}/connection/websocket`, { ca });
  socket.on("error", () => {});
  socket.on("message", (text) => { if (String(text) === "{}") socket.send("{}"); });
  socket.on("open", () => commands.forEach((command) => socket.send(command)));
  return socket;
}

/** Clients and calls that bring every metric into being, until the test ends. */
async function traffic(server, ca) {
  const connect = '{"id":1,"connect":{}}';
  const stays = client(server, ca, [connect, '{"id":2,"subscribe":{"channel":"kept:a"}}']);
  await until("a client of the node", () => stays.readyState === WebSocket.OPEN);
  const api = (method, body) => fetch(`http://${server.metrics}/api/${method}`, {
    method: "POST", headers: { "X-API-Key": KEY }, body: JSON.stringify(body),
  });
  let goes = true;
  const loop = (async () => {
    for (let nth = 3; goes; nth += 2) {
      await api("publish", { channel: "kept:a", data: nth });
      await api("publish", { channel: "disk:a", data: nth });
      stays.send(`{"id":${nth},"rpc":{"method":"m","data":{}}}`);
      stays.send(`{"id":${nth + 1},"subscribe":{"channel":"unknown:a"}}`);
      // Its recovery fails, and its last command breaks the protocol.
      client(server, ca, [connect, '{"id":2,"subscribe":{"channel":"kept:a","recover":true,"epoch":"x"}}', "?"]);
      await sleep(100);
    }
  })();
  ended.push(() => { goes = false; return loop; });
}

/** The panels of the dashboard: unique, apart from each other, each with a data source. */
async function panels() {
  const { panels: all } = JSON.parse(await readFile(`${packaging}grafana/dashboard.json`, "utf8"));
  assert.equal(new Set(all.map(({ id }) => id)).size, all.length, "two panels have one id");
  const cells = new Set();
  for (const { gridPos: { x, y, w, h }, title } of all) {
    assert.ok(x >= 0 && x + w <= 24, title);
    for (let at = 0; at < w * h; at++) {
      const cell = `${x + (at % w)} ${y + Math.floor(at / w)}`;
      assert.ok(!cells.has(cell), `${title} overlaps another panel`);
      cells.add(cell);
    }
  }
  const drawn = all.filter(({ type }) => type !== "row");
  for (const { title, datasource, targets } of drawn) {
    assert.equal(datasource.uid, "${datasource}", title);
    assert.ok(targets.length > 0 && new Set(targets.map(({ refId }) => refId)).size === targets.length, title);
  }
  return drawn;
}

const filled = (expression) =>
  expression.replaceAll("$instance", ".*").replaceAll("$__rate_interval", "5s").replaceAll("[1h]", "[5s]");

/** Why an expression of a panel has no usable result; undefined: it has one. */
async function missing(database, { expr, legendFormat }) {
  const { result } = await database.ask("query", { query: filled(expr) });
  if (!result.some(({ value }) => Number.isFinite(Number(value?.[1])))) return `${database.name}: no number: ${expr}`;
  const labels = [...(legendFormat ?? "").matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label);
  const lacking = labels.filter((label) => !(label in result[0].metric));
  return lacking.length > 0 ? `${database.name}: no label ${lacking}: ${expr}` : undefined;
}

/** Every rule is evaluated without an error, and the feed that is down is noticed. */
async function evaluated(database, alerts) {
  const { groups } = await database.ask("rules");
  const found = groups.flatMap((group) => group.rules);
  assert.deepEqual(found.map(({ name }) => name).sort(), [...alerts].sort());
  for (const { name, health, lastError } of found) assert.equal(health, "ok", `${name}: ${lastError}`);
  const state = (wanted) => found.find(({ name }) => name === wanted).state;
  assert.equal(state("DrumlineFeedDown"), "pending");
  for (const quiet of ["DrumlineDown", "DrumlineCertificateExpires", "DrumlineAcmeFailing"]) {
    assert.equal(state(quiet), "inactive", quiet);
  }
}

/** The names of metrics in the dashboard and in the alerts that no scrape contains. */
async function unknown(scrapes, drawn) {
  const texts = drawn.flatMap(({ targets }) => targets.map(({ expr }) => expr));
  texts.push(await readFile(rules, "utf8"));
  const names = new Set(texts.flatMap((text) => text.match(/\b(?:drumline|process)_\w+/g)));
  assert.ok(names.size > 60, `${names.size} names`);
  const found = new Set(scrapes.flatMap((text) => text.split("\n").flatMap((line) =>
    line.startsWith("# TYPE ") && line.endsWith(" histogram") ? [line.split(" ")[2]] : [line.split(/[ {]/)[0]])));
  return [...names].filter((name) => !found.has(name));
}

async function main() {
  const alerts = await testRules();
  const { cert, key } = certificate();
  const url = await backend();
  const server = await node([
    "--http_server.tls.enabled", "--http_server.tls.cert_pem", cert, "--http_server.tls.key_pem", key,
    "--http_server.tls_external", "--client.ping_interval=1s", "--client.pong_timeout=900ms",
    "--rpc.without_namespace.proxy_enabled", `--rpc.proxy.endpoint=${url}/rpc`,
    "--client.hook.disconnect.enabled", `--client.hook.disconnect.endpoint=${url}/disconnect`,
    '--channel.namespaces=[{"name":"kept","history_size":10,"history_ttl":"60s","force_recovery":true},'
      + '{"name":"disk","history_size":10,"history_ttl":"60s","history_durable":true}]',
    "--store.path", join(folder, "store"),
  ]);
  const feed = { name: "prices", enabled: true, type: "rabbitmq", rabbitmq: { url: "amqp://127.0.0.1:1", queue: "q" } };
  const lonely = await node([`--consumers=${JSON.stringify([feed])}`]);
  await traffic(server, await readFile(cert));
  const targets = [server.metrics, lonely.metrics];
  const databases = await Promise.all([
    prometheus("classic", targets, []),
    prometheus("native", targets, ["--enable-feature=native-histograms"]),
  ]);
  const drawn = await panels();
  const expressions = drawn.flatMap((panel) => panel.targets);
  const lacks = async () => (await Promise.all(databases.flatMap((database) =>
    expressions.map((one) => missing(database, one))))).filter(Boolean);
  let left;
  for (let seconds = 0; seconds < 40; seconds++) {
    await sleep(1000);
    left = await lacks();
    if (left.length === 0) break;
  }
  assert.deepEqual(left, [], "expressions without a result");
  const scrapes = await Promise.all(targets.map(async (target) => (await fetch(`http://${target}/metrics`)).text()));
  assert.deepEqual(await unknown(scrapes, drawn), [], "no scrape contains these metrics");
  for (const database of databases) {
    await evaluated(database, alerts);
    const instances = await database.ask("label/instance/values", { "match[]": "drumline_clients" });
    assert.deepEqual(instances.sort(), targets.sort());
  }
  const buckets = 'count({__name__=~"drumline_.+_bucket"})';
  const [classic, native] = await Promise.all(databases.map(({ ask }) => ask("query", { query: buckets })));
  assert.ok(classic.result.length > 0 && native.result.length === 0, "each stores its kind of histogram");
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  console.log(`${alerts.length} alerts, ${expressions.length} expressions of ${drawn.length} panels: ${seconds} s`);
}

try {
  await main();
} finally {
  await Promise.all(ended.map((end) => end()));
  for (const child of children) {
    child.kill("SIGTERM");
    await new Promise((resolve) => { if (child.exitCode !== null) resolve(); else child.once("exit", resolve); });
  }
  await rm(folder, { recursive: true, force: true });
}
