// Starts Drumline and Centrifugo with the same configuration, and ends them by their handles.

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { freePort, sleep } from "../common/server.mjs";
import { call } from "./clients/http.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const target = process.env.CARGO_TARGET_DIR ?? `${root}target`;

export const BINARIES = {
  centrifugo: process.env.CENTRIFUGO ?? `${target}/peers/centrifugo/centrifugo`,
  drumline: process.env.DRUMLINE ?? `${target}/release/drumline`,
};

const folder = mkdtempSync(join(tmpdir(), "drumline-conformance-"));
const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

/** The environment without variables that configure a server. */
const ours = /^(DRUMLINE|CENTRIFUGO)_/;
export const plainEnvironment = () =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.test(name)
    && name !== "CENTRIFUGO" && name !== "DRUMLINE"));

export function checkBinaries() {
  for (const [name, path] of Object.entries(BINARIES)) {
    if (!existsSync(path)) {
      const cure = name === "drumline" ? "cargo build --release" : "scripts/peers.sh setup centrifugo";
      throw new Error(`no binary of ${name} at ${path}: run ${cure}`);
    }
  }
}

/** A folder of its own under the folder of this run. */
export function newFolder(name) {
  const path = mkdtempSync(join(folder, `${name}-`));
  mkdirSync(path, { recursive: true });
  return path;
}

/**
 * Starts one server. group: {name, config, env, flags}. `fill` replaces placeholders of the
 * configuration, such as the address of the backend. Resolves to {port, stop, log}.
 */
export async function start(kind, group, fill = (value) => value) {
  for (let tries = 1; ; tries++) {
    const server = await startOnce(kind, group, fill);
    if (server.failure === undefined) return server;
    if (tries === 3) throw new Error(`${kind}, configuration ${group.name}: ${server.failure}`);
  }
}

async function startOnce(kind, group, fill) {
  const port = await freePort();
  const place = newFolder(`${kind}-${group.name.replace(/\W+/g, "-")}`);
  const file = join(place, "config.json");
  writeFileSync(file, JSON.stringify(fill(group.config ?? {}), null, 2));
  const args = ["--config", file, "--http_server.port", String(port), ...(group.flags ?? [])];
  // The options of Drumline's engine: two shards, so that messages cross threads.
  if (kind === "drumline") args.unshift("serve", "--shards", "2", "--engine.slots_per_shard", "500");
  const log = join(place, "log");
  const out = openSync(log, "w");
  const env = { ...plainEnvironment(), ...fill(group.env ?? {}) };
  const child = spawn(BINARIES[kind], args, { cwd: place, env, stdio: ["ignore", out, out] });
  running.add(child);
  let how;
  const ended = new Promise((resolve) => {
    child.once("error", (error) => { how = error.message; resolve(); });
    child.once("exit", (code, signal) => { how = `ended with ${code ?? signal}`; resolve(); });
  });
  ended.then(() => running.delete(child));
  const stop = async () => {
    child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), 3_000);
    await ended;
    clearTimeout(late);
  };
  const deadline = performance.now() + 60_000;
  while (how === undefined && performance.now() < deadline) {
    // Any answer shows that the server accepts; /health may be off.
    const answer = await call(port, { path: "/health" });
    if (answer.status !== undefined) return { kind, port, stop, log, child };
    await sleep(25);
  }
  child.kill("SIGKILL");
  return { failure: `${how ?? "no answer in 60 s"}\n${readFileSync(log, "utf8").slice(-2_000)}` };
}
