// Options of channels: who may do what, names, formats; and settings of clients.

import { api, end, jwt, on, open, publish, pushes, soon, user } from "../side.mjs";
import { plain } from "./commands.mjs";

const base = { presence: true, history_size: 5, history_ttl: "300s" };
const GRANTS = ["subscribe_for_client", "subscribe_for_anonymous", "publish_for_client",
  "publish_for_subscriber", "publish_for_anonymous", "presence_for_client", "presence_for_subscriber",
  "presence_for_anonymous", "history_for_client", "history_for_subscriber", "history_for_anonymous"];
const short = (grant) => grant.replaceAll("_", "-");
const anonymous = open("a", {});
const everything = (channel) => [
  { publish: { channel, data: 1 } }, { presence: { channel } }, { history: { channel } },
  { subscribe: { channel } },
  { publish: { channel, data: 2 } }, { presence_stats: { channel } }, { history: { channel, limit: 9 } },
].map((command) => on("a", command));
/** Each grant alone, and beside the permission to subscribe. */
const matrix = GRANTS.flatMap((grant) => [
  [`allow_${grant}: a user`, user("a"), ...everything(`${short(grant)}:{n}`)],
  [`allow_${grant}: an anonymous client`, anonymous, ...everything(`${short(grant)}:{n}`)],
  [`allow_${grant} and subscribe: a user`, user("a"), ...everything(`s-${short(grant)}:{n}`)],
  [`allow_${grant} and subscribe: an anonymous client`, anonymous, ...everything(`s-${short(grant)}:{n}`)],
]);
matrix.push(["order of replies: a presence and a refused history in one frame", user("a"),
  on("a", { presence: { channel: "presence-for-client:{n}" } }, { history: { channel: "presence-for-client:{n}" } })]);
const grants = {
  ...plain,
  client: { ...plain.client, allow_anonymous_connect_without_token: true },
  channel: { namespaces: GRANTS.flatMap((grant) => [
    { name: short(grant), ...base, [`allow_${grant}`]: true },
    { name: `s-${short(grant)}`, ...base, allow_subscribe_for_client: true,
      allow_subscribe_for_anonymous: true, [`allow_${grant}`]: true },
  ]) },
};

const open_ = { allow_subscribe_for_client: true, allow_publish_for_client: true };
const options = {
  ...plain,
  channel: {
    without_namespace: { ...open_, allow_user_limited_channels: true },
    namespaces: [
      { name: "rx", ...open_, channel_regex: "^[a-z0-9]+$" },
      { name: "json", ...open_, publication_data_format: "json" },
      { name: "object", ...open_, publication_data_format: "json_object" },
      { name: "binary", ...open_, publication_data_format: "binary" },
      { name: "limited", allow_user_limited_channels: true, presence: true },
      { name: "jl", ...open_, join_leave: true },
      { name: "jlf", ...open_, join_leave: true, force_push_join_leave: true },
      { name: "jlp", ...open_, presence: true, join_leave: true, force_push_join_leave: true },
      { name: "size", ...open_, history_size: 2, history_ttl: "300s", allow_history_for_client: true },
    ],
  },
};
const sub = (channel) => on("a", { subscribe: { channel } });
const values = [["object", { a: 1 }], ["array", [1]], ["text", "x"], ["number", 5], ["null", null]];
const formats = ["json", "object"].flatMap((name) => [
  ...values.map(([kind, data]) => [`publication_data_format ${name}: ${kind} by a client`, user("a"),
    sub(`${name}:{n}`), on("a", { publish: { channel: `${name}:{n}`, data } })]),
  ...values.map(([kind, data]) => [`publication_data_format ${name}: ${kind} by the API`, user("a"),
    sub(`${name}:{n}`), publish(`${name}:{n}`, data)]),
]);
const rules = [
  ["channel_regex: matches", user("a"), sub("rx:{n}")],
  ["channel_regex: fails", user("a"), sub("rx:{n}-X")],
  ["channel_regex: API publish to a name that fails", publish("rx:{n}-X")],
  ["user-limited: named", user("a"), sub("limited:{n}#u{n}-a")],
  ["user-limited: named second", user("a"), sub("limited:{n}#x,u{n}-a")],
  ["user-limited: not named", user("a"), sub("limited:{n}#x")],
  ["user-limited: no user boundary", user("a"), sub("limited:{n}")],
  ["user-limited: without namespace, not named", user("a"), sub("{n}#x")],
  ["user-limited: last boundary counts", user("a"), sub("limited:{n}#x#u{n}-a")],
  ["join_leave without force_push", user("a"), sub("jl:{n}"), user("b"),
    on("b", { subscribe: { channel: "jl:{n}" } })],
  ["force_push_join_leave without presence", user("a"), sub("jlf:{n}"), user("b"),
    on("b", { subscribe: { channel: "jlf:{n}" } }), pushes("a", 2)],
  ["leave when a connection ends", user("a"), sub("jlp:{n}"), user("b"),
    on("b", { subscribe: { channel: "jlp:{n}" } }), pushes("a", 2), { close: "b" }, pushes("a", 3)],
  ["join with information", user("a", { info: { i: 1 } }), sub("jlp:{n}"), pushes("a", 1)],
  ["history_size: older ones are dropped", user("a"), ...[1, 2, 3].map((data) => publish("size:{n}", data)),
    on("a", { history: { channel: "size:{n}", limit: -1 } })],
];

