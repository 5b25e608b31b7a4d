// The protobuf encoding of the client protocol, from a table of fields. Messages are plain objects in
// the shape of the JSON encoding, so that one script and one comparison serve both encodings.
//
// A field is NUMBER NAME TYPE, a repeated one TYPE[], a map from strings TYPE{}. `raw` is a field of
// bytes that the JSON encoding embeds as a value.

const TABLE = `
Error: 1 code u32, 2 message str, 3 temporary bool
EmulationRequest: 1 node str, 2 session str, 3 data bytes
Command: 1 id u32, 4 connect ConnectRequest, 5 subscribe SubscribeRequest, 6 unsubscribe Channel, 7 publish PublishRequest, 8 presence Channel, 9 presence_stats Channel, 10 history HistoryRequest, 11 ping Empty, 12 send Data, 13 rpc RpcRequest, 14 refresh RefreshRequest, 15 sub_refresh SubRefreshRequest
Reply: 1 id u32, 2 error Error, 4 push Push, 5 connect ConnectResult, 6 subscribe SubscribeResult, 7 unsubscribe Empty, 8 publish Empty, 9 presence PresenceResult, 10 presence_stats PresenceStats, 11 history HistoryResult, 12 ping Empty, 13 rpc Data, 14 refresh RefreshResult, 15 sub_refresh RefreshResult
Empty:
Channel: 1 channel str
Data: 1 data raw
ConnectRequest: 1 token str, 2 data raw, 3 subs SubscribeRequest{}, 4 name str, 5 version str, 6 headers str{}
SubscribeRequest: 1 channel str, 2 token str, 3 recover bool, 6 epoch str, 7 offset u64, 8 data raw, 9 positioned bool, 10 recoverable bool, 11 join_leave bool, 12 delta str, 13 tf Filter, 14 flag u64, 15 type u32
Filter: 1 op str, 2 key str, 3 cmp str, 4 val str, 5 vals str[], 6 nodes Filter[]
PublishRequest: 1 channel str, 2 data raw, 3 type u32, 4 key str, 5 removed bool
HistoryRequest: 1 channel str, 7 limit u32, 8 since Position, 9 reverse bool
Position: 1 offset u64, 2 epoch str
RpcRequest: 1 data raw, 2 method str
RefreshRequest: 1 token str
SubRefreshRequest: 1 channel str, 2 token str
ConnectResult: 1 client str, 2 version str, 3 expires bool, 4 ttl u32, 5 data raw, 6 subs SubscribeResult{}, 7 ping u32, 8 pong bool, 9 session str, 10 node str, 11 time u64
SubscribeResult: 1 expires bool, 2 ttl u32, 3 recoverable bool, 6 epoch str, 7 publications Publication[], 8 recovered bool, 9 offset u64, 10 positioned bool, 11 data raw, 12 was_recovering bool, 13 delta bool, 14 id u64, 15 type u32
RefreshResult: 1 client str, 2 version str, 3 expires bool, 4 ttl u32
PresenceResult: 1 presence ClientInfo{}
PresenceStats: 1 num_clients u32, 2 num_users u32
HistoryResult: 1 publications Publication[], 2 epoch str, 3 offset u64
ClientInfo: 1 user str, 2 client str, 3 conn_info raw, 4 chan_info raw
Publication: 4 data raw, 5 info ClientInfo, 6 offset u64, 7 tags str{}, 8 delta bool, 9 time u64, 10 channel str, 11 key str, 12 removed bool, 14 epoch str, 16 version u64
Push: 1 id u64, 2 channel str, 4 pub Publication, 5 join Member, 6 leave Member, 7 unsubscribe Unsubscribe, 8 message Data, 9 subscribe Subscribe, 10 connect ConnectResult, 11 disconnect Disconnect, 12 refresh Refresh
Member: 1 info ClientInfo
Unsubscribe: 2 code u32, 3 reason str
Subscribe: 1 recoverable bool, 4 epoch str, 5 offset u64, 6 positioned bool, 7 data raw
Disconnect: 1 code u32, 2 reason str, 3 reconnect bool
Refresh: 1 expires bool, 2 ttl u32
`;

/** Message name to its fields, each {number, name, type, many}. */
const SCHEMA = new Map();
for (const line of TABLE.trim().split("\n")) {
  const [message, rest] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)];
  const fields = rest.split(",").map((field) => field.trim()).filter(Boolean).map((field) => {
    const [number, name, type] = field.split(" ");
    const many = type.endsWith("[]") ? "list" : type.endsWith("{}") ? "map" : undefined;
    return { number: Number(number), name, type: type.replace(/(\[\]|\{\})$/, ""), many };
  });
  SCHEMA.set(message, fields);
}

