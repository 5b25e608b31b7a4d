// The HTTP API: authorization, the forms of a request, error modes, and each field of each method.

import { API_KEY, SECRET, api, end, on, pushes, user } from "../side.mjs";

const namespaces = [
  { name: "hist", history_size: 5, history_ttl: "300s", allow_subscribe_for_client: true,
    allow_history_for_client: true },
  { name: "rec", history_size: 5, history_ttl: "300s", force_recovery: true,
    allow_subscribe_for_client: true },
  { name: "pres", presence: true, allow_subscribe_for_client: true },
  { name: "join", presence: true, join_leave: true, force_push_join_leave: true },
  { name: "delta", history_size: 5, history_ttl: "300s", force_recovery: true,
    allow_subscribe_for_client: true, allowed_delta_types: ["fossil"] },
];
const config = {
  client: { token: { hmac_secret_key: SECRET } },
  http_api: { key: API_KEY },
  channel: { without_namespace: { allow_subscribe_for_client: true }, namespaces },
};
const c = "{n}";
const h = "hist:{n}";
const data = { k: 1 };
const sub = (channel, more = {}) => on("a", { subscribe: { channel, ...more } });
const post = (path, headers, body, more = {}) => ({ http: `POST ${path}`, headers, body, ...more });
const right = { "X-API-Key": API_KEY };
const ask = { channel: c, data };
const auth = (headers) => post("/api/publish", headers, ask);
const query = (text, headers = {}) => post(`/api/publish?${text}`, headers, ask);

/** Values of other types than a text, for fields that hold one. */
const NO_TEXT = [7, true, {}, [], null];
/** Values of other types than a whole number. */
const NO_NUMBER = ["7", "x", 1.5, true, {}, [], null];
const NO_BOOL = ["true", 1, {}, [], null];
const NO_OBJECT = ["x", 7, true, [], null];
const NO_LIST = ["x", 7, true, {}, null];

/** Calls of a method, each with one value of one field. */
const values = (method, rest, field, list) =>
  list.map((value) => api(method, { ...rest, [field]: value }));
const field = (method, rest, name, kind, list) =>
  [`API ${method}: ${name} ${kind}`, ...values(method, rest, name, list)];
const without = (method, body, name) => {
  const rest = { ...body };
  delete rest[name];
  return [`API ${method}: no ${name}`, api(method, rest)];
};

const authorization = [
  ["API key: in X-API-Key", auth(right)],
  ["API key: none", auth({})],
  ["API key: wrong", auth({ "X-API-Key": "wrong" })],
  ["API key: empty", auth({ "X-API-Key": "" })],
  ["API key: Authorization apikey", auth({ Authorization: `apikey ${API_KEY}` })],
  ["API key: Authorization in capitals", auth({ Authorization: `APIKEY ${API_KEY}` })],
  ["API key: Authorization with two spaces", auth({ Authorization: `apikey  ${API_KEY}` })],
  ["API key: Authorization with a tab", auth({ Authorization: `apikey\t${API_KEY}` })],
  ["API key: Authorization Bearer", auth({ Authorization: `Bearer ${API_KEY}` })],
  ["API key: Authorization with the key alone", auth({ Authorization: API_KEY })],
  ["API key: Authorization apikey without a key", auth({ Authorization: "apikey" })],
  ["API key: in the query", query(`api_key=${API_KEY}`)],
  ["API key: wrong in the query", query("api_key=x")],
  ["API key: under another name in the query", query(`apikey=${API_KEY}`)],
  ["API key: right in the query beside Basic", query(`api_key=${API_KEY}`, { Authorization: "Basic eA==" })],
  ["API key: right in the query beside a wrong header", query(`api_key=${API_KEY}`, { "X-API-Key": "x" })],
  ["API key: wrong header beside a right Authorization",
    auth({ "X-API-Key": "x", Authorization: `apikey ${API_KEY}` })],
  ["API key: escaped in the query", query(`api_key=${API_KEY.replace("-", "%2D")}`)],
  ["API key: in capitals", auth({ "X-API-Key": API_KEY.toUpperCase() })],
];

