// Runs the table of scripts against Drumline and against Centrifugo with the same configuration, and
// compares all that they send.
//
// Usage: node tests/conformance/run.mjs [--only TEXT] [--group NAME] [--show] [--plant KIND]
//
//   --only TEXT   only scripts whose names contain the text
//   --group NAME  only this group
//   --show        print what both servers sent, of scripts that differ and of those that agree
//   --plant KIND  plant a fault into Drumline's answers: the run must fail
//   --plants      plant each kind of fault into a sample of the scripts without a backend, and of those with
//                 one: each must be found
//   --list        print the names of the scripts
//   --page        write docs/src/differences.md
//
// CENTRIFUGO and DRUMLINE name the binaries. The exit status is 1 when an unlisted difference was seen
// twice, when a listed one was not seen, or when the page is stale.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { sleep, within } from "../common/server.mjs";
import { startBackend } from "./backend.mjs";
import { differences, normalize } from "./compare.mjs";
import { ENTRIES } from "./differences.mjs";
import { checkPage, writePage } from "./page.mjs";
import { Plant, plantedIn } from "./plant.mjs";
import { checkBinaries, start } from "./servers.mjs";
import { Side } from "./side.mjs";
import { load } from "./table.mjs";

/** Groups at a time, and scripts of a group at a time. */
const GROUPS = 4;
const SCRIPTS = 24;
/** Quiet time after a step and after the last one, and the wait for a server that sent less. */
const QUIET = 25;
const LAST_QUIET = 120;
const CATCH_UP = 3_000;
const LONGEST_STEP = 40_000;
/** Scripts with a backend, and scripts without one, in which each kind of fault is planted. */
const SAMPLE = 4;

let markers = 0;
const newMarker = () => `q${String(10_000 + markers++)}`;

/** Runs `work` over a list, as many at a time. */
async function each(list, atOnce, work) {
  const queue = [...list];
  const lanes = Array.from({ length: Math.min(atOnce, queue.length) }, async () => {
    while (queue.length > 0) await work(queue.shift());
  });
  await Promise.all(lanes);
}

/** Waits until both servers have sent as much, or the one that sent less has had time for it. */
async function settle(sides, quiet) {
  const counts = () => sides.map((side) => side.count);
  const end = performance.now() + CATCH_UP;
  for (;;) {
    const before = counts();
    await sleep(quiet);
    const after = counts();
    const calm = after.every((count, index) => count === before[index]);
    if (calm && after[0] === after[1]) return;
    if (performance.now() > end) return;
  }
}

/** Runs a script once on both servers: {found: places that differ, sides}. */
async function runOnce(group, [name, ...steps], kind) {
  const marker = newMarker();
  const plant = kind === undefined ? undefined : new Plant(kind);
  const sides = group.servers.map(({ server, backend }) => new Side({
    kind: server.kind, port: server.port, marker, backend,
    plant: server.kind === "drumline" ? plant : undefined,
  }));
  for (const step of steps) {
    await within(LONGEST_STEP, `a step of ${name}`, Promise.all(sides.map((side) => side.step(step))));
    await settle(sides, QUIET);
  }
  await settle(sides, LAST_QUIET);
  const [centrifugo, drumline] = sides.map(normalize);
  for (const side of sides) side.close();
  const found = differences(centrifugo, drumline);
  for (const [who, transcript] of [["centrifugo", centrifugo], ["drumline", drumline]]) {
    for (const result of transcript.results) {
      if (result.missing) found.push({ path: ".missing", [who]: result.missing });
    }
  }
  return { found, centrifugo, drumline, planted: plant?.done ?? false };
}

/** The places that no entry explains; marks the entries that explain one. */
function unexplained(name, found, used) {
  return found.filter(({ path }) => {
    const entry = ENTRIES.find((one) => one.scripts?.test(name) && (one.paths ?? /./).test(path));
    if (entry !== undefined) used?.add(entry);
    return entry === undefined;
  });
}

/** Runs a script, and once more if the servers differ: a difference counts when it is seen twice. */
async function judge(group, script, kind, used) {
  const first = await runOnce(group, script, kind);
  const bad = unexplained(script[0], first.found, used);
  if (bad.length === 0 || kind !== undefined) return { ...first, bad };
  const second = await runOnce(group, script, kind);
  const again = unexplained(script[0], second.found, used);
  return { ...second, bad: again };
}

async function startGroup(group) {
  group.servers = await Promise.all(["centrifugo", "drumline"].map(async (kind) => {
    const backend = group.backend ? await startBackend() : undefined;
    const fill = (value) => JSON.parse(
      JSON.stringify(value).replaceAll("{backend}", backend?.url ?? "http://127.0.0.1:1"));
    return { backend, server: await start(kind, group, fill) };
  }));
}

const stopGroup = (group) => Promise.all(group.servers.map(async ({ server, backend }) => {
  await server.stop();
  backend?.stop();
}));