export function varint(value) {
  const bytes = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    bytes.push(Number(rest & 127n) | (rest > 127n ? 128 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Buffer.from(bytes);
}

/** Reads a varint: [value, offset after it], or undefined when the bytes end too early. */
export function readVarint(bytes, offset) {
  let value = 0n;
  for (let shift = 0n; offset < bytes.length; shift += 7n) {
    const byte = bytes[offset++];
    value |= BigInt(byte & 127) << shift;
    if (byte < 128) return [Number(value), offset];
  }
  return undefined;
}

const lengthed = (number, bytes) => Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);

/** Bytes of a `raw` value: a value of {hex} or {text} stands for itself, others are JSON. */
function rawBytes(value) {
  if (typeof value?.hex === "string") return Buffer.from(value.hex, "hex");
  return Buffer.from(typeof value?.text === "string" ? value.text : JSON.stringify(value));
}

function encodeValue(number, type, value) {
  if (SCHEMA.has(type)) return lengthed(number, encode(type, value));
  if (type === "str") return lengthed(number, Buffer.from(String(value)));
  if (type === "raw") return lengthed(number, rawBytes(value));
  if (type === "bytes") return lengthed(number, value);
  return Buffer.concat([varint(number * 8), varint(type === "bool" ? Number(value) : value)]);
}

export function encode(message, object) {
  const parts = [];
  for (const { number, name, type, many } of SCHEMA.get(message)) {
    const value = object?.[name];
    if (value === undefined || value === null) continue;
    if (many === "list") {
      for (const one of value) parts.push(encodeValue(number, type, one));
    } else if (many === "map") {
      for (const [key, one] of Object.entries(value)) {
        const entry = [encodeValue(1, "str", key), encodeValue(2, type, one)];
        parts.push(lengthed(number, Buffer.concat(entry)));
      }
    } else {
      parts.push(encodeValue(number, type, value));
    }
  }
  return Buffer.concat(parts);
}

function decodeRaw(bytes) {
  const text = bytes.toString();
  try {
    return JSON.parse(text);
  } catch {
    return Buffer.from(text).equals(bytes) ? { text } : { hex: bytes.toString("hex") };
  }
}

function decodeValue(type, value, bytes) {
  if (SCHEMA.has(type)) return decode(type, bytes);
  if (type === "str") return bytes.toString();
  if (type === "raw") return decodeRaw(bytes);
  if (type === "bool") return value !== 0;
  return value;
}

/** Decodes a message; a field that the table lacks becomes `field N`, so that it is compared too. */
export function decode(message, bytes) {
  const object = {};
  for (let offset = 0; offset < bytes.length; ) {
    let tag, value, content;
    [tag, offset] = readVarint(bytes, offset);
    [value, offset] = readVarint(bytes, offset);
    if (tag % 8 === 2) {
      content = bytes.subarray(offset, offset + value);
      offset += value;
    }
    const field = SCHEMA.get(message).find(({ number }) => number === Math.floor(tag / 8));
    if (field === undefined) {
      object[`field ${Math.floor(tag / 8)}`] = content?.toString("hex") ?? value;
    } else if (field.many === "map") {
      const entry = decodeEntry(field.type, content);
      (object[field.name] ??= {})[entry.key] = entry.value;
    } else if (field.many === "list") {
      (object[field.name] ??= []).push(decodeValue(field.type, value, content));
    } else {
      object[field.name] = decodeValue(field.type, value, content);
    }
  }
  return object;
}

function decodeEntry(type, bytes) {
  const entry = { key: "", value: decodeValue(type, 0, Buffer.alloc(0)) };
  for (let offset = 0; offset < bytes.length; ) {
    let tag, length;
    [tag, offset] = readVarint(bytes, offset);
    [length, offset] = readVarint(bytes, offset);
    const content = bytes.subarray(offset, offset + length);
    offset += length;
    if (tag === 10) entry.key = content.toString();
    else entry.value = decodeValue(type, 0, content);
  }
  return entry;
}

/** Messages with their lengths before them. */
export const frame = (messages) =>
  Buffer.concat(messages.flatMap((message) => [varint(message.length), message]));

/** Splits framed bytes: [whole messages, bytes of an unfinished one]. */
export function unframe(bytes) {
  const messages = [];
  for (let offset = 0; ; ) {
    const head = readVarint(bytes, offset);
    if (head === undefined || head[1] + head[0] > bytes.length) {
      return [messages, bytes.subarray(offset)];
    }
    messages.push(bytes.subarray(head[1], head[1] + head[0]));
    offset = head[1] + head[0];
  }
}
