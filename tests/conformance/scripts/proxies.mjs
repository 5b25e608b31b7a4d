// What a proxied backend receives, and how each kind of answer is treated.

import { API_KEY, SECRET, api, end, on, pushes, user } from "../side.mjs";

const proxy = (path, more = {}) => ({ endpoint: `{backend}${path}`, timeout: "1s", ...more });
const common = {
  client: { token: { hmac_secret_key: SECRET } },
  http_api: { key: API_KEY },
};
const OK = { body: { result: {} } };
const seconds = (count) => Object.assign(() => Math.floor(Date.now() / 1000) + count, { of: count });
const says = (path, body, more = {}) => ({ backend: path, answer: { body, ...more } });
const result = (path, value) => says(path, { result: value });
/** A client without a token, whose connect the backend decides. */
const join = (connect = {}, options = {}) => ({ open: "a", connect: { data: { n: "{n}" }, ...connect }, ...options });

/** Answers that every kind of proxy gets, apart from its own results. */
const ANSWERS = [
  ["error", { body: { error: { code: 1000, message: "no" } } }],
  ["temporary error", { body: { error: { code: 1000, message: "no", temporary: true } } }],
  ["error without a code", { body: { error: { message: "no" } } }],
  ["error with a code of the protocol", { body: { error: { code: 103, message: "permission denied" } } }],
  ["disconnect", { body: { disconnect: { code: 4500, reason: "away" } } }],
  ["disconnect that lets the client return", { body: { disconnect: { code: 4000, reason: "later" } } }],
  ["disconnect without a code", { body: { disconnect: { reason: "away" } } }],
  ["error beside a disconnect", { body: { error: { code: 1000, message: "no" }, disconnect: { code: 4500, reason: "x" } } }],
  ["empty object", { body: {} }],
  ["result null", { body: { result: null } }],
  ["result array", { body: { result: [] } }],
  ["result text", { body: { result: "x" } }],
  ["error null beside a result", { body: { result: {}, error: null, disconnect: null } }],
  ["unknown fields", { body: { result: { nothing: 1 }, other: [] } }],
  ["empty body", { body: "" }],
  ["not JSON", { body: "<html>" }],
  ["array", { body: "[]" }],
  ["content type text", { body: "{\"result\":{}}", headers: { "Content-Type": "text/plain" } }],
  ["status 201", { status: 201, ...OK }],
  ["status 204", { status: 204 }],
  ["status 400", { status: 400, ...OK }],
  ["status 404", { status: 404, body: "" }],
  ["status 500", { status: 500, ...OK }],
  ["cut connection", { cut: true }],
];
const LATE = 1_600;

/** A script per answer: `ask` makes the client ask at this path. */
const answers = (kind, path, ask) => [
  ...ANSWERS.map(([name, answer]) =>
    [`${kind} proxy answers: ${name}`, { backend: path, answer }, ...ask, { sleep: 60 }]),
  [`${kind} proxy answers: too late`, { backend: path, answer: OK, delay: LATE }, ...ask, { sleep: 300 }],
];