const forms = [
  ["API form: GET", { http: "GET /api/publish", headers: right }],
  ["API form: PUT", { http: "PUT /api/publish", headers: right, body: ask }],
  ["API form: DELETE", { http: "DELETE /api/publish", headers: right }],
  ["API form: unknown method", post("/api/nothing", right, ask)],
  ["API form: slash at the end", post("/api/publish/", right, ask)],
  ["API form: two slashes", post("/api//publish", right, ask)],
  ["API form: method in capitals", post("/api/Publish", right, ask)],
  ["API form: empty body", post("/api/publish", right, "")],
  ["API form: body of spaces", post("/api/publish", right, "   ")],
  ["API form: not JSON", post("/api/publish", right, "{nope")],
  ["API form: an array", post("/api/publish", right, "[]")],
  ["API form: null", post("/api/publish", right, "null")],
  ["API form: a number", post("/api/publish", right, "7")],
  ["API form: a text", post("/api/publish", right, "\"x\"")],
  ["API form: text after the object", post("/api/info", right, "{} x")],
  ["API form: spaces and lines around the object",
    post("/api/publish", right, ` \n${JSON.stringify(ask)}\n `)],
  ["API form: content type text", post("/api/publish", { ...right, "Content-Type": "text/plain" }, ask)],
  ["API form: content type of a form",
    post("/api/publish", { ...right, "Content-Type": "application/x-www-form-urlencoded" }, ask)],
  ["API form: unknown field", api("publish", { ...ask, nothing: { a: [1] } })],
  ["API form: field name in capitals", api("publish", { Channel: c, data })],
  ["API form: escaped field name", post("/api/publish", right, `{"chann\\u0065l":"${c}","data":1}`)],
  ["API form: content type of the answer", post("/api/publish", right, ask, { keep: ["content-type"] })],
  ["API form: content type of an error", post("/api/publish", right, {}, { keep: ["content-type"] })],
  ["API old form: publish", post("/api", right, { method: "publish", params: ask })],
  ["API old form: error", post("/api", right, { method: "publish", params: { channel: "no:x", data } })],
  ["API old form: unknown method", post("/api", right, { method: "nothing", params: {} })],
  ["API old form: no method", post("/api", right, { params: {} })],
  ["API old form: no params", post("/api", right, { method: "channels" })],
  ["API old form: id", post("/api", right, { id: 5, method: "publish", params: ask })],
  ["API old form: two commands", post("/api", right,
    [{ method: "publish", params: ask }, { method: "history", params: { channel: h } }]
      .map((one) => JSON.stringify(one)).join("\n"))],
  ["API old form: slash", post("/api/", right, { method: "publish", params: ask })],
  ["API old form: empty", post("/api", right, "")],
];

const modes = ["publish", "history", "presence", "rpc"].flatMap((method) => [
  [`API error mode: transport by a header, ${method}`, api(method, { channel: "no:x", method: "m", data },
    { headers: { "X-Centrifugo-Error-Mode": "transport" } })],
]);
modes.push(
  ["API error mode: transport, bad request", api("publish", {},
    { headers: { "X-Centrifugo-Error-Mode": "transport" } })],
  ["API error mode: transport, success", api("publish", ask,
    { headers: { "X-Centrifugo-Error-Mode": "transport" } })],
  ["API error mode: transport, not available", api("presence", { channel: c },
    { headers: { "X-Centrifugo-Error-Mode": "transport" } })],
  ["API error mode: unknown value of the header", api("publish", { channel: "no:x", data },
    { headers: { "X-Centrifugo-Error-Mode": "other" } })],
  ["API error mode: transport in capitals", api("publish", { channel: "no:x", data },
    { headers: { "X-Centrifugo-Error-Mode": "TRANSPORT" } })],
);

