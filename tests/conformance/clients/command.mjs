// Steps about programs: commands that end, and servers that a script starts with its own files.

import { spawn } from "node:child_process";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import WebSocket from "ws";

import { freePort, sleep } from "../../common/server.mjs";
import { BINARIES, newFolder, plainEnvironment } from "../servers.mjs";
import { defineStep } from "../side.mjs";
import { call } from "./http.mjs";

/** The folder of a script on one side, in which its programs run. */
function folderOf(side) {
  side.folder ??= newFolder(`${side.kind}-script`);
  return side.folder;
}

const isJwt = /[\w-]+\.[\w-]+\.[\w-]*/;

/** Runs a program of this side to its end: {status, output, text}. */
function run(side, args, { env = {}, input, milliseconds = 20_000 } = {}) {
  return new Promise((resolve) => {
    const child = spawn(BINARIES[side.kind], args, {
      cwd: folderOf(side), env: { ...plainEnvironment(), ...env }, stdio: ["pipe", "pipe", "pipe"],
    });
    const out = [];
    const err = [];
    child.stdout.on("data", (chunk) => out.push(chunk));
    child.stderr.on("data", (chunk) => err.push(chunk));
    // A program that reads no input may end before it is written.
    child.stdin.on("error", () => {});
    child.stdin.end(input ?? "");
    const late = setTimeout(() => child.kill("SIGKILL"), milliseconds);
    child.once("exit", () => clearTimeout(late));
    child.once("close", (code, signal) => resolve({
      status: code ?? signal, output: Buffer.concat(out).toString(), errors: Buffer.concat(err).toString(),
    }));
    child.once("error", (error) => resolve({ status: error.message, output: "", errors: "" }));
  });
}

/** What of an output is compared: names of views, since the words of help and errors differ. */
const VIEWS = {
  /** Whether there is any output. */
  any: (output) => output.trim() !== "",
  /** Number of lines. */
  lines: (output) => output.trim().split("\n").length,
  /** The header and claims of the first token in the output; times count from now. */
  token: (output) => {
    const token = isJwt.exec(output)?.[0];
    if (token === undefined) return "no token";
    const [header, claims] = token.split(".").slice(0, 2)
      .map((part) => JSON.parse(Buffer.from(part, "base64url").toString()));
    for (const key of ["exp", "iat"]) {
      if (claims[key] !== undefined) claims[key] = Math.round((claims[key] - Date.now() / 1000) / 30);
    }
    return { header, claims };
  },
  /** Whether the output is one token and nothing else. */
  bare: (output) => new RegExp(`^${isJwt.source}\\s*$`).test(output),
  /** Whether the output parses as JSON. */
  json: (output) => {
    try {
      return typeof JSON.parse(output);
    } catch {
      return "not JSON";
    }
  },
  /** Whether each line assigns a variable. */
  variables: (output) => output.trim().split("\n").every((line) => /^[A-Z0-9_]+=/.test(line)),
};

/**
 * {command: ARGUMENTS, files: {NAME: text}, env, see: names of views, made: names of files}: runs the
 * program. The exit status is compared as zero or not. `keep` saves the first token as {token}.
 */
defineStep("command", async (side, args, { files = {}, env, see = [], made = [], modes = [] }) => {
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(join(folderOf(side), name), typeof text === "string" ? text : JSON.stringify(text));
  }
  const filled = side.fill(args).map((one) => (one === "TOKEN" ? side.token : one));
  const { status, output, errors } = await run(side, filled, { env });
  side.token = isJwt.exec(output)?.[0] ?? side.token;
  const result = { ok: status === 0 };
  for (const view of see) result[view] = VIEWS[view](output);
  if (status !== 0) result.explained = (output + errors).trim() !== "";
  for (const name of made) {
    const path = join(folderOf(side), name);
    result[name] = existsSync(path) && (statSync(path).size > 0);
  }
  for (const name of modes) {
    result[name] = (statSync(join(folderOf(side), name)).mode & 0o777).toString(8);
  }
  side.record(`command ${args[0]}`, result);
});

