// The admin page. Everything that comes from the server becomes text, never markup.

import { Chart } from "./charts.js";

const FOLDER = new URL(".", import.meta.url).pathname;
const SECONDS = 600;
const byId = (id) => document.getElementById(id);

// ---- numbers -------------------------------------------------------------------------------

const whole = (number) => Math.round(number).toLocaleString("en");
const UNITS = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];

// A short number: 12, 3.4k, 1.25M.
function short(number) {
  for (const [size, unit] of UNITS) {
    if (number >= size * 0.9995) return `${Number((number / size).toPrecision(3))}${unit}`;
  }
  return number >= 10 || Number.isInteger(number) ? `${Math.round(number)}` : number.toFixed(1);
}

function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (number >= 1024 && at < units.length - 1) number /= 1024, at += 1;
  return `${at && number < 100 ? number.toFixed(1) : Math.round(number)} ${units[at]}`;
}

function seconds(number) {
  if (!number) return "0";
  if (number < 0.001) return `${Number((number * 1e6).toPrecision(3))} µs`;
  return number < 1 ? `${Number((number * 1e3).toPrecision(3))} ms` : `${Number(number.toPrecision(3))} s`;
}

function duration(number) {
  const days = Math.floor(number / 86400), rest = new Date((number % 86400) * 1000);
  return `${days ? `${days} d ` : ""}${rest.toISOString().slice(11, 19)}`;
}

// ---- elements ------------------------------------------------------------------------------

