// Every transport beside the WebSocket: http_stream, sse, emulation and the unidirectional ones.

import { api, end, jwt, on, open, publish, pushes, raw, user } from "../side.mjs";
import { plain } from "./commands.mjs";

const on_ = { enabled: true };
const config = {
  ...plain,
  http_stream: on_, sse: on_, uni_websocket: on_, uni_http_stream: on_, uni_sse: on_,
};
const c = "{n}";
const token = jwt({ sub: "u{n}-a" });
const bidirectional = [
  ["connect", []],
  ["connect refused", undefined],
  ["subscribe and publication", [on("a", { subscribe: { channel: c } }), publish(c), pushes("a", 1)]],
  ["own publish", [on("a", { subscribe: { channel: c } }), on("a", { publish: { channel: c, data: 5 } }),
    pushes("a", 1)]],
  ["history", [on("a", { subscribe: { channel: `rec:${c}` } }), publish(`rec:${c}`), pushes("a", 1),
    on("a", { history: { channel: `rec:${c}`, limit: 5 } })]],
  ["error reply", [on("a", { subscribe: { channel: `none:${c}` } })]],
  ["end by a bad request", [on("a", { subscribe: { channel: "" } }), end("a")]],
  ["API disconnect", [api("disconnect", { user: "u{n}-a" }), end("a")]],
  ["API disconnect with its own code", [api("disconnect", { user: "u{n}-a",
    disconnect: { code: 4001, reason: "bye" } }), end("a")]],
  ["API unsubscribe", [on("a", { subscribe: { channel: c } }),
    api("unsubscribe", { user: "u{n}-a", channel: c }), pushes("a", 1)]],
  ["presence and join", [on("a", { subscribe: { channel: `pres:${c}` } }), pushes("a", 1),
    on("a", { presence: { channel: `pres:${c}` } })]],
  ["two commands at once", [on("a", { subscribe: { channel: c } }, { unsubscribe: { channel: c } })]],
  ["emulation of an unknown session", [{ emulate: "a", data: "{}", session: "unknown" }]],
  ["emulation of an unknown node", [{ emulate: "a", data: "{}", node: "unknown" }]],
  ["emulation without data", [{ emulate: "a", data: "" }]],
];
const ways = [["http_stream", false], ["http_stream", true], ["sse", false]];
const streams = ways.flatMap(([by, protobuf]) => bidirectional
  // The emulation of protobuf takes bytes; these scripts send text.
  .filter(([name]) => !(protobuf && name.startsWith("emulation")))
  .map(([name, steps]) => [`${by}${protobuf ? " protobuf" : ""}: ${name}`,
    steps === undefined ? open("a", {}, { by, protobuf }) : user("a", {}, { by, protobuf }),
    ...(steps ?? [end("a", 400)])]));

const subsOf = (names) => ({ token, subs: Object.fromEntries(names.map((name) => [name, {}])) });
const unidirectional = [
  ["connect", [open("a", { token })]],
  ["connect without token", [open("a", {}), end("a")]],
  ["connect with a bad token", [open("a", { token: "x" }), end("a")]],
  ["connect with an expired token", [open("a", { token: jwt({ sub: "u", exp: 5 }) }), end("a")]],
  ["subs and publication", [open("a", subsOf([c])), publish(c), pushes("a", 2)]],
  ["subs without permission", [open("a", subsOf([`none:${c}`]))]],
  ["subs of an unknown namespace", [open("a", subsOf([`nope:${c}`])), end("a", 500)]],
  ["subs with forced recovery", [open("a", subsOf([`rec:${c}`])), publish(`rec:${c}`), pushes("a", 2)]],
  ["channels of the token", [open("a", { token: jwt({ sub: "u{n}-a", channels: [c] }) }), publish(c, "t"),
    pushes("a", 2)]],
  ["API subscribe", [open("a", { token }), api("subscribe", { user: "u{n}-a", channel: c }), pushes("a", 2)]],
  ["API unsubscribe", [open("a", subsOf([c])), api("unsubscribe", { user: "u{n}-a", channel: c }),
    pushes("a", 2)]],
  ["API disconnect", [open("a", { token }), api("disconnect", { user: "u{n}-a" }), end("a")]],
  ["API refresh", [open("a", { token }), api("refresh", { user: "u{n}-a", expire_at: 1_900_000_000 })]],
  ["join of another", [open("a", subsOf([`pres:${c}`])), pushes("a", 2), user("b"),
    on("b", { subscribe: { channel: `pres:${c}` } }), pushes("a", 3)]],
  ["request that is not JSON", [open("a", "{nope"), end("a")]],
  ["request that is an array", [open("a", "[]"), end("a", 500)]],
  ["subs as null", [open("a", { token, subs: null })]],
];
const uni = ["uni_websocket", "uni_http_stream", "uni_sse"].flatMap((by) =>
  unidirectional.map(([name, steps]) => [`${by}: ${name}`,
    ...steps.map((step) => (step.open === "a" ? { ...step, by } : step))]));