const connectConfig = (more = {}, client = {}) => ({
  ...common,
  client: { ...common.client, ...client, proxy: { connect: { enabled: true, ...proxy("/connect", more) } } },
  channel: {
    without_namespace: { presence: true, history_size: 5, history_ttl: "60s", allow_subscribe_for_client: true },
    namespaces: [{ name: "rec", history_size: 5, history_ttl: "60s", force_recovery: true }],
  },
});
const c = "{n}";
const hello = { user: "u{n}" };
const connects = [
  ...answers("connect", "/connect", [join()]),
  ["connect proxy result: user", result("/connect", hello), join()],
  ["connect proxy result: no user", result("/connect", {}), join()],
  ["connect proxy result: user number", result("/connect", { user: 5 }), join()],
  ["connect proxy result: data", result("/connect", { ...hello, data: { a: [1] } }), join()],
  ["connect proxy result: data null", result("/connect", { ...hello, data: null }), join()],
  ["connect proxy result: b64data", result("/connect", { ...hello, b64data: "eyJ4IjoxfQ==" }), join()],
  ["connect proxy result: b64data not base64", result("/connect", { ...hello, b64data: "%" }), join()],
  ["connect proxy result: info", result("/connect", { ...hello, info: { i: 1 }, channels: [c] }), join(),
    api("presence", { channel: c })],
  ["connect proxy result: b64info", result("/connect", { ...hello, b64info: "eyJ4IjoxfQ==", channels: [c] }), join(),
    api("presence", { channel: c })],
  ["connect proxy result: channels", result("/connect", { ...hello, channels: [c, "rec:{n}"] }), join(),
    api("publish", { channel: c, data: 1 }), pushes("a", 1)],
  ["connect proxy result: channels of an unknown namespace", result("/connect", { ...hello, channels: ["no:x"] }), join()],
  ["connect proxy result: channels with an empty name", result("/connect", { ...hello, channels: ["", c] }), join()],
  ["connect proxy result: channels of a wrong type", result("/connect", { ...hello, channels: "x" }), join()],
  ["connect proxy result: the same channel twice", result("/connect", { ...hello, channels: [c, c] }), join()],
  ["connect proxy result: subs", result("/connect", { ...hello, subs: { [c]: {} } }), join()],
  ["connect proxy result: subs data", result("/connect", { ...hello, subs: { [c]: { data: { d: 1 } } } }), join()],
  ["connect proxy result: subs b64data", result("/connect", { ...hello, subs: { [c]: { b64data: "eyJ4IjoxfQ==" } } }), join()],
  ["connect proxy result: subs info", result("/connect", { ...hello, subs: { [c]: { info: { i: 1 } } } }), join(),
    api("presence", { channel: c })],
  ["connect proxy result: subs override presence", result("/connect",
    { ...hello, subs: { [c]: { override: { presence: { value: false } } } } }), join(), api("presence", { channel: c })],
  ["connect proxy result: subs override force_recovery", result("/connect",
    { ...hello, subs: { [c]: { override: { force_recovery: { value: true } } } } }), join()],
  ["connect proxy result: subs of a wrong type", result("/connect", { ...hello, subs: [c] }), join()],
  ["connect proxy result: expire_at in the future", result("/connect", { ...hello, expire_at: seconds(600) }), join()],
  ["connect proxy result: expire_at in the past", result("/connect", { ...hello, expire_at: seconds(-5) }), join()],
  ["connect proxy result: expire_at 0", result("/connect", { ...hello, expire_at: 0 }), join()],
  ["connect proxy result: expire_at text", result("/connect", { ...hello, expire_at: "7" }), join()],
  ["connect proxy result: meta of a wrong type", result("/connect", { ...hello, meta: 7 }), join()],
  ["connect proxy request: data", join({ data: { n: "{n}", a: [1, null] } })],
  ["connect proxy request: name and version", join({ name: "app", version: "1.2" })],
  ["connect proxy request: subs of the client", result("/connect", hello),
    join({ subs: { [`rec:${c}`]: { recover: true } } })],
  ["connect proxy request: headers that are not listed", join({}, { headers: { "X-Other": "1", Cookie: "a=b" } })],
  ["connect proxy request: a protobuf client", join({ data: Buffer.from("{\"n\":\"{n}\"}").toString() },
    { protobuf: true, headers: { "X-Trace": "{n}" } })],
  ...["http_stream", "sse", "uni_websocket", "uni_http_stream", "uni_sse"].map((by) =>
    [`connect proxy request: by ${by}`, result("/connect", hello), join({}, { by })]),
  ["connect proxy: a token beside it", join({ token: "not.a.token" })],
];

const withHeaders = connectConfig({
  http_headers: ["X-Trace", "Origin", "Cookie", "Authorization", "User-Agent"],
  http: { static_headers: { "X-Static": "one", "X-Trace": "static" } },
  include_connection_meta: true,
});
const headers = [
  ["proxy headers: a listed one", join({}, { headers: { "X-Trace": "t" } })],
  ["proxy headers: case of the name", join({}, { headers: { "x-tRACE": "t" } })],
  ["proxy headers: one that is not listed", join({}, { headers: { "X-Another": "t" } })],
  ["proxy headers: cookie", join({}, { headers: { Cookie: "a=b; c=d" } })],
  ["proxy headers: authorization", join({}, { headers: { Authorization: "Bearer x" } })],
  ["proxy headers: user agent", join({}, { headers: { "User-Agent": "Agent/1" } })],
  ["proxy headers: an empty value", join({}, { headers: { "X-Trace": "" } })],
  ["proxy headers: static", join()],
  ["proxy headers: emulated in the connect request", join({ headers: { "X-Trace": "emulated", "X-No": "x" } })],
  ["proxy headers: emulated beside a real one", join({ headers: { "X-Trace": "e" } }, { headers: { "X-Trace": "r" } })],
];