const values = (place) => `centrifugo ${place.centrifugo ?? "-"}   drumline ${place.drumline ?? "-"}`;
function report(group, [name], result, options) {
  const lines = [`${result.bad.length === 0 ? "same" : "DIFFERS"}: ${name} (${group.name})`];
  for (const place of result.bad) lines.push(`    ${place.path}: ${values(place)}`);
  if (options.show) {
    lines.push(`  centrifugo: ${JSON.stringify(result.centrifugo, null, 1)}`);
    lines.push(`  drumline: ${JSON.stringify(result.drumline, null, 1)}`);
  }
  console.log(lines.join("\n"));
}

/** Runs the chosen scripts: {scripts, failed, planted}. */
async function runAll(groups, options, used) {
  const totals = { scripts: 0, failed: [], planted: 0 };
  await each(groups, GROUPS, async (group) => {
    try {
      await startGroup(group);
    } catch (error) {
      console.log(`DIFFERS: ${error.message}`);
      totals.failed.push(group.name);
      totals.scripts += group.scripts.length;
      return;
    }
    await each(group.scripts, group.serial ? 1 : SCRIPTS, async (script) => {
      const result = await judge(group, script, options.plant, used).catch((error) => (
        { bad: [{ path: error.message }] }));
      totals.scripts += 1;
      totals.planted += result.planted ? 1 : 0;
      if (result.bad.length > 0) totals.failed.push(script[0]);
      if (result.bad.length > 0 || options.show) report(group, script, result, options);
    });
    if (options.log) for (const { server } of group.servers) console.log(readFileSync(server.log, "utf8"));
    await stopGroup(group);
  });
  return totals;
}

/**
 * Plants each kind of fault into scripts of a group that agree, as long as `left` says; each must be
 * found. Returns how many were not.
 */
async function plantIn(group, left) {
  let missed = 0;
  await startGroup(group);
  // An entry for all of a script would explain the fault, too.
  const explained = ([name]) => ENTRIES.some((entry) => entry.scripts?.test(name) && !entry.paths);
  const scripts = group.scripts.filter((script) => !explained(script));
  await each([...left.keys()], 4, async (kind) => {
    for (const script of scripts) {
      if (left.get(kind) === 0) break;
      const { found, planted } = await runOnce(group, script, kind);
      if (!planted) continue;
      // Only a script that agrees without the fault proves that the fault was found.
      const { found: without } = await runOnce(group, script);
      if (unexplained(script[0], without).length > 0 || left.get(kind) === 0) continue;
      left.set(kind, left.get(kind) - 1);
      if (unexplained(script[0], found).length > 0) continue;
      missed += 1;
      console.log(`MISSED: ${kind} in ${script[0]}`);
    }
  });
  await stopGroup(group);
  return missed;
}

/** Plants each kind of fault into a sample of the scripts without a backend, and of those with one. */
async function runPlants(groups) {
  let missed = 0;
  for (const backend of [false, true]) {
    const left = new Map(plantedIn(backend).map((kind) => [kind, SAMPLE]));
    const sample = groups.filter((group) => !group.serial && Boolean(group.backend) === backend);
    await each(sample.slice(0, 6), 2, async (group) => { missed += await plantIn(group, left); });
    const where = backend ? "with a backend" : "without a backend";
    for (const [kind, count] of left) {
      console.log(`planted ${kind}, ${where}: ${SAMPLE - count} times`);
      if (count === SAMPLE) missed += 1;
    }
  }
  console.log(missed === 0 ? "each planted fault was found" : `${missed} planted faults were not found`);
  return missed === 0;
}

async function main() {
  const { values: options } = parseArgs({
    options: {
      only: { type: "string" }, group: { type: "string" }, plant: { type: "string" },
      show: { type: "boolean" }, plants: { type: "boolean" }, list: { type: "boolean" },
      page: { type: "boolean" }, log: { type: "boolean" },
    },
  });
  if (options.page) return writePage();
  let groups = await load();
  if (options.group) groups = groups.filter(({ name }) => name === options.group);
  if (options.only) {
    groups = groups.map((group) =>
      ({ ...group, scripts: group.scripts.filter(([name]) => name.includes(options.only)) }));
  }
  groups = groups.filter(({ scripts }) => scripts.length > 0);
  if (options.list) {
    for (const group of groups) for (const [name] of group.scripts) console.log(name);
    return undefined;
  }
  checkBinaries();
  if (options.plants) {
    process.exitCode = (await runPlants(groups)) ? 0 : 1;
    return undefined;
  }
  const used = new Set();
  const totals = await runAll(groups, options, used);
  const problems = checkPage();
  if (!options.only && !options.group && !options.plant) {
    for (const entry of ENTRIES) {
      if (entry.scripts && !entry.sometimes && !used.has(entry)) {
        problems.push(`"${entry.title}" was not seen: the servers agree, or no script shows it`);
      }
    }
  }
  for (const problem of problems) console.log(`PROBLEM: ${problem}`);
  if (options.plant) console.log(`planted ${options.plant} in ${totals.planted} scripts`);
  console.log(`${totals.scripts} scripts, ${totals.failed.length} differ, ${ENTRIES.length} entries`);
  process.exitCode = totals.failed.length + problems.length > 0 ? 1 : 0;
  return undefined;
}

await main();
// A server whose group failed to start may still run; the exit handler ends it.
process.exit();