const keep = ["content-type", "cache-control", "access-control-allow-origin",
  "access-control-allow-credentials", "access-control-allow-methods", "access-control-max-age",
  "x-accel-buffering"];
const kept = keep.filter((name) => name !== "cache-control");
const http = (line, more = {}) => ({ http: line, keep: kept, ...more });
const app = { Origin: "https://app.example" };
const evil = { Origin: "https://evil.example" };
const json = { "Content-Type": "application/json" };
const requests = [
  ["http_stream GET", http("GET /connection/http_stream")],
  ["http_stream preflight", http("OPTIONS /connection/http_stream", { headers: { ...app,
    "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type" } })],
  ["http_stream body too large", http("POST /connection/http_stream", { headers: json,
    body: "x".repeat(70_000) })],
  ["sse without cf_connect", http("GET /connection/sse")],
  ["sse PUT", http("PUT /connection/sse")],
  ["emulation GET", http("GET /emulation")],
  ["emulation not JSON", http("POST /emulation", { headers: json, body: "{nope" })],
  ["emulation too large", http("POST /emulation", { headers: json, body: "x".repeat(70_000) })],
  ["emulation preflight", http("OPTIONS /emulation", { headers: { ...app,
    "Access-Control-Request-Method": "POST" } })],
  ["emulation empty", http("POST /emulation", { headers: json, body: "" })],
  ["uni_http_stream GET", http("GET /connection/uni_http_stream")],
  ["uni_http_stream body too large", http("POST /connection/uni_http_stream", { headers: json,
    body: "x".repeat(70_000) })],
  ["uni_sse PUT", http("PUT /connection/uni_sse")],
  ["websocket without upgrade", http("GET /connection/websocket")],
  ["websocket POST", http("POST /connection/websocket")],
  ["websocket of another version", http("GET /connection/websocket", { headers: { Connection: "Upgrade",
    Upgrade: "websocket", "Sec-WebSocket-Version": "8", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==" } })],
  ["websocket without key", http("GET /connection/websocket", { headers: { Connection: "Upgrade",
    Upgrade: "websocket", "Sec-WebSocket-Version": "13" } })],
  ["unknown path", http("GET /nothing")],
  ["health", http("GET /health")],
].map(([name, ...steps]) => [`request: ${name}`, ...steps]);

const origins = ["websocket", "uni_websocket"].flatMap((by) => [
  [`origin: allowed, ${by}`, open("a", { token }, { by, headers: app })],
  [`origin: disallowed, ${by}`, open("a", { token }, { by, headers: evil })],
]).concat(["http_stream", "sse", "uni_http_stream", "uni_sse"].map((by) =>
  [`origin: allowed, ${by}`, open("a", { token }, { by, headers: app })]));

const sockets = [
  ["subprotocol centrifuge-json", user("a", {}, { protocols: ["centrifuge-json"] })],
  ["unknown subprotocol", user("a", {}, { protocols: ["other"] })],
  ["format=protobuf", user("a", {}, { protobuf: true, protocols: [], query: { format: "protobuf" } })],
  ["cf_protocol=protobuf", user("a", {}, { protobuf: true, protocols: [], query: { cf_protocol: "protobuf" } })],
  ["cf_protocol_version=v2", user("a", {}, { query: { cf_protocol_version: "v2" } })],
  ["ping frames", user("a", {}, { query: { cf_ws_frame_ping_pong: "true" } })],
  ["text frame to a protobuf connection", user("a", {}, { protobuf: true }), raw("a", "{}"), end("a", 800)],
  ["binary frame to a JSON connection", user("a"), raw("a", { hex: "7b7d" }), end("a", 800)],
  ["protobuf: bytes that are no message", user("a", {}, { protobuf: true }), raw("a", { hex: "05ffffffffff" }),
    end("a", 800)],
  ["protobuf: length beyond the frame", user("a", {}, { protobuf: true }), raw("a", { hex: "7f0801" }), end("a", 800)],
  ["protobuf: empty frame", user("a", {}, { protobuf: true }), raw("a", { hex: "" }), end("a", 800)],
  ["protobuf: unknown field", user("a", {}, { protobuf: true }), raw("a", { hex: "0508028206020a00" }), end("a", 800)],
  ["protobuf: data that is not JSON for a JSON subscriber", user("a"), on("a", { subscribe: { channel: c } }),
    user("b", {}, { protobuf: true }), on("b", { publish: { channel: c, data: { hex: "ff00" } } }), end("a", 800)],
  ["message of 65536 bytes", user("a"), raw("a", `{"id":2,"publish":{"channel":"{n}","data":"${"x".repeat(65_490)}"}}`)],
  ["message over 65536 bytes", user("a"), raw("a", "x".repeat(65_537)), end("a")],
  ["close by the client with 1000", user("a"), on("a", { subscribe: { channel: c } }),
    { close: "a", code: 1000, reason: "" }],
].map(([name, ...steps]) => [`socket: ${name}`, ...steps]);

/**
 * Many publications at once, so many that a server which joins messages joins some: each in a frame of
 * its own, or several in one.
 */
const many = Array.from({ length: 100 }, (_, index) => `${c}-${index}`);
const publishAll = (channelOf) =>
  on("b", ...many.map((_, index) => ({ publish: { channel: channelOf(index), data: { index } } })));
const bursts = (kind, deflates) => deflates.flatMap((deflate) => {
  const me = { by: "uni_websocket", recordJoined: true, deflate };
  const name = `uni_websocket, ${kind}${deflate ? ", compressed" : ""}`;
  return [
    [`${name}: burst to many channels`, open("a", subsOf(many), me), user("b"),
      publishAll((index) => many[index]), pushes("a", 101)],
    [`${name}: burst to one channel`, open("a", subsOf([c]), me), user("b"), publishAll(() => c),
      pushes("a", 101)],
  ];
});

export default [
  { name: "streams", config, scripts: streams },
  { name: "unidirectional", config, scripts: [...uni, ...requests] },
  { name: "origins and sockets", config, scripts: [...origins, ...sockets] },
  { name: "transports off", config: { ...plain, websocket: { disabled: true }, sse: { enabled: false },
    http_stream: { enabled: false } },
    scripts: ["/connection/websocket", "/connection/sse", "/connection/uni_sse", "/metrics", "/swagger",
      "/connection/uni_websocket", "/emulation"].map((path) =>
      [`disabled: ${path}`, http(`GET ${path}`)]) },
  { name: "uni options", config: { ...config,
    uni_http_stream: { enabled: true, connect_code_to_http_response: { enabled: true } },
    uni_sse: { enabled: true, connect_code_to_http_response: { enabled: true } },
    uni_websocket: { enabled: true, disable_disconnect_push: true, join_push_messages: true,
      compression: true } },
    scripts: ["uni_http_stream", "uni_sse", "uni_websocket"].flatMap((by) => [
      [`${by} options: no token`, open("a", {}, { by }), end("a")],
      [`${by} options: bad token`, open("a", { token: "x" }, { by }), end("a")],
      [`${by} options: API disconnect`, open("a", { token }, { by }), api("disconnect", { user: "u{n}-a" }), end("a")],
    ]).concat(bursts("joined", [false, true])) },
  { name: "frames that are not joined", config, scripts: bursts("not joined", [false]) },
];