function make(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function cell(content, className = "") {
  const made = make("td", className);
  made.append(content);
  return made;
}

function button(text, className, label, onclick) {
  const made = make("button", className, text);
  made.type = "button";
  if (label) made.setAttribute("aria-label", label);
  made.onclick = onclick;
  return made;
}

function rows(id, list, empty) {
  const body = byId(id).querySelector("tbody");
  if (!list.length) {
    const told = cell(empty, "empty");
    told.colSpan = byId(id).querySelectorAll("th").length;
    list = [make("tr", "", told)];
  }
  // A row that has the focus keeps it.
  const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  body.replaceChildren(...list);
  if (focused) [...body.querySelectorAll("button")].find((one) => one.getAttribute("aria-label") === focused)?.focus();
}

function facts(id, list) {
  byId(id).replaceChildren(...list.map(([name, value]) => make("div", "", make("dt", "", name), make("dd", "", value))));
}

function notice(id, text, kind = "") {
  byId(id).textContent = text;
  byId(id).className = `notice ${kind}`;
}

// ---- requests ------------------------------------------------------------------------------

class Failure extends Error {}

async function ask(name, body) {
  // A body that is text already is JSON that must stay as it was typed.
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const headers = { "Content-Type": "application/json" };
  const options = body === undefined ? {} : { method: "POST", headers, body: text };
  let response, answer;
  try {
    response = await fetch(FOLDER + name, { ...options, credentials: "same-origin" });
    answer = await response.json();
  } catch {
    throw new Failure("the server does not answer; try again");
  }
  if (response.status === 401 && name !== "session") showLogin("The session has ended. Log in again.");
  if (!response.ok) throw new Failure(answer.error || `HTTP ${response.status}`);
  return answer;
}

// Runs the task of a form, whose button is disabled meanwhile.
function onSubmit(id, task) {
  byId(id).onsubmit = async (event) => {
    event.preventDefault();
    const pressed = byId(id).querySelector("button:not([type=button])");
    pressed.disabled = true;
    try { await task(); } finally { pressed.disabled = false; }
  };
}

// ---- login ---------------------------------------------------------------------------------

let source;

function status(text, kind = "") {
  byId("status").textContent = text;
  byId("status").className = kind;
}

function showLogin(text = "") {
  source?.close();
  byId("board").hidden = byId("logout").hidden = true;
  byId("login").hidden = false;
  byId("node").textContent = "";
  notice("login-notice", text);
  status("logged out");
  byId("password").value = "";
  byId("password").focus();
}

function showBoard() {
  byId("login").hidden = true;
  byId("board").hidden = byId("logout").hidden = false;
  notice("login-notice", "");
  connect();
}

onSubmit("login", async () => {
  try {
    await ask("login", { password: byId("password").value });
    byId("password").value = "";
    showBoard();
  } catch (error) {
    notice("login-notice", `Cannot log in: ${error.message}.`);
    byId("password").select();
  }
});

byId("logout").onclick = async () => {
  try {
    await ask("logout", {});
    showLogin();
  } catch (error) {
    status(`Cannot log out: ${error.message}`, "bad");
  }
};

// ---- live load -----------------------------------------------------------------------------

let points = [];
const charts = [
  new Chart("Connections", [{ label: "connections", value: (point) => point.clients, show: short }], SECONDS),
  new Chart("Subscriptions", [{ label: "subscriptions", value: (point) => point.subscriptions, show: short }], SECONDS),
  new Chart("Messages per second", [
    { label: "deliveries", value: (point) => point.delivered, show: short },
    { label: "publications", value: (point) => point.published, show: short },
  ], SECONDS),
  new Chart("Publish to write", ["p99", "p95", "p50"].map((label, nth) => (
    { label, value: (point) => point.latency[2 - nth], show: seconds })), SECONDS),
];
byId("charts").append(...charts.map((chart) => chart.figure));

function connect() {
  source?.close();
  status("connecting");
  source = new EventSource(`${FOLDER}stream`);
  source.addEventListener("hello", (event) => {
    const { node, history } = JSON.parse(event.data);
    about = `${node.name}, version ${node.version}`;
    startedAt = Date.now() - node.uptime * 1000;
    showNode();
    points = history.slice(-SECONDS);
    status("live", "live");
    drawCharts();
  });
  source.addEventListener("load", (event) => show(JSON.parse(event.data)));
  source.addEventListener("end", () => showLogin("The session has ended. Log in again."));
  const opened = source;
  source.onerror = async () => {
    if (source !== opened || byId("board").hidden) return;
    status("disconnected; trying again", "bad");
    // The browser tries again by itself unless the answer was an error.
    if (opened.readyState !== EventSource.CLOSED) return;
    try {
      await ask("session");
      setTimeout(() => source === opened && connect(), 3000);
    } catch (error) {
      if (error.message === "log in first") return showLogin("The session has ended. Log in again.");
      setTimeout(() => source === opened && connect(), 3000);
    }
  };
}

let about = "", startedAt = Date.now();

function showNode() {
  byId("node").textContent = `${about}, up ${duration(Math.max(0, (Date.now() - startedAt) / 1000))}`;
}

function drawCharts() {
  if (!document.hidden) for (const chart of charts) chart.show(points);
}
document.addEventListener("visibilitychange", drawCharts);

function show({ point, shards, memory, resident, details }) {
  points.push(point);
  if (points.length > SECONDS) points.shift();
  status(details.late ? "live; a shard answers late" : "live", details.late ? "bad" : "live");
  facts("tiles", [
    ["Connections", whole(point.clients)],
    ["Subscriptions", whole(point.subscriptions)],
    ["Channels", whole(point.channels)],
    ["Users", whole(point.users)],
    ["Messages/s", short(point.published)],
    ["Deliveries/s", short(point.delivered)],
    ["Processor", `${whole(point.cpu)}%`],
    ["Memory", resident === null ? "–" : bytes(resident)],
  ]);
  showNode();
  drawCharts();
  showChannels(details.channels);
  showConsumers(details.consumers);
  rows("shards", shards.map((shard, nth) => make("tr", "",
    ...[nth, whole(shard.clients), whole(shard.subscriptions), whole(shard.channels), short(shard.published),
      short(shard.delivered), bytes(shard.outbox_bytes), bytes(shard.backlog_bytes),
      seconds(shard.longest_pass_micros / 1e6)].map((value) => cell(String(value), "number")))), "");
  rows("memory", memory.map(({ kind, used, limit }) => {
    const meter = make("meter");
    meter.max = 1;
    meter.high = 0.8;
    meter.value = limit ? used / limit : 0;
    meter.setAttribute("aria-label", `${kind}: share of the budget`);
    return make("tr", "", cell(kind), cell(bytes(used), "number"), cell(bytes(limit), "number"), cell(meter));
  }), "");
}

function channelLink(channel) {
  return button(channel, "link", `Show the channel ${channel}`, () => look(channel, true));
}

function showChannels(list) {
  const number = (value) => cell(value === null ? "–" : short(value), "number");
  rows("busiest", list.map((load) => make("tr", "", cell(channelLink(load.channel), "text"),
    number(load.subscribers), number(load.published), number(load.delivered))), "No traffic at the moment.");
}

function disconnectButton(user, client) {
  const label = `Disconnect client ${client} of ${user ? `user ${user}` : "an anonymous user"}`;
  return button("Disconnect", "quiet small", label, () => disconnect(user, client));
}

function userText(user) { return user || "(anonymous)"; }

function showConsumers(list) {
  rows("slowest", list.map(({ user, client, subscriptions, unsent }) => make("tr", "", cell(userText(user), "text"),
    cell(client, "mono"), cell(whole(subscriptions), "number"), cell(bytes(unsent), "number"),
    cell(disconnectButton(user, client)))), "All clients keep up.");
}

// ---- channels ------------------------------------------------------------------------------

onSubmit("search", async () => {
  const text = byId("channel").value;
  notice("search-notice", "");
  byId("found").hidden = byId("details").hidden = true;
  // Names with other special characters of patterns are looked up as they are.
  if (!text.includes("*")) return look(text, false);
  try {
    const { channels, more } = await ask("search", { pattern: text });
    byId("found").hidden = false;
    const list = channels.map(({ channel, subscribers }) =>
      make("tr", "", cell(channelLink(channel), "text"), cell(whole(subscribers), "number")));
    const table = byId("found").querySelector("tbody");
    table.replaceChildren(...list);
    byId("found").querySelector(".hint").textContent = !list.length ? "No channel with subscribers matches."
      : more ? `The first ${list.length} of more; use a narrower pattern.` : "";
  } catch (error) {
    notice("search-notice", `Cannot search: ${error.message}.`, "bad");
  }
});

async function look(channel, moves) {
  byId("channel").value = channel;
  byId("publish-channel").value = channel;
  notice("search-notice", "");
  try {
    showDetails(await ask("channel", { channel }));
    if (moves) {
      byId("channel-card").scrollIntoView({ block: "start" });
      byId("details-name").focus({ preventScroll: true });
    }
  } catch (error) {
    byId("details").hidden = true;
    notice("search-notice", `Cannot show the channel: ${error.message}.`, "bad");
  }
}

// Why a part of a channel is not shown.
function cause(part, { code, error }) {
  if (code === 108) return `The options of this channel keep no ${part}.`;
  return code === 102 ? "The namespace of this channel is not configured." : `Cannot read the ${part}: ${error}.`;
}

function showDetails({ channel, subscribers, presence, history }) {
  byId("details").hidden = false;
  byId("details-name").textContent = channel;
  const list = [["Subscribers", whole(subscribers)]];
  if (!presence.error) list.push(["Clients in presence", whole(presence.clients)], ["Users", whole(presence.users)]);
  if (!history.error) list.push(["Offset", whole(history.offset)], ["Epoch", history.epoch || "–"]);
  facts("details-facts", list);
  byId("presence-hint").textContent = presence.error ? cause("presence", presence)
    : !presence.listed ? `${whole(presence.clients)} clients are too many to list.` : !presence.clients ? "No client is present." : "";
  part("presence", presence.list ?? [], ({ user, client, conn_info, chan_info }) => [
    cell(userText(user), "text"), cell(client, "mono"),
    cell([conn_info, chan_info].filter(Boolean).join("\n"), "mono"), cell(disconnectButton(user, client)),
  ]);
  const kept = history.publications ?? [];
  byId("history-hint").textContent = history.error ? cause("history", history)
    : kept.length ? `Newest first${kept.length < history.offset ? `; ${whole(kept.length)} shown` : ""}.` : "The history is empty.";
  part("history", kept, ({ offset, data, tags }) => [
    cell(whole(offset), "number"), cell(data, "mono"),
    cell(Object.entries(tags ?? {}).map(([key, value]) => `${key}: ${value}`).join("\n"), "mono"),
  ]);
}

// A table that is hidden without rows.
function part(id, list, cells) {
  byId(id).parentElement.hidden = !list.length;
  byId(id).querySelector("tbody").replaceChildren(...list.map((one) => make("tr", "", ...cells(one))));
}

// ---- publish and disconnect ----------------------------------------------------------------

onSubmit("publish", async () => {
  const data = byId("publish-data").value;
  try {
    JSON.parse(data);
  } catch (error) {
    return notice("publish-notice", `The data is not JSON: ${error.message}.`, "bad");
  }
  const channel = byId("publish-channel").value;
  try {
    const { offset } = await ask("publish", `{"channel":${JSON.stringify(channel)},"data":${data}}`);
    notice("publish-notice", `Published to ${channel}${offset ? ` at offset ${offset}` : ""}.`, "good");
  } catch (error) {
    notice("publish-notice", `Cannot publish: ${error.message}.`, "bad");
  }
});

onSubmit("disconnect", async () => {
  const user = byId("disconnect-user").value, client = byId("disconnect-client").value.trim();
  if (!user && !client) return notice("disconnect-notice", "Name a user, or the ID of a client.", "bad");
  await disconnect(user, client);
});

async function disconnect(user, client) {
  const who = client ? `client ${client} of ${user ? `user ${user}` : "no user"}` : `all connections of user ${user}`;
  if (!(await confirmed(`Disconnect ${who}? The client does not reconnect by itself.`))) return;
  try {
    await ask("disconnect", { user, client });
    notice("disconnect-notice", `Disconnected ${who}.`, "good");
  } catch (error) {
    notice("disconnect-notice", `Cannot disconnect: ${error.message}.`, "bad");
  }
}

function confirmed(text) {
  const dialog = byId("confirm");
  byId("confirm-text").textContent = text;
  return new Promise((resolve) => {
    let answer = false;
    byId("confirm-yes").onclick = () => { answer = true; dialog.close(); };
    byId("confirm-no").onclick = () => dialog.close();
    dialog.onclose = () => resolve(answer);
    dialog.showModal();
    byId("confirm-no").focus();
  });
}

// ---- start ---------------------------------------------------------------------------------

try {
  await ask("session");
  showBoard();
} catch {
  showLogin();
}
