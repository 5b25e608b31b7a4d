// The JavaScript SDK in a real browser, on a page of another origin: every transport, and what a
// browser does by itself with server-sent events.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { connect as dial, createServer as createRelay } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { startChromium } from "../common/chromium.mjs";

import { Server, freePort, within } from "../common/server.mjs";

const server = new Server(await freePort());
process.on("exit", () => server.kill());
const folder = await mkdtemp(join(tmpdir(), "drumline-browser-"));
const sdk = (name) => readFileSync(fileURLToPath(
  new URL(`../node_modules/centrifuge/dist/${name}`, import.meta.url),
));
const files = {
  "/json": "<!doctype html><title>json</title><script src=/centrifuge.js></script>",
  "/protobuf": "<!doctype html><title>protobuf</title><script src=/centrifuge.protobuf.js></script>",
  "/centrifuge.js": sdk("centrifuge.js"),
  "/centrifuge.protobuf.js": sdk("centrifuge.protobuf.js"),
};
const pages = createServer((request, response) => {
  const found = files[request.url];
  const kind = request.url.endsWith(".js") ? "text/javascript" : "text/html";
  response.writeHead(found ? 200 : 404, { "Content-Type": kind }).end(found);
});
await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${pages.address().port}`;
let browser;

/** In the page: connects, subscribes, publishes and hears itself; says by which transport. */
async function talk({ endpoints, emulationEndpoint, channel, binary }) {
  const pack = (value) => (binary ? new TextEncoder().encode(JSON.stringify(value)) : value);
  const unpack = (data) => (binary ? JSON.parse(new TextDecoder().decode(data)) : data);
  const client = new globalThis.Centrifuge(endpoints, { emulationEndpoint, minReconnectDelay: 50 });
  const connected = new Promise((resolve) => client.on("connected", resolve));
  const subscription = client.newSubscription(channel);
  const heard = [];
  let enough;
  const all = new Promise((resolve) => { enough = resolve; });
  subscription.on("publication", ({ data, offset }) => {
    heard.push([unpack(data), offset]);
    if (heard.length === 50) enough();
  });
  subscription.subscribe();
  client.connect();
  const { transport } = await connected;
  await subscription.ready();
  const said = [];
  for (let nth = 0; nth < 50; nth++) said.push(subscription.publish(pack({ nth, text: "ä€😀" })));
  await Promise.all(said);
  await all;
  const { publications } = await subscription.history({ limit: 3, reverse: true });
  client.disconnect();
  return { transport, heard, latest: publications.map(({ offset }) => offset) };
}

/** In the page: what an EventSource hears until a publication says that it is the last. */
function listen(address) {
  return new Promise((resolve) => {
    const heard = [];
    const source = new EventSource(address);
    source.onmessage = ({ data }) => {
      const push = JSON.parse(data);
      const missed = Object.values(push.connect?.subs ?? {}).flatMap((sub) => sub.publications ?? []);
      for (const one of [...missed, ...(push.pub ? [push.pub] : [])]) heard.push(one.data);
      if (heard.at(-1) === "last") {
        source.close();
        resolve(heard);
      }
    };
  });
}

async function transports(page) {
  const endpoint = (transport) => ({
    transport,
    endpoint: transport === "websocket" ? server.websocket : `${server.base}/connection/${transport}`,
  });
  const nowhere = { transport: "websocket", endpoint: `${server.websocket}/nowhere` };
  const cases = {
    json: [["websocket"], ["http_stream"], ["sse"], [nowhere, "sse"]],
    protobuf: [["websocket"], ["http_stream"], [nowhere, "http_stream"]],
  };
  for (const [encoding, lists] of Object.entries(cases)) {
    await page.goto(`${origin}/${encoding}`);
    for (const [nth, list] of lists.entries()) {
      const endpoints = list.map((one) => (typeof one === "string" ? endpoint(one) : one));
      const channel = `${encoding}-${nth}`;
      const { transport, heard, latest } = await within(20_000, channel, page.evaluate(talk, {
        endpoints, emulationEndpoint: `${server.base}/emulation`, channel, binary: encoding === "protobuf",
      }));
      assert.ok(transport.includes(list.at(-1)), `${transport} for ${JSON.stringify(list)}`);
      // Requests of their own may overtake each other: each is heard once, by its offset in order.
      const numbers = heard.map(([{ nth: number }]) => number).sort((one, other) => one - other);
      assert.deepEqual(numbers, [...Array(50).keys()]);
      assert.deepEqual(heard.map(([, offset]) => offset), [...Array(50).keys()].map((at) => at + 1));
      assert.ok(heard.every(([{ text }]) => text === "ä€😀"));
      assert.deepEqual(latest, [50, 49, 48]);
      console.log(`${encoding} by ${transport}: 50 said, 50 heard`);
    }
  }
}

async function resumed(page) {
  const between = new Set();
  const relay = createRelay((near) => {
    const far = dial(server.port, "127.0.0.1");
    for (const end of [near, far]) {
      between.add(end);
      end.on("error", () => {});
      end.on("close", () => { near.destroy(); far.destroy(); });
    }
    near.pipe(far).pipe(near);
  });
  await new Promise((resolve) => relay.listen(0, "127.0.0.1", resolve));
  const connect = encodeURIComponent(JSON.stringify({ subs: { "sse-resumed": {} } }));
  const base = `http://127.0.0.1:${relay.address().port}`;
  const heard = page.evaluate(listen, `${base}/connection/uni_sse?cf_connect=${connect}`);
  const publish = (data) => server.api("publish", { channel: "sse-resumed", data });
  await within(10_000, "the event source", (async () => {
    for (;;) {
      const { channels } = await server.api("channels", {});
      if (channels["sse-resumed"]?.num_clients === 1) return;
    }
  })());
  await publish(1);
  // The browser comes back by itself after some seconds, and says which event was its last.
  for (const end of between) end.destroy();
  await publish(2);
  await publish(3);
  await publish("last");
  assert.deepEqual(await within(20_000, "the browser's return", heard), [1, 2, 3, "last"]);
  relay.close();
  console.log("an EventSource that was cut off missed nothing");
}

async function steps() {
  await server.start([
    "--client.allowed_origins", origin,
    "--channel.without_namespace.history_size", "100",
    "--channel.without_namespace.history_ttl", "60s",
    "--channel.without_namespace.force_recovery",
  ]);
  browser = await startChromium(folder);
  const page = await browser.newPage();
  await transports(page);
  await resumed(page);
}

try {
  await within(120_000, "the whole test", steps());
} finally {
  await browser?.close();
  pages.close();
  await server.stop();
  await rm(folder, { recursive: true, force: true });
}
process.exit(0);