const heard = [user("a"), sub(h)];
const publishing = [
  without("publish", ask, "channel"),
  without("publish", ask, "data"),
  ["API publish: empty channel", api("publish", { channel: "", data })],
  ["API publish: unknown namespace", api("publish", { channel: "no:{n}", data })],
  field("publish", { data }, "channel", "of a wrong type", [7, true, {}, []]),
  field("publish", { data }, "channel", "null", [null]),
  ["API publish: data of every type", ...heard,
    ...[1, "x", true, [], {}, 1.5e10, "é\u2028", { a: { b: [null] } }].map((one) =>
      api("publish", { channel: h, data: one })), pushes("a", 8)],
  ["API publish: data null", api("publish", { channel: h, data: null })],
  ["API publish: large and odd numbers in data", ...heard,
    post("/api/publish", right, `{"channel":"${h}","data":[1e400,12345678901234567890,-0,1.0]}`), pushes("a", 1)],
  ["API publish: spaces and lines in data", ...heard,
    post("/api/publish", right, `{"channel":"${h}","data":{ "a" : [ 1 ,\n 2 ] }}`), pushes("a", 1)],
  ["API publish: b64data", ...heard,
    api("publish", { channel: h, b64data: Buffer.from("{\"b\":1}").toString("base64") }), pushes("a", 1)],
  ["API publish: b64data beside data", ...heard, api("publish",
    { channel: h, data, b64data: Buffer.from("2").toString("base64") }), pushes("a", 1)],
  ["API publish: b64data that is not base64", api("publish", { channel: h, b64data: "%%%" })],
  ["API publish: b64data empty", api("publish", { channel: h, b64data: "" })],
  field("publish", { channel: h }, "b64data", "of a wrong type", [7, true, {}, []]),
  ["API publish: skip_history", ...heard, api("publish", { channel: h, data, skip_history: true }),
    pushes("a", 1), api("history", { channel: h, limit: 5 })],
  field("publish", { channel: h, data }, "skip_history", "of a wrong type", NO_BOOL),
  ["API publish: tags", ...heard, api("publish", { channel: h, data, tags: { a: "b", c: "" } }), pushes("a", 1),
    api("history", { channel: h, limit: 5 })],
  ["API publish: empty tags", ...heard, api("publish", { channel: h, data, tags: {} }), pushes("a", 1)],
  field("publish", { channel: h, data }, "tags", "of a wrong type", NO_OBJECT),
  ["API publish: tag values of a wrong type", ...[1, true, {}, [], null].map((one) =>
    api("publish", { channel: h, data, tags: { a: one } }))],
  ["API publish: idempotency_key", ...heard, api("publish", { channel: h, data, idempotency_key: "k" }),
    api("publish", { channel: h, data: 2, idempotency_key: "k" }),
    api("publish", { channel: h, data: 3, idempotency_key: "l" }), pushes("a", 2)],
  ["API publish: idempotency_key is of a channel",
    api("publish", { channel: h, data, idempotency_key: "{n}" }),
    api("publish", { channel: `${h}x`, data, idempotency_key: "{n}" })],
  ["API publish: idempotency_key without history", user("a"), sub(c),
    api("publish", { channel: c, data, idempotency_key: "k" }),
    api("publish", { channel: c, data, idempotency_key: "k" }), pushes("a", 1)],
  field("publish", { channel: h, data }, "idempotency_key", "of a wrong type", NO_TEXT),
  ["API publish: version", ...heard, api("publish", { channel: h, data: 1, version: 5 }),
    api("publish", { channel: h, data: 2, version: 5 }), api("publish", { channel: h, data: 3, version: 4 }),
    api("publish", { channel: h, data: 4, version: 6 }), pushes("a", 2), api("history", { channel: h, limit: 5 })],
  ["API publish: version_epoch", api("publish", { channel: h, data: 1, version: 5, version_epoch: "a" }),
    api("publish", { channel: h, data: 2, version: 1, version_epoch: "b" }),
    api("publish", { channel: h, data: 3, version: 1, version_epoch: "b" }), api("history", { channel: h, limit: 5 })],
  ["API publish: version 0", api("publish", { channel: h, data: 1, version: 0 }),
    api("publish", { channel: h, data: 2, version: 0 })],
  field("publish", { channel: h, data }, "version", "of a wrong type", [...NO_NUMBER, -1]),
  ["API publish: version beyond 53 bits", post("/api/publish", right,
    `{"channel":"${h}","data":1,"version":18446744073709551615}`),
  post("/api/publish", right, `{"channel":"${h}","data":1,"version":18446744073709551616}`)],
  field("publish", { channel: h, data }, "version_epoch", "of a wrong type", NO_TEXT),
  ["API publish: delta", user("a"), sub("delta:{n}", { delta: "fossil" }),
    ...[1, 2].map((nth) => api("publish", { channel: "delta:{n}", data: { t: "x".repeat(200), nth }, delta: true })),
    pushes("a", 2)],
  ["API publish: no delta", user("a"), sub("delta:{n}", { delta: "fossil" }),
    ...[1, 2].map((nth) => api("publish", { channel: "delta:{n}", data: { t: "x".repeat(200), nth } })),
    pushes("a", 2)],
  field("publish", { channel: h, data }, "delta", "of a wrong type", NO_BOOL),
  ["API publish: offsets grow", api("publish", { channel: h, data }), api("publish", { channel: h, data })],
  ["API publish: no offset without history", api("publish", ask)],
];

