// scripts/ticker.sh with everything that it starts: the page in a browser by each transport, the end by
// Ctrl-C, and the end when a part fails. Screenshots go to the folder TICKER_SHOTS, if it is set.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { startChromium } from "../common/chromium.mjs";

import { freePort, until, within } from "../common/server.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const target = process.env.CARGO_TARGET_DIR ?? `${root}target`;
const folder = await mkdtemp(join(tmpdir(), "ticker-test-"));
const MARK = `ticker-test-${process.pid}`;
const MODES = ["polling", "long-polling", "http-stream", "sse", "websocket"];
const NAMES = ["Polling", "Long polling", "HTTP stream", "SSE", "WebSocket"];
let browser;

/** Whether something listens on the port. */
const isOpen = (port) => new Promise((resolve) => {
  const socket = connect(port, "127.0.0.1");
  socket.once("connect", () => { socket.destroy(); resolve(true); });
  socket.once("error", () => resolve(false));
});

/** The first of five free ports. */
async function fivePorts() {
  for (;;) {
    const first = await freePort();
    const taken = await Promise.all([1, 2, 3, 4].map((more) => isOpen(first + more)));
    if (!taken.includes(true)) return first;
  }
}

/** The script, in a group of its own, as a terminal starts it. */
class Ticker {
  constructor(port, ...more) {
    this.port = port;
    this.output = "";
    const env = {
      ...process.env, TICKER_MARK: MARK, TMPDIR: folder,
      DRUMLINE: process.env.DRUMLINE ?? `${target}/release/drumline`,
      TICKER: process.env.TICKER ?? `${target}/release/drumline-ticker`,
    };
    const words = ["--port", port, "--seed", 7, "--rate", 2000, ...more].map(String);
    this.child = spawn(`${root}scripts/ticker.sh`, words, {
      detached: true, env, stdio: ["ignore", "pipe", "pipe"],
    });
    for (const pipe of [this.child.stdout, this.child.stderr]) {
      pipe.on("data", (text) => { this.output += text; });
    }
    this.ended = new Promise((resolve) => {
      this.child.once("close", (code, signal) => {
        this.how = code ?? signal;
        resolve(this.how);
      });
    });
  }

  async ready() {
    await until("the ticker", () => {
      assert.equal(this.how, undefined, this.output);
      return this.output.includes("Press Ctrl-C");
    }, 120_000);
    assert.ok(this.output.includes(`http://127.0.0.1:${this.port}/`), this.output);
    return this;
  }

  /** What a terminal sends to the group in front. */
  interrupt() {
    process.kill(-this.child.pid, "SIGINT");
  }

  end() {
    return within(90_000, "the end of the script", this.ended);
  }
}

/** Processes that the script started: each has its environment. */
async function started() {
  const found = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const environment = await readFile(`/proc/${name}/environ`, "latin1").catch(() => "");
    if (!environment.includes(`TICKER_MARK=${MARK}`)) continue;
    const words = await readFile(`/proc/${name}/cmdline`, "latin1").catch(() => "");
    found.push(`${name} ${words.replaceAll("\0", " ")}`);
  }
  return found;
}

async function nothingIsLeft(port) {
  assert.deepEqual(await started(), []);
  const left = (await readdir(folder)).filter((name) => name.startsWith("drumline-ticker"));
  assert.deepEqual(left, []);
  for (let more = 0; more < 5; more++) assert.equal(await isOpen(port + more), false, `port ${port + more}`);
}

const figure = async (page, mode, name) => {
  const text = await page.locator(`[data-figure="${mode} ${name}"]`).textContent();
  return Number(text.replaceAll(",", ""));
};
const prices = (page) => page.locator("#prices tbody td:nth-child(2)").allTextContents();

/** Waits until a figure holds; says the last value if it does not. */
async function figureThat(page, mode, name, holds) {
  let value;
  try {
    await until(`${mode} ${name}`, async () => holds(value = await figure(page, mode, name)), 40_000);
  } catch {
    assert.fail(`${mode} ${name}: ${value}`);
  }
}

async function measureMode(page, nth) {
  const mode = MODES[nth];
  await page.getByRole("radio", { name: NAMES[nth], exact: true }).check();
  await page.locator("#status.open").waitFor();
  assert.equal(await page.locator("#status").textContent(), `${NAMES[nth]}: connected`);
  assert.ok(page.url().endsWith(`#${mode}`));
  const before = await prices(page);
  await until("every price to move", async () => {
    const now = await prices(page);
    return now.length === 20 && now.every((text, at) => text !== before[at] && /\d\.\d\d$/.test(text));
  });
  await figureThat(page, mode, "prices", (value) => value > 5);
  // When the first requests have left the window, only the framing of the messages is overhead.
  const expected = {
    polling: (bytes) => bytes > 300,
    "long-polling": (bytes) => bytes > 20,
    "http-stream": (bytes) => bytes >= 1 && bytes < 1.2,
    sse: (bytes) => bytes >= 8 && bytes < 8.2,
    websocket: (bytes) => bytes >= 2 && bytes < 2.2,
  };
  await figureThat(page, mode, "per-price", expected[mode]);
  for (const name of ["wire", "overhead", "median", "p99", "age"]) {
    await figureThat(page, mode, name, (value) => value > 0);
  }
  await figureThat(page, mode, "requests", (value) => (nth < 2 ? value > 1 : value < 1));
  const shown = {};
  for (const name of ["prices", "requests", "wire", "per-price", "median", "p99", "age"]) {
    shown[name] = await figure(page, mode, name);
  }
  console.log(`${mode}: ${JSON.stringify(shown)}`);
  return shown;
}

