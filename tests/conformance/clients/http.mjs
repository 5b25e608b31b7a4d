// HTTP requests as they are: any header, any path, and answers that stream.

import { request } from "node:http";

/**
 * Sends a request. Resolves to {status, headers, response} when the head of the answer has arrived,
 * or to {error} when the connection ended before.
 */
export function begin(port, { method = "GET", path = "/", headers = {}, body }) {
  return new Promise((resolve) => {
    // A connection of its own for each request, so that no answer depends on an earlier request.
    const sent = request({ host: "127.0.0.1", port, method, path, headers, agent: false });
    sent.on("response", (response) => {
      resolve({ status: response.statusCode, headers: response.headers, response, sent });
    });
    sent.on("upgrade", (response, socket) => {
      socket.destroy();
      resolve({ status: response.statusCode, headers: response.headers });
    });
    sent.on("error", () => resolve({ error: "connection ended without an answer" }));
    sent.setTimeout(20_000, () => sent.destroy());
    sent.end(body);
  });
}

/** Sends a request and reads the whole answer: {status, headers, body}. */
export async function call(port, what) {
  const answer = await begin(port, what);
  if (answer.response === undefined) return answer;
  const parts = [];
  try {
    for await (const part of answer.response) parts.push(part);
  } catch {
    return { ...answer, error: "the answer was cut off" };
  }
  return { status: answer.status, headers: answer.headers, body: Buffer.concat(parts) };
}