const transforms = [
  { status_code: 404, to_error: { code: 1404, message: "not here" } },
  { status_code: 429, to_error: { code: 1429, message: "slow", temporary: true } },
  { status_code: 403, to_disconnect: { code: 4503, reason: "go" } },
];
const mapped = (name, path, ask) => [404, 429, 403, 500].map((status) =>
  [`status transform of ${name}: ${status}`, { backend: path, answer: { status, body: "" } }, ...ask, { sleep: 60 }]);

const channelProxies = (more = {}) => ({
  subscribe: proxy("/subscribe", more), publish: proxy("/publish", more), sub_refresh: proxy("/sub_refresh", more),
});
const channelConfig = (more = {}) => ({
  ...common,
  channel: {
    proxy: channelProxies(more),
    namespaces: [
      { name: "sub", subscribe_proxy_enabled: true, presence: true, history_size: 5, history_ttl: "60s" },
      { name: "pub", publish_proxy_enabled: true, allow_subscribe_for_client: true, history_size: 5, history_ttl: "60s",
        allow_history_for_client: true },
      { name: "both", subscribe_proxy_enabled: true, allow_subscribe_for_client: true },
      { name: "token", subscribe_proxy_enabled: true },
      { name: "fresh", subscribe_proxy_enabled: true, sub_refresh_proxy_enabled: true },
    ],
  },
  rpc: { proxy: proxy("/rpc", more), without_namespace: { proxy_enabled: true },
    namespaces: [{ name: "ns", proxy_enabled: true }, { name: "off" }] },
});
const s = "sub:{n}";
const p = "pub:{n}";
const sub = (channel, more = {}) => on("a", { subscribe: { channel, ...more } });
const subscribe = [user("a"), sub(s)];
const publish = [user("a"), sub(p), on("a", { publish: { channel: p, data: { n: 1 } } })];
const rpc = [user("a"), on("a", { rpc: { method: "m", data: { n: "{n}" } } })];

const subscribes = [
  ...answers("subscribe", "/subscribe", subscribe),
  ["subscribe proxy request: data", user("a"), sub(s, { data: { d: 1 } })],
  ["subscribe proxy request: a token beside it", user("a"), sub(s, { token: "x.y.z" })],
  ["subscribe proxy request: an option beside it", user("a"), sub("both:{n}")],
  ["subscribe proxy request: recover", user("a"), sub(s, { recover: true, offset: 3, epoch: "x" })],
  ["subscribe proxy result: data", result("/subscribe", { data: { d: 1 } }), ...subscribe],
  ["subscribe proxy result: b64data", result("/subscribe", { b64data: "eyJ4IjoxfQ==" }), ...subscribe],
  ["subscribe proxy result: info", result("/subscribe", { info: { i: 1 } }), ...subscribe, api("presence", { channel: s })],
  ["subscribe proxy result: b64info", result("/subscribe", { b64info: "eyJ4IjoxfQ==" }), ...subscribe, api("presence", { channel: s })],
  ["subscribe proxy result: expire_at in the future", result("/subscribe", { expire_at: seconds(600) }), ...subscribe],
  ["subscribe proxy result: expire_at in the past", result("/subscribe", { expire_at: seconds(-5) }), ...subscribe],
  ["subscribe proxy result: expire_at text", result("/subscribe", { expire_at: "x" }), ...subscribe],
  ...["presence", "join_leave", "force_recovery", "force_positioning", "force_push_join_leave"].flatMap((name) => [
    [`subscribe proxy result: override ${name} on`, result("/subscribe", { override: { [name]: { value: true } } }),
      ...subscribe, { sleep: 50 }],
    [`subscribe proxy result: override ${name} off`, result("/subscribe", { override: { [name]: { value: false } } }),
      ...subscribe, api("presence_stats", { channel: s })],
  ]),
  ["subscribe proxy result: override of a wrong type", result("/subscribe", { override: { presence: true } }), ...subscribe],
  ["subscribe proxy result: allow", result("/subscribe", { allow: ["pub", "hst", "prs"] }), ...subscribe,
    on("a", { publish: { channel: s, data: 1 } }), on("a", { history: { channel: s } }), on("a", { presence: { channel: s } })],
  ["subscribe proxy: asked again after an unsubscribe", ...subscribe, on("a", { unsubscribe: { channel: s } }), sub(s)],
];