const who = (extra, claims = {}) => open("a", { token: jwt({ sub: "u{n}-a", ...claims }) }, extra);
const settings = [
  ["anonymous without token", { allow_anonymous_connect_without_token: true }, open("a", {}), sub("{n}")],
  ["anonymous tokens disallowed", { disallow_anonymous_connection_tokens: true },
    open("a", { token: jwt({ sub: "", jti: "{n}" }) }), end("a", 600)],
  ["insecure without token", { insecure: true }, open("a", {}), sub("{n}"), sub("${n}")],
  ["insecure with a bad token", { insecure: true }, open("a", { token: "x" }), end("a", 600)],
  ["server time", { connect_include_server_time: true }, user("a")],
  ["user_id_http_header", { user_id_http_header: "X-User-Id" },
    open("a", {}, { headers: { "X-User-Id": "u{n}" } }), sub("{n}")],
  ["user_id_http_header absent", { user_id_http_header: "X-User-Id" }, open("a", {}), end("a", 600)],
  ["channel_limit", { channel_limit: 2 }, user("a"), sub("{n}1"), sub("{n}2"), sub("{n}3")],
  ["user_connection_limit", { user_connection_limit: 1 }, who({}), { ...who({}), open: "b" }, end("b", 900)],
  ["personal channel", { subscribe_to_user_personal_channel: { enabled: true } }, user("a"),
    publish("#u{n}-a"), pushes("a", 1)],
  ["personal channel in a namespace", { subscribe_to_user_personal_channel: { enabled: true,
    personal_channel_namespace: "pres" } }, user("a"), publish("pres:#u{n}-a"), pushes("a", 1)],
  ["personal channel of a user that is not ASCII", { subscribe_to_user_personal_channel: { enabled: true } },
    open("a", { token: jwt({ sub: "é{n}" }) })],
  ["personal channel, single connection", { subscribe_to_user_personal_channel: { enabled: true,
    personal_channel_namespace: "pres", single_connection: true } }, who({}), { ...who({}), open: "b" },
    end("a", 900)],
  ["stale connection", { stale_close_delay: "1s" }, open("a", undefined), end("a")],
  ["expired connection", { expired_close_delay: "1s" },
    who({}, { exp: soon(2) }), end("a")],
  ["expired subscription", { expired_sub_close_delay: "1s", presence_update_interval: "1s" }, user("a"), on("a", { subscribe: {
    channel: "none:{n}", token: jwt({ sub: "u{n}-a", channel: "none:{n}",
      exp: soon(2) }) } }), pushes("a", 1)],
  ["expired server-side subscription by the API", { expired_sub_close_delay: "1s",
    presence_update_interval: "1s" }, user("a"),
    api("subscribe", { user: "u{n}-a", channel: "none:{n}", expire_at: soon(2) }),
    end("a")],
  ["pong missing", { ping_interval: "2s", pong_timeout: "1s" }, user("a", {}, { pong: false }), end("a")],
  ["pings answered", { ping_interval: "1s", pong_timeout: "500ms" },
    user("a", {}, { recordPings: true }), { pings: "a", at_least: 2 }],
  ["pings of uni_sse", { ping_interval: "1s", pong_timeout: "500ms" },
    user("a", {}, { by: "uni_sse", recordPings: true }), { pings: "a", at_least: 1 }],
  ["history_max_publication_limit", { history_max_publication_limit: 1 }, user("a"), sub("hist:{n}"),
    publish("hist:{n}", 1), publish("hist:{n}", 2), on("a", { history: { channel: "hist:{n}", limit: -1 } })],
  ["connection_limit", { connection_limit: 1 }, user("a"), user("b")],
  ["allowed_origins *", { allowed_origins: ["*"] }, who({ headers: { Origin: "https://any.example" } })],
  ["allowed_origins pattern", { allowed_origins: ["https://*.example"] },
    who({ headers: { Origin: "https://x.example" } })],
  ["allowed_origins other scheme", { allowed_origins: ["https://*.example"] },
    who({ headers: { Origin: "http://x.example" } })],
  ["allowed_origins empty", { allowed_origins: [] }, who({ headers: { Origin: "https://app.example" } })],
].map(([name, client, ...steps]) => ({
  name: `client: ${name}`,
  config: { ...plain, client: { ...plain.client, ...client }, uni_sse: { enabled: true } },
  scripts: [[`client setting: ${name}`, ...steps]],
}));

const channelSettings = [
  ["max_length", { max_length: 20 }, user("a"), sub(`{n}${"x".repeat(14)}`), sub(`{n}${"x".repeat(15)}`)],
  ["private_prefix", { private_prefix: "!" }, user("a"), sub("!{n}"), sub("${n}")],
  ["namespace_boundary", { namespace_boundary: "." }, user("a"), sub("nope.{n}"), sub("nope:{n}")],
  ["user_boundary", { user_boundary: "@" }, user("a"), sub("{n}@x"), sub("{n}#x")],
  ["publication_data_format of all", { publication_data_format: "json_object" }, user("a"), sub("{n}"),
    on("a", { publish: { channel: "{n}", data: 5 } }), publish("{n}", [1])],
].map(([name, channel, ...steps]) => ({
  name: `channel: ${name}`,
  config: { ...plain, channel: { without_namespace: { ...open_, allow_user_limited_channels: true }, ...channel } },
  scripts: [[`channel setting: ${name}`, ...steps]],
}));

export default [
  { name: "grants", config: grants, scripts: matrix },
  { name: "options", config: options, scripts: [...rules, ...formats] },
  ...settings,
  ...channelSettings,
];
