// Configuration by files of three forms and by the environment: what starts, and what takes effect.

import { SECRET, jwt } from "../side.mjs";
import { serve } from "../clients/command.mjs";

const key = "config-key";
const base = { client: { token: { hmac_secret_key: SECRET } }, http_api: { key } };
const CONNECT = { id: 1, connect: {} };
const insecure = { client: { insecure: true } };
const subscribe = (channel) => ({ id: 2, subscribe: { channel } });
const withToken = () => [{ id: 1, connect: { token: jwt({ sub: "u" }) } }];
const publish = (given = key) => ({ http: "POST /api/publish", headers: { "X-API-Key": given }, body: { channel: "x", data: 1 } });
const json = (name, config, more = {}) => [`configuration: ${name}`, serve({ files: { "config.json": config }, ...more })];
const text = (name, file, content, more = {}) =>
  [`configuration: ${name}`, serve({ files: { [file]: content }, ...more }, ["--config", file])];
const env = (name, variables, more = {}) =>
  [`environment: ${name}`, serve({ files: { "config.json": "{}" }, env: variables, ...more })];
const says = (...commands) => ({ say: [CONNECT, ...commands] });
const options = (more) => ({ ...insecure, channel: { without_namespace: { allow_subscribe_for_client: true, ...more } } });

const files = [
  json("JSON file", base, { probe: [publish()], say: withToken() }),
  text("YAML file", "config.yaml", `client:\n  token:\n    hmac_secret_key: ${SECRET}\nhttp_api:\n  key: "${key}"\n`, { probe: [publish()], say: withToken() }),
  text("YML file", "config.yml", `http_api:\n  key: "${key}"\n`, { probe: [publish()] }),
  text("TOML file", "config.toml", `[client.token]\nhmac_secret_key = "${SECRET}"\n[http_api]\nkey = "${key}"\n`, { probe: [publish()], say: withToken() }),
  text("YAML lists and nested tables", "config.yaml",
    "client:\n  insecure: true\nchannel:\n  namespaces:\n    - name: a\n      presence: true\n      allow_subscribe_for_client: true\n", says(subscribe("a:x"))),
  text("TOML array of tables", "config.toml",
    "[client]\ninsecure = true\n[[channel.namespaces]]\nname = \"a\"\nallow_subscribe_for_client = true\n", says(subscribe("a:x"))),
  text("dotted keys in TOML", "config.toml", "client.insecure = true\n", says()),
  text("broken JSON", "config.json", "{"),
  text("broken YAML", "config.yaml", "a: [b"),
  text("broken TOML", "config.toml", "a = "),
  text("an empty JSON object", "config.json", "{}", { probe: [publish()] }),
  text("an array as the file", "config.json", "[]"),
  text("a file of an unknown form", "config.ini", "a=b"),
  json("unknown key", { ...base, nothing_such: 1 }),
  json("unknown key in a section", { ...base, client: { ...base.client, nothing_such: 1 } }),
];

