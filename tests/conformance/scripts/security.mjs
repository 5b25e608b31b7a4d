// What may keep a client out, or must not let it in: expiries in the past, limits of connections,
// overrides, changed tokens, insecure mode, and closes of the API.

import { API_KEY, SECRET, api, end, jwt, on, open, publish, soon, user } from "../side.mjs";
import { plain } from "./commands.mjs";

const proxy = (path) => ({ endpoint: `{backend}${path}`, timeout: "1s" });
const result = (path, value) => ({ backend: path, answer: { body: { result: value } } });
const sub = (channel, more = {}) => on("a", { subscribe: { channel, ...more } });
const me = "u{n}-a";
const past = soon(-9);
const later = soon(3600);
const token = (claims) => jwt({ sub: me, ...claims });
const quiet = end("a", 600);
const TRANSPORTS = ["websocket", "http_stream", "sse", "uni_websocket", "uni_http_stream", "uni_sse"];
const enabled = Object.fromEntries(TRANSPORTS.slice(1).map((name) => [name, { enabled: true }]));

/** Overrides by every place that may carry them, in a namespace with all of the options and in one with none. */
const OPTIONS = ["presence", "join_leave", "force_push_join_leave", "force_recovery", "force_positioning"];
const history = { history_size: 5, history_ttl: "60s" };
const all = Object.fromEntries(OPTIONS.map((name) => [name, true]));
const place = {
  "subscription token": (channel, override) => [user("a"), sub(channel, { token: token({ channel, override }) })],
  "claim subs": (channel, override) => [user("a", { subs: { [channel]: { override } } })],
  "connect proxy": (channel, override) => [result("/connect", { user: me, subs: { [channel]: { override } } }),
    open("a", { data: "{n}" })],
  "subscribe proxy": (channel, override) => [result("/subscribe", { override }), user("a"), sub(`asked-${channel}`)],
  "API subscribe": (channel, override) => [user("a"), api("subscribe", { user: me, channel, override })],
};
const overrides = Object.entries(place).flatMap(([where, begin]) => OPTIONS.flatMap((name) =>
  [["none", true], ["all", false]].map(([namespace, value]) => {
    const channel = `${namespace}:{n}`;
    const used = where === "subscribe proxy" ? `asked-${channel}` : channel;
    // A push of joins needs both options.
    const also = name === "force_push_join_leave" && value ? { join_leave: { value } } : {};
    return [`override by ${where}: ${name} ${value ? "on" : "off"}`,
      ...begin(channel, { [name]: { value }, ...also }), user("b"), api("subscribe", { user: "u{n}-b", channel: used }),
      publish(used), { sleep: 60 }, api("presence", { channel: used }), api("presence_stats", { channel: used }),
      api("unsubscribe", { user: me, channel: used }), { sleep: 60 }];
  })));
const namespaces = [{ name: "none", ...history }, { name: "all", ...history, ...all }].flatMap((one) =>
  [one, { ...one, name: `asked-${one.name}`, subscribe_proxy_enabled: true }]);

/** Expiries in the past: nothing is given, neither the connection nor the history of the channel. */
const closed = "closed:{n}";
const withToken = (claims) => sub(closed, { token: token({ channel: closed, ...claims }) });
const expiries = [
  ["connection token", publish(closed), open("a", { token: token({ expire_at: past, channels: [closed] }) })],
  ["connection token, by uni_sse", open("a", { token: token({ expire_at: past, channels: [closed] }) }, { by: "uni_sse" }), quiet],
  ["connection token, by uni_websocket", open("a", { token: token({ expire_at: past }) }, { by: "uni_websocket" }), quiet],
  ["subscription token", publish(closed), user("a"), withToken({ expire_at: past })],
  ["subscription token, one second ago", publish(closed), user("a"), withToken({ expire_at: soon(-1) })],
  ["refresh", user("a", { exp: soon(60) }), on("a", { refresh: { token: token({ exp: later, expire_at: past }) } }), quiet],
  ["sub_refresh", user("a"), withToken({ exp: soon(60) }),
    on("a", { sub_refresh: { channel: closed, token: token({ channel: closed, exp: later, expire_at: past }) } }), quiet],
  ["API subscribe", user("a"), api("subscribe", { user: me, channel: closed, expire_at: past }), quiet],
  ["API subscribe, 1", user("a"), api("subscribe", { user: me, channel: closed, expire_at: 1 }), quiet],
  ["API subscribe, negative", user("a"), api("subscribe", { user: me, channel: closed, expire_at: -5 }), quiet],
  ["API refresh", user("a", { exp: soon(60) }), api("refresh", { user: me, expire_at: past }), quiet],
  ["API refresh, 1", user("a", { exp: soon(60) }), api("refresh", { user: me, expire_at: 1 }), quiet],
].map(([name, ...steps]) => [`expiry in the past: ${name}`, ...steps]);