/** Keys of a file that a command wrote, as sorted paths: {keys: NAME} */
defineStep("keys", async (side, name) => {
  const walk = (value, path) => (value !== null && typeof value === "object" && !Array.isArray(value)
    ? Object.entries(value).flatMap(([key, one]) => walk(one, `${path}.${key}`)) : [path]);
  const file = join(folderOf(side), name);
  side.record("keys", existsSync(file) ? walk(JSON.parse(readFileSync(file, "utf8")), "").sort() : "no file");
});

/** Connects by the JSON protocol and returns the replies to the commands. */
function converse(port, path, commands) {
  return new Promise((resolve) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`);
    const replies = [];
    const done = (more) => {
      clearTimeout(timer);
      socket.terminate();
      for (const reply of replies) {
        for (const result of Object.values(reply)) {
          if (result?.client) result.client = "<client>";
          if (result?.version) result.version = "<version>";
          if (result?.epoch) result.epoch = "<epoch>";
          if (result?.ttl) result.ttl = Math.round(result.ttl / 10);
        }
      }
      replies.sort((one, two) => one.id - two.id);
      resolve(more === undefined ? replies : [...replies, more]);
    };
    const timer = setTimeout(() => done("silence"), 5_000);
    socket.on("open", () => socket.send(commands.map((one) => JSON.stringify(one)).join("\n")));
    socket.on("message", (data) => {
      for (const line of data.toString().trim().split("\n")) {
        const reply = JSON.parse(line);
        if (reply.id !== undefined) replies.push(reply);
      }
      if (replies.length >= commands.length) done();
    });
    socket.on("close", (code, reason) => done({ code, reason: reason.toString() }));
    socket.on("error", () => {});
    socket.on("unexpected-response", (_, response) => done({ status: response.statusCode }));
  });
}

/**
 * {serve: ARGUMENTS, files, env, probe: ["GET /path" or {http, headers, body, keep}], say: commands,
 * after: names of files after the end}: starts the server with these files in its folder, records
 * whether it serves, the answers to the probes and the replies to the commands, and ends it.
 */
defineStep("serve", async (side, args, { files = {}, env = {}, probe = [], say, path, made = [] }) => {
  const port = await freePort();
  const fill = (value) => JSON.parse(JSON.stringify(side.fill(value)).replaceAll("{port}", String(port)));
  const place = folderOf(side);
  for (const [name, text] of Object.entries(files)) {
    const filled = fill({ text }).text;
    writeFileSync(join(place, name), typeof filled === "string" ? filled : JSON.stringify(filled));
  }
  const flags = fill(args);
  if (!flags.includes("-p") && !flags.some((one) => /port/.test(one)) && env.CENTRIFUGO_HTTP_SERVER_PORT === undefined) {
    flags.push("--http_server.port", String(port));
  }
  const child = spawn(BINARIES[side.kind], flags, {
    cwd: place, env: { ...plainEnvironment(), ...fill(env) }, stdio: ["ignore", "pipe", "pipe"],
  });
  child.stdout.resume();
  child.stderr.resume();
  let how;
  const ended = new Promise((resolve) => child.once("exit", (code, signal) => {
    how = code ?? signal;
    resolve();
  }));
  const result = {};
  for (let tries = 0; tries < 400 && how === undefined; tries++) {
    const answer = await call(port, { path: "/health" });
    if (answer.status !== undefined) break;
    await sleep(25);
  }
  result.serves = how === undefined;
  if (how === undefined) {
    for (const one of probe) {
      const { http = one, headers = {}, body, keep = [] } = typeof one === "string" ? {} : one;
      const [method, target] = http.split(" ");
      const answer = await call(port, { method, path: target, headers, body: body && JSON.stringify(body) });
      result[http] ??= [];
      result[http].push({ status: answer.status ?? "no answer",
        ...Object.fromEntries(keep.map((name) => [name, answer.headers?.[name]])) });
    }
    if (say !== undefined) result.replies = await converse(port, path ?? "/connection/websocket", fill(say));
    for (const name of made) result[`${name} while it runs`] = existsSync(join(place, name));
    child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), 5_000);
    await ended;
    clearTimeout(late);
    for (const name of made) result[`${name} afterwards`] = existsSync(join(place, name));
  }
  side.record("server", result);
});

export const command = (args, more = {}) => ({ command: args, ...more });
export const serve = (more = {}, args = ["--config", "config.json"]) => ({ serve: args, ...more });
