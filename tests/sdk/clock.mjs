// The wall clock steps while the server runs (libfaketime, by a file that says how far it is off):
// tokens go by the wall clock as it is now, and what lasts a while by the monotonic one.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";

import WebSocket from "ws";

import { Server, freePort, sleep, within } from "../common/server.mjs";

const HOUR = 3600;
const SECRET = "a-secret-for-tests";
const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const real = () => Math.floor(Date.now() / 1000);

const work = mkdtempSync(`${tmpdir()}/drumline-clock-`);
const server = new Server(await freePort());
process.on("exit", () => {
  server.kill();
  rmSync(work, { recursive: true });
});

/** Where the library lies, whatever the architecture. */
function library() {
  const folders = readdirSync("/usr/lib").map((name) => `/usr/lib/${name}/faketime`);
  for (const folder of folders) {
    try {
      if (readdirSync(folder).includes("libfaketime.so.1")) return `${folder}/libfaketime.so.1`;
    } catch { /* another folder */ }
  }
  throw new Error("no libfaketime: install Debian's package faketime");
}

let off = 0;
/** From now on the server's wall clock is so many seconds off. */
function step(seconds) {
  off = seconds;
  writeFileSync(`${work}/next`, `${seconds < 0 ? "" : "+"}${seconds}\n`);
  renameSync(`${work}/next`, `${work}/clock`);
}
/** What the server takes for the time. */
const wall = () => real() + off;

function token(claims) {
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: "42", ...claims })}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

/** A client that notes what it is told; `until` waits for a message or the close code. */
class Client {
  constructor() {
    this.said = [];
    this.socket = new WebSocket(server.websocket);
    this.socket.on("error", () => {});
    this.socket.on("close", (code) => this.note(code));
    this.socket.on("message", (data) => {
      for (const line of data.toString().split("\n")) {
        if (line === "{}") this.socket.send("{}");
        else this.note(JSON.parse(line));
      }
    });
    this.opened = new Promise((resolve) => { this.socket.once("open", resolve); });
  }

  note(what) {
    this.said.push(what);
    this.wake?.();
  }

  async until(what, wanted) {
    const found = async () => {
      for (;;) {
        const hit = this.said.find(wanted);
        if (hit !== undefined) return hit;
        await new Promise((resolve) => { this.wake = resolve; });
      }
    };
    return within(15_000, what, found());
  }

  async ask(id, command) {
    await this.opened;
    this.socket.send(JSON.stringify({ id, ...command }));
    const end = (said) => typeof said === "number" || said.id === id;
    return this.until(Object.keys(command)[0], end);
  }

  connect(given) {
    return this.ask(1, { connect: { token: given } });
  }

  isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }
}

/** How a connect with such claims ends: "connected", the error's code or the close code. */
async function ends(claims) {
  const client = new Client();
  const answer = await client.connect(token(claims));
  client.socket.close();
  if (typeof answer === "number") return answer;
  return answer.error?.code ?? "connected";
}

const channel = "numbers";
const publish = (key) =>
  server.api("publish", { channel, data: { n: 1 }, idempotency_key: key });

/** Nothing that lasts a while has ended. */
async function nothingIsErased(kept) {
  const { publications, offset, epoch } = await server.api("history", { channel, limit: 100 });
  assert.deepEqual([publications.length, offset, epoch], [kept.length, kept.at(-1).offset, kept[0].epoch]);
  for (const [nth, position] of kept.entries()) {
    assert.deepEqual(await publish(`key-${nth}`), position, "a repetition is known");
  }
}

async function serverTime() {
  const client = new Client();
  const { connect } = await client.connect(token({}));
  client.socket.close();
  return connect.time / 1000;
}

async function run() {
  step(0);
  const env = {
    LD_PRELOAD: library(),
    FAKETIME_TIMESTAMP_FILE: `${work}/clock`,
    FAKETIME_NO_CACHE: "1",
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
  };
  const flags = ["--client.token.hmac_secret_key", SECRET, "--client.connect_include_server_time"];
  flags.push("--client.expired_close_delay", "1s", "--client.expired_sub_close_delay", "1s");
  flags.push("--channel.without_namespace.history_size", "10");
  flags.push("--channel.without_namespace.history_ttl", "300s");
  await server.run(flags, env);

  const kept = [];
  for (let nth = 0; nth < 3; nth++) kept.push(await publish(`key-${nth}`));
  const lasting = new Client();
  assert.ok((await lasting.connect(token({}))).connect);
  const ending = new Client();
  assert.ok((await ending.connect(token({ exp: wall() + HOUR }))).connect);
  const far = new Client();
  assert.ok((await far.connect(token({ exp: wall() + 10 * HOUR }))).connect);
  const claims = { channel, exp: wall() + HOUR };
  assert.ok((await lasting.ask(2, { subscribe: { channel, token: token(claims) } })).subscribe);

  step(2 * HOUR);
  await ending.until("the end of a token that a step forward ended", (said) => said === 3005);
  await lasting.until("the end of its subscription", (said) => said.push?.unsubscribe?.code === 2501);
  assert.equal(await ends({ exp: wall() + 60 }), "connected", "a fresh token is taken");
  assert.equal(await ends({ exp: real() + HOUR }), 109, "an expired one is refused");
  assert.ok(Math.abs(await serverTime() - wall()) < 60);
  await nothingIsErased(kept);
  assert.ok(lasting.isOpen() && far.isOpen(), "nobody else is closed");

  step(-2 * HOUR);
  assert.equal(await ends({ exp: wall() + 60 }), "connected", "what is in time by the clock is taken");
  assert.equal(await ends({ exp: wall() - 60 }), 109);
  assert.equal(await ends({ nbf: real(), exp: real() + HOUR }), 109, "it is not that time yet");
  assert.ok(Math.abs(await serverTime() - wall()) < 60);
  await nothingIsErased(kept);
  const short = new Client();
  assert.ok((await short.connect(token({ exp: wall() + 3 }))).connect);
  await short.until("the end of a token made after a step back", (said) => said === 3005);

  step(0);
  await sleep(2_000);
  assert.ok(lasting.isOpen() && far.isOpen(), "the clock is right again");
  await nothingIsErased(kept);
  lasting.socket.close();
  far.socket.close();
  assert.equal(await server.stop(), 0);
  console.log("the wall clock steps forward and back: tokens follow it, nothing is erased");
}

await within(120_000, "the whole test", run());
process.exit(0);