const broadcasting = [
  ["API broadcast: two channels", ...heard, api("broadcast", { channels: [h, `${h}x`], data }), pushes("a", 1)],
  ["API broadcast: with a bad channel", ...heard, api("broadcast", { channels: [h, "no:x"], data }), pushes("a", 1)],
  ["API broadcast: with an empty channel", api("broadcast", { channels: ["", h], data })],
  ["API broadcast: no channel", api("broadcast", { channels: [], data })],
  without("broadcast", { channels: [c], data }, "channels"),
  without("broadcast", { channels: [c], data }, "data"),
  field("broadcast", { data }, "channels", "of a wrong type", NO_LIST),
  field("broadcast", { data }, "channels", "with elements of a wrong type", [[1], [null], [{}], [c, true]]),
  ["API broadcast: tags, skip_history", ...heard,
    api("broadcast", { channels: [h], data, tags: { a: "b" }, skip_history: true }), pushes("a", 1)],
  ["API broadcast: idempotency_key", api("broadcast", { channels: [h, `${h}x`], data, idempotency_key: "k" }),
    api("broadcast", { channels: [h, `${h}y`], data, idempotency_key: "k" })],
  ["API broadcast: b64data", ...heard,
    api("broadcast", { channels: [h], b64data: Buffer.from("[3]").toString("base64") }), pushes("a", 1)],
  ["API broadcast: version", api("broadcast", { channels: [h], data, version: 3 }),
    api("broadcast", { channels: [h], data, version: 2 })],
  ["API broadcast: errors by status", api("broadcast", { channels: [h, "no:x"], data },
    { headers: { "X-Centrifugo-Error-Mode": "transport" } })],
];