/** A refreshed connection token whose subscriptions differ from those of the first. */
const expiring = (claims) => user("a", { exp: soon(60), ...claims });
const renew = (claims) => on("a", { refresh: { token: token({ exp: later, ...claims }) } });
const one = "{n}-1";
const two = "{n}-2";
const refreshes = [
  ["a channel taken away", expiring({ channels: [one, two] }), renew({ channels: [one] }), publish(two), quiet],
  ["all channels taken away", expiring({ channels: [one] }), renew({}), publish(one), quiet],
  ["a channel added", expiring({ channels: [one] }), renew({ channels: [one, two] }), quiet],
  ["channels in another order", expiring({ channels: [one, two] }), renew({ channels: [two, one] }), quiet],
  ["a channel twice", expiring({ channels: [one] }), renew({ channels: [one, one] }), quiet],
  ["the same channels", expiring({ channels: [one] }), renew({ channels: [one] }), publish(one), quiet],
  ["subs taken away", expiring({ subs: { [one]: {}, [two]: {} } }), renew({ subs: { [one]: {} } }), publish(two), quiet],
  ["a sub added", expiring({ subs: { [one]: {} } }), renew({ subs: { [one]: {}, [two]: {} } }), quiet],
  ["channels become subs", expiring({ channels: [one] }), renew({ subs: { [one]: {} } }), quiet],
  ["a sub with another info", expiring({ subs: { [one]: { info: 1 } } }), renew({ subs: { [one]: { info: 2 } } }), quiet],
  ["an empty list becomes none", expiring({ channels: [] }), renew({}), quiet],
  ["another meta", expiring({ meta: { m: 1 } }), renew({ meta: { m: 2 } }), quiet],
].map(([name, ...steps]) => [`changed token: ${name}`, ...steps]);

/** A namespace that asks the backend, whose channels name their users. */
const limited = [
  ["not named", user("a"), sub("both:{n}#other")],
  ["named", result("/subscribe", {}), user("a"), sub(`both:{n}#${me}`)],
  ["named second", result("/subscribe", {}), user("a"), sub(`both:{n}#other,${me}`)],
  ["no user boundary", result("/subscribe", {}), user("a"), sub("both:{n}")],
  ["not named, with a token", user("a"), sub("both:{n}#other", { token: token({ channel: "both:{n}#other" }) })],
  ["option off", result("/subscribe", {}), user("a"), sub("asked:{n}#other")],
].map(([name, ...steps]) => [`subscribe proxy and user-limited: ${name}`, ...steps]);

const decided = [
  ["subs of the client", { subs: { [one]: {} } }, {}],
  ["subs of the client that both name", { subs: { [one]: {} } }, { subs: { [one]: {} } }],
  ["subs of the client beside those of the backend", { subs: { [one]: {} } }, { subs: { [two]: {} } }],
  ["subs of the client beside channels of the backend", { subs: { [one]: {} } }, { channels: [two] }],
].flatMap(([name, connect, answer]) => ["websocket", "uni_sse"].map((by) => [`connect proxy decides: ${name}, by ${by}`,
  result("/connect", { user: me, ...answer }), open("a", { data: "{n}", ...connect }, { by }), publish(one), publish(two), quiet]));
const arrays = [["connect", [], [open("a", { data: "{n}" })]], ["refresh", [result("/connect", { user: me, expire_at: soon(1) })],
  [open("a", { data: "{n}" }), end("a", 6_000)]]].map(([name, before, ask]) =>
  [`array as the result of ${name}`, ...before, result(`/${name}`, []), ...ask]);

