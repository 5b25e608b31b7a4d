// The five ways to get prices. Each function opens one and returns a function that closes it.
//
// A context has: `base`, the path of the relay; `symbols`; `pollMs` and `conflationMs`;
// `price(symbol, data)` for each price; `state(name, cause)` with "open" or "lost".

const RETRY_MS = 1000;

/** Waits; ends early when the signal aborts. */
const sleep = (ms, signal) => new Promise((resolve) => {
  if (signal.aborted) return resolve();
  const timer = setTimeout(done, ms);
  function done() {
    clearTimeout(timer);
    signal.removeEventListener("abort", done);
    resolve();
  }
  signal.addEventListener("abort", done);
});

/** Repeats a round, which begins at most once in `everyMs`, until the signal aborts. */
async function repeat(signal, everyMs, state, round) {
  while (!signal.aborted) {
    const began = performance.now();
    let pause = everyMs;
    try {
      await round();
      state("open");
    } catch (error) {
      if (signal.aborted) return;
      state("lost", error.message);
      pause = RETRY_MS;
    }
    await sleep(began + pause - performance.now(), signal);
  }
}

/** The connect request that subscribes to channels of a namespace. */
const connectRequest = (namespace, symbols) =>
  ({ subs: Object.fromEntries(symbols.map((symbol) => [`${namespace}:${symbol}`, {}])) });

/** Reads a message of the unidirectional protocol. Returns the publications as [channel, pub]. */
function publications(text) {
  const message = JSON.parse(text);
  if (message.disconnect) throw new Error(message.disconnect.reason);
  if (message.pub) return [[message.channel, message.pub]];
  const subs = Object.entries(message.connect?.subs ?? {});
  return subs.flatMap(([channel, sub]) => (sub.publications ?? []).map((pub) => [channel, pub]));
}

const symbolOf = (channel) => channel.slice(channel.indexOf(":") + 1);

/** Hands the prices of a message on. */
function deliver(text, price) {
  for (const [channel, pub] of publications(text)) price(symbolOf(channel), pub.data);
}

async function post(url, request, signal) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    cache: "no-store",
    signal,
  });
  if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
  return answer;
}

function polling({ base, symbols, pollMs, price, state }) {
  const stop = new AbortController();
  const ask = async (symbol) => {
    const url = `${base}/connection/polling?channel=last:${symbol}`;
    const answer = await fetch(url, { cache: "no-store", signal: stop.signal });
    if (answer.status === 200) price(symbol, await answer.json());
    else if (answer.status !== 204) throw new Error(`HTTP status ${answer.status}`);
  };
  repeat(stop.signal, pollMs, state, () => Promise.all(symbols.map(ask)));
  return () => stop.abort();
}

function longPolling({ base, symbols, conflationMs, price, state }) {
  const stop = new AbortController();
  const request = connectRequest("last", symbols);
  const round = async () => {
    const answer = await post(`${base}/connection/long_polling`, request, stop.signal);
    const lines = (await answer.text()).split("\n").filter((line) => line !== "");
    for (const line of lines) {
      const subs = JSON.parse(line).connect?.subs ?? {};
      for (const [channel, { epoch, offset }] of Object.entries(subs)) {
        request.subs[channel] = { recover: true, epoch, offset: offset ?? 0 };
      }
      for (const [channel, pub] of publications(line)) {
        const position = request.subs[channel];
        if (pub.offset !== undefined && position) position.offset = pub.offset;
        price(symbolOf(channel), pub.data);
      }
    }
  };
  repeat(stop.signal, conflationMs, state, round);
  return () => stop.abort();
}

function httpStream({ base, symbols, price, state }) {
  const stop = new AbortController();
  const round = async () => {
    const request = connectRequest("live", symbols);
    const answer = await post(`${base}/connection/uni_http_stream`, request, stop.signal);
    state("open");
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Error("the stream ended");
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) deliver(line, price);
    }
  };
  repeat(stop.signal, 0, state, round);
  return () => stop.abort();
}

function sse({ base, symbols, price, state }) {
  const request = encodeURIComponent(JSON.stringify(connectRequest("live", symbols)));
  let source;
  let timer;
  const open = () => {
    source = new EventSource(`${base}/connection/uni_sse?cf_connect=${request}`);
    source.onopen = () => state("open");
    source.onmessage = ({ data }) => deliver(data, price);
    source.onerror = () => {
      state("lost", "the event stream ended");
      // Otherwise the browser connects again by itself.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, RETRY_MS);
    };
  };
  open();
  return () => {
    clearTimeout(timer);
    source.onerror = null;
    source.onmessage = null;
    source.close();
  };
}

function webSocket({ base, symbols, price, state }) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const request = JSON.stringify(connectRequest("live", symbols));
  let socket;
  let timer;
  const open = () => {
    socket = new WebSocket(`${scheme}//${location.host}${base}/connection/uni_websocket`);
    socket.onopen = () => { state("open"); socket.send(request); };
    socket.onmessage = ({ data }) => deliver(data, price);
    socket.onclose = ({ code, reason }) => {
      state("lost", reason || `the WebSocket closed with code ${code}`);
      timer = setTimeout(open, RETRY_MS);
    };
  };
  open();
  return () => {
    clearTimeout(timer);
    socket.onclose = null;
    socket.onmessage = null;
    socket.close();
  };
}

/** The transports: their name in the counters, for the reader, in a narrow column; how they work. */
export const TRANSPORTS = [
  {
    id: "polling", name: "Polling", short: "Poll", open: polling,
    note: "One request for each symbol once a second, whether its price has changed or not.",
  },
  {
    id: "long-polling", name: "Long polling", short: "Long", open: longPolling,
    note: "A request that the server answers when it has a price; then the page asks again.",
  },
  {
    id: "http-stream", name: "HTTP stream", short: "Stream", open: httpStream,
    note: "One response that never ends, with a line for each price.",
  },
  {
    id: "sse", name: "SSE", short: "SSE", open: sse,
    note: "Server-sent events: one response that never ends, which the browser splits into events.",
  },
  {
    id: "websocket", name: "WebSocket", short: "WS", open: webSocket,
    note: "One connection in both directions, with a frame for each price.",
  },
];