const two = [user("a"), user("b")];
const me = { user: "u{n}-a" };
const subscribing = [
  ["API subscribe: a user", ...two, api("subscribe", { ...me, channel: c }), pushes("a", 1)],
  ["API subscribe: a recoverable channel", user("a"), api("subscribe", { ...me, channel: "rec:{n}" }), pushes("a", 1)],
  ["API subscribe: twice", user("a"), api("subscribe", { ...me, channel: c }), pushes("a", 1),
    api("subscribe", { ...me, channel: c })],
  ["API subscribe: then a publication", user("a"), api("subscribe", { ...me, channel: c }), pushes("a", 1),
    api("publish", ask), pushes("a", 2)],
  ["API subscribe: data", user("a"), api("subscribe", { ...me, channel: c, data: { d: 1 } }), pushes("a", 1)],
  ["API subscribe: b64data", user("a"),
    api("subscribe", { ...me, channel: c, b64data: Buffer.from("{\"x\":2}").toString("base64") }), pushes("a", 1)],
  ["API subscribe: info in presence", user("a"), api("subscribe", { ...me, channel: "pres:{n}", info: { i: 1 } }),
    pushes("a", 1), api("presence", { channel: "pres:{n}" })],
  ["API subscribe: b64info in presence", user("a"), api("subscribe",
    { ...me, channel: "pres:{n}", b64info: Buffer.from("{\"i\":2}").toString("base64") }), pushes("a", 1),
  api("presence", { channel: "pres:{n}" })],
  ["API subscribe: client", user("a"), { open: "z", connect: {} }, api("subscribe", { ...me, client: "{client:a}", channel: c }), pushes("a", 1)],
  ["API subscribe: client of another user", ...two,
    api("subscribe", { ...me, client: "{client:b}", channel: c }), { sleep: 150 }],
  ["API subscribe: session of nobody", user("a"), api("subscribe", { ...me, session: "x", channel: c }), { sleep: 150 }],
  ["API subscribe: unknown namespace", user("a"), api("subscribe", { ...me, channel: "no:x" })],
  ["API subscribe: a user who is not connected", api("subscribe", { user: "{n}-nobody", channel: c })],
  without("subscribe", { user: "x", channel: c }, "user"),
  without("subscribe", { user: "x", channel: c }, "channel"),
  field("subscribe", { channel: c }, "user", "of a wrong type", NO_TEXT),
  field("subscribe", { user: "x" }, "channel", "of a wrong type", NO_TEXT),
  field("subscribe", { user: "x", channel: c }, "client", "of a wrong type", NO_TEXT),
  field("subscribe", { user: "x", channel: c }, "session", "of a wrong type", NO_TEXT),
  field("subscribe", { user: "x", channel: c }, "info", "of every type", [1, "x", true, [], {}, null]),
  field("subscribe", { user: "x", channel: c }, "b64info", "of a wrong type", NO_TEXT),
  field("subscribe", { user: "x", channel: c }, "b64info", "not base64", ["%%"]),
  field("subscribe", { user: "x", channel: c }, "b64data", "not base64", ["%%"]),
  field("subscribe", { user: "x", channel: c }, "expire_at", "of a wrong type", ["x", 1.5, true, {}, []]),
  field("subscribe", { user: "x", channel: c }, "override", "of a wrong type", NO_OBJECT),
  ...["presence", "join_leave", "force_recovery", "force_positioning", "force_push_join_leave"].flatMap((name) => [
    [`API subscribe: override ${name} on`, user("a"), api("subscribe",
      { ...me, channel: "hist:{n}", override: { [name]: { value: true } } }), pushes("a", 1),
    api("presence_stats", { channel: "hist:{n}" })],
    [`API subscribe: override ${name} off`, user("a"), api("subscribe",
      { ...me, channel: `${name.includes("join") || name === "presence" ? "join" : "rec"}:{n}`,
        override: { [name]: { value: false } } }), pushes("a", 1)],
    [`API subscribe: override ${name} of a wrong type`, ...[true, 1, {}, { value: 1 }, { value: "true" }, null].map(
      (one) => api("subscribe", { user: "x", channel: c, override: { [name]: one } }))],
  ]),
  ["API subscribe: recover_since", ...[1, 2, 3].map((nth) => api("publish", { channel: "rec:{n}", data: nth })),
    user("a"), api("subscribe", { ...me, channel: "rec:{n}", recover_since: { offset: 1, epoch: "{epoch}" } }),
    pushes("a", 3)],
  field("subscribe", { user: "x", channel: c }, "recover_since", "of a wrong type", NO_OBJECT),
  ["API unsubscribe: a user", user("a"), sub(c), api("unsubscribe", { ...me, channel: c }), pushes("a", 1)],
  ["API unsubscribe: a server-side subscription", user("a"), api("subscribe", { ...me, channel: c }), pushes("a", 1),
    api("unsubscribe", { ...me, channel: c }), pushes("a", 2)],
  ["API unsubscribe: a client", user("a"), sub(c), api("unsubscribe", { ...me, client: "{client:a}", channel: c }), pushes("a", 1)],
  ["API unsubscribe: another client", user("a"), sub(c), api("unsubscribe", { ...me, client: "x", channel: c }), { sleep: 150 }],
  ["API unsubscribe: no subscription", user("a"), api("unsubscribe", { ...me, channel: c })],
  ["API unsubscribe: unknown namespace", user("a"), api("unsubscribe", { ...me, channel: "no:x" })],
  ["API unsubscribe: no channel", user("a"), sub(c), api("unsubscribe", me), { sleep: 150 }],
  without("unsubscribe", { user: "x", channel: c }, "user"),
  field("unsubscribe", { channel: c }, "user", "of a wrong type", NO_TEXT),
  field("unsubscribe", { user: "x" }, "channel", "of a wrong type", NO_TEXT),
];

