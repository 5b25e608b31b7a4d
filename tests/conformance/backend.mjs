// The backend of one server: it records the requests of each script and answers as the script says.

import { createServer } from "node:http";

/** The marker of a script, wherever it stands in a request. */
export const MARKER = /q\d{5}/;

/** Headers that an HTTP client adds by itself. */
const OF_CLIENTS = ["host", "connection", "accept-encoding", "content-length", "accept",
  "transfer-encoding"];
/** Names under which clients of Go and of Rust call themselves. */
const AGENT = /^(Go-http-client|centrifug[oe]|drumline|hyper|reqwest)/i;

function comparable(headers) {
  const kept = Object.entries(headers).filter(([name, value]) =>
    !OF_CLIENTS.includes(name) && !(name === "user-agent" && AGENT.test(value)));
  return Object.fromEntries(kept.sort());
}

export async function startBackend() {
  const requests = new Map();
  const answers = new Map();
  const server = createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    const text = Buffer.concat(parts).toString();
    const marker = (MARKER.exec(request.url) ?? MARKER.exec(text)
      ?? MARKER.exec(JSON.stringify(request.headers)))?.[0] ?? "";
    const path = request.url.split("?")[0];
    let body = text;
    try {
      body = JSON.parse(text);
    } catch {
      // Not JSON: recorded as text.
    }
    const seen = { method: request.method, url: request.url, headers: comparable(request.headers), body };
    if (!requests.has(marker)) requests.set(marker, []);
    requests.get(marker).push(seen);
    const list = answers.get(`${marker} ${path}`) ?? [];
    const next = list.length > 1 ? list.shift() : list[0];
    const { answer = { body: { result: {} } }, delay = 0 } = next ?? {};
    if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay));
    if (answer.cut) return request.socket.destroy();
    const isText = typeof answer.body === "string" || answer.body === undefined;
    response.writeHead(answer.status ?? 200, { "Content-Type": "application/json", ...answer.headers });
    return response.end(isText ? answer.body : JSON.stringify(answer.body));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    requests: (marker) => requests.get(marker) ?? [],
    /** The answer to the next request of the script at this path; the last one stays. */
    answer: (marker, path, answer, delay) => {
      const key = `${marker} ${path}`;
      answers.set(key, [...(answers.get(key) ?? []), { answer, delay }]);
    },
    stop: () => { server.closeAllConnections(); server.close(); },
  };
}