const publishes = [
  ...answers("publish", "/publish", publish),
  ["publish proxy request: data", user("a"), sub(p), on("a", { publish: { channel: p, data: { a: [1, null] } } })],
  ["publish proxy request: data of another type", user("a"), sub(p), on("a", { publish: { channel: p, data: "{n}" } })],
  ["publish proxy request: without a subscription", user("a"), on("a", { publish: { channel: p, data: { n: "{n}" } } })],
  ["publish proxy result: data", result("/publish", { data: { other: 2 } }), ...publish, pushes("a", 1)],
  ["publish proxy result: data null", result("/publish", { data: null }), ...publish, pushes("a", 1)],
  ["publish proxy result: b64data", result("/publish", { b64data: "eyJ4IjoxfQ==" }), ...publish, pushes("a", 1)],
  ["publish proxy result: b64data not base64", result("/publish", { b64data: "%" }), ...publish, { sleep: 60 }],
  ["publish proxy result: skip_history", result("/publish", { skip_history: true }), ...publish, pushes("a", 1),
    on("a", { history: { channel: p, limit: 5 } })],
  ["publish proxy result: skip_history text", result("/publish", { skip_history: "true" }), ...publish, { sleep: 60 }],
];

const rpcs = [
  ...answers("rpc", "/rpc", rpc),
  ["rpc proxy request: method and data", user("a"), on("a", { rpc: { method: "m.x-y", data: { n: "{n}", a: [1] } } })],
  ["rpc proxy request: no data", user("a"), on("a", { rpc: { method: "{n}" } })],
  ["rpc proxy request: data null", user("a"), on("a", { rpc: { method: "{n}", data: null } })],
  ["rpc proxy request: data text", user("a"), on("a", { rpc: { method: "m", data: "{n}" } })],
  ["rpc proxy request: empty method", user("a"), on("a", { rpc: { method: "", data: { n: "{n}" } } })],
  ["rpc proxy request: namespace", user("a"), on("a", { rpc: { method: "ns:m", data: { n: "{n}" } } })],
  ["rpc proxy request: namespace without a proxy", user("a"), on("a", { rpc: { method: "off:m", data: { n: "{n}" } } })],
  ["rpc proxy request: unknown namespace", user("a"), on("a", { rpc: { method: "nowhere:m", data: { n: "{n}" } } })],
  ["rpc proxy request: a protobuf client", user("a", {}, { protobuf: true }),
    on("a", { rpc: { method: "m", data: "{\"n\":\"{n}\"}" } })],
  ["rpc proxy result: data of every type", ...["x", 1, true, [], {}, null].flatMap((data) => [
    result("/rpc", { data })]), user("a"), ...[1, 2, 3, 4, 5, 6].map(() => rpc[1])],
  ["rpc proxy result: b64data", result("/rpc", { b64data: "eyJ4IjoxfQ==" }), ...rpc],
  ["rpc proxy result: b64data not base64", result("/rpc", { b64data: "%" }), ...rpc],
];

const fresh = (ttl) => [result("/subscribe", { expire_at: seconds(ttl) }), user("a"), sub("fresh:{n}")];
const subRefreshes = [
  ["sub_refresh proxy: the client may not refresh itself", ...fresh(600),
    on("a", { sub_refresh: { channel: "fresh:{n}", token: "x" } }), { sleep: 50 }],
  ["sub_refresh proxy request", result("/sub_refresh", { expire_at: seconds(600) }), ...fresh(1), { sleep: 3600 }],
  ["sub_refresh proxy result: expired", result("/sub_refresh", { expired: true }), ...fresh(1), { sleep: 3600 }],
  ["sub_refresh proxy result: empty", result("/sub_refresh", {}), ...fresh(1), { sleep: 3600 }],
  ["sub_refresh proxy result: expire_at in the past", result("/sub_refresh", { expire_at: seconds(-60) }), ...fresh(1), { sleep: 3600 }],
  ["sub_refresh proxy answers: disconnect", says("/sub_refresh", { disconnect: { code: 4500, reason: "x" } }), ...fresh(1), { sleep: 3600 }],
];

