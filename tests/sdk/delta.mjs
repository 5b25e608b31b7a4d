// Our deltas, applied by the JavaScript SDK, unchanged: as its JSON connections and as its Protobuf
// connections apply them.
//
// Usage: node tests/sdk/delta.mjs CASES    the file that the step delta of scripts/test.sh writes

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { Centrifuge } from "centrifuge";
import { Centrifuge as CentrifugeProtobuf } from "centrifuge/build/protobuf";
import WebSocket from "ws";

/** What the unit tests write, a line for each case: source, target, delta. */
const cases = readFileSync(process.argv[2], "ascii").trim().split("\n");

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
for (const line of cases) {
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
