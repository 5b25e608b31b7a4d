// The page at / in a real browser: it connects, subscribes, publishes and shows what arrives.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { startChromium } from "../common/chromium.mjs";

import { KEY, Server, freePort, within } from "../common/server.mjs";

const server = new Server(await freePort());
process.on("exit", () => server.kill());
const folder = await mkdtemp(join(tmpdir(), "drumline-page-"));
const screenshot = process.env.SCREENSHOT ?? join(folder, "page.png");
let browser;
const complaints = [];

/** The description of the API shows every method with its fields, and calls it. */
async function swagger() {
  const page = await browser.newPage();
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(`${server.base}/swagger#publish`);
  const method = page.locator("#publish");
  await method.locator("td", { hasText: "idempotency_key" }).waitFor();
  const { paths } = await (await fetch(`${server.base}/swagger/openapi.json`)).json();
  assert.equal(await page.locator("details").count(), Object.keys(paths).length);
  await method.locator("button").click();
  await method.locator(".bad", { hasText: "HTTP 401" }).waitFor();
  await page.fill("#key", KEY);
  await method.locator("textarea").fill('{"channel":"browser","data":{"text":"sent from <b>there</b>"}}');
  await method.locator("button").click();
  await method.locator(".good", { hasText: "HTTP 200" }).waitFor();
  assert.deepEqual(JSON.parse(await method.locator("pre").textContent()), { result: {} });
  await page.screenshot({ path: screenshot.replace(/\.png$/, "-api.png") });
  await page.close();
  console.log("the API's page calls what it describes");
}

async function steps() {
  await server.start(["--swagger.enabled"]);
  browser = await startChromium(folder, { viewport: { width: 1100, height: 800 } });
  const page = await browser.newPage();
  page.setDefaultTimeout(20_000);
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (line) => { if (line.type() === "error") complaints.push(line.text()); });
  await page.goto(`${server.base}/`);
  const status = page.locator("#status");
  await page.waitForFunction(() => /^connected/i.test(document.querySelector("#status").textContent));
  console.log(`status: ${(await status.textContent()).trim()}`);

  await page.fill("#channel", "browser");
  await page.click("#subscribe");
  await within(10_000, "the subscription", (async () => {
    for (;;) {
      const { channels } = await server.api("channels", {});
      if (channels.browser?.num_clients === 1) return;
    }
  })());
  await page.fill("#text", "typed by hand");
  await page.click("#publish");
  await page.locator("#messages", { hasText: "typed by hand" }).waitFor();
  console.log("it shows what it published");

  const answer = await fetch(`${server.base}/api/publish`, {
    method: "POST",
    headers: { "X-API-Key": KEY },
    body: JSON.stringify({ channel: "browser", data: { text: "sent by <b>curl</b>" } }),
  });
  assert.deepEqual(await answer.json(), { result: {} });
  await page.locator("#messages", { hasText: "sent by <b>curl</b>" }).waitFor();
  assert.equal(await page.locator("#messages b").count(), 0, "a message is text, not HTML");
  console.log("it shows what the API published");

  await page.screenshot({ path: screenshot });
  await swagger();
  assert.deepEqual(complaints, []);

  assert.equal(await within(30_000, "the end", server.stop()), 0);
  await page.waitForFunction(() => !/^connected/i.test(document.querySelector("#status").textContent));
  await server.start();
  await page.waitForFunction(() => /^connected/i.test(document.querySelector("#status").textContent));
  await server.api("publish", { channel: "browser", data: { text: "after a restart" } });
  await within(20_000, "the resubscription", (async () => {
    while ((await server.api("channels", {})).channels.browser?.num_clients !== 1);
  })());
  await server.api("publish", { channel: "browser", data: { text: "once more" } });
  await page.locator("#messages", { hasText: "once more" }).waitFor();
  console.log("it comes back after a restart");
}

try {
  await within(120_000, "the whole test", steps());
} finally {
  await browser?.close();
  server.kill();
  await rm(folder, { recursive: true, force: true });
}
process.exit(0);