async function controls(page) {
  const isChecked = (name) => page.getByRole("radio", { name, exact: true }).isChecked();
  await page.getByRole("radio", { name: "WebSocket" }).focus();
  await page.keyboard.press("ArrowLeft");
  assert.ok(await isChecked("SSE"), "the arrow keys switch");
  await page.locator("#status", { hasText: "SSE: connected" }).waitFor();

  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator("#status.paused").waitFor();
  const still = await prices(page);
  await page.waitForTimeout(1500);
  assert.deepEqual(await prices(page), still, "nothing moves while it is paused");
  await page.getByRole("button", { name: "Resume" }).click();
  await until("the prices to move again", async () => (await prices(page)).join() !== still.join());

  await page.getByRole("button", { name: "Compare all" }).click();
  await page.locator("#status", { hasText: "Polling: connected" }).waitFor();
  await page.locator("#status", { hasText: "Long polling: connected" }).waitFor();
  await page.getByRole("button", { name: "Stop comparing" }).click();
  await page.getByRole("button", { name: "Compare all" }).waitFor();
  await page.getByRole("radio", { name: "WebSocket" }).check();
  console.log("keyboard, pause and comparison work");
}

async function pictures(page) {
  const sizes = { desktop: [1280, 900], phone: [390, 844], narrow: [320, 640] };
  await page.waitForTimeout(3000);
  for (const [size, [width, height]] of Object.entries(sizes)) {
    await page.setViewportSize({ width, height });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${size}: ${wide} pixels too wide`);
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      const path = process.env.TICKER_SHOTS && join(process.env.TICKER_SHOTS, `${size}-${colorScheme}.png`);
      if (path) await page.screenshot({ path, fullPage: true });
    }
  }
}

async function inBrowser(port) {
  browser = await startChromium(folder, { viewport: { width: 1280, height: 900 } });
  const page = await browser.newPage();
  page.setDefaultTimeout(30_000);
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (line) => { if (line.type() === "error") complaints.push(line.text()); });
  page.on("request", (request) => {
    if (new URL(request.url()).host !== `127.0.0.1:${port}`) complaints.push(request.url());
  });
  await page.goto(`http://127.0.0.1:${port}/`);
  const costs = [];
  for (const nth of MODES.keys()) costs.push(await measureMode(page, nth));
  const [polling, longPolling, , , webSocket] = costs;
  assert.ok(polling["per-price"] > longPolling["per-price"]);
  assert.ok(longPolling["per-price"] > webSocket["per-price"]);
  await page.locator("#summary", { hasText: "confirms" }).waitFor();
  await controls(page);
  await pictures(page);
  assert.deepEqual(complaints, []);
  await browser.close();
}

async function steps() {
  const port = await fivePorts();
  const ticker = await new Ticker(port).ready();
  const second = new Ticker(port + 1);
  assert.equal(await second.end(), 1);
  assert.ok(second.output.includes(`port ${port + 1} is in use; choose others: --port N`), second.output);
  await inBrowser(port);
  assert.ok((await started()).length >= 5, "the script, the name service, the broker, Drumline, the page");
  ticker.interrupt();
  assert.equal(await ticker.end(), 0, ticker.output);
  await nothingIsLeft(port);
  console.log("Ctrl-C ended everything");

  const failing = await new Ticker(port).ready();
  const [work] = (await readdir(folder)).filter((name) => name.startsWith("drumline-ticker"));
  const broker = Number(await readFile(join(folder, work, "rabbitmq.pid"), "utf8"));
  process.kill(broker, "SIGKILL");
  assert.equal(await failing.end(), 1, failing.output);
  assert.ok(failing.output.includes("rabbitmq ended by itself"), failing.output);
  await nothingIsLeft(port);
  console.log("a broker that dies ends everything, and is named");

  const early = new Ticker(port);
  await until("the start of the broker", () => early.output.includes("starting RabbitMQ"));
  early.interrupt();
  assert.equal(await early.end(), 0, early.output);
  await nothingIsLeft(port);
  console.log("Ctrl-C during the start ended everything");
}

try {
  await within(420_000, "the whole test", steps());
} finally {
  await browser?.close().catch(() => {});
  for (const line of await started()) process.kill(Number(line.split(" ")[0]), "SIGKILL");
  await rm(folder, { recursive: true, force: true });
}
process.exit(0);
