// Tokens: algorithms, every claim with values of each type, and what a token gives.

import { generateKeyPairSync } from "node:crypto";

import { API_KEY, SECRET, api, end, jwt, on, open, publish, pushes, soon } from "../side.mjs";

const pem = (key) => key.export({ type: "spki", format: "pem" });
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
const otherEc = generateKeyPairSync("ec", { namedCurve: "P-256" });
const channel = {
  without_namespace: { allow_subscribe_for_client: true },
  namespaces: [
    { name: "pres", presence: true, allow_subscribe_for_client: true },
    { name: "closed", presence: true, history_size: 5, history_ttl: "300s" },
    { name: "jl", presence: true, join_leave: true },
  ],
};
const token = { hmac_secret_key: SECRET };
const http_api = { key: API_KEY };
const config = (client) => ({ client, http_api, channel });
const sub = "u{n}";
const connect = (claims, options) => open("a", { token: jwt(claims, options) });
const look = (name) => api("presence", { channel: `${name}:{n}` });

/** What follows a connect that uses the claim. */
const claims = [
  ["sub empty", { sub: "" }],
  ["sub absent", {}],
  ["sub a number", { sub: 5 }],
  ["sub null", { sub: null }],
  ["sub an object", { sub: {} }],
  ["sub not ASCII", { sub: "{n}é" }],
  ["sub of 400 bytes", { sub: `{n}${"x".repeat(394)}` }],
  ["exp in the future", { sub, exp: soon(3600) }],
  ["exp in the past", { sub, exp: soon(-10) }],
  ["exp as text", { sub, exp: "4000000000" }],
  ["exp as other text", { sub, exp: "soon" }],
  ["exp with a fraction", { sub, exp: 4_000_000_000.5 }],
  ["exp zero", { sub, exp: 0 }],
  ["exp negative", { sub, exp: -5 }],
  ["exp null", { sub, exp: null }],
  ["exp true", { sub, exp: true }],
  ["nbf in the past", { sub, nbf: soon(-10) }],
  ["nbf in the future", { sub, nbf: soon(3600) }],
  ["nbf as text", { sub, nbf: "4000000000" }],
  ["iat in the future", { sub, iat: soon(3600) }],
  ["iat as text", { sub, iat: "x" }],
  ["jti a number", { sub, jti: 5 }],
  ["aud a text", { sub, aud: "anything" }],
  ["aud a number", { sub, aud: 5 }],
  ["iss a text", { sub, iss: "anything" }],
  ["iss a number", { sub, iss: 5 }],
  ["channels", { sub, channels: ["{n}-1", "{n}-2"] }],
  ["channels with an empty name", { sub, channels: ["", "{n}-1"] }],
  ["channels twice the same", { sub, channels: ["{n}-1", "{n}-1"] }],
  ["channels of a closed namespace", { sub, channels: ["closed:{n}"] }],
  ["channels of an unknown namespace", { sub, channels: ["nope:{n}"] }],
  ["channels a text", { sub, channels: "{n}-1" }],
  ["channels of numbers", { sub, channels: [5] }],
  ["channels null", { sub, channels: null }],
  ["channels with a name that is not ASCII", { sub, channels: ["{n}é"] }],
  ["channels with a name of 300 bytes", { sub, channels: [`{n}${"x".repeat(294)}`] }],
  ["channels with a private channel", { sub, channels: ["${n}"] }],
  ["channels with a limited channel", { sub, channels: ["{n}#other"] }],
  ["subs", { sub, subs: { "{n}-1": {} } }],
  ["subs and channels", { sub, subs: { "{n}-1": {} }, channels: ["{n}-2"] }],
  ["subs an array", { sub, subs: [] }],
  ["subs with null", { sub, subs: { "{n}-1": null } }],
  ["subs with data", { sub, subs: { "{n}-1": { data: { d: 1 } } } }],
  ["subs with b64data", { sub, subs: { "{n}-1": { b64data: "eyJiIjoxfQ==" } } }],
  ["subs with bad b64data", { sub, subs: { "{n}-1": { b64data: "%" } } }],
  ["subs with a bad option", { sub, subs: { "{n}-1": { info: 1, override: { presence: true } } } }],
  ["subs of an unknown namespace", { sub, subs: { "nope:{n}": {} } }],
  ["subs override force_positioning", { sub,
    subs: { "closed:{n}": { override: { force_positioning: { value: true } } } } }],
  ["subs override force_recovery", { sub,
    subs: { "closed:{n}": { override: { force_recovery: { value: true } } } } }],
  ["meta an object", { sub, meta: { m: 1 } }],
  ["meta a text", { sub, meta: "m" }],
  ["expire_at in the future", { sub, expire_at: soon(3600) }],
  ["expire_at in the past", { sub, expire_at: soon(-10) }],
  ["expire_at zero", { sub, exp: soon(3600), expire_at: 0 }],
  ["expire_at negative", { sub, exp: soon(3600), expire_at: -1 }],
  ["expire_at as text", { sub, expire_at: "4000000000" }],
  ["expire_at after exp", { sub, exp: soon(600), expire_at: soon(3600) }],
  ["channel", { sub, channel: "{n}" }],
  ["caps", { sub, caps: [] }],
  ["unknown claim", { sub, other: { x: 1 } }],
].map(([name, what]) => [`claim: ${name}`, connect(what)]);

