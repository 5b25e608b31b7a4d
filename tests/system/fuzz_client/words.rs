//! Generated commands, requests and bodies: valid, partly valid or invalid.

use drumline::model::token::{TokenSettings, make_connection, make_subscription};

use crate::random::Random;

pub const SECRET: &str = "a-secret-for-tests";

const CHANNELS: [&str; 18] = [
    "a",
    "b",
    "c",
    "log:a",
    "log:b",
    "last:a",
    "delta:a",
    "delta:b",
    "chat:a",
    "chat:b",
    "bytes:a",
    "paced:a",
    "$private",
    "mine#7",
    "no:such",
    "",
    "\u{e4}\u{20ac}\u{1f600}",
    "asked:a",
];
const METHODS: [&str; 12] = [
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "ping",
    "send",
    "rpc",
    "refresh",
    "sub_refresh",
];
/// Values that stand where another kind is expected, or at its ends.
const ODD: [&str; 22] = [
    "null",
    "true",
    "-1",
    "0",
    "1",
    "1e308",
    "18446744073709551616",
    "4294967296",
    r#""""#,
    "[]",
    "{}",
    r#""\u0000""#,
    r#""\ud800""#,
    "[null]",
    r#"{"a":null}"#,
    "1.5",
    r#""_""#,
    r#""abcdefgh""#,
    "[[[[[[[[[[]]]]]]]]]]",
    r#"{"b":{"c":[1,2,{}]}}"#,
    r#""fossil""#,
    "9007199254740993",
];
const API: [&str; 17] = [
    "publish",
    "broadcast",
    "subscribe",
    "unsubscribe",
    "disconnect",
    "refresh",
    "presence",
    "presence_stats",
    "history",
    "history_remove",
    "channels",
    "info",
    "rpc",
    "batch",
    "revoke_token",
    "invalidate_user_tokens",
    "nothing",
];

