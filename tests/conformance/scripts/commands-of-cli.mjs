// Commands of the program: exit status, files and tokens.

import { SECRET, jwt } from "../side.mjs";
import { command, serve } from "../clients/command.mjs";

const config = { client: { token: { hmac_secret_key: SECRET } } };
const files = { "config.json": config };
const own = { files: { "config.json": { client: { token: { hmac_secret_key: SECRET }, subscription_token: { enabled: true, hmac_secret_key: "another" } } } } };
const none = { files: { "config.json": {} } };
const token = (name, ...steps) => [`command ${name}`, ...steps];
const ask = (args, more = {}) => command(args, { files, ...more });
const checking = (kind) => (name, claims, given) => [`command ${kind}: ${name}`, ask(
  Object.assign((side) => [kind, "-c", "config.json", jwt(claims, given)(side)], { of: JSON.stringify([kind, claims, given]) }))];
const check = checking("checktoken");
const checkSub = checking("checksubtoken");
const past = Math.floor(Date.now() / 1000) - 100;
const file = (name, content, args = []) => [`command checkconfig: ${name}`, command(["checkconfig", "-c", "config.json", ...args], { files: { "config.json": content } })];

const tokens = [
  token("gentoken", ask(["gentoken", "-u", "u1"], { see: ["token"] })),
  token("gentoken without a user", ask(["gentoken"], { see: ["token"] })),
  token("gentoken --user --ttl", ask(["gentoken", "--user", "u1", "--ttl", "600"], { see: ["token"] })),
  token("gentoken -t", ask(["gentoken", "-u", "u1", "-t", "90"], { see: ["token"] })),
  token("gentoken -t -1", ask(["gentoken", "-u", "u1", "-t", "-1"], { see: ["token"] })),
  token("gentoken -q", ask(["gentoken", "-u", "u1", "-q"], { see: ["token", "bare"] })),
  token("gentoken --quiet", ask(["gentoken", "--user", "u2", "--quiet"], { see: ["token", "bare"] })),
  token("gentoken without a key", command(["gentoken", "-u", "u"], none)),
  token("gentoken without a file", command(["gentoken", "-u", "u", "-c", "none.json"])),
  token("gentoken with a key of the environment", command(["gentoken", "-u", "u", "-c", "config.json"], { ...none, env: { CENTRIFUGO_CLIENT_TOKEN_HMAC_SECRET_KEY: "k" }, see: ["token"] })),
  token("gentoken then checktoken", ask(["gentoken", "-u", "u1", "-q"]), command(["checktoken", "TOKEN"])),
  token("gensubtoken", ask(["gensubtoken", "-u", "u1", "-s", "news"], { see: ["token"] })),
  token("gensubtoken without a channel", ask(["gensubtoken", "-u", "u1"])),
  token("gensubtoken without a user", ask(["gensubtoken", "-s", "news"], { see: ["token"] })),
  token("gensubtoken --channel", ask(["gensubtoken", "--user", "u1", "--channel", "news"], { see: ["token"] })),
  token("gensubtoken -t", ask(["gensubtoken", "-u", "u1", "-s", "news", "-t", "90"], { see: ["token"] })),
  token("gensubtoken -t -1", ask(["gensubtoken", "-u", "u1", "-s", "news", "-t", "-1"], { see: ["token"] })),
  token("gensubtoken -q", ask(["gensubtoken", "-u", "u1", "-s", "news", "-q"], { see: ["token", "bare"] })),
  token("gensubtoken with a key of its own", command(["gensubtoken", "-u", "u1", "-s", "news", "-q"], { ...own, see: ["token"] }), command(["checksubtoken", "TOKEN"]), command(["checktoken", "TOKEN"])),
  token("gensubtoken then checksubtoken", ask(["gensubtoken", "-u", "u1", "-s", "news", "-q"]), command(["checksubtoken", "TOKEN"])),
  check("right", { sub: "u" }),
  check("expired", { sub: "u", exp: past }),
  check("not yet valid", { sub: "u", nbf: past + 10_000 }),
  check("another key", { sub: "u" }, { key: "other" }),
  check("another algorithm", { sub: "u" }, { alg: "HS512" }),
  check("no user", {}),
  check("cut off", { sub: "u" }, { cut: 30 }),
  check("user of a wrong type", { sub: 5 }),
  ["command checktoken: no token", ask(["checktoken"])],
  ["command checktoken: not a token", ask(["checktoken", "x"])],
  ["command checktoken: two tokens", ask(["checktoken", "x", "y"])],
  checkSub("right", { sub: "u", channel: "c" }),
  checkSub("no channel", { sub: "u" }),
  checkSub("expired", { sub: "u", channel: "c", exp: past }),
  checkSub("another key", { sub: "u", channel: "c" }, { key: "other" }),
  ["command checksubtoken: no token", ask(["checksubtoken"])],
];