const infos = [
  ["info an object", { info: { i: 1 } }],
  ["info a text", { info: "i" }],
  ["info null", { info: null }],
  ["b64info", { b64info: "eyJiIjoxfQ==" }],
  ["b64info and info", { b64info: "eyJiIjoxfQ==", info: { i: 1 } }],
  ["bad b64info", { b64info: "%" }],
  ["subs with info", { subs: { "pres:{n}": { info: { s: 1 } } } }],
  ["subs with b64info", { subs: { "pres:{n}": { b64info: "eyJiIjoxfQ==" } } }],
  ["subs override presence off", { subs: { "pres:{n}": { override: { presence: { value: false } } } } }],
].map(([name, more]) => [`claim: ${name}`, connect({ sub, subs: { "pres:{n}": {} }, ...more }), look("pres")]);

const headers = [
  ["HS384", { alg: "HS384" }], ["HS512", { alg: "HS512" }],
  ["wrong key", { key: "other" }], ["alg none", { alg: "HS256", header: { alg: "none" } }],
  ["alg in lower case", { header: { alg: "hs256" } }], ["alg unknown", { header: { alg: "XX256" } }],
  ["typ absent", { header: { typ: undefined } }], ["typ other", { header: { typ: "other" } }],
  ["kid without a set", { header: { kid: "k1" } }], ["cut to 20 characters", { cut: 20 }],
  ["signature cut", { cut: -4 }],
  ["alg of RSA without its key", { alg: "RS256", key: rsa.privateKey }],
].map(([name, options]) => [`token: ${name}`, connect({ sub }, options)]);

/** A subscription token for the closed namespace. */
const closed = "closed:{n}";
const subscribe = (what, options) =>
  on("a", { subscribe: { channel: closed, token: jwt({ sub, channel: closed, ...what }, options) } });
