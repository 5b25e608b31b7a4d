// Our deltas, applied by the JavaScript SDK, unchanged: as its JSON connections and as its Protobuf
// connections apply them.
//
// Usage: node tests/sdk/delta.mjs [FILE]    FILE: cases already written; else cargo writes them

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { Centrifuge } from "centrifuge";
import { Centrifuge as CentrifugeProtobuf } from "centrifuge/build/protobuf";
import WebSocket from "ws";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** What the unit tests write, a line for each case: source, target, delta. */
function cases() {
  if (process.argv[2]) return readFileSync(process.argv[2], "ascii");
  const folder = mkdtempSync(join(tmpdir(), "drumline-delta-"));
  try {
    const name = join(folder, "cases");
    const test = ["test", "--lib", "cases_for_the_sdk", "--", "--ignored"];
    const env = { ...process.env, DRUMLINE_DELTA_CASES: name };
    execFileSync("cargo", test, { cwd: root, env, stdio: ["ignore", "ignore", "inherit"] });
    return readFileSync(name, "ascii");
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const [json, protobuf] = [Centrifuge, CentrifugeProtobuf].map(
  (Kind) => new Kind("ws://127.0.0.1:1", { websocket: WebSocket })._codec,
);
assert.equal(json.name(), "json");
assert.equal(protobuf.name(), "protobuf");

/** The text that these bytes are; undefined where they are none. */
function text(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function isJson(string) {
  try {
    JSON.parse(string);
    return true;
  } catch {
    return false;
  }
}

let count = 0;
let documents = 0;
for (const line of cases().trim().split("\n")) {
  const [source, target, delta] = line.split(",").map((it) => new Uint8Array(Buffer.from(it, "hex")));
  const applied = protobuf.applyDeltaIfNeeded({ delta: true, data: delta }, source);
  assert.deepEqual(applied.newData, target);
  count += 1;

  const document = text(target);
  if (document === undefined || !isJson(document)) continue;
  // A delta is a string in the publication's JSON, so it goes through that as well.
  const data = JSON.parse(JSON.stringify(text(delta)));
  const asJson = json.applyDeltaIfNeeded({ delta: true, data }, source);
  assert.deepEqual(asJson.newData, JSON.parse(document));
  assert.deepEqual(asJson.newPrevValue, target);
  documents += 1;
}
assert.ok(documents > 50 && count > 2 * documents, `${count} cases, ${documents} of them JSON`);
console.log(`${count} deltas applied as bytes, ${documents} of them as JSON`);
process.exit(0);
