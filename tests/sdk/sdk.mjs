// The JavaScript SDK, unchanged, against the real server.

import assert from "node:assert/strict";

import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { Server, freePort, within } from "../common/server.mjs";

const server = new Server(await freePort());
process.on("exit", () => server.kill());

/** What an emitter says, one after the other, each awaited with a bound. */
function listen(emitter, ...events) {
  const seen = [];
  const waiting = [];
  for (const event of events) {
    emitter.on(event, (context) => {
      const item = { event, ...context };
      const next = waiting.shift();
      if (next) next(item);
      else seen.push(item);
    });
  }
  return (what = events.join(" or ")) =>
    seen.length > 0
      ? Promise.resolve(seen.shift())
      : within(20_000, what, new Promise((resolve) => waiting.push(resolve)));
}

function client() {
  const made = new Centrifuge(server.websocket, {
    websocket: WebSocket,
    minReconnectDelay: 50,
    maxReconnectDelay: 500,
  });
  made.on("error", () => {}); // attempts while the server is down
  return made;
}

async function steps() {
  await server.start(["--shutdown.spread", "0s"]);
  const [one, two] = [client(), client()];
  const [states, others] = [one, two].map((it) => listen(it, "connected", "disconnected"));
  one.connect();
  two.connect();
  const connected = await states();
  assert.equal(connected.event, "connected");
  assert.match(connected.client, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.equal((await others()).event, "connected");
  console.log("connected");

  const [news, same] = [one, two].map((it) => it.newSubscription("news"));
  const [heard, heardToo] = [news, same].map((it) => listen(it, "publication"));
  const [subscribed, subscribedToo] = [news, same].map((it) => listen(it, "subscribed"));
  const left = listen(news, "unsubscribed");
  news.subscribe();
  same.subscribe();
  await subscribed();
  await subscribedToo();
  console.log("subscribed");

  for (let nth = 0; nth < 20; nth++) {
    if (nth % 2 === 0) await one.publish("news", { nth });
    else await server.api("publish", { channel: "news", data: { nth } });
    assert.deepEqual((await heard()).data, { nth });
    assert.deepEqual((await heardToo()).data, { nth });
  }
  for (let nth = 0; nth < 50; nth++) void two.publish("news", { nth });
  for (let nth = 0; nth < 50; nth++) {
    assert.deepEqual((await heard()).data, { nth }, "in order");
    assert.deepEqual((await heardToo()).data, { nth }, "in order");
  }
  await server.api("broadcast", { channels: ["nobody", "news"], data: "all" });
  assert.equal((await heard()).data, "all");
  assert.equal((await heardToo()).data, "all");
  console.log("published by clients and by the API, in order");

  const { channels } = await server.api("channels", {});
  assert.deepEqual(channels, { news: { num_clients: 2 } });
  const { nodes } = await server.api("info", {});
  assert.equal(nodes.length, 1);
  assert.equal(nodes[0].num_clients, 2);
  console.log("the API counts both");

  news.unsubscribe();
  assert.equal((await left()).code, 0);
  await server.api("publish", { channel: "news", data: "after" });
  assert.equal((await heardToo()).data, "after");
  news.subscribe();
  await subscribed();
  await server.api("publish", { channel: "news", data: "again" });
  assert.equal((await heard()).data, "again", "nothing came while unsubscribed");
  assert.equal((await heardToo()).data, "again");
  console.log("unsubscribed and back");

  const refused = await one.history("news", { limit: 1 }).catch((error) => error);
  assert.equal(refused.code, 108);
  const unknown = one.newSubscription("no:such");
  const unknownLeft = listen(unknown, "unsubscribed");
  unknown.subscribe();
  assert.equal((await unknownLeft()).code, 102);
  console.log("errors arrive as they should");

  const reconnecting = listen(one, "connecting");
  const code = await server.stop();
  assert.equal(code, 0);
  const first = await reconnecting();
  assert.equal(first.code, 3001);
  assert.equal(first.reason, "shutdown");
  await within(20_000, "an attempt in vain", new Promise((resolve) => one.once("error", resolve)));
  await server.start(["--shutdown.spread", "0s"]);
  assert.equal((await states("a reconnect")).event, "connected");
  assert.equal((await others("a reconnect")).event, "connected");
  await subscribed();
  await subscribedToo();
  await server.api("publish", { channel: "news", data: "reborn" });
  assert.equal((await heard()).data, "reborn");
  assert.equal((await heardToo()).data, "reborn");
  console.log("a restart: both are back with their subscriptions");

  one.disconnect();
  two.disconnect();
  assert.equal((await states()).event, "disconnected");
  assert.equal((await others()).event, "disconnected");
  assert.equal(await server.stop(), 0);
}

await within(120_000, "the whole test", steps());
process.exit(0);
