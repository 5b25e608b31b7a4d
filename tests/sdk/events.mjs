// A unidirectional event stream with 16 channels, by both EventSources of npm: what is published while it
// is cut off comes once it is back, once, and nothing comes twice.

import assert from "node:assert/strict";
import { connect, createServer } from "node:net";

import { EventSource } from "eventsource";
import OldEventSource from "eventsource2";

import { Server, freePort, within } from "../common/server.mjs";

const CHANNELS = Array.from({ length: 16 }, (_, nth) => `channel-${nth}`);

const server = new Server(await freePort());
process.on("exit", () => server.kill());

/** What stands between, and cuts everybody off. */
async function cable() {
  const ends = new Set();
  let open = true;
  const between = createServer((near) => {
    if (!open) return near.destroy();
    const far = connect(server.port, "127.0.0.1");
    for (const [one, other] of [[near, far], [far, near]]) {
      ends.add(one);
      one.pipe(other);
      one.on("error", () => {});
      one.on("close", () => { ends.delete(one); other.destroy(); });
    }
  });
  await new Promise((resolve) => between.listen(0, "127.0.0.1", resolve));
  return {
    base: `http://127.0.0.1:${between.address().port}`,
    cut() {
      open = false;
      ends.forEach((end) => end.destroy());
    },
    mend() { open = true; },
    close: () => between.close(),
  };
}

/** Publications of each channel as they come, recovered ones too. */
function listen(Source, base) {
  const request = JSON.stringify({ subs: Object.fromEntries(CHANNELS.map((name) => [name, {}])) });
  const source = new Source(`${base}/connection/uni_sse?cf_connect=${encodeURIComponent(request)}`);
  const heard = Object.fromEntries(CHANNELS.map((name) => [name, []]));
  const told = { connects: 0, heard, source };
  source.onmessage = ({ data }) => {
    const { connect: connected, channel, pub } = JSON.parse(data);
    if (pub) heard[channel].push(pub.data);
    if (connected) {
      told.connects += 1;
      assert.equal(connected.unknown_event_id, undefined);
      for (const [name, { publications = [] }] of Object.entries(connected.subs)) {
        heard[name].push(...publications.map((one) => one.data));
      }
    }
    told.wake?.();
  };
  told.until = (what, done) => within(30_000, what, (async () => {
    while (!done()) await new Promise((resolve) => { told.wake = resolve; });
  })());
  return told;
}

async function goesOn(name, Source) {
  const wire = await cable();
  const client = listen(Source, wire.base);
  await client.until(`${name}: the first event`, () => client.connects === 1);
  let sent = 0;
  const publish = async (some) => {
    sent += 1;
    const data = { name, sent };
    await server.api("broadcast", { channels: CHANNELS.slice(0, some), data });
    return () => CHANNELS.slice(0, some).every((one) => client.heard[one].at(-1)?.sent === sent);
  };
  for (let cuts = 1; cuts <= 2; cuts++) {
    await publish(16);
    await publish(5);
    const all = await publish(16);
    await client.until(`${name}: what is published`, all);
    wire.cut();
    await publish(16);
    await publish(9);
    const missed = await publish(16);
    wire.mend();
    await client.until(`${name}: what was missed`, () => client.connects === cuts + 1 && missed());
  }
  for (const [nth, channel] of CHANNELS.entries()) {
    const parts = [16, 5, 16, 16, 9, 16];
    const expected = [...parts, ...parts].flatMap((some, at) => (nth < some ? [at + 1] : []));
    assert.deepEqual(client.heard[channel].map((data) => data.sent), expected, channel);
  }
  client.source.close();
  wire.close();
  console.log(`${name}: 16 channels went on where they were cut off`);
}

await within(120_000, "the whole test", (async () => {
  const of = (option) => `--channel.without_namespace.${option}`;
  const flags = [of("history_size"), "100", of("history_ttl"), "300s", of("force_recovery")];
  await server.start(flags);
  await goesOn("eventsource 3", EventSource);
  await goesOn("eventsource 2", OldEventSource);
  assert.equal(await server.stop(), 0);
})());
process.exit(0);
