// The stock ticker: switches between transports, and measures the one in use.

import { Board } from "/board.js";
import { Costs } from "/costs.js";
import { Clock, Measures } from "/measures.js";
import { TRANSPORTS } from "/transports.js";

const COMPARE_SECONDS = 8;
const find = (id) => document.getElementById(id);
const page = crypto.getRandomValues(new Uint32Array(3)).reduce((text, one) => text + one.toString(36), "");
const clock = new Clock();
const measures = new Map(TRANSPORTS.map(({ id }) => [id, new Measures()]));
const costs = new Costs(find("costs"), find("bars"), TRANSPORTS);

let market;
let board;
let active;
let close;
let counters;
let comparing;
let confirmed;

/** Reads the counters of this page; compares the clocks. */
async function readCounters() {
  const asked = performance.now();
  const answer = await fetch(`/counters/${page}`, { cache: "no-store" });
  if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
  const found = await answer.json();
  clock.compare(asked, performance.now(), found.now);
  counters = found.transports;
  return found;
}

function show(state, text) {
  const status = find("status");
  if (status.textContent === text) return;
  status.textContent = text;
  status.className = state;
}

/** Closes the transport in use, without opening another. */
function shut() {
  close?.();
  close = undefined;
}

/** Opens the transport in use. */
function start() {
  shut();
  const { id, name, open } = active;
  const own = measures.get(id);
  own.begin(counters[id]);
  let current = true;
  show("", `${name}: connecting`);
  const end = open({
    base: `/measured/${page}/${id}`,
    symbols: market.symbols.map((symbol) => symbol.name),
    pollMs: market.poll_ms,
    conflationMs: market.conflation_ms,
    price(symbol, data) {
      if (!current) return;
      own.price(clock.now() - data.t / 1000);
      board.take(symbol, data);
    },
    state(state, cause) {
      if (!current) return;
      show(state, state === "open" ? `${name}: connected` : `${name}: lost (${cause}), trying again`);
    },
  });
  close = () => {
    current = false;
    end();
  };
}

function setPaused(paused) {
  find("pause").setAttribute("aria-pressed", String(paused));
  find("pause").textContent = paused ? "Resume" : "Pause";
}

/** Switches to a transport. */
function choose(id) {
  active = TRANSPORTS.find((transport) => transport.id === id) ?? TRANSPORTS.at(-1);
  find(`mode-${active.id}`).checked = true;
  find("note").textContent = active.note;
  history.replaceState(null, "", `#${active.id}`);
  costs.activate(active.id);
  setPaused(false);
  start();
}

function pause() {
  const paused = close !== undefined;
  stopComparing();
  setPaused(paused);
  if (!paused) return start();
  shut();
  show("paused", "Paused: the connection is closed");
}

function stopComparing() {
  clearInterval(comparing);
  comparing = undefined;
  find("compare").textContent = "Compare all";
  find("compare").setAttribute("aria-pressed", "false");
}

/** Uses each transport for some seconds, in turn. */
function compare() {
  if (comparing !== undefined) return stopComparing();
  let next = 0;
  const step = () => {
    if (next === TRANSPORTS.length) return stopComparing();
    choose(TRANSPORTS[next].id);
    next += 1;
    find("compare").textContent = `Stop comparing (${next} of ${TRANSPORTS.length})`;
  };
  comparing = setInterval(step, COMPARE_SECONDS * 1000);
  find("compare").setAttribute("aria-pressed", "true");
  step();
}

/** Once a second: the counters, and the figures of the transport in use. */
async function second() {
  const { id } = active;
  const before = close;
  try {
    const found = await readCounters();
    const since = confirmed && (found.confirmed - confirmed.count) / ((performance.now() - confirmed.at) / 1000);
    confirmed = { count: found.confirmed, at: performance.now() };
    if (since !== undefined) {
      find("summary").textContent = `${market.symbols.length} invented symbols: RabbitMQ confirms `
        + `${Math.round(since).toLocaleString("en")} prices per second, and Drumline delivers the latest.`;
    }
    // The transport may have been switched or paused meanwhile.
    if (before === undefined || before !== close) return;
    measures.get(id).sample(counters[id]);
    costs.show(id, measures.get(id).read());
  } catch (error) {
    show("lost", `The server of this page does not answer (${error.message})`);
  }
}

function tenth() {
  const age = close && board.age(clock.now());
  if (age !== undefined) measures.get(active.id).age(age);
}

function draw() {
  board.draw();
  requestAnimationFrame(draw);
}

function buildSwitch() {
  find("modes").replaceChildren(...TRANSPORTS.map(({ id, name }) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), {
      type: "radio", name: "mode", id: `mode-${id}`, value: id,
    });
    label.append(input, name);
    return label;
  }));
  find("modes").addEventListener("change", ({ target }) => {
    stopComparing();
    choose(target.value);
  });
  find("pause").addEventListener("click", pause);
  find("compare").addEventListener("click", compare);
}

async function main() {
  market = await (await fetch("/market.json")).json();
  for (const [name, value] of [["conflation", market.conflation_ms], ["poll", market.poll_ms]]) {
    for (const place of document.querySelectorAll(`[data-of=${name}]`)) place.textContent = value;
  }
  await readCounters();
  board = new Board(document.querySelector("#prices tbody"), market.symbols);
  // The switch uses all of the above.
  buildSwitch();
  choose(location.hash.slice(1));
  setInterval(second, 1000);
  setInterval(tenth, 100);
  requestAnimationFrame(draw);
}

main().catch((error) => show("lost", `The page cannot start: ${error.message}; load it again`));
