//! Event streams with several channels resume each of them, wherever the stream was cut.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::common::{API_KEY, Client, Server};

/// The state of a stream in a browser: the data of its events and the last id.
#[derive(Clone, Debug, Default)]
struct Heard {
    events: Vec<Value>,
    last_id: String,
}

impl Heard {
    /// Parses a stream by the rules of the HTML standard: an empty line completes an event.
    fn read(text: &[u8]) -> Heard {
        let (mut heard, mut data, mut id) = (Heard::default(), String::new(), String::new());
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else { break };
            let line = std::str::from_utf8(line).expect("lines are text");
            match line.split_once(": ") {
                Some(("data", value)) => data.push_str(value),
                Some(("id", value)) => id = value.to_owned(),
                None if line.is_empty() => {
                    heard.last_id.clone_from(&id);
                    if !data.is_empty() {
                        let data = std::mem::take(&mut data);
                        heard.events.push(serde_json::from_str(&data).expect("JSON"));
                    }
                }
                _ => panic!("no line of an event: {line}"),
            }
        }
        heard
    }

    /// The publications by channel, both live and recovered.
    fn publications(&self) -> BTreeMap<String, Vec<u64>> {
        let mut all = BTreeMap::<_, Vec<u64>>::new();
        let number = |publication: &Value| publication["data"].as_u64().expect("a number");
        for event in &self.events {
            if let Some(channel) = event["channel"].as_str() {
                all.entry(channel.to_owned()).or_default().push(number(&event["pub"]));
            }
            for (channel, told) in event["connect"]["subs"].as_object().into_iter().flatten() {
                let missed = told["publications"].as_array().into_iter().flatten();
                all.entry(channel.clone()).or_default().extend(missed.map(number));
            }
        }
        all
    }
}

fn server() -> Server {
    let of = |option: &str| format!("--channel.without_namespace.{option}");
    Server::start(&[
        "--shards",
        "3",
        &of("history_size"),
        "1000",
        &of("history_ttl"),
        "300s",
        &of("force_recovery"),
        "--http_api.key",
        API_KEY,
    ])
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|nth| format!("channel-{nth}")).collect()
}

/// A stream subscribed to these channels that resumes from an event id.
fn stream(server: &Server, channels: &[String], last_id: &str) -> Client {
    let subs: Vec<String> = channels.iter().map(|name| format!("%22{name}%22:%7B%7D")).collect();
    let connect = format!("%7B%22subs%22:%7B{}%7D%7D", subs.join(","));
    let last = match last_id {
        "" => String::new(),
        id => format!("Last-Event-ID: {id}\r\n"),
    };
    let mut client = Client::dial(server);
    client.send_raw(
        format!(
            "GET /connection/uni_sse?cf_connect={connect} HTTP/1.1\r\nHost: test\r\n{last}\r\n"
        )
        .as_bytes(),
    );
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    client
}

/// Reads until `count` events are complete.
fn read_events(client: &mut Client, count: usize) -> Vec<u8> {
    let mut text = Vec::new();
    loop {
        text.extend_from_slice(client.line().as_bytes());
        text.push(b'\n');
        if text.ends_with(b"\n\n") && Heard::read(&text).events.len() >= count {
            return text;
        }
    }
}

fn first_event(server: &Server, channels: &[String], last_id: &str) -> Heard {
    Heard::read(&read_events(&mut stream(server, channels, last_id), 1))
}