const insecure = [
  ["expired token", open("a", { token: token({ exp: past }) }), quiet],
  ["token that expires soon", open("a", { token: token({ exp: soon(2) }) }), end("a", 4_000)],
  ["token of another key", open("a", { token: jwt({ sub: me }, { key: "other" }) }), quiet],
  ["good token", user("a"), sub("closed:{n}")],
  ["bad subscription token", open("a"), sub("closed:{n}", { token: "x" }), quiet],
  ["subscription token of another key", user("a"), sub("closed:{n}", { token: jwt({ sub: me, channel: closed }, { key: "q" }) }), quiet],
  ["expired subscription token", user("a"), sub("closed:{n}", { token: token({ channel: closed, exp: past }) }), quiet],
  ["subscription token that expires soon", user("a"), sub("closed:{n}", { token: token({ channel: closed, exp: soon(2) }) }), end("a", 4_000)],
  ["good subscription token", user("a"), sub("closed:{n}", { token: token({ channel: closed }) })],
  ["private channel", user("a"), sub("${n}")],
  ["private channel with a token", user("a"), sub("${n}", { token: token({ channel: "${n}" }) })],
  ["user-limited channel of another", user("a"), sub("limited:{n}#other")],
  ["unknown namespace", user("a"), sub("nope:{n}")],
  ["everything of a closed channel", user("a"), sub(closed), on("a", { publish: { channel: closed, data: 1 } }),
    on("a", { history: { channel: closed, limit: 5 } }), on("a", { presence: { channel: closed } })],
].map(([name, ...steps]) => [`insecure: ${name}`, ...steps]);

/** Closes by the API, among them 3000, whose meaning is a connection that is closed already. */
const closes = ["websocket", "uni_websocket", "http_stream", "sse", "uni_http_stream", "uni_sse"].flatMap((by) =>
  [[3000, "gone"], [3000, ""], [3501, "bad"], [4000, "back"], [4999, "last"]].map(([code, reason]) =>
    [`close by the API: ${code} "${reason}", by ${by}`, user("a", {}, { by }),
      api("disconnect", { user: me, disconnect: { code, reason } }), end("a")]));

const options = { namespaces: [{ name: "closed", presence: true, ...history, force_recovery: true },
  { name: "limited", allow_user_limited_channels: true }], without_namespace: { allow_subscribe_for_client: true } };
const config = { ...plain, ...enabled, channel: options };
const limit = (by) => ({
  name: `connection limit ${by}`, config: { ...config, client: { ...plain.client, connection_limit: 1 } },
  scripts: [[`connection limit reached: by ${by}`, user("a"), user("b", {}, { by }), end("b")]],
});
const rates = { name: "connection rate", config: { ...config, client: { ...plain.client, connection_rate_limit: 1 } },
  scripts: [["connection rate reached", user("a"), user("b"), user("c"), { sleep: 1_200 }]] };
/** Services that are off, however the configuration came. */
const SERVICES = ["/metrics", "/swagger/", "/", "/connection/uni_sse", "/connection/uni_http_stream", "/connection/uni_websocket"];
const services = [
  ["flags", { flags: ["--client.insecure"] }],
  ["environment", { env: { CENTRIFUGO_CLIENT_INSECURE: "true" } }],
  ["file", { config: { client: { insecure: true } } }],
].map(([name, more]) => ({ name: `services by ${name}`, config: {}, ...more,
  scripts: SERVICES.map((path) => [`off by default, configured by ${name}: ${path}`, { http: `GET ${path}` }]) }));

export default [
  { name: "security", config, scripts: [...expiries, ...refreshes, ...closes] },
  { name: "security by a backend", backend: true, config: { ...config,
    client: { ...plain.client, expired_close_delay: "1s", proxy: { connect: { enabled: true, ...proxy("/connect") },
      refresh: { enabled: true, ...proxy("/refresh") } } },
    channel: { without_namespace: { allow_subscribe_for_client: true }, proxy: { subscribe: proxy("/subscribe") },
      namespaces: [{ name: "both", subscribe_proxy_enabled: true, allow_user_limited_channels: true },
        { name: "asked", subscribe_proxy_enabled: true }] } },
    scripts: [...limited, ...decided, ...arrays] },
  { name: "overrides", backend: true, config: { ...plain,
    client: { ...plain.client, proxy: { connect: { enabled: true, ...proxy("/connect") } } },
    http_api: { key: API_KEY }, channel: { namespaces, proxy: { subscribe: proxy("/subscribe") } } }, scripts: overrides },
  { name: "insecure", config: { ...config, client: { insecure: true, token: { hmac_secret_key: SECRET }, expired_close_delay: "1s",
    expired_sub_close_delay: "1s", presence_update_interval: "1s" } }, scripts: insecure },
  ...TRANSPORTS.map(limit), rates, ...services,
];
