//! Hostile loads: whatever clients ask for, no pass of a worker over its shards takes long.
//!
//! The bound is processor time of the worker's thread, as the server measures it, so that a busy
//! machine does not fail the test. A debug build is too slow for the bound and skips the loads:
//! name a release binary by DRUMLINE, as `scripts/test.sh wire` does.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::{Client, Server, client_frame};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Shards, slots of each, and the microseconds that a pass may take.
const SIZES: [(&str, &str, u64); 2] = [("2", "6000", 5_000), ("60", "260", 10_000)];
/// How long the askers go on.
const ROUND: Duration = Duration::from_secs(2);

/// One load at a time: each opens thousands of sockets.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs of a load before its bound is held to be broken. What else the machine does can only add
/// to a thread's processor time.
const RUNS: usize = 3;

/// Runs a load against a server of each size, and asserts the bound.
fn bounded(flags: &[&str], load: impl Fn(&Server)) {
    if cfg!(debug_assertions) && std::env::var_os("DRUMLINE").is_none() {
        return eprintln!("skipped: the bound is one of release builds");
    }
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    for (shards, slots, most) in SIZES {
        let mut all = vec!["--shards", shards, "--engine.slots_per_shard", slots];
        all.extend(flags);
        let held = (0..RUNS).any(|_| longest_pass(&all, shards, &load) <= most);
        assert!(held, "{shards} shards: a pass took more than {most} us in each of {RUNS} runs");
    }
}

/// Microseconds of processor time that the longest pass under a load took.
fn longest_pass(flags: &[&str], shards: &str, load: &impl Fn(&Server)) -> u64 {
    let server = Server::on_one_port(flags);
    load(&server);
    let longest = server.largest("drumline_longest_pass_cpu_micros").unwrap();
    eprintln!("{shards} shards: the longest pass took {longest} us of processor time");
    assert!(longest > 0, "passes are measured");
    longest
}

/// Clients that are subscribed to a channel.
fn members(server: &Server, channel: &str, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::subscribed(server, channel)).collect()
}

/// Clients that ask the same over and over, in frames of as many commands as fit, half of them
/// without ever reading.
fn askers(
    server: &Server,
    count: usize,
    bytes: usize,
    command: &(impl Fn(usize) -> String + Sync),
) {
    let deadline = Instant::now() + ROUND;
    let mut frame = String::new();
    for id in 2.. {
        let next = command(id);
        if frame.len() + next.len() >= bytes.min(65_000) {
            break;
        }
        frame += &next;
        frame.push('\n');
    }
    let frame = &frame;
    std::thread::scope(|scope| {
        for nth in 0..count {
            scope.spawn(move || {
                while Instant::now() < deadline {
                    let mut client = Client::connected(server);
                    client.send(frame);
                    let pause = Instant::now() + Duration::from_millis(500);
                    while Instant::now() < pause {
                        if nth % 2 == 0 && client.frame().is_none() {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
    });
}

fn presence(id: usize) -> String {
    format!(r#"{{"id":{id},"presence":{{"channel":"crowd"}}}}"#)
}

const PRESENCE: [&str; 1] = ["--channel.without_namespace.presence"];
const HISTORY: [&str; 4] = [
    "--channel.without_namespace.history_size",
    "1000",
    "--channel.without_namespace.history_ttl",
    "300s",
];

#[test]
fn twenty_clients_asking_for_presence_of_nine_thousand_keep_passes_short() {
    bounded(&PRESENCE, |server| {
        let members = members(server, "crowd", 9_000);
        askers(server, 20, 818_000 / 20, &presence);
        drop(members);
    });
}

#[test]
fn two_clients_asking_for_presence_of_four_thousand_keep_passes_short() {
    bounded(&PRESENCE, |server| {
        let members = members(server, "crowd", 4_000);
        askers(server, 2, 409_000, &presence);
        drop(members);
    });
}

#[test]
fn twenty_clients_asking_for_history_keep_passes_short() {
    bounded(&HISTORY, |server| {
        let mut publisher = Client::connected(server);
        let data = "x".repeat(1000);
        for id in 2..1002 {
            publisher
                .ask(&format!(r#"{{"id":{id},"publish":{{"channel":"log","data":"{data}"}}}}"#));
        }
        askers(server, 20, 818_000 / 20, &|id| {
            format!(r#"{{"id":{id},"history":{{"channel":"log","limit":300}}}}"#)
        });
    });
}

#[test]
fn a_refused_binary_publication_and_a_mass_disconnect_keep_passes_short() {
    bounded(&[], |server| {
        let mut members = members(server, "crowd", 4_000);
        let body = r#"{"channel":"crowd","b64data":"//79"}"#;
        assert!(server.api("publish", body).contains(r#""code":107"#));
        assert!(members[0].is_alive() && members[3_999].is_alive());
        // Every client goes away, and the server has to close all the connections.
        drop(members);
        server.wait_metric("drumline_clients", |clients| clients == 0);
    });
}

/// A subscribe whose filter has 14 KB, of which this number makes another one.
fn filtered(id: usize, nth: usize) -> String {
    let common = "v".repeat(140);
    let values: Vec<String> = (0..99).map(|one| format!(r#""{common}{one}""#)).collect();
    let values = values.join(",");
    let filter = format!(r#"{{"key":"k","cmp":"in","vals":[{values},"{nth}"]}}"#);
    format!(r#"{{"id":{id},"subscribe":{{"channel":"crowd","tf":{filter}}}}}"#)
}

#[test]
fn joins_to_three_thousand_filtered_subscribers_keep_passes_short() {
    bounded(&["--channel.without_namespace.allow_tags_filter"], |server| {
        // The last 400 of them join beside 3,000.
        let mut holders: Vec<Client> = Vec::new();
        for nth in 0..3_400 {
            let mut client = Client::connected(server);
            let told = client.ask(&filtered(2, nth));
            assert!(told.contains(r#""subscribe":{}"#), "{told}");
            holders.push(client);
        }
        assert!(holders[7].is_alive());
    });
}

#[test]
fn frames_of_ten_thousand_pings_and_commands_keep_passes_short() {
    bounded(&[], |server| {
        let ping = client_frame(0x89, b"");
        let pings: Vec<u8> = ping.iter().copied().cycle().take(ping.len() * 10_000).collect();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let mut client = Client::connected(server);
                    client.send_raw(&pings);
                    client.send(r#"{"id":2,"unsubscribe":{"channel":"a"}}"#);
                    while client.frame().expect("an answer").0 != 0x81 {}
                });
            }
        });
        let unsubscribe = |id: usize| format!(r#"{{"id":{id},"unsubscribe":{{"channel":"a"}}}}"#);
        askers(server, 20, 65_000, &unsubscribe);
    });
}
