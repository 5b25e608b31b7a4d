// Recovery, deltas, tag filters, presence and subscriptions that the server makes.

import { api, end, jwt, on, open, publish, pushes, user } from "../side.mjs";
import { plain } from "./commands.mjs";

const base = { history_size: 5, history_ttl: "300s", allow_subscribe_for_client: true };
const config = {
  ...plain,
  client: { ...plain.client, recovery_max_publication_limit: 3, history_max_publication_limit: 4,
    channel_limit: 3 },
  channel: { namespaces: [
    { name: "st", ...base, force_recovery: true, allow_history_for_client: true },
    { name: "mm", ...base, allow_recovery: true },
    { name: "po", ...base, allow_positioning: true },
    { name: "fp", ...base, force_positioning: true },
    { name: "cache", ...base, force_recovery: true, force_recovery_mode: "cache" },
    { name: "auto", ...base, force_recovery: true, force_recovery_mode: "cache", auto_cache_recover: true },
    { name: "tags", ...base, force_recovery: true, allow_tags_filter: true },
    { name: "ct", ...base, force_recovery: true, force_recovery_mode: "cache", allow_tags_filter: true },
    { name: "delta", ...base, force_recovery: true, allowed_delta_types: ["fossil"], delta_publish: true },
    { name: "dp", ...base, force_recovery: true, allowed_delta_types: ["fossil"] },
    { name: "nodelta", allow_subscribe_for_client: true, allowed_delta_types: ["fossil"] },
    { name: "jl", allow_subscribe_for_client: true, presence: true, join_leave: true,
      allow_presence_for_client: true },
    { name: "plain", allow_subscribe_for_client: true },
  ] },
};
const sub = (channel, more = {}) => on("a", { subscribe: { channel: `${channel}:{n}`, ...more } });
const pub = (channel, data, more = {}) => api("publish", { channel: `${channel}:{n}`, data, ...more });
const fill = (channel, count) => Array.from({ length: count }, (_, index) => pub(channel, { k: index }));
const back = (channel, offset, more = {}) =>
  sub(channel, { recover: true, offset, epoch: "{epoch}", ...more });
const u = user("a");
/** Learns the epoch by API history, then subscribes with recovery. */
const know = (channel) => api("history", { channel: `${channel}:{n}` });
const recover = [];
for (const channel of ["st", "mm", "po", "fp", "cache", "auto"]) {
  for (const [name, count, ask] of [
    ["nothing missed", 2, { offset: 2 }], ["some missed", 3, { offset: 1 }], ["beyond the top", 2, { offset: 9 }],
    ["first subscribe", 2, undefined], ["trimmed", 8, { offset: 1 }], ["another epoch", 2, { offset: 1, epoch: "x" }],
    ["without epoch", 2, { offset: 1, epoch: "" }], ["from zero", 2, { offset: 0 }],
  ]) {
    recover.push([`recovery in ${channel}: ${name}`, u, ...fill(channel, count), know(channel),
      ask ? back(channel, ask.offset, ask) : sub(channel), pub(channel, "live"), pushes("a", 1)]);
  }
}
recover.push(
  ["recovery: over the limit", u, ...fill("st", 5), know("st"), back("st", 1)],
  ["recovery: rejected by flag 2", u, ...fill("st", 2), know("st"), back("st", 1, { epoch: "x", flag: 2 })],
  ["recovery: recoverable asked", u, sub("mm", { recoverable: true }), pub("mm", 1), pushes("a", 1)],
  ["recovery: positioned asked", u, sub("po", { positioned: true }), pub("po", 1), pushes("a", 1)],
  ["recovery: recoverable not allowed", u, sub("po", { recoverable: true })],
  ["recovery: after history_remove", u, ...fill("st", 2), know("st"), api("history_remove", { channel: "st:{n}" }),
    back("st", 1)],
  ["recovery: skip_history is not recovered", u, ...fill("st", 1), know("st"), pub("st", 2, { skip_history: true }),
    back("st", 1)],
  ["recovery: empty cache", u, know("cache"), back("cache", 0)],
  ["history: over the limit of a request", u, ...fill("st", 5), on("a", { history: { channel: "st:{n}", limit: -1 } })],
  ["connect: subs recover", u, ...fill("st", 3), know("st"), open("b", { token: jwt({ sub: "u{n}-b",
    channels: ["st:{n}"] }), subs: { "st:{n}": { recover: true, offset: 1, epoch: "{epoch}" } } })],
  ["limit of channels", u, sub("plain"), sub("st"), sub("mm"), sub("po"), end("a", 500)],
);

const eq = (val) => ({ key: "t", cmp: "eq", val });
const t = (value) => ({ tags: { t: value } });
const filters = [
  ["eq", eq("a")], ["neq", { key: "t", cmp: "neq", val: "a" }], ["in", { key: "t", cmp: "in", vals: ["a", "c"] }],
  ["nin", { key: "t", cmp: "nin", vals: ["a"] }], ["ex", { key: "t", cmp: "ex" }], ["nex", { key: "t", cmp: "nex" }],
  ["sw", { key: "t", cmp: "sw", val: "a" }], ["ew", { key: "t", cmp: "ew", val: "a" }], ["ct", { key: "t", cmp: "ct", val: "a" }],
  ["gt", { key: "t", cmp: "gt", val: "5" }], ["gte", { key: "t", cmp: "gte", val: "5" }],
  ["lt", { key: "t", cmp: "lt", val: "5" }], ["lte", { key: "t", cmp: "lte", val: "5" }],
  ["and", { op: "and", nodes: [eq("a"), eq("a")] }], ["or", { op: "or", nodes: [eq("a"), eq("5")] }],
  ["not", { op: "not", nodes: [eq("a")] }], ["unknown cmp", { key: "t", cmp: "like", val: "a" }],
  ["unknown op", { op: "xor", nodes: [eq("a")] }], ["not with two", { op: "not", nodes: [eq("a"), eq("b")] }],
  ["and of nothing", { op: "and", nodes: [] }], ["no key", { cmp: "eq", val: "a" }], ["empty", {}],
  ["in without vals", { key: "t", cmp: "in" }], ["gt of text", { key: "t", cmp: "gt", val: "x" }],
].map(([name, tf]) => [`filter: ${name}`, u, sub("tags", { tf }), pub("tags", 1, t("a")), pub("tags", 2, t("5")),
  pub("tags", 3), pub("tags", 4, t("ba")), pub("tags", 5, t("7.5"))]);
