// Subscribers of the JavaScript SDK, unchanged, which report their events as lines of JSON on stdout.
//
// Usage: node subscriber.mjs ADDRESS KINDS CHANNELS    the last two as JSON
//
// Owns a client per kind (transport and encoding) with a subscription per channel. Never judges an event. The
// invariant: the lines of a subscription are in the order of the SDK's events.

import { Centrifuge as JsonCentrifuge } from "centrifuge";
import { Centrifuge as ProtobufCentrifuge } from "centrifuge/build/protobuf";
import { EventSource } from "eventsource";
import WebSocket from "ws";

const [address, kinds, channels] = [process.argv[2], ...process.argv.slice(3).map(JSON.parse)];
const report = (...line) => process.stdout.write(`${JSON.stringify(line)}\n`);

/** What an SDK of an encoding gives as data is JSON, or its bytes. */
const encodings = {
  json: { Centrifuge: JsonCentrifuge, unpack: (data) => data },
  protobuf: {
    Centrifuge: ProtobufCentrifuge,
    unpack: (data) => JSON.parse(new TextDecoder().decode(data)),
  },
};

function follow(kind) {
  const [transport, encoding] = kind.split("-");
  const { Centrifuge, unpack } = encodings[encoding];
  const scheme = transport === "websocket" ? "ws" : "http";
  const client = new Centrifuge([{ transport, endpoint: `${scheme}://${address}/connection/${transport}` }], {
    websocket: WebSocket,
    eventsource: EventSource,
    emulationEndpoint: `http://${address}/emulation`,
    timeout: 3_000,
    maxServerPingDelay: 2_000,
    minReconnectDelay: 50,
    maxReconnectDelay: 500,
  });
  client.on("error", () => {}); // attempts while the server is down
  client.on("disconnected", ({ code, reason }) => report(kind, "", "disconnected", [code, reason]));
  for (const channel of channels) {
    const subscription = client.newSubscription(channel, { minResubscribeDelay: 50, maxResubscribeDelay: 500 });
    subscription.on("subscribed", ({ streamPosition, wasRecovering, recovered }) => {
      const { offset, epoch } = streamPosition;
      report(kind, channel, "subscribed", [offset, epoch, wasRecovering, recovered]);
    });
    subscription.on("publication", ({ offset, data }) => report(kind, channel, "received", [offset, unpack(data)]));
    subscription.on("unsubscribed", ({ code, reason }) => report(kind, channel, "ended", [code, reason]));
    subscription.subscribe();
  }
  client.connect();
}

kinds.forEach(follow);
