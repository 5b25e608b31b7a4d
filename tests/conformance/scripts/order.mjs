// The order of replies and pushes on one connection, where Centrifugo's is fixed: many commands in one
// frame, or calls of the API in one batch.

import { api, jwt, on, open, publish, pushes, user } from "../side.mjs";
import { plain } from "./commands.mjs";

const history = { history_size: 10, history_ttl: "300s", allow_history_for_client: true };
const config = {
  ...plain,
  http_stream: { enabled: true }, sse: { enabled: true },
  channel: { ...plain.channel, namespaces: [
    { name: "st", ...history, force_recovery: true, allow_subscribe_for_client: true, allow_publish_for_client: true },
    { name: "po", ...history, force_positioning: true, allow_subscribe_for_client: true, allow_publish_for_client: true },
    { name: "cache", ...history, force_recovery: true, force_recovery_mode: "cache",
      allow_subscribe_for_client: true, allow_publish_for_client: true },
    { name: "delta", ...history, force_recovery: true, allowed_delta_types: ["fossil"], delta_publish: true,
      allow_subscribe_for_client: true, allow_publish_for_client: true },
    { name: "jl", presence: true, join_leave: true, force_push_join_leave: true, allow_subscribe_for_client: true,
      allow_publish_for_client: true, allow_presence_for_client: true },
  ] },
};

const me = "u{n}-a";
const CHANNELS = ["{n}", "st:{n}", "po:{n}", "cache:{n}", "jl:{n}"];
const subscribe = (channel, more = {}) => ({ subscribe: { channel, ...more } });
const unsubscribe = (channel) => ({ unsubscribe: { channel } });
const say = (channel, data) => ({ publish: { channel, data } });
const in_ = (channel) => channel.replace(":{n}", "").replace("{n}", "a plain channel");
const joined = (channel) => (channel.startsWith("jl") ? 1 : 0);

/** Commands in one frame. */
const frames = CHANNELS.flatMap((channel) => [
  ["subscribe, publish", [subscribe(channel), say(channel, 1)], 1],
  ["publish, subscribe", [say(channel, 1), subscribe(channel)], 0],
  ["subscribe, publish three times", [subscribe(channel), say(channel, 1), say(channel, 2), say(channel, 3)], 3],
  ["subscribe, publish, unsubscribe, publish",
    [subscribe(channel), say(channel, 1), unsubscribe(channel), say(channel, 2)], undefined],
  ["unsubscribe, publish", [unsubscribe(channel), say(channel, 1)], 0, on("a", subscribe(channel))],
  ["unsubscribe, subscribe, publish", [unsubscribe(channel), subscribe(channel), say(channel, 1)], 1,
    on("a", subscribe(channel))],
  ["publish, unsubscribe", [say(channel, 1), unsubscribe(channel)], undefined, on("a", subscribe(channel))],
].map(([name, commands, count, ...before]) => [`${in_(channel)}: ${name}`, ...before, on("a", ...commands),
  // What is in flight at the unsubscribe may not arrive.
  ...(count === undefined ? [] : [pushes("a", count + joined(channel))])]));
const asked = [
  ["history after publish", [subscribe("st:{n}"), say("st:{n}", 1), { history: { channel: "st:{n}", limit: 5 } }]],
  ["history before and after publish", [subscribe("st:{n}"), { history: { channel: "st:{n}", limit: 5 } },
    say("st:{n}", 1), { history: { channel: "st:{n}", limit: 5 } }]],
  ["presence after subscribe", [subscribe("jl:{n}"), { presence: { channel: "jl:{n}" } }]],
  ["presence before and after subscribe", [{ presence: { channel: "jl:{n}" } }, subscribe("jl:{n}"),
    { presence_stats: { channel: "jl:{n}" } }]],
  ["presence after unsubscribe", [subscribe("jl:{n}"), unsubscribe("jl:{n}"), { presence: { channel: "jl:{n}" } }]],
  ["subscribe, unsubscribe with joins", [subscribe("jl:{n}"), unsubscribe("jl:{n}")]],
  ["subscribe, unsubscribe, subscribe with joins", [subscribe("jl:{n}"), unsubscribe("jl:{n}"), subscribe("jl:{n}")]],
  ["subscribe twice", [subscribe("jl:{n}"), subscribe("jl:{n}"), say("jl:{n}", 1)]],
  ["errors between", [subscribe("none:{n}"), subscribe("{n}"), say("none:{n}", 1), say("{n}", 1), { rpc: { method: "m" } }]],
].map(([name, commands]) => [`questions: ${name}`, on("a", ...commands)]);