const subscriptions = [
  ["valid", {}], ["of another user", { sub: "other" }], ["without sub", { sub: undefined }],
  ["of another channel", { channel: "closed:other" }], ["without channel", { channel: undefined }],
  ["channel a number", { channel: 5 }], ["of this client", { client: "{client:a}" }],
  ["of another client", { client: "other" }], ["exp in the future", { exp: soon(3600) }],
  ["exp in the past", { exp: soon(-10) }], ["exp as text", { exp: "4000000000" }],
  ["nbf in the future", { nbf: soon(3600) }], ["expire_at in the future", { expire_at: soon(3600) }],
  ["expire_at in the past", { expire_at: soon(-10) }], ["expire_at zero", { exp: soon(3600), expire_at: 0 }],
  ["info", { info: { i: 1 } }], ["b64info", { b64info: "eyJiIjoxfQ==" }], ["bad b64info", { b64info: "%" }],
  ["data", { data: { d: 1 } }], ["b64data", { b64data: "eyJiIjoxfQ==" }],
  ["override presence", { override: { presence: { value: false } } }],
  ["override force_positioning", { override: { force_positioning: { value: true } } }],
  ["override force_recovery", { override: { force_recovery: { value: true } } }],
  ["override a text", { override: "x" }], ["aud and iss", { aud: "x", iss: "y" }], ["jti", { jti: "j" }],
].map(([name, what]) => [`subscription token: ${name}`, connect({ sub }), subscribe(what), look("closed")]);
const more = [
  ["subscription token: wrong key", connect({ sub }), subscribe({}, { key: "other" })],
  ["subscription token: text", connect({ sub }), on("a", { subscribe: { channel: closed, token: "x" } })],
  ["subscription token: override join_leave", connect({ sub }), on("a", { subscribe: { channel: "pres:{n}",
    token: jwt({ sub, channel: "pres:{n}", override: { join_leave: { value: true },
      force_push_join_leave: { value: true } } }) } }), pushes("a", 1)],
  ["subscription token: for an open channel", connect({ sub }),
    on("a", { subscribe: { channel: "{n}", token: jwt({ sub, channel: "{n}" }) } })],
  ["subscription token: private channel", connect({ sub }),
    on("a", { subscribe: { channel: "${n}", token: jwt({ sub, channel: "${n}" }) } }), publish("${n}"),
    pushes("a", 1)],
  ["connection token with a channel's token", open("a", { token: jwt({ sub, channel: closed }) })],
  ["refresh: token of the same user", connect({ sub, exp: soon(60) }),
    on("a", { refresh: { token: jwt({ sub, exp: soon(3600) }) } })],
  ["refresh: token without exp", connect({ sub, exp: soon(60) }), on("a", { refresh: { token: jwt({ sub }) } })],
  ["refresh: expired token", connect({ sub, exp: soon(60) }),
    on("a", { refresh: { token: jwt({ sub, exp: soon(-9) }) } }), end("a", 600)],
  ["refresh: token of another user", connect({ sub, exp: soon(60) }),
    on("a", { refresh: { token: jwt({ sub: "other", exp: soon(3600) }) } }), end("a", 600)],
  ["refresh: other channels", connect({ sub, exp: soon(60), channels: ["{n}-1"] }),
    on("a", { refresh: { token: jwt({ sub, exp: soon(3600), channels: ["{n}-2"] }) } }), end("a", 600)],
  ["refresh: wrong key", connect({ sub, exp: soon(60) }),
    on("a", { refresh: { token: jwt({ sub, exp: soon(3600) }, { key: "other" }) } }), end("a", 600)],
  ["refresh: of a connection that does not expire", connect({ sub }),
    on("a", { refresh: { token: jwt({ sub, exp: soon(3600) }) } })],
  ["refresh: user empty", connect({ sub: "", exp: soon(60) }),
    on("a", { refresh: { token: jwt({ sub: "", exp: soon(3600) }) } }), end("a", 600)],
  ["refresh: new info reaches presence", connect({ sub, exp: soon(60), subs: { "pres:{n}": {} }, info: 1 }),
    on("a", { refresh: { token: jwt({ sub, exp: soon(3600), subs: { "pres:{n}": {} }, info: 2 }) } })],
  ["sub_refresh: valid", connect({ sub }), subscribe({ exp: soon(60) }), on("a", { sub_refresh: {
    channel: closed, token: jwt({ sub, channel: closed, exp: soon(3600) }) } })],
  ["sub_refresh: without exp", connect({ sub }), subscribe({ exp: soon(60) }), on("a", { sub_refresh: {
    channel: closed, token: jwt({ sub, channel: closed }) } })],
  ["sub_refresh: expired", connect({ sub }), subscribe({ exp: soon(60) }), on("a", { sub_refresh: {
    channel: closed, token: jwt({ sub, channel: closed, exp: soon(-9) }) } })],
  ["sub_refresh: another user", connect({ sub }), subscribe({ exp: soon(60) }), on("a", { sub_refresh: {
    channel: closed, token: jwt({ sub: "x", channel: closed, exp: soon(3600) }) } }), end("a", 600)],
  ["sub_refresh: another channel", connect({ sub }), subscribe({ exp: soon(60) }), on("a", { sub_refresh: {
    channel: closed, token: jwt({ sub, channel: "closed:x", exp: soon(3600) }) } }), end("a", 600)],
  ["sub_refresh: no token", connect({ sub }), subscribe({ exp: soon(60) }),
    on("a", { sub_refresh: { channel: closed } }), end("a", 600)],
];

