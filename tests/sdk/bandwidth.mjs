// Fewer bytes and fewer packets: permessage-deflate with `ws` and with the JavaScript SDK over it;
// channels whose publications go out together, and channels that give the latest only.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";

import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { Server, freePort, sleep, until, within } from "../common/server.mjs";

const server = new Server(await freePort());
process.on("exit", () => server.kill());

/** A WebSocket that offers compression, or not, and counts what comes over the socket. */
function socket(perMessageDeflate) {
  return class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols, { perMessageDeflate });
    }

    get received() {
      return this._socket.bytesRead;
    }
  };
}

/** The next event of an emitter. */
const next = (emitter, event) =>
  within(20_000, event, new Promise((resolve) => emitter.once(event, resolve)));

/** A connected client, its subscription to a channel, and the socket that it made. */
async function subscriber(channel, deflate) {
  let made;
  const Socket = socket(deflate);
  const client = new Centrifuge(server.websocket, {
    websocket: class extends Socket {
      constructor(...given) {
        super(...given);
        made = this;
      }
    },
  });
  client.connect();
  await next(client, "connected");
  const subscription = client.newSubscription(channel);
  const [heard, times] = [[], []];
  subscription.on("publication", ({ data, offset }) => {
    heard.push(offset === undefined ? data : [data, offset]);
    times.push(performance.now());
  });
  subscription.subscribe();
  await next(subscription, "subscribed");
  const count = async (wanted) => {
    while (heard.length < wanted) await next(subscription, "publication");
  };
  return { client, socket: made, heard, times, count };
}

/** Messages of every size and kind go to /echo and come back as they went. */
async function echoes(offer) {
  const client = new (socket(offer))(`ws://127.0.0.1:${server.port}/echo`);
  await next(client, "open");
  const text = "a quote of 200 bytes, and another one; ".repeat(3000);
  const sizes = [0, 1, 2, 50, 125, 126, 1000, 16_384, 30_000, 65_535, 65_536, 65_537, 110_000];
  const sent = sizes.flatMap((size) => [randomBytes(size), text.slice(0, size)]);
  const back = new Promise((resolve) => {
    const got = [];
    client.on("message", (data, binary) => {
      got.push(binary ? data : data.toString());
      if (got.length === sent.length) resolve(got);
    });
  });
  for (const message of sent) client.send(message);
  const got = await within(20_000, "the echoes", back);
  sent.forEach((message, at) => {
    assert.ok(Buffer.from(got[at]).equals(Buffer.from(message)), `${at}: ${message.length}`);
  });
  client.close();
  return client.extensions;
}

async function deflate() {
  const flags = ["--websocket.compression", "--engine.echo"];
  await server.start([...flags, "--websocket.message_size_limit", 200_000]);
  const offers = [
    true,
    { threshold: 0, zlibDeflateOptions: { level: 9, memLevel: 9 } },
    { threshold: 0, clientMaxWindowBits: 10, serverNoContextTakeover: true },
    { threshold: 0, clientNoContextTakeover: true, zlibDeflateOptions: { strategy: 2 } },
  ];
  for (const offer of offers) assert.equal(await echoes(offer), "permessage-deflate");
  assert.equal(await echoes(false), "");
  assert.equal(await echoes({ serverMaxWindowBits: 10 }), "", "an offer that is passed over");
  console.log("every size comes back as it went, whatever the client compresses by");

  const all = await Promise.all([
    subscriber("quotes", true),
    subscriber("quotes", { threshold: 0, clientNoContextTakeover: true }),
    subscriber("quotes", false),
  ]);
  const before = all.map(({ socket }) => socket.received);
  const quotes = Array.from({ length: 100 }, (_, nth) => ({
    symbols: Array.from({ length: 10 }, (_, at) => ({ symbol: `S${at}`, bid: nth, ask: nth + at })),
    text: randomBytes(nth).toString("hex"),
  }));
  for (const quote of quotes) await all[1].client.publish("quotes", quote);
  for (const { heard, count } of all) {
    await count(quotes.length);
    assert.deepEqual(heard, quotes);
  }
  const bytes = all.map(({ socket }, at) => socket.received - before[at]);
  assert.ok(bytes[0] < 0.6 * bytes[2], `${bytes}`);
  for (const { client } of all) client.disconnect();
  console.log(`the SDK hears all of it in ${bytes[0]} bytes instead of ${bytes[2]}`);
  assert.equal(await server.stop(), 0);
}

const DELAY = 500;
const NAMESPACES = [
  { name: "latest", batch_max_delay: `${DELAY}ms`, batch_flush_latest: true },
  {
    name: "together",
    batch_max_delay: `${DELAY}ms`,
    batch_max_size: 6,
    history_size: 100,
    history_ttl: "60s",
    force_recovery: true,
  },
  // Its delay is longer than this test waits for anything.
  { name: "full", batch_max_delay: "60s", batch_max_size: 6 },
];

/** At most one publication in DELAY, and the last of all. */
async function latest() {
  const { client, heard } = await subscriber("latest:quote", true);
  const began = performance.now();
  for (let nth = 0; nth < 150; nth++) {
    await server.api("publish", { channel: "latest:quote", data: nth });
    await sleep(5);
  }
  const most = (performance.now() - began) / DELAY + 2;
  await until("the last", () => heard.at(-1) === 149);
  assert.equal(heard[0], 0, "the first waits for nobody");
  assert.ok(heard.length >= 3 && heard.length <= most, `${heard}`);
  assert.deepEqual(heard, heard.toSorted((one, other) => one - other));
  client.disconnect();
  console.log(`of 150 publications the latest, ${heard.length} times`);
}

/** Publications wait for each other; who comes meanwhile misses nothing and gets nothing twice. */
async function together() {
  const channel = "together:quotes";
  const publish = (data) => server.api("publish", { channel, data });
  const first = await subscriber(channel, false);
  const began = performance.now();
  for (const data of [1, 2, 3]) await publish(data);
  const joiner = await subscriber(channel, false);
  const inTime = performance.now() - began < DELAY;
  await publish(4);
  await first.count(4);
  await joiner.count(1);
  assert.deepEqual(first.heard, [[1, 1], [2, 2], [3, 3], [4, 4]]);
  assert.deepEqual(joiner.heard, [[4, 4]]);
  if (inTime) assert.ok(first.times[0] - began >= DELAY - 20, "the first has waited");
  await Promise.all([5, 6, 7, 8, 9, 10].map(publish));
  await first.count(10);
  for (const { client } of [first, joiner]) client.disconnect();
  console.log("publications go out together, in order, each once");
}

/** As many publications as may go out together do not wait for the delay. */
async function full() {
  const { client, heard, count } = await subscriber("full:quotes", false);
  for (const data of [1, 2, 3, 4, 5, 6]) await server.api("publish", { channel: "full:quotes", data });
  await count(6);
  assert.deepEqual(heard, [1, 2, 3, 4, 5, 6]);
  client.disconnect();
  console.log("a full batch waits for nothing");
}

async function paces() {
  await server.start(["--channel.namespaces", JSON.stringify(NAMESPACES), "--websocket.compression"]);
  await latest();
  await together();
  await full();
  assert.equal(await server.stop(), 0);
}

await within(120_000, "the whole test", deflate().then(paces));
process.exit(0);
