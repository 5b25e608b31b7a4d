// Tokens with asymmetric signatures, made by Node's cryptography: keys of the configuration, and
// key sets that a server of the test's own gives out.

import assert from "node:assert/strict";
import { createHmac, generateKeyPairSync, sign } from "node:crypto";
import { createServer } from "node:http";

import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { Server, freePort, until, within } from "../common/server.mjs";

const server = new Server(await freePort());
process.on("exit", () => server.kill());

const pairs = {
  RS256: generateKeyPairSync("rsa", { modulusLength: 2048 }),
  ES256: generateKeyPairSync("ec", { namedCurve: "P-256" }),
  ES384: generateKeyPairSync("ec", { namedCurve: "P-384" }),
  EdDSA: generateKeyPairSync("ed25519"),
};
const digests = { RS256: "sha256", ES256: "sha256", ES384: "sha384", EdDSA: null };
const pem = (pair) => pair.publicKey.export({ type: "spki", format: "pem" });
const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

function token(alg, { kid, pair = pairs[alg], claims = {} } = {}) {
  const signed = `${part({ alg, typ: "JWT", kid })}.${part({ sub: "42", ...claims })}`;
  const key = { key: pair.privateKey, dsaEncoding: "ieee-p1363" };
  return `${signed}.${sign(digests[alg], Buffer.from(signed), key).toString("base64url")}`;
}

/** A token whose secret is the text of a public key. */
function confused(alg, pair) {
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: "42" })}`;
  const mac = createHmac("sha256", pem(pair)).update(signed).digest("base64url");
  return `${signed}.${mac}`;
}

/** How a connect with this token ends: "connected", or the close code. */
function ends(given) {
  // A key that a set lacks is looked for at most every 5 seconds; until then the client tries again.
  const pauses = { minReconnectDelay: 200, maxReconnectDelay: 1_000 };
  const client = new Centrifuge(server.websocket, { websocket: WebSocket, token: given, ...pauses });
  const end = new Promise((resolve) => {
    client.on("connected", () => resolve("connected"));
    client.on("disconnected", ({ code }) => resolve(code));
  });
  client.connect();
  return within(15_000, "the end of a connect", end).finally(() => client.disconnect());
}

async function staticKeys() {
  const flags = [`--client.token.rsa_public_key=${pem(pairs.RS256)}`];
  flags.push(`--client.token.ecdsa_public_key=${pem(pairs.ES256)}`);
  await server.run(flags);
  assert.equal(await ends(token("RS256")), "connected");
  assert.equal(await ends(token("ES256")), "connected");
  const other = generateKeyPairSync("ec", { namedCurve: "P-256" });
  assert.equal(await ends(token("ES256", { pair: other })), 3500);
  assert.equal(await ends(token("EdDSA")), 3500);
  assert.equal(await ends(confused("RS256", pairs.RS256)), 3500);
  assert.equal(await ends(confused("ES256", pairs.ES256)), 3500);
  const many = await Promise.all(Array.from({ length: 200 }, () => ends(token("ES256"))));
  assert.ok(many.every((end) => end === "connected"));
  assert.equal(await server.stop(), 0);
  console.log("keys of the configuration");
}

async function keySets() {
  let kids = ["RS256", "ES256"];
  // A fetch has up to three attempts, a second each. At least 5 seconds pass until the next fetch.
  let [fetches, last] = [0, -Infinity];
  const keys = () => kids.map((alg) => ({
    ...pairs[alg].publicKey.export({ format: "jwk" }), kid: `key-${alg}`, alg, use: "sig",
  }));
  const origin = createServer((_, answer) => {
    if (performance.now() - last > 4_000) fetches += 1;
    last = performance.now();
    answer.setHeader("Content-Type", "application/json");
    answer.end(JSON.stringify({ keys: keys() }));
  });
  await new Promise((resolve) => origin.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${origin.address().port}/keys`;
  await server.run(["--client.token.jwks_public_endpoint", endpoint]);
  const named = (alg, more) => token(alg, { kid: `key-${alg}`, ...more });
  assert.equal(await ends(named("RS256")), "connected");
  assert.equal(await ends(named("ES256")), "connected");
  assert.equal(fetches, 1, "a set is kept");
  assert.equal(await ends(token("RS256", { kid: "key-ES256" })), 3500);
  assert.equal(await ends(token("RS256")), 3500, "a key must be named");
  assert.equal(await ends(named("EdDSA")), 3500);
  kids = ["EdDSA", "ES384"];
  await until("a new key", async () => (await ends(named("EdDSA"))) === "connected");
  assert.equal(await ends(named("ES384")), "connected");
  assert.equal(await ends(named("RS256")), 3500, "an old one is gone");
  // Each key that the set lacked was looked for by one fetch more, since the set may have changed.
  assert.ok(fetches <= 4, `fetched ${fetches} times`);
  origin.close();
  assert.equal(await server.stop(), 0);
  console.log("keys of a set, which changes");
}

await within(120_000, "the whole test", (async () => {
  await staticKeys();
  await keySets();
})());
process.exit(0);