const keyed = (name, options) => [`keys: ${name}`, connect({ sub }, options)];
const asked = (name, what) => [`audience and issuer: ${name}`, connect({ sub, ...what })];
export default [
  { name: "claims", config: config({ token }), scripts: [...claims, ...infos, ...headers] },
  { name: "subscription tokens", config: config({ token }), scripts: [...subscriptions, ...more] },
  { name: "public keys",
    config: config({ token: { rsa_public_key: pem(rsa.publicKey), ecdsa_public_key: pem(ec.publicKey) } }),
    scripts: [
      keyed("RS256", { alg: "RS256", key: rsa.privateKey }), keyed("RS384", { alg: "RS384", key: rsa.privateKey }),
      keyed("RS512", { alg: "RS512", key: rsa.privateKey }), keyed("ES256", { alg: "ES256", key: ec.privateKey }),
      keyed("ES256 of another key", { alg: "ES256", key: otherEc.privateKey }),
      keyed("ES384 with a key of 256", { alg: "ES384", key: ec.privateKey }),
      keyed("HS256 where only public keys are set", {}),
      keyed("HS256 with the public key as secret", { key: pem(rsa.publicKey) }),
    ] },
  { name: "audience and issuer", config: config({ token: { ...token, audience: "app", issuer: "auth" } }),
    scripts: [
      asked("both right", { aud: "app", iss: "auth" }), asked("aud among others", { aud: ["x", "app"], iss: "auth" }),
      asked("aud wrong", { aud: "x", iss: "auth" }), asked("aud absent", { iss: "auth" }),
      asked("aud empty list", { aud: [], iss: "auth" }), asked("iss wrong", { aud: "app", iss: "x" }),
      asked("iss absent", { aud: "app" }), asked("aud a longer text", { aud: "apps", iss: "auth" }),
    ] },
  { name: "audience by pattern",
    config: config({ token: { ...token, audience_regex: "^app-[0-9]+$", issuer_regex: "auth" } }),
    scripts: [
      asked("pattern matches", { aud: "app-1", iss: "my-auth" }), asked("pattern of aud fails", { aud: "app-x", iss: "auth" }),
      asked("pattern of iss fails", { aud: "app-1", iss: "x" }), asked("pattern, aud in a list", { aud: ["q", "app-2"], iss: "auth" }),
    ] },
  { name: "user id claim", config: config({ token: { ...token, user_id_claim: "uid" } }),
    scripts: [
      ["user_id_claim: set", connect({ uid: "u{n}", sub: "x", subs: { "pres:{n}": {} } }), look("pres")],
      ["user_id_claim: absent", connect({ sub: "u{n}", subs: { "pres:{n}": {} } }), look("pres")],
      ["user_id_claim: a number", connect({ uid: 5, subs: { "pres:{n}": {} } }), look("pres")],
    ] },
  { name: "previous secret", config: config({ token: { hmac_secret_key: "new", hmac_previous_secret_key: SECRET } }),
    scripts: [["hmac_previous_secret_key: token of it", connect({ sub })],
      ["hmac_previous_secret_key: token of the new one", connect({ sub }, { key: "new" })],
      ["hmac_previous_secret_key: token of another", connect({ sub }, { key: "q" })]] },
  { name: "separate subscription token", config: config({ token,
    subscription_token: { enabled: true, hmac_secret_key: "for-subscriptions" } }),
    scripts: [["subscription_token: own key", connect({ sub }), subscribe({}, { key: "for-subscriptions" })],
      ["subscription_token: key of connections", connect({ sub }), subscribe({})]] },
  { name: "skipped signatures", config: config({ token, insecure_skip_token_signature_verify: true }),
    scripts: [["insecure_skip_token_signature_verify: wrong key", connect({ sub }, { key: "q" })],
      ["insecure_skip_token_signature_verify: expired", connect({ sub, exp: soon(-9) }, { key: "q" })],
      ["insecure_skip_token_signature_verify: no token", open("a")],
      ["insecure_skip_token_signature_verify: subscription", connect({ sub }), subscribe({}, { key: "q" })]] },
  { name: "no keys", config: config({}), scripts: [["no key is set: a token", connect({ sub })],
    ["no key is set: subscription", open("a"), end("a", 400)]] },
];
