// The admin page in a real browser: login, lockout, forged requests, live numbers, search, publish,
// disconnect, and names that look like markup.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { request } from "node:http";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Centrifuge } from "centrifuge";
import { startChromium } from "../common/chromium.mjs";
import WebSocket from "ws";

import { Server, binary, freePort, until, within } from "../common/server.mjs";

const PASSWORD = "correct horse 1 <b>battery</b>";
const HOSTILE = `<img src=x onerror="document.title='owned'">"'\`&amp;`;
const inside = await freePort();
const base = `http://127.0.0.1:${inside}`;
const server = new Server(await freePort(), base);
process.on("exit", () => server.kill());
const folder = await mkdtemp(join(tmpdir(), "drumline-admin-"));
const shots = process.env.SCREENSHOTS ?? folder;
const complaints = [];
const clients = [];
let browser;

/** Sends a request as a program does that can set any header; returns status, headers and body. */
function raw(path, { method = "GET", headers = {}, body = "" } = {}) {
  return new Promise((resolve, reject) => {
    const sent = request(`${base}${path}`, { method, headers, setHost: !("Host" in headers) }, (answer) => {
      let text = "";
      answer.on("data", (part) => (text += part)).on("end", () =>
        resolve({ status: answer.statusCode, headers: answer.headers, text }));
    });
    sent.on("error", reject).end(body);
  });
}

const json = { "Content-Type": "application/json", Origin: base };
const login = (password, headers = {}) =>
  raw("/ops/admin/login", { method: "POST", headers: { ...json, ...headers }, body: JSON.stringify({ password }) });

/** A client of the public port that is subscribed to a channel. */
async function subscriber(user, channel) {
  const token = execFileSync(binary, ["gentoken", "-q", "-u", user, "--client.token.hmac_secret_key", "secret"]);
  const client = new Centrifuge(server.websocket, { websocket: WebSocket, token: token.toString() });
  clients.push(client);
  const subscription = client.newSubscription(channel);
  subscription.on("publication", ({ data }) => client.received.push(data));
  client.received = [];
  client.connect();
  subscription.subscribe();
  await within(10_000, `the subscription of ${user}`, subscription.ready());
  return client;
}

/** Requests that no page of another origin and no rebound name can make succeed. */
async function forged() {
  const ok = await login(PASSWORD);
  assert.equal(ok.status, 200, ok.text);
  const [cookie] = ok.headers["set-cookie"];
  assert.match(cookie, new RegExp(`^drumline_admin_${inside}=[0-9a-f]{64}; Path=/ops/admin; Max-Age=43200; HttpOnly; SameSite=Strict$`));
  const session = { Cookie: cookie.split(";")[0] };
  const publish = (headers, body = '{"channel":"forged","data":1}') =>
    raw("/ops/admin/publish", { method: "POST", headers: { ...session, ...json, ...headers }, body });
  assert.equal((await publish({})).status, 200, "the request itself is good");
  const check = async (what, status, answer) => assert.equal((await answer).status, status, what);
  await check("another origin", 403, publish({ Origin: "http://evil.example" }));
  await check("another port of this host", 403, publish({ Origin: `http://127.0.0.1:${server.port}` }));
  await check("an opaque origin", 403, publish({ Origin: "null" }));
  await check("another site", 403, publish({ "Sec-Fetch-Site": "same-site" }));
  await check("a rebound name", 403, publish({ Host: `evil.example:${inside}`, Origin: `http://evil.example:${inside}` }));
  await check("a form", 415, publish({ "Content-Type": "text/plain" }));
  await check("no session", 401, publish({ Cookie: "" }));
  await check("a guessed session", 401, publish({ Cookie: `drumline_admin_${inside}=${"0".repeat(64)}` }));
  const { Origin: _, ...withoutOrigin } = json;
  await check("no origin", 403, raw("/ops/admin/publish", { method: "POST", headers: { ...session, ...withoutOrigin }, body: "{}" }));
  await check("a method that changes nothing", 405, raw("/ops/admin/publish", { headers: session }));
  await check("the stream of another origin", 403, raw("/ops/admin/stream", { headers: { ...session, Origin: "http://evil.example" } }));
  await check("a listed name", 200, raw("/ops/admin/session", { headers: { ...session, Host: `ops.example:${inside}` } }));
  for (const path of ["session", "stream"]) await check(path, 401, raw(`/ops/admin/${path}`));
  const secure = await login(PASSWORD, { Origin: `https://127.0.0.1:${inside}` });
  assert.match(secure.headers["set-cookie"][0], /; Secure$/);
  for (const { headers } of [await raw("/ops/"), await raw("/ops/admin/app.js"), ok]) {
    const policy = headers["content-security-policy"];
    assert(policy.includes("default-src 'none'") && !policy.includes("unsafe"), policy);
    assert.equal(headers["x-frame-options"], "DENY");
  }
  for (const path of ["/ops/admin/session", "/ops/admin/app.js"]) {
    assert.equal((await fetch(`${server.base}${path}`)).status, 404, "the public port has no admin page");
  }
  assert.equal((await raw("/ops/admin/logout", { method: "POST", headers: { ...session, ...json }, body: "{}" })).status, 200);
  await check("a session that has ended", 401, publish({}));
  console.log("forged requests are refused");
}