filters.push(
  ["filter: on recovery", u, pub("tags", 1, t("a")), pub("tags", 2, t("b")), pub("tags", 3, t("a")), know("tags"),
    back("tags", 0, { tf: eq("a") })],
  ["filter: on recovery of a cache", u, pub("ct", 1, t("a")), pub("ct", 2, t("b")), know("ct"), back("ct", 0, { tf: eq("a") })],
  ["filter: with delta", u, sub("tags", { tf: eq("a"), delta: "fossil" })],
);

const long = (value) => ({ text: "the same long text in each publication of this channel, over and over", value });
const deltas = [false, true].flatMap((protobuf) => {
  const me = { ...u, protobuf };
  const kind = protobuf ? "protobuf" : "JSON";
  return [
    [`delta ${kind}: live`, me, sub("delta", { delta: "fossil" }), pub("delta", long(1)), pub("delta", long(2)), pushes("a", 2)],
    [`delta ${kind}: not asked`, me, sub("delta"), pub("delta", long(1)), pub("delta", long(2)), pushes("a", 2)],
    [`delta ${kind}: not flagged`, me, sub("dp", { delta: "fossil" }), pub("dp", long(1)), pub("dp", long(2)), pushes("a", 2)],
    [`delta ${kind}: flagged by the API`, me, sub("dp", { delta: "fossil" }), pub("dp", long(1), { delta: true }),
      pub("dp", long(2), { delta: true }), pushes("a", 2)],
    [`delta ${kind}: short text`, me, sub("delta", { delta: "fossil" }), pub("delta", 1), pub("delta", 2), pushes("a", 2)],
    [`delta ${kind}: without history`, me, sub("nodelta", { delta: "fossil" }), pub("nodelta", long(1)),
      pub("nodelta", long(2)), pushes("a", 2)],
    [`delta ${kind}: recovered publications`, me, pub("delta", long(1)), pub("delta", long(2)), pub("delta", long(3)),
      know("delta"), back("delta", 1, { delta: "fossil" }), pub("delta", long(4)), pushes("a", 1)],
    [`delta ${kind}: after the first subscribe`, me, pub("delta", long(1)), sub("delta", { delta: "fossil" }),
      pub("delta", long(2)), pub("delta", long(3)), pushes("a", 2)],
  ];
});

const server = [
  ["API subscribe: plain", api("subscribe", { user: "u{n}-a", channel: "plain:{n}" }), pushes("a", 1)],
  ["API subscribe: data", api("subscribe", { user: "u{n}-a", channel: "plain:{n}", data: { d: 1 } }), pushes("a", 1)],
  ["API subscribe: recover_since", ...fill("st", 2), know("st"), api("subscribe", { user: "u{n}-a",
    channel: "st:{n}", recover_since: { offset: 1, epoch: "{epoch}" } }), pushes("a", 1)],
  ["API subscribe: twice", api("subscribe", { user: "u{n}-a", channel: "plain:{n}" }), pushes("a", 1),
    api("subscribe", { user: "u{n}-a", channel: "plain:{n}" })],
  ["API subscribe: forced recovery", api("subscribe", { user: "u{n}-a", channel: "st:{n}" }), pushes("a", 1), pub("st", 1), pushes("a", 2)],
  ["API subscribe: unknown namespace", api("subscribe", { user: "u{n}-a", channel: "nope:{n}" })],
  ["API subscribe: info in presence", api("subscribe", { user: "u{n}-a", channel: "jl:{n}", info: { i: 1 } }), pushes("a", 1),
    api("presence", { channel: "jl:{n}" })],
  ["API subscribe: one client", api("subscribe", { user: "u{n}-a", client: "{client:a}", channel: "plain:{n}" }), pushes("a", 1)],
  ["API subscribe: another client", api("subscribe", { user: "u{n}-a", client: "other", channel: "plain:{n}" })],
  ["API subscribe: override", api("subscribe", { user: "u{n}-a", channel: "mm:{n}",
    override: { force_recovery: { value: true } } }), pushes("a", 1)],
  ["API unsubscribe: all channels", sub("plain"), api("unsubscribe", { user: "u{n}-a", channel: "" })],
  ["API disconnect: whitelist", api("disconnect", { user: "u{n}-a", whitelist: ["{client:a}"] })],
  ["join_leave asked", sub("jl", { join_leave: true }), user("b"), on("b", { subscribe: { channel: "jl:{n}" } }), pushes("a", 1)],
  ["join_leave not asked", sub("jl"), user("b"), on("b", { subscribe: { channel: "jl:{n}" } })],
].map(([name, ...steps]) => [`server: ${name}`, u, ...steps]);

export default [
  { name: "recovery", config, scripts: recover },
  { name: "filters and deltas", config, scripts: [...filters, ...deltas] },
  { name: "server-side", config, scripts: server },
];