const ending = [
  ["API disconnect: a user, all its clients", user("a"), { ...user("b"), connect: user("a").connect },
    api("disconnect", me), end("a"), end("b")],
  ["API disconnect: client", user("a"), { ...user("b"), connect: user("a").connect },
    api("disconnect", { ...me, client: "{client:a}" }), end("a"), { sleep: 100 }],
  ["API disconnect: whitelist", user("a"), { ...user("b"), connect: user("a").connect },
    api("disconnect", { ...me, whitelist: ["{client:a}"] }), end("b"), { sleep: 100 }],
  ["API disconnect: whitelist of a wrong type", ...["x", 1, {}, null, [1]].map((whitelist) =>
    api("disconnect", { user: "x", whitelist }))],
  ["API disconnect: code and reason", user("a"),
    api("disconnect", { ...me, disconnect: { code: 4321, reason: "because" } }), end("a")],
  ["API disconnect: code without a reason", user("a"), api("disconnect", { ...me, disconnect: { code: 4000 } }), end("a")],
  ["API disconnect: reason without a code", user("a"),
    api("disconnect", { ...me, disconnect: { reason: "r" } }), { sleep: 200 }],
  ["API disconnect: an empty disconnect", user("a"), api("disconnect", { ...me, disconnect: {} }), { sleep: 200 }],
  ["API disconnect: code out of range", ...[1, 1000, 2999, 5000, 70000].map((code) =>
    api("disconnect", { user: "x", disconnect: { code, reason: "r" } }))],
  ["API disconnect: code of a wrong type", ...["4000", 1.5, true, -1, null].map((code) =>
    api("disconnect", { user: "x", disconnect: { code, reason: "r" } }))],
  ["API disconnect: reason of 123 bytes", user("a"),
    api("disconnect", { ...me, disconnect: { code: 4001, reason: "r".repeat(123) } }), end("a")],
  ["API disconnect: reason of a wrong type", ...[1, true, {}, null].map((reason) =>
    api("disconnect", { user: "x", disconnect: { code: 4000, reason } }))],
  field("disconnect", { user: "x" }, "disconnect", "of a wrong type", NO_OBJECT),
  field("disconnect", {}, "user", "of a wrong type", NO_TEXT),
  without("disconnect", { user: "x" }, "user"),
  ["API disconnect: a user who is not connected", api("disconnect", { user: "{n}-nobody" })],
  ["API refresh: expired", user("a", { exp: () => Math.floor(Date.now() / 1000) + 600 }),
    api("refresh", { ...me, expired: true }), end("a")],
  ["API refresh: expire_at in the future", user("a"),
    api("refresh", { ...me, expire_at: () => Math.floor(Date.now() / 1000) + 600 }), { sleep: 200 }],
  ["API refresh: expire_at of a wrong type", ...["x", 1.5, true, {}, null].map((one) =>
    api("refresh", { user: "x", expire_at: one }))],
  field("refresh", { user: "x" }, "expired", "of a wrong type", NO_BOOL),
  field("refresh", {}, "user", "of a wrong type", NO_TEXT),
  without("refresh", { user: "x" }, "user"),
  ["API refresh: client of nobody", user("a"), api("refresh", { ...me, client: "x", expired: true }), { sleep: 150 }],
  field("refresh", { user: "x" }, "info", "of every type", [1, "x", true, [], {}, null]),
];

