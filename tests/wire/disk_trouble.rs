//! Durable channels while the disk is full, read-only, slow, failing or damaged: publishing answers
//! error 100, everything else goes on, and it resumes without a restart.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::disks::{Faults, SmallDisk, fill, folder_in_memory};
use crate::common::{Client, Server, api_request, binary, wait_for};

/// Bytes of the data of a publication.
const DATA_BYTES: usize = 60_000;
/// Maximum time between the end of a fault and a publication that is kept.
const RESUMES_WITHIN: Duration = Duration::from_secs(10);
/// The same when the store has large journals, which it reads before it resumes: in a debug build
/// that takes seconds.
const READS_JOURNALS_WITHIN: Duration = Duration::from_secs(60);

/// Flags of a server whose channels without a namespace are durable. Channels of the namespace
/// `memory` are not.
fn flags(store: &Path, log: &Path) -> Vec<String> {
    let of = |option: &str| format!("--channel.without_namespace.{option}");
    let memory = r#"[{"name":"memory","history_size":10,"history_ttl":"300s"}]"#;
    vec![
        "--store.path".to_owned(),
        store.display().to_string(),
        "--log.file".to_owned(),
        log.display().to_string(),
        of("history_durable"),
        of("history_size"),
        "10".to_owned(),
        of("history_ttl"),
        "3000s".to_owned(),
        of("force_recovery"),
        "--channel.namespaces".to_owned(),
        memory.to_owned(),
    ]
}

