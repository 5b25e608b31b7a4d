// Commands of the client protocol over the JSON WebSocket.

import { API_KEY, SECRET, api, end, on, open, publish, pushes, raw, user } from "../side.mjs";

const client = { token: { hmac_secret_key: SECRET }, allowed_origins: ["https://app.example"] };
const without_namespace = {
  allow_subscribe_for_client: true,
  allow_publish_for_client: true,
};
export const plain = {
  client,
  http_api: { key: API_KEY },
  channel: {
    without_namespace,
    namespaces: [
      { name: "none" },
      { name: "hist", history_size: 10, history_ttl: "300s", allow_subscribe_for_client: true,
        allow_history_for_subscriber: true, allow_publish_for_subscriber: true },
      { name: "pres", presence: true, join_leave: true, force_push_join_leave: true,
        allow_subscribe_for_client: true, allow_presence_for_subscriber: true },
      { name: "rec", history_size: 10, history_ttl: "300s", force_recovery: true,
        allow_subscribe_for_client: true, allow_history_for_client: true },
    ],
  },
};
const c = "{n}";
const sub = (channel, more = {}) => on("a", { subscribe: { channel, ...more } });

export default [
  {
    name: "plain",
    config: plain,
    scripts: [
      ["connect: token of a user", user("a")],
      ["connect: no token", open("a")],
      ["subscribe: plain channel", user("a"), sub(c)],
      ["subscribe: twice", user("a"), sub(c), sub(c)],
      ["subscribe: unknown namespace", user("a"), sub(`nope:${c}`)],
      ["subscribe: namespace without permission", user("a"), sub(`none:${c}`)],
      ["subscribe: empty channel", user("a"), sub("")],
      ["publish: client in plain channel", user("a"), sub(c),
        on("a", { publish: { channel: c, data: { x: 1 } } }), pushes("a", 1)],
      ["publish: by the API", user("a"), sub(c), publish(c, { y: [1, "two"] }), pushes("a", 1)],
      ["history: position only", user("a"), sub(`hist:${c}`), publish(`hist:${c}`), pushes("a", 1),
        on("a", { history: { channel: `hist:${c}` } })],
      ["history: limit", user("a"), sub(`hist:${c}`), publish(`hist:${c}`, 1), publish(`hist:${c}`, 2),
        pushes("a", 2), on("a", { history: { channel: `hist:${c}`, limit: 1 } })],
      ["presence: two clients", user("a"), user("b"), sub(`pres:${c}`), 
        on("b", { subscribe: { channel: `pres:${c}` } }), pushes("a", 2),
        on("a", { presence: { channel: `pres:${c}` } })],
      ["unsubscribe: subscribed channel", user("a"), sub(c), on("a", { unsubscribe: { channel: c } })],
      ["raw: not JSON", user("a"), raw("a", "{nope"), end("a")],
      ["API disconnect: user", user("a"), api("disconnect", { user: "u{n}-a" }), end("a")],
    ],
  },
];