fn publish(server: &Server, channel: &str, number: u64) {
    server.api("publish", &format!(r#"{{"channel":"{channel}","data":{number}}}"#));
}

#[test]
fn a_cut_event_stream_resumes_every_channel_exactly() {
    for count in [1, 2, 16] {
        let server = server();
        let channels = names(count);
        publish(&server, &channels[0], 0);
        let mut client = stream(&server, &channels, "");
        let mut text = read_events(&mut client, 1);
        let mut expected: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for number in 1..=40 {
            // Some channels get many publications, others none.
            let channel = &channels[(number * number) as usize % 7 % count];
            publish(&server, channel, number);
            text.extend(read_events(&mut client, 1));
            expected.entry(channel.clone()).or_default().push(number);
        }
        assert_eq!(Heard::read(&text).publications_with_news(), expected);
        let start = read_first(&text);
        for cut in (start..=text.len()).step_by(text.len() / 60 + 1).chain([text.len()]) {
            let before = Heard::read(&text[..cut]);
            let after = first_event(&server, &channels, &before.last_id);
            let mut all = before.publications_with_news();
            for (channel, missed) in after.publications_with_news() {
                all.entry(channel).or_default().extend(missed);
            }
            assert_eq!(all, expected, "{count} channels, cut at {cut} of {}", text.len());
            let subs = after.events[0]["connect"]["subs"].as_object().expect("channels");
            assert_eq!(subs.len(), count);
            assert!(subs.values().all(|told| told["recovered"] == true), "{subs:?}");
        }
    }
}

/// Position of the end of the first event.
fn read_first(text: &[u8]) -> usize {
    text.windows(2).position(|pair| pair == b"\n\n").expect("an event") + 2
}

impl Heard {
    /// The publications by channel, without channels that have none.
    fn publications_with_news(&self) -> BTreeMap<String, Vec<u64>> {
        let mut all = self.publications();
        all.retain(|_, numbers| !numbers.is_empty());
        all
    }
}

#[test]
fn a_resumed_event_stream_loses_nothing_under_load() {
    let server = server();
    let channels = names(16);
    let all = channels.iter().map(|name| format!(r#""{name}""#)).collect::<Vec<_>>().join(",");
    let mut heard = first_event(&server, &channels, "");
    let mut got: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for round in 0..10u64 {
        let mut client = stream(&server, &channels, &heard.last_id);
        let mut text = read_events(&mut client, 1);
        for number in 0..20 {
            let number = 20 * round + number;
            server.api("broadcast", &format!(r#"{{"channels":[{all}],"data":{number}}}"#));
        }
        // The client reads only a part; the rest is in transit or in the kernel.
        text.extend(read_events(&mut client, 7 * round as usize + 1));
        heard = Heard::read(&text);
        drop(client);
        for (channel, numbers) in heard.publications() {
            got.entry(channel).or_default().extend(numbers);
        }
    }
    let last = first_event(&server, &channels, &heard.last_id);
    for (channel, numbers) in last.publications() {
        got.entry(channel).or_default().extend(numbers);
    }
    for channel in &channels {
        let mut numbers = got.remove(channel).unwrap_or_default();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, (0..200).collect::<Vec<u64>>(), "{channel}");
    }
}

#[test]
fn an_event_id_subscribes_to_nothing_and_an_unreadable_one_is_reported() {
    let server = server();
    let many = first_event(&server, &names(16), "");
    let two = names(2);
    let one = first_event(&server, &names(1), "");
    for (id, channels, recovers) in [
        (&*many.last_id, &two, true),
        (&one.last_id, &two, true),
        ("5:abcdefgh:secret", &two, false),
        ("+00000000abcdefgh5", &two, false),
    ] {
        let event = first_event(&server, channels, id).events.remove(0);
        let subs = event["connect"]["subs"].as_object().expect("channels").clone();
        let mut named: Vec<_> = subs.keys().collect();
        named.sort_unstable();
        assert_eq!(named, ["channel-0", "channel-1"], "{id}");
        assert_eq!(subs["channel-0"]["recovered"] == true, recovers, "{id}: {subs:?}");
        assert!(event["connect"].get("unknown_event_id").is_none(), "{id}");
    }
    let long = "x".repeat(100);
    for (id, shown) in [("nonsense", "nonsense"), ("+1,2", "+1,2"), (&*long, &long[..64])] {
        let event = first_event(&server, &two, id).events.remove(0);
        assert_eq!(event["connect"]["unknown_event_id"], shown);
        let subs = event["connect"]["subs"].as_object().expect("channels");
        assert!(subs.values().all(|told| told.get("was_recovering").is_none()), "{subs:?}");
    }
}