fn words(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

fn call(server: &Server, method: &str, body: &Value) -> Value {
    serde_json::from_str(&server.api(method, &body.to_string())).expect("JSON")
}

/// What a server acknowledged in the channel `a`, and what a subscriber saw.
struct Ledger {
    next: u64,
    /// Offsets and numbers of the publications that were acknowledged.
    acknowledged: Vec<(u64, u64)>,
    epoch: String,
    random: u64,
}

impl Ledger {
    fn new(server: &Server) -> Self {
        let found = call(server, "history", &json!({"channel": "a"}));
        let epoch = found["result"]["epoch"].as_str().unwrap().to_owned();
        Ledger { next: 0, acknowledged: Vec::new(), epoch, random: 1 }
    }

    /// A text that does not compress well.
    fn text(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 16);
        while text.len() < bytes {
            // The generator of Numerical Recipes.
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text += &format!("{:08x}", self.random >> 32);
        }
        text
    }

    /// Publishes to the channel `a`. Returns whether the publication was acknowledged. Any other
    /// answer must be error 100.
    fn publish(&mut self, server: &Server, bytes: usize) -> bool {
        self.next += 1;
        let data = json!({"n": self.next, "x": self.text(bytes)});
        let answer = call(server, "publish", &json!({"channel": "a", "data": data}));
        match answer["result"]["offset"].as_u64() {
            Some(offset) => self.acknowledged.push((offset, self.next)),
            None => assert_eq!(answer["error"]["code"], 100, "{answer}"),
        }
        answer.get("result").is_some()
    }

    /// Publishes until a publication is refused.
    fn publish_until_refused(&mut self, server: &Server) {
        let refused = (0..10_000).any(|_| !self.publish(server, DATA_BYTES));
        assert!(refused, "the disk takes everything");
    }

    /// Publishes until a publication is acknowledged.
    fn publish_until_kept(&mut self, server: &Server) {
        self.publish_until_kept_within(server, RESUMES_WITHIN);
    }

    /// Like [`Ledger::publish_until_kept`], within this time.
    fn publish_until_kept_within(&mut self, server: &Server, time: Duration) {
        let began = Instant::now();
        while !self.publish(server, 10) {
            assert!(began.elapsed() < time, "durable publishing does not resume");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Checks the history: what was acknowledged is there in order, under its offset and the first
    /// epoch, and no offset is held twice.
    fn check(&self, server: &Server) {
        let offsets: Vec<u64> = self.acknowledged.iter().map(|(offset, _)| *offset).collect();
        assert!(offsets.is_sorted_by(|one, two| one < two), "an offset is used twice");
        let found = call(server, "history", &json!({"channel": "a", "limit": 100}));
        let found = &found["result"];
        assert_eq!(found["epoch"], json!(self.epoch));
        let one = |one: &Value| (one["offset"].as_u64().unwrap(), one["data"]["n"].as_u64());
        let kept: Vec<_> = found["publications"].as_array().unwrap().iter().map(one).collect();
        let first = kept.first().map_or(0, |(offset, _)| *offset);
        assert!(kept.is_sorted_by(|one, two| one.0 < two.0), "{kept:?}");
        for (offset, number) in &self.acknowledged {
            let is_kept = kept.contains(&(*offset, Some(*number)));
            assert!(*offset < first || is_kept, "{offset} {number} is not in {kept:?}");
        }
        // What was not acknowledged has no offset of another publication.
        let newest = offsets.last().copied().unwrap_or(0);
        assert!(found["offset"].as_u64().unwrap() >= newest);
    }
}

/// The number of each publication of the history of the channel `a`, by its offset.
fn whole_history(server: &Server) -> BTreeMap<u64, u64> {
    let (mut found, mut body) = (BTreeMap::new(), json!({"channel": "a", "limit": 10}));
    loop {
        let answer = call(server, "history", &body);
        let publications = answer["result"]["publications"].as_array().unwrap();
        let one =
            |one: &Value| (one["offset"].as_u64().unwrap(), one["data"]["n"].as_u64().unwrap());
        found.extend(publications.iter().map(one));
        let Some(last) = publications.last() else { return found };
        body["since"] = json!({"offset": last["offset"], "epoch": answer["result"]["epoch"]});
    }
}

/// Everything but durable publishing goes on.
fn others_go_on(server: &Server) {
    let answer = call(server, "publish", &json!({"channel": "memory:a", "data": 1}));
    assert!(answer.get("result").is_some(), "{answer}");
    Client::connected(server).ask(r#"{"id":2,"subscribe":{"channel":"memory:b"}}"#);
}

fn refused(server: &Server) -> u64 {
    server.metric("drumline_durable_refused_total")
}

fn kill(mut server: Server) {
    server.signal(Signal::KILL);
    server.wait();
}

/// Checks that warnings and errors behind byte `begin` of a log name the full disk, and no other
/// cause.
fn names_the_full_disk(log: &Path, begin: usize) {
    let faults = || {
        let text = fs::read_to_string(log).unwrap();
        let lines = text[begin..].lines();
        let faults = lines.filter(|line| line.contains("[error]") || line.contains("[warn]"));
        faults.map(str::to_owned).collect::<Vec<_>>()
    };
    wait_for("the cause in the log", || (!faults().is_empty()).then_some(()));
    for line in faults() {
        let is_full =
            line.contains("No space left on device") || line.contains("MiB are free, the store");
        assert!(is_full && line.contains("free space on the file system"), "{line}");
    }
}

/// Fills a file system and makes room on it, in turn.
fn fill_and_free(disk: &SmallDisk, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let flags = flags(&disk.path().join("store"), &log);
    let server = Server::with_mounts_of(disk.process(), &words(&flags));
    let mut ledger = Ledger::new(&server);
    for round in 0..rounds {
        ledger.publish_until_kept(&server);
        let (before, begin) = (refused(&server), fs::read(&log).unwrap().len());
        let filler = fill(&disk.here());
        ledger.publish_until_refused(&server);
        others_go_on(&server);
        assert!(refused(&server) > before, "round {round}");
        server.wait_metric("drumline_store_accepts_writes", |accepts| accepts == 0);
        names_the_full_disk(&log, begin);
        fs::remove_file(filler).unwrap();
        ledger.publish_until_kept(&server);
        server.wait_metric("drumline_store_accepts_writes", |accepts| accepts == 1);
        names_the_full_disk(&log, begin);
        ledger.check(&server);
    }
    kill(server);
    let server = Server::with_mounts_of(disk.process(), &words(&flags));
    ledger.check(&server);
    ledger.publish_until_kept(&server);
}

#[test]
#[ignore = "mounts file systems: scripts/test.sh disk"]
fn disk_full_20_times_in_turn_publishing_resumes_each_time() {
    let disk = SmallDisk::mount("-t tmpfs -o size=256m tmpfs").expect("mounting is permitted");
    fill_and_free(&disk, 20);
}

#[test]
#[ignore = "mounts file systems: scripts/test.sh disk"]
fn disk_full_on_ext4_publishing_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::ext4(&folder.path().join("image"), 300).expect("mounting is permitted");
    fill_and_free(&disk, 5);
}

#[test]
#[ignore = "mounts file systems: scripts/test.sh disk"]
fn disk_that_is_mounted_read_only_at_the_start_is_used_once_it_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::ext4(&folder.path().join("image"), 300).expect("mounting is permitted");
    let flags = flags(&disk.path().join("store"), &folder.path().join("log"));
    let start = || Server::with_mounts_of(disk.process(), &words(&flags));
    let first = start();
    let mut ledger = Ledger::new(&first);
    ledger.publish_until_kept(&first);
    kill(first);
    disk.remount("ro");
    let second = start();
    assert!(!ledger.publish(&second, 10));
    others_go_on(&second);
    assert!(refused(&second) > 0);
    disk.remount("rw");
    ledger.publish_until_kept(&second);
    ledger.check(&second);
}

/// A server with faults, and its folder.
struct Faulty {
    faults: Faults,
    folder: tempfile::TempDir,
}

impl Faulty {
    fn new() -> Self {
        Faulty { faults: Faults::new(), folder: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn start(&self) -> Server {
        let flags = flags(&self.store(), &self.folder.path().join("log"));
        Server::with_variables(&words(&flags), &self.faults.variables(&self.store()))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

#[test]
fn while_the_disk_is_read_only_durable_publishing_answers_error_100_and_then_resumes() {
    let place = Faulty::new();
    let server = place.start();
    let mut ledger = Ledger::new(&server);
    for _ in 0..5 {
        ledger.publish_until_kept(&server);
        let before = refused(&server);
        place.faults.set(b'r');
        ledger.publish_until_refused(&server);
        others_go_on(&server);
        assert!(refused(&server) > before);
        place.faults.set(b'n');
        ledger.publish_until_kept(&server);
        ledger.check(&server);
    }
    assert!(place.log().contains("Read-only file system"), "{}", place.log());
    kill(server);
    let server = place.start();
    ledger.check(&server);
}

#[test]
fn error_100_of_the_store_has_an_http_status_of_its_own_where_that_is_wanted() {
    let place = Faulty::new();
    let publication = json!({"channel": "a", "data": 1}).to_string();
    for (mode, header) in [("", "X-Centrifugo-Error-Mode: transport\r\n"), ("transport", "")] {
        let mut flags = flags(&place.store(), &place.folder.path().join("log"));
        // The shards serve plain calls on the public port.
        let more = ["--http_api.external", "--http_api.error_mode", mode];
        flags.extend(more.map(str::to_owned));
        let variables = place.faults.variables(&place.store());
        let server = Server::with_variables(&words(&flags), &variables);
        let publish = || {
            let mut client = Client::dial(server.address());
            client.exchange(&api_request("publish", header, &publication))
        };
        wait_for("a publication that is kept", || (publish().0 == 200).then_some(()));
        place.faults.set(b'r');
        wait_for("a publication that is refused", || (publish().0 != 200).then_some(()));
        let refused = (500, r#"{"code":100,"message":"internal server error"}"#.to_owned());
        assert_eq!(publish(), refused, "{mode}");
        place.faults.set(b'n');
        kill(server);
    }
}

#[test]
fn a_disk_that_becomes_full_while_tables_are_written_loses_nothing_and_publishing_resumes() {
    let place = Faulty { faults: Faults::new(), folder: folder_in_memory() };
    let mut flags = flags(&place.store(), &place.folder.path().join("log"));
    flags[6] = "10000".to_owned();
    let variables = place.faults.variables(&place.store());
    let start = || Server::with_variables(&words(&flags), &variables);
    let server = start();
    let mut ledger = Ledger::new(&server);
    // Each round fills a table in memory, which the store then cannot write to disk.
    for round in 0..2 {
        ledger.publish_until_kept_within(&server, READS_JOURNALS_WITHIN);
        let before = refused(&server);
        place.faults.set(b't');
        ledger.publish_until_refused(&server);
        others_go_on(&server);
        assert!(refused(&server) > before, "round {round}");
        place.faults.set(b'n');
        ledger.publish_until_kept_within(&server, READS_JOURNALS_WITHIN);
        server.wait_metric("drumline_store_accepts_writes", |accepts| accepts == 1);
    }
    let log = place.log();
    assert!(log.contains("No space left on device"), "{log}");
    assert!(log.contains("free space on the file system"), "{log}");
    kill(server);
    let server = start();
    let found = whole_history(&server);
    for (offset, number) in &ledger.acknowledged {
        assert_eq!(found.get(offset), Some(number), "{offset}");
    }
    ledger.publish_until_kept(&server);
}

#[test]
fn slow_syncs_delay_durable_publications_only() {
    let place = Faulty::new();
    let server = place.start();
    let mut ledger = Ledger::new(&server);
    ledger.publish_until_kept(&server);
    place.faults.set(b's');
    let longest = std::thread::scope(|scope| {
        let durable = scope.spawn(|| {
            for _ in 0..10 {
                let began = Instant::now();
                assert!(ledger.publish(&server, 10));
                assert!(began.elapsed() >= Duration::from_millis(100), "the sync was waited for");
            }
        });
        let mut times = Vec::new();
        while !durable.is_finished() {
            let began = Instant::now();
            others_go_on(&server);
            times.push(began.elapsed());
        }
        times.sort();
        // Other processes can delay a few.
        times[times.len() / 2]
    });
    assert!(longest < Duration::from_millis(50), "a shard waits for the disk: {longest:?}");
    place.faults.set(b'n');
    ledger.check(&server);
}

#[test]
fn after_one_failed_sync_nothing_written_before_is_acknowledged_although_later_syncs_work() {
    let place = Faulty::new();
    let mut server = place.start();
    let mut ledger = Ledger::new(&server);
    let mut subscriber = Client::connected(&server);
    subscriber.ask(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    let mut seen = Vec::new();
    for round in 0..10 {
        let before = refused(&server);
        place.faults.set(b'o');
        while ledger.publish(&server, 10) {
            assert!(ledger.next < 10_000, "no sync fails");
        }
        assert!(refused(&server) > before, "round {round}");
        ledger.publish_until_kept(&server);
        ledger.check(&server);
    }
    let newest = ledger.acknowledged.last().unwrap().0;
    while seen.last().is_none_or(|(offset, _)| *offset < newest) {
        let push: Value = serde_json::from_str(&subscriber.push()).unwrap();
        let publication = &push["push"]["pub"];
        seen.push((publication["offset"].as_u64().unwrap(), publication["data"]["n"].as_u64()));
    }
    assert!(seen.is_sorted_by(|one, two| one.0 < two.0), "{seen:?}");
    let saw = |(offset, number): &(u64, u64)| seen.contains(&(*offset, Some(*number)));
    assert!(ledger.acknowledged.iter().all(saw), "{seen:?} {:?}", ledger.acknowledged);
    for _ in 0..3 {
        kill(server);
        server = place.start();
        ledger.check(&server);
        ledger.publish_until_kept(&server);
    }
}

#[test]
fn while_every_sync_fails_nothing_is_acknowledged() {
    let place = Faulty::new();
    let server = place.start();
    let mut ledger = Ledger::new(&server);
    ledger.publish_until_kept(&server);
    place.faults.set(b'f');
    for _ in 0..20 {
        assert!(!ledger.publish(&server, 10));
        std::thread::sleep(Duration::from_millis(20));
    }
    others_go_on(&server);
    assert!(place.log().contains("Input/output error"), "{}", place.log());
    place.faults.set(b'n');
    ledger.publish_until_kept(&server);
    ledger.check(&server);
}

/// The newest journal in a store.
fn journal(store: &Path) -> PathBuf {
    let entries = fs::read_dir(store.join("data")).unwrap().map(|entry| entry.unwrap().path());
    let journals = entries.filter(|path| path.extension().is_some_and(|found| found == "jnl"));
    journals.max().unwrap()
}

/// A store that was killed, its newest journal and the bytes of it, and the ledger.
fn killed(place: &Faulty) -> (PathBuf, Vec<u8>, Ledger) {
    let server = place.start();
    let mut ledger = Ledger::new(&server);
    for _ in 0..10 {
        assert!(ledger.publish(&server, 1000));
    }
    kill(server);
    let path = journal(&place.store());
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.truncate(end);
    (path, bytes, ledger)
}

#[test]
fn a_torn_tail_is_repaired_at_the_start() {
    let place = Faulty::new();
    let (path, bytes, mut ledger) = killed(&place);
    // As if the last batch was cut off before it was synced.
    fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    let server = place.start();
    ledger.acknowledged.pop();
    ledger.check(&server);
    ledger.publish_until_kept(&server);
    kill(server);
    let server = place.start();
    ledger.check(&server);
}

#[test]
fn a_damaged_middle_is_refused_at_the_start_with_the_name_of_the_file_and_what_to_do() {
    let place = Faulty::new();
    let (path, mut bytes, _) = killed(&place);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let mut command = Command::new(binary());
    command.args(["serve", "--http_server.port", "0"]);
    command.args(flags(&place.store(), &place.folder.path().join("log2")));
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(text.contains("restore") || text.contains("import"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing is changed");
}

#[test]
fn what_was_removed_by_a_call_by_size_or_by_age_stays_removed_after_kill_9() {
    let place = Faulty::new();
    let server = place.start();
    let mut ledger = Ledger::new(&server);
    for _ in 0..50 {
        assert!(ledger.publish(&server, 10));
    }
    kill(server);
    let server = place.start();
    let offsets = |server: &Server| -> Vec<u64> {
        let found = call(server, "history", &json!({"channel": "a", "limit": 100}));
        assert_eq!(found["result"]["epoch"], json!(ledger.epoch));
        let all = found["result"]["publications"].as_array().unwrap().iter();
        all.map(|one| one["offset"].as_u64().unwrap()).collect()
    };
    assert_eq!(offsets(&server), (41..=50).collect::<Vec<_>>(), "the size");
    call(&server, "history_remove", &json!({"channel": "a"}));
    kill(server);
    let server = place.start();
    assert!(offsets(&server).is_empty(), "the call");
    let answer = call(&server, "publish", &json!({"channel": "a", "data": 1}));
    assert_eq!(answer["result"]["offset"], 51);
    kill(server);
    let mut flags = flags(&place.store(), &place.folder.path().join("log"));
    flags[8] = "1s".to_owned();
    let server = Server::on_one_port(&words(&flags));
    call(&server, "history_remove", &json!({"channel": "a"}));
    let answer = call(&server, "publish", &json!({"channel": "a", "data": 2}));
    assert_eq!(answer["result"]["offset"], 52);
    wait_for("the age", || offsets(&server).is_empty().then_some(()));
    kill(server);
    let server = place.start();
    assert!(offsets(&server).is_empty(), "the age");
    let answer = call(&server, "publish", &json!({"channel": "a", "data": 3}));
    assert_eq!(answer["result"]["offset"], 53);
}