/** Recovered publications come in the reply, live ones after it. */
const know = (channel) => api("history", { channel });
const back = (channel, more = {}) => subscribe(channel, { recover: true, offset: 1, epoch: "{epoch}", ...more });
const recovery = ["st:{n}", "cache:{n}", "delta:{n}"].flatMap((channel) => [
  [`recover, publish in ${in_(channel)}`, publish(channel, 1), publish(channel, 2), publish(channel, 3), know(channel),
    on("a", back(channel), say(channel, 4)), pushes("a", 1)],
  [`publish, recover, publish in ${in_(channel)}`, publish(channel, 1), publish(channel, 2), know(channel),
    on("a", say(channel, 3), back(channel), say(channel, 4)), pushes("a", 1)],
  [`recover, unsubscribe, publish, recover in ${in_(channel)}`, publish(channel, 1), publish(channel, 2), know(channel),
    on("a", back(channel), unsubscribe(channel), say(channel, 3), back(channel, { offset: 2 }), say(channel, 4)), pushes("a", 1)],
  [`another publishes in ${in_(channel)}`, publish(channel, 1), publish(channel, 2), know(channel), user("b"),
    on("a", back(channel)), on("b", say(channel, 3), say(channel, 4), say(channel, 5)), pushes("a", 3)],
]);

/** A connect and what follows it in the same frame; joins follow the connect reply. */
const token = (claims) => jwt({ sub: me, ...claims });
const connects = [
  ["subscribe, publish", { first: [subscribe("jl:{n}"), say("jl:{n}", 1)], connect: { token: token({}) } }, 2],
  ["channels of the token", { connect: { token: token({ channels: ["jl:{n}"] }) } }, 1],
  ["channels of the token, publish", { first: [say("jl:{n}", 1)], connect: { token: token({ channels: ["jl:{n}"] }) } }, 2],
  ["own subs, publish", { first: [say("st:{n}", 1), say("st:{n}", 2)], connect: { token: token({}), subs: { "st:{n}": {} } } }, 2],
  ["subscribe to a channel of the token", { first: [subscribe("jl:{n}")], connect: { token: token({ channels: ["jl:{n}"] }) } }, 1],
].map(([name, options, count]) => [`connect: ${name}`, { open: "c", ...options }, pushes("c", count)]);

/** Calls of the API in one batch, which both servers run one after the other. */
const call = {
  publish: (channel, data = 1) => ({ publish: { channel, data } }),
  subscribe: (channel) => ({ subscribe: { user: me, channel } }),
  unsubscribe: (channel) => ({ unsubscribe: { user: me, channel } }),
};
const batches = CHANNELS.flatMap((channel) => [
  ["subscribe, publish", ["subscribe", "publish"], 2],
  ["publish, subscribe, publish", ["publish", "subscribe", "publish"], 2],
  ["subscribe, unsubscribe", ["subscribe", "unsubscribe"], 2],
  ["subscribe, publish, unsubscribe, publish", ["subscribe", "publish", "unsubscribe", "publish"], 3],
  ["subscribe, unsubscribe, subscribe, publish", ["subscribe", "unsubscribe", "subscribe", "publish"], 4],
].map(([name, calls, count]) => [`batch in ${in_(channel)}: ${name}`,
  api("batch", { commands: calls.map((one) => call[one](channel)) }), pushes("a", count + joined(channel))]));
const mixed = [
  ["API unsubscribe after an own subscribe", on("a", subscribe("jl:{n}")), pushes("a", 1),
    api("batch", { commands: [call.publish("jl:{n}"), call.unsubscribe("jl:{n}"), call.publish("jl:{n}", 2)] }), pushes("a", 3)],
  ["API subscribe to a channel of the client", on("a", subscribe("{n}")),
    api("batch", { commands: [call.unsubscribe("{n}"), call.subscribe("{n}"), call.publish("{n}")] }), pushes("a", 3)],
  ["own unsubscribe from a channel of the API", api("subscribe", { user: me, channel: "{n}" }), pushes("a", 1),
    on("a", unsubscribe("{n}"), say("{n}", 1))],
  ["API refresh and publish", on("a", subscribe("{n}")), api("batch", { commands: [call.publish("{n}"),
    { refresh: { user: me, expire_at: 1_900_000_000 } }, call.publish("{n}", 2)] }), pushes("a", 2)],
  ["API disconnect after publications", on("a", subscribe("{n}")), api("batch", { commands: [call.publish("{n}"),
    call.publish("{n}", 2), { disconnect: { user: me } }] }), { end: "a" }],
].map(([name, ...steps]) => [`mixed: ${name}`, ...steps]);

const table = [...frames, ...asked, ...recovery, ...batches, ...mixed];
const ways = [["JSON", {}], ["protobuf", { protobuf: true }], ["http_stream", { by: "http_stream" }], ["sse", { by: "sse" }]];
export default ways.map(([way, options]) => ({
  name: `order ${way}`, config,
  scripts: [...table.map(([name, ...steps]) => [`order, ${way}: ${name}`, user("a", {}, options), ...steps]),
    // The first request of sse takes a connect command alone.
    ...connects.filter(([, { first }]) => first === undefined || way !== "sse")
      .map(([name, opened, ...steps]) => [`order, ${way}: ${name}`, { ...opened, ...options }, ...steps])],
}));