/** Wrong passwords, until the address is locked out. Logs in before that. */
async function passwords(page) {
  await page.goto(`${base}/ops`);
  await page.locator("#login").waitFor();
  assert(await page.locator("#board").isHidden());
  await page.screenshot({ path: join(shots, "admin-login.png") });
  await page.fill("#password", "wrong");
  await page.keyboard.press("Enter");
  await page.locator("#login-notice", { hasText: "wrong password" }).waitFor();
  await page.fill("#password", PASSWORD);
  await page.keyboard.press("Enter");
  await page.locator("#status.live").waitFor();
  const answers = [];
  for (let nth = 0; nth < 7; nth += 1) answers.push((await login(`wrong ${nth}`)).status);
  assert.deepEqual(answers, [403, 403, 403, 403, 403, 429, 429]);
  const locked = await login(PASSWORD);
  assert(locked.status === 429 && Number(locked.headers["retry-after"]) <= 61, locked.text);
  console.log("a wrong password gives no access, and many lock the address out");
}

/** The page keeps its session over a reload and shows the load as it changes. */
async function live(page) {
  await page.reload();
  await page.locator("#status.live").waitFor();
  const tile = (name) => page.locator("#tiles div", { has: page.locator("dt", { hasText: name }) }).locator("dd");
  const shows = (name, text) => until(`${name} ${text}`, async () => (await tile(name).textContent()) === text, 10_000);
  await shows("Connections", "3");
  await shows("Subscriptions", "3");
  let goes = true;
  const load = (async () => {
    while (goes) await server.api("publish", { channel: "busy", data: { n: 1 } });
  })();
  const row = page.locator("#busiest tr", { hasText: "busy" });
  await row.waitFor();
  await until("the rate of the busiest channel", async () => {
    const [subscribers, published] = await row.locator("td.number").allTextContents();
    return subscribers === "2" && Number(published) > 10;
  });
  await until("a chart that moves", async () =>
    /deliveries (?!0[,.])/.test(await page.getByRole("img", { name: "Messages per second" }).getAttribute("aria-label")));
  goes = false;
  await load;
  await page.locator("#busiest", { hasText: "No traffic" }).waitFor();
  // The cursor of a chart moves by the keyboard.
  const chart = page.getByRole("img", { name: "Connections" });
  await chart.focus();
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowLeft");
  assert.match(await chart.getAttribute("aria-label"), /^Connections, at \d\d:\d\d:\d\d: connections \d/);
  await page.keyboard.press("Escape");
  console.log("the numbers are live");
}

