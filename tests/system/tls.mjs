// The JavaScript SDK over wss in Node and in Chromium, which loads the page over https, then opens an
// EventSource and a WebSocket on the same origin.
//
// Usage: node tls.mjs ORIGIN    NODE_EXTRA_CA_CERTS names the authority of the server

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Centrifuge } from "centrifuge";
import { startChromium } from "../common/chromium.mjs";
import WebSocket from "ws";

import { within } from "../common/server.mjs";

const origin = process.argv[2];
const websocket = `${origin.replace("https", "wss")}/connection/websocket`;
const KEY = "a-key-for-tests";

const once = (emitter, event) =>
  within(20_000, event, new Promise((resolve) => emitter.once(event, resolve)));

async function publish(channel, data) {
  const answer = await fetch(`${origin}/api/publish`, {
    method: "POST",
    headers: { "X-API-Key": KEY, "Content-Type": "application/json" },
    body: JSON.stringify({ channel, data }),
  });
  assert.deepEqual(await answer.json(), { result: {} });
}

/** The SDK in Node: connects, subscribes, publishes, hears itself and the API. */
async function sdk() {
  const client = new Centrifuge(websocket, { websocket: WebSocket });
  const connected = once(client, "connected");
  client.connect();
  await connected;
  const subscription = client.newSubscription("node");
  const subscribed = once(subscription, "subscribed");
  subscription.subscribe();
  await subscribed;
  for (const size of [1, 16_384, 50_000]) {
    const heard = once(subscription, "publication");
    await subscription.publish("x".repeat(size));
    assert.equal((await heard).data.length, size);
  }
  const heard = once(subscription, "publication");
  await publish("node", "from the API");
  assert.equal((await heard).data, "from the API");
  const disconnected = once(client, "disconnected");
  client.disconnect();
  await disconnected;
  console.log("node: the SDK over wss");
}

/** In the page: an EventSource of the same origin hears a publication. */
async function listen(channel) {
  const connect = encodeURIComponent(JSON.stringify({ subs: { [channel]: {} } }));
  const source = new EventSource(`/connection/uni_sse?cf_connect=${connect}`);
  globalThis.heard = [];
  source.onmessage = (event) => globalThis.heard.push(event.data);
  await new Promise((resolve, reject) => {
    source.addEventListener("message", resolve, { once: true });
    source.onerror = () => reject(new Error("the EventSource failed"));
  });
}

async function browse() {
  const folder = await mkdtemp(join(tmpdir(), "drumline-tls-"));
  const browser = await startChromium(folder, { ignoreHTTPSErrors: true, args: ["--ignore-certificate-errors"] });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(20_000);
    const complaints = [];
    page.on("pageerror", (error) => complaints.push(String(error)));
    const sockets = [];
    page.on("websocket", (socket) => sockets.push(socket.url()));
    await page.goto(`${origin}/`);
    await page.waitForFunction(
      () => /^connected/i.test(document.querySelector("#status").textContent),
    );
    assert.deepEqual(sockets, [websocket]);
    await page.fill("#channel", "browser");
    await page.click("#subscribe");
    await page.waitForTimeout(200);
    await page.fill("#text", "typed over wss");
    await page.click("#publish");
    await page.locator("#messages", { hasText: "typed over wss" }).waitFor();
    await within(20_000, "the EventSource", page.evaluate(listen, "browser"));
    await publish("browser", "heard by both");
    await page.locator("#messages", { hasText: "heard by both" }).waitFor();
    await page.waitForFunction(() => globalThis.heard.some((data) => data.includes("heard by both")));
    assert.deepEqual(complaints, []);
    console.log("Chromium: page over https, EventSource and wss on one origin");
  } finally {
    await browser.close();
    await rm(folder, { recursive: true, force: true });
  }
}

await sdk();
await browse();
process.exit(0);
