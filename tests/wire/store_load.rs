//! Durable channels under a long load of large publications that do not compress: the store writes
//! and compacts tables meanwhile. No publisher waits long, and the next start is quick.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::disks::folder_in_memory;
use crate::common::{Client, Server, api_request, wait_for};

/// Publishers, each with a connection and channels of its own.
const PUBLISHERS: usize = 2;
/// Channels of a publisher: each request publishes to all of them.
const CHANNELS: usize = 8;
/// Publications of each channel. All together are several times as large as the journals of the
/// store may be (64 MiB), and 12 times as large as a table in memory (16 MiB).
const PUBLICATIONS: usize = 220;
/// Bytes of the data of a publication.
const DATA_BYTES: usize = 60_000;
/// Maximum time from a request to its acknowledgement: then the API answers error 100. Up to 0.5
/// seconds are normal in a debug build: a commit waits while tables in memory are written.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);
/// Maximum time of a start after a kill. Between 1 and 2 seconds are normal in a debug build.
const OPENS_WITHIN: Duration = Duration::from_secs(18);
/// Maximum bytes of journals once the tables are written: one that is full and one in use, each of
/// at most 64 MiB and a table in memory.
const JOURNALS_BYTES: u64 = 2 * (80 << 20);
/// Publications of a page of a history.
const PAGE: usize = 10;

/// Characters in random order: no two publications have long parts in common.
struct Noise(String);

impl Noise {
    fn new() -> Self {
        const CHARACTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut state = 1u64;
        let characters = (0..4 << 20).map(|_| {
            // The generator of Knuth's MMIX.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(CHARACTERS[(state >> 58) as usize])
        });
        Noise(characters.collect())
    }

    /// The data of a publication, another one for each publisher and number.
    fn of(&self, publisher: usize, number: usize) -> &str {
        let at = (publisher * PUBLICATIONS + number) * 7919 % (self.0.len() - DATA_BYTES);
        &self.0[at..at + DATA_BYTES]
    }
}

fn start(store: &Path) -> Server {
    let of = |option: &str| format!("--channel.without_namespace.{option}");
    Server::on_one_port(&[
        "--store.path",
        &store.display().to_string(),
        &of("history_durable"),
        &of("history_size"),
        "1000",
        &of("history_ttl"),
        "3000s",
    ])
}

/// Calls a method over a connection that stays open.
fn call(client: &mut Client, method: &str, body: &Value) -> Value {
    let (status, text) = client.exchange(&api_request(method, "", &body.to_string()));
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Channels of a publisher.
fn channels(publisher: usize) -> Vec<String> {
    (0..CHANNELS).map(|nth| format!("c{publisher}-{nth}")).collect()
}

/// Publishes everything of a publisher, each request after the acknowledgement of the last one.
/// Returns the longest time that one took.
fn publish_all(server: &Server, noise: &Noise, publisher: usize) -> Duration {
    let (mut client, channels) = (Client::dial(server), channels(publisher));
    let mut longest = Duration::ZERO;
    for number in 1..=PUBLICATIONS {
        let mut body = json!({"channels": channels, "data": noise.of(publisher, number)});
        if number == 1 {
            // The table of keys is written once, and only the first journal has what it has.
            body["idempotency_key"] = json!("first");
        }
        let began = Instant::now();
        let answer = call(&mut client, "broadcast", &body);
        longest = longest.max(began.elapsed());
        let answers = answer["result"]["responses"].as_array().unwrap();
        let is_acknowledged = |answer: &Value| answer["result"]["offset"] == number;
        assert!(answers.len() == CHANNELS && answers.iter().all(is_acknowledged), "{answer}");
    }
    longest
}

/// Checks that a history has everything that was acknowledged.
fn check_history(server: &Server, noise: &Noise, (publisher, channel): (usize, &str)) {
    let mut client = Client::dial(server);
    let mut body = json!({"channel": channel, "limit": PAGE});
    let mut number = 0;
    while number < PUBLICATIONS {
        let (_, text) = client.exchange(&api_request("history", "", &body.to_string()));
        // Without optimization a parser takes long.
        let (before, parts) = (number, text.split(r#"{"data":""#).skip(1));
        for part in parts {
            number += 1;
            let rest = part.strip_prefix(noise.of(publisher, number)).unwrap_or("other data");
            let expected = format!(r#"","offset":{number}}}"#);
            assert!(rest.starts_with(&expected), "{channel} {number}: {rest}");
        }
        assert!(number > before, "{channel} ends at {before}: {text}");
        let epoch = text.rsplit('"').nth(3).unwrap();
        body["since"] = json!({"offset": number, "epoch": epoch});
    }
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let below = |entry: fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => files(&entry.path()),
        false => vec![entry.path()],
    };
    entries.flat_map(below).collect()
}

/// Highest number of a table of publications, which are numbered in the order in which they are
/// written, and how many there are.
fn tables(store: &Path) -> (usize, usize) {
    let files = files(&store.join("data"));
    let tables = files.iter().filter(|path| path.parent().unwrap().ends_with("keyspaces/2/tables"));
    let number = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let numbers: Vec<usize> = tables.map(number).collect();
    (numbers.iter().copied().max().unwrap_or(0), numbers.len())
}

/// Bytes of the journals.
fn journals(store: &Path) -> u64 {
    let files = files(&store.join("data"));
    let journals = files.iter().filter(|path| path.extension().is_some_and(|end| end == "jnl"));
    // A journal can be removed meanwhile.
    journals.map(|path| fs::metadata(path).map_or(0, |found| found.len())).sum()
}

#[test]
fn large_publications_that_do_not_compress_neither_stall_publishers_nor_delay_the_next_start() {
    let folder = folder_in_memory();
    let (store, noise) = (folder.path().join("store"), Noise::new());
    let mut server = start(&store);
    let longest = std::thread::scope(|scope| {
        let publish = |publisher| publish_all(&server, &noise, publisher);
        let publishers: Vec<_> =
            (0..PUBLISHERS).map(|publisher| scope.spawn(move || publish(publisher))).collect();
        publishers.into_iter().map(|publisher| publisher.join().unwrap()).max().unwrap()
    });
    assert!(longest < ACKNOWLEDGED_WITHIN, "an acknowledgement took {longest:?}");
    assert_eq!(server.metric("drumline_durable_refused_total"), 0);
    // Tables in memory are written to disk, and compactions merge some and remove them.
    wait_for("compactions", || {
        let (written, present) = tables(&store);
        (written >= 10 && present < written).then_some(())
    });
    // A table that is rarely written does not keep old journals.
    wait_for("old journals to go", || (journals(&store) <= JOURNALS_BYTES).then_some(()));
    server.signal(Signal::KILL);
    server.wait();
    let began = Instant::now();
    let server = start(&store);
    let took = began.elapsed();
    assert!(took < OPENS_WITHIN, "the start took {took:?}");
    for publisher in 0..PUBLISHERS {
        for channel in channels(publisher) {
            check_history(&server, &noise, (publisher, &channel));
        }
    }
}