/** Search, publish and disconnect; hostile names and data stay text. */
async function act(page, watcher) {
  await page.fill("#channel", "b*");
  await page.click("#search button");
  await page.locator("#found", { hasText: "busy" }).waitFor();
  assert.deepEqual(await page.locator("#found tbody td").allTextContents(), ["busy", "2"]);
  await page.locator("#found button", { hasText: "busy" }).click();
  await page.locator("#details-facts", { hasText: "Subscribers2" }).waitFor();
  assert.match(await page.locator("#presence-hint").textContent(), /keep no presence/);

  await page.fill("#channel", `room:${HOSTILE}`);
  await page.click("#search button");
  await page.locator("#presence", { hasText: HOSTILE }).waitFor();
  assert.equal(await page.locator("#details-name").textContent(), `room:${HOSTILE}`);
  await page.fill("#publish-data", JSON.stringify({ text: HOSTILE, big: "N" }).replace('"N"', "12345678901234567890123"));
  await page.click("#publish > button");
  await page.locator("#publish-notice.good", { hasText: "at offset 1" }).waitFor();
  await until("the publication", () => watcher.received.some((data) => data.text === HOSTILE));
  await page.click("#search button");
  await page.locator("#history td.mono", { hasText: "12345678901234567890123" }).first().waitFor();
  await page.fill("#publish-data", "{oops");
  await page.click("#publish > button");
  await page.locator("#publish-notice.bad", { hasText: "not JSON" }).waitFor();
  await page.fill("#publish-channel", "nowhere:x");
  await page.fill("#publish-data", "1");
  await page.click("#publish > button");
  await page.locator("#publish-notice.bad", { hasText: "unknown channel" }).waitFor();
  console.log("it searches and publishes");

  const ended = new Promise((resolve) => watcher.on("disconnected", resolve));
  await page.fill("#disconnect-user", HOSTILE);
  await page.click("#disconnect > button");
  assert.equal(await page.locator("#confirm-text").textContent(),
    `Disconnect all connections of user ${HOSTILE}? The client does not reconnect by itself.`);
  await page.click("#confirm-no");
  assert.equal(watcher.state, "connected", "Cancel does nothing");
  await page.click("#disconnect > button");
  await page.click("#confirm-yes");
  assert.equal((await within(10_000, "the disconnect", ended)).code, 3503);
  await page.locator("#disconnect-notice.good").waitFor();
  console.log("it disconnects a user");
  assert.equal(await page.title(), "Drumline admin");
  assert.equal(await page.locator("main img").count(), 0, "names and data are text, not HTML");
}

/** Pictures of the page to look at, and no sideways scrolling at the width of a phone. */
async function sizes(page) {
  const picture = (name) => page.screenshot({ path: join(shots, `admin-${name}.png`), fullPage: true });
  await picture("desktop");
  await page.emulateMedia({ colorScheme: "dark" });
  await picture("dark");
  await page.setViewportSize({ width: 320, height: 700 });
  await picture("phone-dark");
  await page.emulateMedia({ colorScheme: "light" });
  await page.locator("#tiles div").first().waitFor();
  await picture("phone");
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert(wide <= 320, `the page is ${wide} pixels wide`);
}

async function steps() {
  const hash = execFileSync(binary, ["hash-password"], { input: `${PASSWORD}\n` }).toString().trim();
  assert.match(hash, /^\$argon2id\$/);
  const namespaces = JSON.stringify([{
    name: "room", presence: true, history_size: 10, history_ttl: "1m", allow_subscribe_for_client: true,
  }]);
  await server.run([
    "--admin.enabled", "--admin.password", hash, "--admin.allowed_hosts", "ops.example", "--admin.handler_prefix", "/ops",
    "--http_server.internal_port", String(inside), "--http_api.external",
    "--client.token.hmac_secret_key", "secret",
    "--channel.without_namespace.allow_subscribe_for_client", "--channel.namespaces", namespaces,
  ]);
  await forged();
  browser = await startChromium(folder, { viewport: { width: 1200, height: 900 } });
  const page = await browser.newPage();
  page.setDefaultTimeout(20_000);
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (line) => {
    // A refused login is an answer with an error status, which the browser mentions.
    if (line.type() === "error" && !/status of 40[013]/.test(line.text())) complaints.push(line.text());
  });
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", ({ violatedDirective }) => violations.push(violatedDirective));
  });
  const watcher = await subscriber(HOSTILE, `room:${HOSTILE}`);
  await subscriber("ann", "busy");
  await subscriber("ben", "busy");
  await passwords(page);
  await live(page);
  await act(page, watcher);
  await sizes(page);
  assert.deepEqual(await page.evaluate(() => violations), [], "nothing offends the content security policy");

  await page.click("#logout");
  await page.locator("#login").waitFor();
  assert.equal((await browser.cookies()).length, 0);
  assert.deepEqual(complaints, []);
  for (const client of clients) client.disconnect();
  assert.equal(await within(30_000, "the end", server.stop()), 0);
  console.log("it logs out");
}

try {
  await within(120_000, "the whole test", steps());
} finally {
  await browser?.close();
  for (const client of clients) client.disconnect();
  server.kill();
  await rm(folder, { recursive: true, force: true });
}
process.exit(0);
