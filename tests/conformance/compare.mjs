// Normalizes what two servers sent and lists where they differ.

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
/** Lifetimes in seconds may differ by as much, since each token is made for its own server. */
const TTL_SLACK = 4;

/** A copy of a side's transcript with names in place of ids, sessions, nodes, epochs and times. */
export function normalize(side) {
  const epochs = new Map();
  const text = (value, key) => {
    if (side.clients.has(value)) return `<client ${side.clients.get(value)}>`;
    if (side.sessions.has(value)) return `<session ${side.sessions.get(value)}>`;
    if (side.nodes.has(value)) return "<node>";
    if (key === "epoch" && value !== "") {
      if (!epochs.has(value)) epochs.set(value, `<epoch ${epochs.size + 1}>`);
      return epochs.get(value);
    }
    if (key === "version") return "<version>";
    return UUID.test(value) ? "<uuid>" : value;
  };
  const walk = (value, key) => {
    if (typeof value === "string") return text(value, key);
    if (typeof value === "number" && key === "time") {
      return Math.abs(value - Date.now()) < 120_000 ? "<now>" : value;
    }
    if (Array.isArray(value)) return value.map((one) => walk(one));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, one]) => [text(name), walk(one, name)]));
  };
  return walk(side.transcript());
}

const show = (value) => (value === undefined ? "absent" : JSON.stringify(value));

/** Places where two normalized values differ: [{path, centrifugo, drumline}]. */
export function differences(centrifugo, drumline, path = "") {
  if (Object.is(centrifugo, drumline)) return [];
  const both = [centrifugo, drumline];
  const objects = both.every((one) => one !== null && typeof one === "object");
  if (!objects || Array.isArray(centrifugo) !== Array.isArray(drumline)) {
    if (path.endsWith(".ttl") && both.every((one) => typeof one === "number")
      && Math.abs(centrifugo - drumline) <= TTL_SLACK) return [];
    return [{ path, centrifugo: show(centrifugo), drumline: show(drumline) }];
  }
  const keys = new Set([...Object.keys(centrifugo), ...Object.keys(drumline)]);
  return [...keys].flatMap((key) => {
    const inner = Array.isArray(centrifugo) ? `${path}[${key}]` : `${path}.${key}`;
    return differences(centrifugo[key], drumline[key], inner);
  });
}