const generated = [
  ["command genconfig", command(["genconfig"], { made: ["config.json"] }), serve({}, ["--config", "config.json"])],
  ...["json", "yaml", "toml"].map((form) =>
    [`command genconfig: ${form}`, command(["genconfig", "-c", `own.${form}`], { made: [`own.${form}`] }), serve({}, ["--config", `own.${form}`])]),
  ["command genconfig: then gentoken", command(["genconfig", "--config", "x.json"]), command(["gentoken", "-c", "x.json", "-u", "u"], { see: ["token"] })],
  ["command genconfig: a file that is there", command(["genconfig"], files)],
  ["command genconfig: an unknown form", command(["genconfig", "-c", "config.ini"])],
  ["command genconfig: a folder that is not there", command(["genconfig", "-c", "none/config.json"])],
  ...["json", "yaml", "toml"].map((form) =>
    [`command defaultconfig: ${form}`, command(["defaultconfig", "-c", `d.${form}`], { made: [`d.${form}`] }), command(["checkconfig", "-c", `d.${form}`])]),
  ["command defaultconfig: without -c", command(["defaultconfig"], { made: ["config.json"] })],
  ["command defaultconfig: --dry-run", command(["defaultconfig", "-c", "d.json", "--dry-run"], { made: ["d.json"], see: ["any"] })],
  ["command defaultconfig: a file that is there", command(["defaultconfig"], files)],
  ["command defaultconfig: an unknown form", command(["defaultconfig", "-c", "d.ini"])],
  ["command defaultconfig: starts the server", command(["defaultconfig", "-c", "d.json"]), serve({}, ["--config", "d.json"])],
  ["command defaultenv", command(["defaultenv"], { see: ["variables", "any"] })],
  ["command configdoc: -m", command(["configdoc", "-m"], { see: ["any"] })],
  ["command configdoc: -s", command(["configdoc", "-m", "-s", "client"], { see: ["any"] })],
  ["command version", command(["version"], { see: ["lines"] })],
  ["command: unknown", command(["nothing"])],
  ["command: --help", command(["--help"], { see: ["any"] })],
  ["command genconfig: --help", command(["genconfig", "--help"], { see: ["any"] })],
  ["command completion: bash", command(["completion", "bash"], { see: ["any"] })],
  ["command completion: unknown shell", command(["completion", "nosuch"])],
  ["command: unknown flag", command(["version", "--nothing"])],
];

const configs = [
  file("right", config),
  file("unknown key", { ...config, nothing: 1 }),
  file("unknown key, --strict", { ...config, nothing: 1 }, ["--strict"]),
  file("right, --strict", config, ["--strict"]),
  file("unknown key of a namespace, -s", { channel: { namespaces: [{ name: "ab", nothing: 1 }] } }, ["-s"]),
  file("value of a wrong type", { client: { channel_limit: "x" } }),
  file("broken", "{"),
  file("duplicate namespaces", { channel: { namespaces: [{ name: "ab" }, { name: "ab" }] } }),
  ["command checkconfig: no file", command(["checkconfig"])],
  ["command checkconfig: YAML", command(["checkconfig", "-c", "c.yaml"], { files: { "c.yaml": "client:\n  insecure: true\n" } })],
  ["command checkconfig: TOML", command(["checkconfig", "-c", "c.toml"], { files: { "c.toml": "[client]\ninsecure = true\n" } })],
  ["command checkconfig: a bad variable", command(["checkconfig"], { files, env: { CENTRIFUGO_CLIENT_PING_INTERVAL: "1s", CENTRIFUGO_CLIENT_PONG_TIMEOUT: "5s" } })],
];

export default [{ name: "program", config: {}, scripts: [...tokens, ...generated, ...configs] }];