const refreshConfig = (more = {}) => ({
  ...common,
  client: { ...common.client, expired_close_delay: "1s", proxy: {
    connect: { enabled: true, ...proxy("/connect") }, refresh: { enabled: true, ...proxy("/refresh", more) } } },
});
const expiring = [result("/connect", { user: "u{n}", expire_at: seconds(1) }), join()];
const refreshes = [
  ["refresh proxy request", result("/refresh", { expire_at: seconds(600) }), ...expiring, { sleep: 3600 }],
  ["refresh proxy result: expired", result("/refresh", { expired: true }), ...expiring, end("a", 6000)],
  ["refresh proxy result: empty", result("/refresh", {}), ...expiring, end("a", 6000)],
  ["refresh proxy result: expire_at in the past", result("/refresh", { expire_at: seconds(-60) }), ...expiring, end("a", 6000)],
  ["refresh proxy answers: disconnect", says("/refresh", { disconnect: { code: 4500, reason: "x" } }), ...expiring, end("a", 6000)],
  ["refresh proxy: the connect reply", result("/connect", { user: "u{n}", expire_at: seconds(600) }), join()],
  ["refresh proxy: the client may not refresh itself", result("/connect", { user: "u{n}", expire_at: seconds(600) }), join(),
    on("a", { refresh: { token: "x" } }), { sleep: 50 }],
];

const group = (name, config, scripts) => ({ name, config, scripts, backend: true });
export default [
  group("proxy connect", { ...connectConfig(), uni_websocket: { enabled: true }, uni_http_stream: { enabled: true }, uni_sse: { enabled: true }, http_stream: { enabled: true }, sse: { enabled: true } }, connects),
  group("proxy headers", withHeaders, headers),
  group("proxy meta", {
    ...connectConfig({ include_connection_meta: true }), channel: { proxy: channelProxies({ include_connection_meta: true }),
      namespaces: [{ name: "sub", subscribe_proxy_enabled: true }] } }, [
    ["proxy meta: passed to the subscribe proxy", result("/connect", { user: "u{n}", meta: { m: 1 } }), join(), sub(s)],
    ["proxy meta: none", result("/connect", { user: "u{n}" }), join(), sub(s)],
  ]),
  group("proxy channels", channelConfig(), [...subscribes, ...publishes, ...rpcs]),
  group("proxy binary", channelConfig({ binary_encoding: true }), [
    ["binary encoding: rpc", result("/rpc", { b64data: "eyJ4IjoxfQ==" }),
      { open: "a", connect: user("a").connect }, on("a", { rpc: { method: "{n}", data: { x: 1 } } })],
    ["binary encoding: rpc answered with data", result("/rpc", { data: { y: 1 } }), user("a"), on("a", { rpc: { method: "{n}", data: 7 } })],
    ["binary encoding: publish", user("a"), sub(p), on("a", { publish: { channel: p, data: { n: 1 } } }), pushes("a", 1)],
    ["binary encoding: subscribe with data", user("a"), sub(s, { data: { d: 1 } })],
    ["binary encoding: subscribe without data", ...subscribe],
  ]),
  group("proxy transforms", channelConfig({ http: { status_to_code_transforms: transforms } }), [
    ...mapped("subscribe", "/subscribe", subscribe), ...mapped("publish", "/publish", publish), ...mapped("rpc", "/rpc", rpc)]),
  group("proxy connect transforms", connectConfig({ http: { status_to_code_transforms: transforms } }),
    mapped("connect", "/connect", [join()])),
  group("proxy sub_refresh", { ...channelConfig(), client: { ...common.client, presence_update_interval: "1s", expired_sub_close_delay: "1s" } },
    subRefreshes),
  group("proxy refresh", refreshConfig(), refreshes),
  group("proxy redirect", channelConfig(), [
    ["proxy redirect: rpc", { backend: "/rpc", answer: { status: 307, headers: { Location: "/elsewhere" }, body: "" } },
      ...rpc, { sleep: 60 }]]),
  { name: "proxy missing", config: { ...channelConfig(), channel: { ...channelConfig().channel, proxy: {
    subscribe: { endpoint: "http://127.0.0.1:1/none", timeout: "1s" }, publish: proxy("/publish"), sub_refresh: proxy("/sub_refresh") } } },
  backend: true, scripts: [["proxy endpoint that nothing listens at", ...subscribe]] },
];
