// Starts the real server for the tests in JavaScript, on a free port, and ends it by its handle.

import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
export const binary =
  process.env.DRUMLINE ?? `${process.env.CARGO_TARGET_DIR ?? `${root}target`}/release/drumline`;

/** The environment without variables that configure the server. */
const ours = /^(DRUMLINE|CENTRIFUGO)_/;
const plain = Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.test(name)));
const OFF = ["uni_websocket", "uni_http_stream", "uni_sse", "long_polling", "prometheus", "page"];

export const KEY = "a-key-for-tests";

/** Rejects when `promise` takes longer than the given time. */
export function within(milliseconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited too long for: ${what}`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Calls `holds` until it returns true; rejects after the given time. */
export async function until(what, holds, milliseconds = 30_000) {
  const end = performance.now() + milliseconds;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`waited too long for: ${what}`);
    await sleep(20);
  }
}

/** A free port below the range that the kernel gives to clients. */
export async function freePort() {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    const probe = createServer();
    const free = await new Promise((resolve) => {
      probe.once("error", () => resolve(false));
      probe.listen(port, "0.0.0.0", () => probe.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

export class Server {
  /** `internal`: address of the internal port, where the health is served if it is set. */
  constructor(port, internal) {
    this.internal = internal;
    this.#listenOn(port);
  }

  #listenOn(port) {
    this.port = port;
    this.base = `http://127.0.0.1:${port}`;
    this.websocket = `ws://127.0.0.1:${port}/connection/websocket`;
  }

  /** Starts the server with `client.insecure`. */
  start(flags = []) {
    return this.run(["--client.insecure", ...flags]);
  }

  /**
   * With these flags, and these variables beside the test's own. Another process may have taken the
   * port since it was found free: then on another one.
   */
  async run(flags, env = {}) {
    const first = this.child === undefined;
    for (let tries = 1; ; tries++) {
      const failure = await this.#spawn(flags, env);
      if (failure === undefined) return this;
      if (!first || tries === 3) throw new Error(failure);
      this.#listenOn(await freePort());
    }
  }

  /** Spawns the server; resolves to an error, or to undefined when the server answers. */
  async #spawn(flags, env) {
    const all = ["serve", "--http_server.port", this.port, "--shards", "2"];
    all.push("--http_api.key", KEY, "--engine.slots_per_shard", "500");
    // The tests use these services, which are off by default.
    for (const one of OFF) all.push(`--${one}.enabled`);
    all.push(...flags);
    this.child = spawn(binary, all.map(String), {
      stdio: ["ignore", "ignore", "inherit"], env: { ...plain, ...env },
    });
    this.how = undefined;
    this.ended = new Promise((resolve) => {
      this.child.once("error", (error) => resolve(error.message));
      this.child.once("exit", (code, signal) => resolve(code ?? signal));
    });
    this.ended.then((how) => { this.how = how; });
    await until("the server to answer", async () => {
      if (this.how !== undefined) return true;
      return (await fetch(`${this.internal ?? this.base}/health`).catch(() => undefined))?.ok;
    });
    return this.how === undefined ? undefined : `the server ended at once: ${this.how}`;
  }

  /** SIGTERM; resolves to the exit code. */
  async stop() {
    this.child.kill("SIGTERM");
    return within(30_000, "the server's end", this.ended);
  }

  kill() {
    this.child?.kill("SIGKILL");
  }

  async api(method, body) {
    const answer = await fetch(`${this.base}/api/${method}`, {
      method: "POST",
      headers: { "X-API-Key": KEY, "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    });
    if (answer.status !== 200) throw new Error(`${method}: HTTP ${answer.status}`);
    const parsed = await answer.json();
    if (parsed.error) throw new Error(`${method}: ${JSON.stringify(parsed.error)}`);
    return parsed.result;
  }
}