const reading = [
  ["API presence: nobody", api("presence", { channel: "pres:{n}" })],
  ["API presence: a client with info", user("a", { info: { i: 1 } }), sub("pres:{n}"),
    api("presence", { channel: "pres:{n}" })],
  ["API presence: namespace without presence", api("presence", { channel: h })],
  ["API presence: unknown namespace", api("presence", { channel: "no:x" })],
  without("presence", {}, "channel"),
  field("presence", {}, "channel", "of a wrong type", NO_TEXT),
  ["API presence_stats: two clients of a user", user("a"), sub("pres:{n}"), { ...user("b"), connect: user("a").connect },
    on("b", { subscribe: { channel: "pres:{n}" } }), api("presence_stats", { channel: "pres:{n}" })],
  ["API presence_stats: nobody", api("presence_stats", { channel: "pres:{n}" })],
  ["API presence_stats: namespace without presence", api("presence_stats", { channel: h })],
  without("presence_stats", {}, "channel"),
  field("presence_stats", {}, "channel", "of a wrong type", NO_TEXT),
  ["API history: nothing published", api("history", { channel: h })],
  ["API history: more published than kept", ...[1, 2, 3, 4, 5, 6, 7].map((nth) => api("publish", { channel: h, data: nth })),
    api("history", { channel: h, limit: -1 })],
  ["API history: limits", ...[1, 2, 3].map((nth) => api("publish", { channel: h, data: nth })),
    ...[0, 1, 2, 3, 100, -1, -5].map((limit) => api("history", { channel: h, limit }))],
  ["API history: since", ...[1, 2, 3].map((nth) => api("publish", { channel: h, data: nth })),
    ...[0, 1, 3, 4, 99].map((offset) => api("history", { channel: h, limit: 10, since: { offset, epoch: "{epoch}" } }))],
  ["API history: since with another epoch", api("publish", { channel: h, data }),
    api("history", { channel: h, limit: 10, since: { offset: 0, epoch: "other" } })],
  ["API history: since without an epoch", api("publish", { channel: h, data }),
    api("history", { channel: h, limit: 10, since: { offset: 0 } })],
  ["API history: reverse", ...[1, 2, 3].map((nth) => api("publish", { channel: h, data: nth })),
    api("history", { channel: h, limit: 2, reverse: true })],
  ["API history: reverse since", ...[1, 2, 3].map((nth) => api("publish", { channel: h, data: nth })),
    ...[0, 1, 2, 3, 4, 9].map((offset) =>
      api("history", { channel: h, limit: 10, reverse: true, since: { offset, epoch: "{epoch}" } }))],
  ["API history: channel without history", api("history", { channel: c })],
  ["API history: unknown namespace", api("history", { channel: "no:x" })],
  without("history", {}, "channel"),
  field("history", {}, "channel", "of a wrong type", NO_TEXT),
  field("history", { channel: h }, "limit", "of a wrong type", NO_NUMBER),
  field("history", { channel: h }, "limit", "beyond 32 bits", [2147483648, 4294967296]),
  field("history", { channel: h }, "reverse", "of a wrong type", NO_BOOL),
  field("history", { channel: h, limit: 1 }, "since", "of a wrong type", NO_OBJECT),
  ["API history: offset of since of a wrong type", ...["1", 1.5, -1, true, null].map((offset) =>
    api("history", { channel: h, limit: 1, since: { offset } }))],
  ["API history_remove: then history", api("publish", { channel: h, data }), api("history_remove", { channel: h }),
    api("history", { channel: h, limit: 5 }), api("publish", { channel: h, data })],
  ["API history_remove: nothing published", api("history_remove", { channel: h })],
  ["API history_remove: channel without history", api("history_remove", { channel: c })],
  without("history_remove", {}, "channel"),
  field("history_remove", {}, "channel", "of a wrong type", NO_TEXT),
  ["API channels: pattern", user("a"), sub("hist:{n}-1"), sub("hist:{n}-2"), api("channels", { pattern: "hist:{n}-*" })],
  ["API channels: pattern of one channel", user("a"), sub(h), api("channels", { pattern: h })],
  ["API channels: pattern with a class", user("a"), sub("hist:{n}-1"), sub("hist:{n}-x"), api("channels", { pattern: "hist:{n}-[0-9]" })],
  ["API channels: pattern with alternatives", user("a"), sub("hist:{n}-1"), sub("hist:{n}-x"), api("channels", { pattern: "hist:{n}-{1,y}" })],
  ["API channels: pattern with ?", user("a"), sub("hist:{n}-1"), sub("hist:{n}-11"), api("channels", { pattern: "hist:{n}-?" })],
  ["API channels: nothing matches", api("channels", { pattern: "{n}-nothing*" })],
  ["API channels: broken pattern", api("channels", { pattern: "[" })],
  field("channels", {}, "pattern", "of a wrong type", [7, true, {}, []]),
  ["API rpc: no such method", api("rpc", { method: "x", params: {} })],
  without("rpc", {}, "method"),
  field("rpc", {}, "method", "of a wrong type", NO_TEXT),
];