const valued = [
  ...[["true", true], ["text true", "true"], ["text True", "True"], ["text TRUE", "TRUE"], ["text t", "t"], ["text 1", "1"],
    ["number 1", 1], ["text false", "false"], ["text 0", "0"], ["number 0", 0], ["text yes", "yes"], ["text on", "on"], ["empty text", ""]]
    .map(([name, insecure]) => json(`boolean as ${name}`, { client: { insecure } }, says())),
  ...[["seconds", "3s"], ["minutes", "1m"], ["parts", "1m3s"], ["milliseconds", "3000ms"], ["fraction", "2.5s"], ["number", 3],
    ["text without a unit", "3"], ["unknown unit", "3x"], ["negative", "-3s"], ["zero", "0s"], ["hours", "1h"], ["days", "1d"], ["empty", ""], ["spaces", " 3s "]]
    .map(([name, ping_interval]) => json(`duration as ${name}`, { client: { insecure: true, ping_interval, pong_timeout: "1s" } }, says())),
  ...[["number", 7], ["text", "7"], ["fraction", 1.5], ["negative", -1], ["text that is no number", "x"], ["zero", 0]]
    .map(([name, channel_limit]) => json(`whole number as ${name}`, { client: { insecure: true, channel_limit } }, says())),
  json("list of origins as a text", { client: { insecure: true, allowed_origins: "https://a.example" } }, says()),
  json("list of origins", { client: { insecure: true, allowed_origins: ["https://a.example"] } },
    { probe: ["https://a.example", "https://b.example"].map((Origin) => ({ http: "GET /connection/websocket", headers: { Origin,
      Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==" } })) }),
];

const checks = [
  json("ping interval below the pong timeout", { client: { ping_interval: "1s", pong_timeout: "2s" } }),
  json("namespace without a name", { channel: { namespaces: [{ presence: true }] } }),
  json("namespace with a bad name", { channel: { namespaces: [{ name: "a b" }] } }),
  json("namespace with a boundary in its name", { channel: { namespaces: [{ name: "a:b" }] } }),
  json("namespace named twice", { channel: { namespaces: [{ name: "ab" }, { name: "ab" }] } }),
  json("namespace with a name of one letter", { channel: { namespaces: [{ name: "a" }] } }),
  json("namespaces as an object", { channel: { namespaces: { name: "a" } } }),
  json("history size without a time", options({ history_size: 5 }), says(subscribe("x"))),
  json("history time without a size", options({ history_ttl: "5s" }), says(subscribe("x"))),
  json("recovery without history", options({ force_recovery: true }), says(subscribe("x"))),
  json("recovery mode that is unknown", options({ history_size: 1, history_ttl: "5s", force_recovery_mode: "other" })),
  json("recovery mode cache", options({ history_size: 1, history_ttl: "5s", force_recovery: true, force_recovery_mode: "cache" }), says(subscribe("x"))),
  json("delta type that is unknown", options({ allowed_delta_types: ["other"] })),
  json("delta_publish without allowed types", options({ delta_publish: true, history_size: 1, history_ttl: "5s" })),
  json("channel_regex that is broken", options({ channel_regex: "(" })),
  json("channel_regex", options({ channel_regex: "^[a-z]+$" }), says(subscribe("x1"), { id: 3, subscribe: { channel: "x" } })),
  json("publication_data_format that is unknown", options({ publication_data_format: "xml" })),
  json("subscribe proxy without an endpoint", options({ subscribe_proxy_enabled: true })),
  json("subscribe proxy that is not there", options({ subscribe_proxy_enabled: true, subscribe_proxy_name: "other" })),
  json("named proxy", { ...options({ subscribe_proxy_enabled: true, subscribe_proxy_name: "other" }), proxies: [{ name: "other", endpoint: "http://127.0.0.1:1" }] }),
  json("proxy without a name", { proxies: [{ endpoint: "http://127.0.0.1:1" }] }),
  json("connect proxy without an endpoint", { client: { proxy: { connect: { enabled: true } } } }),
  json("connect proxy of an unknown scheme", { client: { proxy: { connect: { enabled: true, endpoint: "ftp://x" } } } }),
  json("personal channel in an unknown namespace", { client: { subscribe_to_user_personal_channel: { enabled: true, personal_channel_namespace: "no" } } }),
  json("personal channel", { client: { insecure: true, subscribe_to_user_personal_channel: { enabled: true } } }, says()),
  json("audience and audience_regex", { client: { token: { hmac_secret_key: "x", audience: "a", audience_regex: "b" } } }),
  json("issuer and issuer_regex", { client: { token: { hmac_secret_key: "x", issuer: "a", issuer_regex: "b" } } }),
  json("RSA key that is broken", { client: { token: { rsa_public_key: "x" } } }),
  json("ECDSA key that is broken", { client: { token: { ecdsa_public_key: "x" } } }),
  json("engine redis", { engine: { type: "redis", redis: { address: "redis://127.0.0.1:1" } } }),
  json("engine of an unknown type", { engine: { type: "other" } }),
  json("engine memory", { engine: { type: "memory" } }),
  json("log level that is unknown", { log: { level: "loud" } }),
  json("log level none", { log: { level: "none" } }),
  json("error mode that is unknown", { http_api: { key, error_mode: "other" } }),
  json("status transform with two targets", { client: { proxy: { connect: { enabled: true, endpoint: "http://127.0.0.1:1",
    http: { status_to_code_transforms: [{ status_code: 404, to_error: { code: 1 }, to_disconnect: { code: 4000, reason: "x" } }] } } } } }),
  json("status transform without a target", { client: { proxy: { connect: { enabled: true, endpoint: "http://127.0.0.1:1",
    http: { status_to_code_transforms: [{ status_code: 404 }] } } } } }),
];

const paths = ["health", "prometheus", "swagger", "uni_sse", "uni_http_stream", "uni_websocket", "http_stream", "sse", "init"];
const enabled = Object.fromEntries(paths.map((name) => [name, { enabled: true }]));
const effects = [
  json("services enabled", { ...base, ...enabled }, { probe: ["GET /health", "GET /metrics", "GET /swagger/", "GET /nothing"] }),
  json("health under another path", { ...base, health: { enabled: true, handler_prefix: "/alive" } }, { probe: ["GET /alive"] }),
  json("websocket under another path", { ...insecure, websocket: { handler_prefix: "/ws" } }, { ...says(), path: "/ws" }),
  json("websocket disabled", { ...insecure, websocket: { disabled: true } }, says()),
  json("metrics under another path", { ...base, prometheus: { enabled: true, handler_prefix: "/m" } }, { probe: ["GET /m", "GET /metrics"] }),
  json("channel limit", { client: { insecure: true, channel_limit: 1 }, channel: { without_namespace: { allow_subscribe_for_client: true } } },
    says(subscribe("x"), { id: 3, subscribe: { channel: "y" } })),
  json("max_length", { ...options({}), channel: { max_length: 3, without_namespace: { allow_subscribe_for_client: true } } }, says(subscribe("abcd"))),
  json("namespace boundary", { ...insecure, channel: { namespace_boundary: "/", namespaces: [{ name: "ab", allow_subscribe_for_client: true }] } }, says(subscribe("ab/x"), { id: 3, subscribe: { channel: "ab:x" } })),
  json("private prefix", { ...options({}), channel: { private_prefix: "!", without_namespace: { allow_subscribe_for_client: true } } }, says(subscribe("!x"))),
  json("user boundary", { ...insecure, channel: { user_boundary: "@", without_namespace: { allow_user_limited_channels: true } } }, says(subscribe("x@"))),
  json("server time", { client: { insecure: true, connect_include_server_time: true } }, { say: [{ id: 1, connect: {} }, subscribe("x")].slice(1) }),
  json("ping interval 0", { client: { insecure: true, ping_interval: "0s", pong_timeout: "0s" } }, says()),
  json("anonymous without a token", { client: { allow_anonymous_connect_without_token: true } }, says()),
  json("anonymous tokens refused", { client: { token: { hmac_secret_key: SECRET }, disallow_anonymous_connection_tokens: true } },
    { say: [{ id: 1, connect: { token: jwt({}) } }] }),
  json("signatures not verified", { client: { insecure_skip_token_signature_verify: true, token: { hmac_secret_key: "other" } } }, { say: withToken() }),
  json("user from another claim", { client: { token: { hmac_secret_key: SECRET, user_id_claim: "name" } } }, { say: [{ id: 1, connect: { token: jwt({ name: "n" }) } }] }),
  json("subscription token key of its own", { client: { token: { hmac_secret_key: SECRET }, subscription_token: { enabled: true, hmac_secret_key: "other" } } },
    { say: [{ id: 1, connect: { token: jwt({ sub: "u" }) } }, { id: 2, subscribe: { channel: "x", token: jwt({ sub: "u", channel: "x" }, { key: "other" }) } }] }),
  json("previous key", { client: { token: { hmac_secret_key: "other", hmac_previous_secret_key: SECRET } } }, { say: withToken() }),
  json("previous key past its time", { client: { token: { hmac_secret_key: "other", hmac_previous_secret_key: SECRET, hmac_previous_secret_key_valid_until: 1000 } } }, { say: withToken() }),
  json("pid file", { ...base, pid_file: "server.pid" }, { made: ["server.pid"] }),
  json("log file", { ...base, log: { file: "server.log" } }, { made: ["server.log"] }),
];

const variables = [
  ...[["true", "true"], ["True", "True"], ["t", "t"], ["1", "1"], ["false", "false"], ["0", "0"], ["yes", "yes"], ["empty", ""]]
    .map(([name, value]) => env(`boolean ${name}`, { CENTRIFUGO_CLIENT_INSECURE: value }, says())),
  ...[["5s", "5s"], ["1m3s", "1m3s"], ["number", "5"], ["empty", ""], ["broken", "x"]].map(([name, value]) =>
    env(`duration ${name}`, { CENTRIFUGO_CLIENT_INSECURE: "true", CENTRIFUGO_CLIENT_PING_INTERVAL: value, CENTRIFUGO_CLIENT_PONG_TIMEOUT: "1s" }, says())),
  env("API key", { CENTRIFUGO_HTTP_API_KEY: key }, { probe: [publish(), publish("x")] }),
  env("port", { CENTRIFUGO_HTTP_SERVER_PORT: "{port}", CENTRIFUGO_HTTP_API_KEY: key }, { probe: [publish()] }),
  env("over the file", { CENTRIFUGO_HTTP_API_KEY: "other" }, { files: { "config.json": base }, probe: [publish(), publish("other")] }),
  env("empty beside the file", { CENTRIFUGO_HTTP_API_KEY: "" }, { files: { "config.json": base }, probe: [publish()] }),
  env("origins as one text", { CENTRIFUGO_CLIENT_INSECURE: "1", CENTRIFUGO_CLIENT_ALLOWED_ORIGINS: "https://a.example https://b.example" },
    { probe: ["https://b.example", "https://c.example"].map((Origin) => ({ http: "GET /connection/websocket", headers: { Origin,
      Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==" } })) }),
  env("namespaces as JSON", { CENTRIFUGO_CLIENT_INSECURE: "1", CENTRIFUGO_CHANNEL_NAMESPACES: "[{\"name\":\"ab\",\"allow_subscribe_for_client\":true}]" }, says(subscribe("ab:x"))),
  env("namespaces as broken JSON", { CENTRIFUGO_CHANNEL_NAMESPACES: "[{" }),
  env("namespaces as an empty list", { CENTRIFUGO_CLIENT_INSECURE: "1", CENTRIFUGO_CHANNEL_NAMESPACES: "[]" }, says(subscribe("ab:x"))),
  env("one option of a namespace", { CENTRIFUGO_CHANNEL_NAMESPACE_AB_ALLOW_SUBSCRIBE_FOR_CLIENT: "true" },
    { files: { "config.json": { ...insecure, channel: { namespaces: [{ name: "ab" }] } } }, ...says(subscribe("ab:x")) }),
  env("option without a namespace", { CENTRIFUGO_CLIENT_INSECURE: "1", CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_SUBSCRIBE_FOR_CLIENT: "1" }, says(subscribe("x"))),
  env("proxies as JSON", { CENTRIFUGO_PROXIES: "[{\"name\":\"p1\",\"endpoint\":\"http://127.0.0.1:1\"}]" }),
  env("delta types", { CENTRIFUGO_CLIENT_INSECURE: "1", CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_SUBSCRIBE_FOR_CLIENT: "1",
    CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOWED_DELTA_TYPES: "fossil" }, says({ id: 2, subscribe: { channel: "x", delta: "fossil" } })),
  env("static headers as JSON", { CENTRIFUGO_RPC_PROXY_HTTP_STATIC_HEADERS: "{\"X-A\":\"b\"}" }),
  env("an unknown variable", { CENTRIFUGO_NOTHING_SUCH: "1" }),
  env("whole number", { CENTRIFUGO_CLIENT_INSECURE: "1", CENTRIFUGO_CLIENT_CHANNEL_LIMIT: "1",
    CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_SUBSCRIBE_FOR_CLIENT: "1" }, says(subscribe("x"), { id: 3, subscribe: { channel: "y" } })),
  env("whole number that is broken", { CENTRIFUGO_CLIENT_CHANNEL_LIMIT: "x" }),
  [".env file: read from the folder", serve({ files: { "config.json": "{}", ".env": `CENTRIFUGO_HTTP_API_KEY=${key}\n` }, probe: [publish()] })],
  [".env file: a variable goes before it", serve({ files: { "config.json": "{}", ".env": `CENTRIFUGO_HTTP_API_KEY=${key}\n` }, env: { CENTRIFUGO_HTTP_API_KEY: "other" }, probe: [publish(), publish("other")] })],
];

const flag = (name, args, more = {}) => [`flag: ${name}`, serve({ files: { "config.json": base }, ...more }, ["--config", "config.json", ...args])];
const flags = [
  flag("-p", ["-p", "{port}"], { probe: [publish()] }),
  flag("-a", ["-a", "127.0.0.1", "-p", "{port}"], { probe: [publish()] }),
  flag("--http_api.key", ["--http_api.key", "other"], { probe: [publish(), publish("other")] }),
  flag("--client.insecure", ["--client.insecure"], says()),
  flag("--client.insecure=false", ["--client.insecure=false"], says()),
  flag("--http_api.insecure", ["--http_api.insecure"], { probe: [publish("x")] }),
  flag("--log.level", ["--log.level", "debug"]),
  flag("--log.level of an unknown level", ["--log.level", "loud"]),
  flag("--pid_file", ["--pid_file", "x.pid"], { made: ["x.pid"] }),
  flag("--engine.type memory", ["--engine.type", "memory"]),
  flag("--engine.type other", ["--engine.type", "other"]),
  flag("--broker.type", ["--broker.type", "memory"]),
  flag("--admin.enabled", ["--admin.enabled"]),
  flag("--debug.enabled", ["--debug.enabled"]),
  flag("--health.enabled", ["--health.enabled"], { probe: ["GET /health"] }),
  flag("--prometheus.enabled", ["--prometheus.enabled"], { probe: ["GET /metrics"] }),
  flag("--swagger.enabled", ["--swagger.enabled"], { probe: ["GET /swagger/"] }),
  flag("--init.enabled", ["--init.enabled"], { probe: ["GET /connection/init"] }),
  flag("an unknown flag", ["--nothing.such", "1"]),
  flag("a value of a wrong type", ["--http_server.port", "x"]),
  ["flag: -c", serve({ files: { "other.json": base }, probe: [publish()] }, ["-c", "other.json"])],
  ["flag: -c with a file that is not there", serve({}, ["-c", "none.json"])],
  ["flag: serve as a word", serve({ files: { "config.json": base } }, [])],
];

export default [
  { name: "configuration", config: {}, scripts: [...files, ...valued, ...checks, ...effects] },
  { name: "environment", config: {}, scripts: [...variables, ...flags] },
];