pub fn channel(random: &mut Random) -> String {
    match random.below(40) {
        0 => "x".repeat(random.below(400)),
        1 => format!("c{}", random.below(2000)),
        _ => random.one_of(&CHANNELS).to_owned(),
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text")
}

fn data(random: &mut Random) -> String {
    match random.below(8) {
        0 => random.one_of(&ODD).to_owned(),
        1 => format!(r#""{}""#, "d".repeat(random.below(20_000))),
        2 => {
            let depth = random.below(700);
            format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
        }
        _ => format!(r#"{{"n":{},"text":"a text that stays the same"}}"#, random.below(1000)),
    }
}

fn filter(random: &mut Random, depth: usize) -> String {
    if depth < 4 && random.once_in(2) {
        let op = random.one_of(&["and", "or", "not", "xor"]);
        let count = if op == "not" { 1 } else { random.below(4) };
        let nodes: Vec<String> = (0..count).map(|_| filter(random, depth + 1)).collect();
        return format!(r#"{{"op":"{op}","nodes":[{}]}}"#, nodes.join(","));
    }
    let key = random.one_of(&["t", "n", ""]);
    let cmp = random.one_of(&[
        "eq", "neq", "in", "nin", "ex", "nex", "sw", "ew", "ct", "lt", "lte", "gt", "gte", "no",
    ]);
    let value = random.one_of(&["x", "1", "-0.5", "", "1e3"]);
    let length = random.below(300);
    let values = (0..random.below(5)).map(|_| format!(r#""{}""#, "v".repeat(length)));
    let values: Vec<String> = values.collect();
    match cmp {
        "in" | "nin" => {
            format!(r#"{{"key":"{key}","cmp":"{cmp}","vals":[{}]}}"#, values.join(","))
        }
        "ex" | "nex" => format!(r#"{{"key":"{key}","cmp":"{cmp}"}}"#),
        _ => format!(r#"{{"key":"{key}","cmp":"{cmp}","val":"{value}"}}"#),
    }
}

fn token(random: &mut Random, of: Option<&str>) -> String {
    let secret = if random.once_in(8) { "another" } else { SECRET };
    let settings = TokenSettings { hmac_secret_key: secret.to_owned(), ..TokenSettings::default() };
    let user = ["7", "42", ""][random.below(3)];
    let ttl = [None, Some(1), Some(60)][random.below(3)];
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let made = match of {
        Some(channel) => make_subscription(&settings, user, channel, ttl, now),
        None => make_connection(&settings, user, ttl, now),
    };
    let mut token = made.unwrap_or_default().into_bytes();
    random.spoil(&mut token);
    String::from_utf8_lossy(&token).into_owned()
}

/// A field's value: mostly what belongs there.
fn value(random: &mut Random, field: &str, channel: &str) -> String {
    if random.once_in(12) {
        return random.one_of(&ODD).to_owned();
    }
    let number = |random: &mut Random| random.below(20).to_string();
    match field {
        "channel" => quoted(channel),
        "token" => quoted(&token(random, (!channel.is_empty()).then_some(channel))),
        "data" | "params" | "info" => data(random),
        "tf" => filter(random, 0),
        "delta" => r#""fossil""#.to_owned(),
        "epoch" => r#""abcdefgh""#.to_owned(),
        "since" => format!(r#"{{"offset":{},"epoch":"abcdefgh"}}"#, number(random)),
        "offset" | "limit" | "flag" | "version" | "expire_at" => number(random),
        "subs" => {
            let name = CHANNELS[random.below(CHANNELS.len())];
            format!(r#"{{{}:{{"recover":true,"offset":1,"epoch":"e"}}}}"#, quoted(name))
        }
        "channels" => {
            let all: Vec<String> =
                (0..random.below(6)).map(|_| quoted(&self::channel(random))).collect();
            format!("[{}]", all.join(","))
        }
        "tags" => r#"{"t":"x","n":"1"}"#.to_owned(),
        "headers" => r#"{"authorization":"x"}"#.to_owned(),
        "disconnect" => r#"{"code":3500,"reason":"r"}"#.to_owned(),
        "user" | "client" | "session" | "method" | "name" | "idempotency_key" | "uid"
        | "pattern" => random.one_of(&[r#""7""#, r#""42""#, r#""""#, r#""*""#]).to_owned(),
        _ => "true".to_owned(),
    }
}

/// An object with some of these fields; the first is nearly always there.
fn object(random: &mut Random, fields: &[&str], channel: &str) -> String {
    let mut parts = Vec::new();
    for (nth, field) in fields.iter().enumerate() {
        let there = if nth == 0 { !random.once_in(20) } else { random.once_in(3) };
        if there {
            parts.push(format!(r#""{field}":{}"#, value(random, field, channel)));
        }
    }
    if random.once_in(30) {
        parts.push(format!(r#""unknown":{}"#, random.one_of(&ODD)));
    }
    format!("{{{}}}", parts.join(","))
}

fn request(random: &mut Random, method: &str) -> String {
    let channel = channel(random);
    let subscribe: &[&str] = &[
        "channel",
        "recover",
        "offset",
        "epoch",
        "data",
        "positioned",
        "recoverable",
        "join_leave",
        "delta",
        "tf",
        "flag",
        "token",
    ];
    let fields: &[&str] = match method {
        "connect" => &["data", "token", "subs", "name", "headers", "flag"],
        "subscribe" if random.once_in(2) => &subscribe[..4],
        "subscribe" => subscribe,
        "publish" => &["channel", "data"],
        "history" => &["channel", "limit", "since", "reverse"],
        "rpc" => &["method", "data"],
        "send" => &["data"],
        "refresh" => &["token"],
        "sub_refresh" => &["channel", "token"],
        "ping" => &[],
        _ => &["channel"],
    };
    let channel = if matches!(method, "connect" | "refresh") { String::new() } else { channel };
    let mut object = object(random, fields, &channel);
    if matches!(method, "publish") && random.once_in(2) {
        object = format!(r#"{{"channel":{},"data":{}}}"#, quoted(&channel), data(random));
    }
    object
}

/// A subscribe request that the server grants, most of the time.
pub fn subscribe(random: &mut Random) -> String {
    let channel = random.one_of(&CHANNELS[..12]);
    let more = match random.below(6) {
        0 => r#","delta":"fossil""#.to_owned(),
        1 => format!(r#","tf":{}"#, filter(random, 0)),
        2 => r#","join_leave":true,"flag":1"#.to_owned(),
        3 => r#","recover":true,"epoch":"abcdefgh","offset":1"#.to_owned(),
        _ => String::new(),
    };
    format!(r#"{{"channel":"{channel}"{more}}}"#)
}

/// A command of the JSON protocol.
pub fn command(random: &mut Random, id: usize) -> String {
    if random.once_in(12) {
        return "{}".to_owned();
    }
    // Another connect, and what is not available, end the connection: seldom.
    let method = match random.below(24) {
        0 => METHODS[random.below(METHODS.len())],
        nth => [
            "subscribe",
            "unsubscribe",
            "publish",
            "presence",
            "presence_stats",
            "history",
            "rpc",
            "sub_refresh",
            "publish",
            "subscribe",
            "unsubscribe",
            "publish",
        ][nth % 12],
    };
    let id =
        if random.once_in(40) { ODD[random.below(ODD.len())].to_owned() } else { id.to_string() };
    format!(r#"{{"id":{id},"{method}":{}}}"#, request(random, method))
}

/// A connect request's text, mostly a good one.
pub fn connect(random: &mut Random) -> String {
    match random.below(4) {
        0 => request(random, "connect"),
        1 => format!(r#"{{"token":{}}}"#, quoted(&token(random, None))),
        _ => "{}".to_owned(),
    }
}

/// A frame of commands in JSON.
pub fn frame(random: &mut Random, from: usize) -> Vec<u8> {
    let commands: Vec<String> =
        (0..=random.below(6)).map(|nth| command(random, from + nth)).collect();
    let mut frame = commands.join("\n").into_bytes();
    random.spoil(&mut frame);
    frame
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn field(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    varint(number << 3 | 2, out);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A frame of commands in protobuf: a connect where `from` is 1.
pub fn protobuf_frame(random: &mut Random, from: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    for nth in 0..=random.below(4) {
        let (mut command, mut request) = (vec![0x08], Vec::new());
        varint((from + nth) as u64, &mut command);
        let connects = from + nth == 1;
        let method = if connects { 4 } else { 5 + random.below(12) as u64 };
        if !connects {
            field(1, channel(random).as_bytes(), &mut request);
        }
        for _ in 0..random.below(3) {
            match random.below(3) {
                0 => field(1 + random.below(15) as u64, &random.bytes(30), &mut request),
                1 => field(2, data(random).as_bytes(), &mut request),
                _ => {
                    varint((1 + random.below(15) as u64) << 3, &mut request);
                    varint(random.next() >> random.below(64), &mut request);
                }
            }
        }
        let request = if connects && !random.once_in(4) { Vec::new() } else { request };
        field(method, &request, &mut command);
        varint(command.len() as u64, &mut frame);
        frame.extend_from_slice(&command);
    }
    random.spoil(&mut frame);
    frame
}

/// A method of the API and a body for it.
pub fn call(random: &mut Random) -> (&'static str, Vec<u8>) {
    let method = API[random.below(API.len())];
    let body = if method == "batch" {
        let one = |random: &mut Random| {
            let method = API[random.below(13)];
            format!(r#"{{"{method}":{}}}"#, call_body(random, method))
        };
        let commands: Vec<String> = (0..random.below(6)).map(|_| one(random)).collect();
        format!(r#"{{"commands":[{}],"parallel":{}}}"#, commands.join(","), random.once_in(2))
    } else {
        call_body(random, method)
    };
    let mut body = body.into_bytes();
    random.spoil(&mut body);
    (method, body)
}

fn call_body(random: &mut Random, method: &str) -> String {
    let channel = channel(random);
    let fields: &[&str] = match method {
        "publish" => {
            &["channel", "data", "tags", "idempotency_key", "delta", "version", "skip_history"]
        }
        "broadcast" => &["channels", "data", "tags", "idempotency_key"],
        "subscribe" => &["user", "channel", "client", "info", "data", "expire_at"],
        "unsubscribe" => &["user", "channel", "client"],
        "disconnect" => &["user", "client", "disconnect"],
        "refresh" => &["user", "expire_at", "expired"],
        "history" => &["channel", "limit", "since", "reverse"],
        "channels" => &["pattern"],
        "rpc" => &["method", "params"],
        "revoke_token" => &["uid", "expire_at"],
        "invalidate_user_tokens" => &["user", "channel"],
        "info" => &[],
        _ => &["channel"],
    };
    let body = object(random, fields, &channel);
    // Most publications go through, so that there is something to push.
    if method == "publish" && random.once_in(2) {
        return format!(r#"{{"channel":{},"data":{}}}"#, quoted(&channel), data(random));
    }
    body
}

/// What a backend answers.
pub fn backend_answer(random: &mut Random) -> Vec<u8> {
    let fields = ["user", "data", "info", "expire_at", "channels", "meta", "expired", "tags"];
    let result = object(random, &fields, "a");
    let mut answer = match random.below(5) {
        0 => r#"{"error":{"code":1000,"message":"no"}}"#.to_owned(),
        1 => r#"{"disconnect":{"code":4000,"reason":"go"}}"#.to_owned(),
        2 => r#"{"result":{}}"#.to_owned(),
        _ => format!(r#"{{"result":{result}}}"#),
    }
    .into_bytes();
    random.spoil(&mut answer);
    answer
}