const batch = (commands, more = {}, rest = {}) => api("batch", { commands, ...more }, rest);
const batches = [
  ["API batch: publish and history", batch([{ publish: { channel: h, data } }, { history: { channel: h, limit: 1 } }])],
  ["API batch: an error among them", batch([{ publish: { channel: "no:x", data } }, { publish: { channel: h, data } }])],
  ["API batch: missing field", batch([{ publish: { channel: h } }, { publish: { channel: h, data } }])],
  ["API batch: parallel", batch([{ publish: { channel: h, data } }, { presence_stats: { channel: "pres:{n}" } }], { parallel: true })],
  ["API batch: parallel of a wrong type", ...["true", 1, {}, null].map((parallel) => batch([], { parallel }))],
  ["API batch: none", batch([])],
  ["API batch: no commands", api("batch", {})],
  ["API batch: an empty command", batch([{}, { publish: { channel: h, data } }])],
  ["API batch: an unknown command", batch([{ nothing: {} }, { publish: { channel: h, data } }])],
  ["API batch: two methods in a command", batch([{ publish: { channel: h, data }, history: { channel: h, limit: 9 } }])],
  ["API batch: commands of a wrong type", ...["x", 1, {}, null, [1], ["x"], [null]].map((one) => batch(one))],
  ["API batch: each method", batch([
    { broadcast: { channels: [h], data } }, { subscribe: { user: "x", channel: c } },
    { unsubscribe: { user: "x", channel: c } }, { disconnect: { user: "x" } }, { presence: { channel: "pres:{n}" } },
    { history: { channel: h } }, { history_remove: { channel: h } }, { refresh: { user: "x" } },
    { channels: { pattern: "{n}-none" } }, { rpc: { method: "x" } }])],
  ["API batch: errors by status", batch([{ publish: { channel: "no:x", data } }], {},
    { headers: { "X-Centrifugo-Error-Mode": "transport" } })],
];

const anonymous = [{ open: "a", connect: {} }, { on: "a", send: [{ subscribe: { channel: c } }] }];
const open = { ...config, client: { insecure: false, allow_anonymous_connect_without_token: true, token: { hmac_secret_key: SECRET } },
  channel: { without_namespace: { allow_subscribe_for_client: true, allow_subscribe_for_anonymous: true }, namespaces } };
const nobody = [
  ["API anonymous: disconnect by client", ...anonymous, api("disconnect", { user: "", client: "{client:a}" }), end("a")],
  ["API anonymous: disconnect by client without user", ...anonymous, api("disconnect", { client: "{client:a}" }), end("a")],
  ["API anonymous: unsubscribe by client", ...anonymous, api("unsubscribe", { client: "{client:a}", channel: c }), pushes("a", 1)],
  ["API anonymous: subscribe by client", { open: "a", connect: {} },
    api("subscribe", { client: "{client:a}", channel: c }), pushes("a", 1)],
  ["API anonymous: refresh by client", ...anonymous, api("refresh", { client: "{client:a}", expired: true }), end("a")],
];

export default [
  { name: "api", config, scripts: [...authorization, ...forms, ...modes, ...publishing, ...broadcasting, ...subscribing,
    ...ending, ...reading, ...batches] },
  { name: "api anonymous", config: open, scripts: nobody },
  { name: "api transport mode", config: { ...config, http_api: { key: API_KEY, error_mode: "transport" } }, scripts: [
    ["API error mode by configuration: unknown namespace", api("publish", { channel: "no:x", data })],
    ["API error mode by configuration: not available", api("history", { channel: c })],
    ["API error mode by configuration: bad request", api("publish", { data })],
    ["API error mode by configuration: success", api("publish", ask)],
  ] },
  { name: "api insecure", config: { ...config, http_api: { insecure: true } }, scripts: [
    ["API insecure: no key", auth({})], ["API insecure: a wrong key", auth({ "X-API-Key": "x" })]] },
  { name: "api disabled", config: { ...config, http_api: { key: API_KEY, disabled: true } }, scripts: [
    ["API disabled: publish", auth(right)], ["API disabled: old form", post("/api", right, {})]] },
  { name: "api without key", config: { client: config.client }, scripts: [
    ["API without a key: none given", auth({})], ["API without a key: one given", auth(right)]] },
  { name: "api prefix", config: { ...config, http_api: { key: API_KEY, handler_prefix: "/push/v1" } }, scripts: [
    ["API prefix: publish", post("/push/v1/publish", right, ask)], ["API prefix: the default", auth(right)],
    ["API prefix: old form", post("/push/v1", right, { method: "publish", params: ask })]] },
  { name: "api prefix slash", config: { ...config, http_api: { key: API_KEY, handler_prefix: "/api/" } }, scripts: [
    ["API prefix: with a slash at its end", auth(right)]] },
];
