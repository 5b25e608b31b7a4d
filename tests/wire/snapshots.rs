//! Channels that are not durable over a clean stop and a start: positions, histories and
//! idempotency keys, and the cases in which there is no snapshot.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::disks::{Faults, SmallDisk, fill, names};
use crate::common::{Client, Server, api_request, wait_for};

/// A folder with a store and a log.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn snapshot(&self) -> PathBuf {
        self.store().join("snapshot")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn flags(&self) -> Vec<String> {
        flags(&self.store(), &self.folder.path().join("log"))
    }

    /// A server whose channels without a namespace keep their histories in memory. Channels of the
    /// namespace `disk` are durable.
    fn server(&self, more: &[&str]) -> Server {
        let flags = self.flags();
        Server::on_one_port(&[&words(&flags), more].concat())
    }
}

fn words(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

fn flags(store: &Path, log: &Path) -> Vec<String> {
    let of = |option: &str| format!("--channel.without_namespace.{option}");
    let disk = r#"[{"name":"disk","history_size":10,"history_ttl":"300s","history_durable":true,
        "force_recovery":true}]"#;
    vec![
        "--store.path".to_owned(),
        store.display().to_string(),
        "--log.file".to_owned(),
        log.display().to_string(),
        of("history_size"),
        "100".to_owned(),
        of("history_ttl"),
        "300s".to_owned(),
        of("force_recovery"),
        "--channel.namespaces".to_owned(),
        disk.to_owned(),
    ]
}

fn call(server: &Server, method: &str, body: &Value) -> Value {
    serde_json::from_str(&server.api(method, &body.to_string())).expect("JSON")
}

fn publish(server: &Server, channel: &str, data: u64, key: &str) -> Value {
    let body = json!({"channel": channel, "data": data, "idempotency_key": key});
    call(server, "publish", &body)["result"].clone()
}

/// The data of the history.
fn history(server: &Server, channel: &str) -> Vec<u64> {
    let result = call(server, "history", &json!({"channel": channel, "limit": 1000}));
    let publications = result["result"]["publications"].as_array().unwrap().iter();
    publications.map(|one| one["data"].as_u64().unwrap()).collect()
}

/// The answer to a subscribe of a new client.
fn subscribe(server: &Server, channel: &str, since: Option<(u64, &str)>) -> Value {
    let since = since.map_or(String::new(), |(offset, epoch)| {
        format!(r#","recover":true,"offset":{offset},"epoch":"{epoch}""#)
    });
    let command = format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"{since}}}}}"#);
    let text = Client::connected(server).ask(&command);
    serde_json::from_str::<Value>(&text).expect("JSON")["subscribe"].clone()
}

fn epoch(server: &Server, channel: &str) -> String {
    subscribe(server, channel, None)["epoch"].as_str().unwrap().to_owned()
}

/// Whether a client recovers, and the data that it missed.
fn recover(server: &Server, channel: &str, since: (u64, &str)) -> (bool, Vec<u64>) {
    let answer = subscribe(server, channel, Some(since));
    let missed = answer["publications"].as_array().cloned().unwrap_or_default();
    let data = missed.iter().map(|one| one["data"].as_u64().unwrap()).collect();
    (answer["recovered"] == json!(true), data)
}

/// Ends a server cleanly.
fn stop(mut server: Server) {
    server.signal_stop();
    assert!(server.wait().success());
}

fn kill(mut server: Server) {
    server.signal(Signal::KILL);
    server.wait();
}

#[test]
fn a_deploy_is_no_event_for_subscribers() {
    let place = Place::new();
    let first = place.server(&[]);
    let channels = ["a", "quiet", "disk:a"];
    let epochs = channels.map(|channel| epoch(&first, channel));
    for data in 1..=3 {
        publish(&first, "a", data, "");
        publish(&first, "disk:a", data, "");
    }
    assert_eq!(publish(&first, "a", 4, "key"), json!({"offset": 4, "epoch": epochs[0]}));
    // A subscriber stays until the drain closes it.
    let mut client = Client::connected(&first);
    client.ask(r#"{"id":2,"subscribe":{"channel":"quiet"}}"#);
    stop(first);
    assert_eq!(client.closed(), (3001, "shutdown".into()));
    let mode = fs::metadata(place.snapshot()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(place.log().contains("wrote a snapshot of 1 streams, 4 publications and 1 "));

    let second = place.server(&["--shards", "3"]);
    assert!(!place.snapshot().exists());
    assert!(place.log().contains("took over 1 streams, 4 publications and 1 "));
    assert_eq!(recover(&second, "a", (1, &epochs[0])), (true, vec![2, 3, 4]));
    assert_eq!(recover(&second, "a", (4, &epochs[0])), (true, vec![]));
    assert_eq!(recover(&second, "quiet", (0, &epochs[1])), (true, vec![]));
    assert_eq!(recover(&second, "disk:a", (2, &epochs[2])), (true, vec![3]));
    assert_eq!(publish(&second, "a", 9, "key"), json!({"offset": 4, "epoch": epochs[0]}));
    assert_eq!(publish(&second, "a", 5, ""), json!({"offset": 5, "epoch": epochs[0]}));
    assert_eq!(publish(&second, "quiet", 1, ""), json!({"offset": 1, "epoch": epochs[1]}));
    stop(second);

    let third = place.server(&[]);
    assert_eq!(recover(&third, "a", (3, &epochs[0])), (true, vec![4, 5]));
    assert_eq!(recover(&third, "quiet", (0, &epochs[1])), (true, vec![1]));
}

#[test]
fn after_kill_9_no_older_snapshot_is_used() {
    let place = Place::new();
    let first = place.server(&[]);
    let begun = epoch(&first, "a");
    publish(&first, "a", 1, "");
    stop(first);
    let second = place.server(&[]);
    assert_eq!(publish(&second, "a", 2, "")["offset"], 2);
    kill(second);
    let third = place.server(&[]);
    assert_ne!(epoch(&third, "a"), begun);
    assert_eq!(recover(&third, "a", (1, &begun)), (false, vec![]));
    assert_eq!(publish(&third, "a", 3, "")["offset"], 1);
}

#[test]
fn publications_of_the_drain_are_in_the_snapshot_or_refused() {
    let place = Place::new();
    let store = place.store().display().to_string();
    let log = place.folder.path().join("log").display().to_string();
    let flags = [
        "--http_api.insecure",
        "--store.path",
        &store,
        "--log.file",
        &log,
        "--channel.without_namespace.history_size",
        "100000",
        "--channel.without_namespace.history_ttl",
        "300s",
    ];
    let mut first = Server::start(&flags);
    let ends = AtomicBool::new(false);
    let acknowledged: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..4)
            .map(|nth| {
                let address = first.internal_address();
                let ends = &ends;
                scope.spawn(move || {
                    let mut client = Client::dial(address);
                    let (mut kept, mut refused) = (Vec::new(), 0);
                    for data in 0.. {
                        let body = json!({"channel": format!("c{nth}"), "data": data}).to_string();
                        let request = api_request("publish", "", &body);
                        if ends.load(Ordering::Acquire)
                            || client.stream.write_all(request.as_bytes()).is_err()
                        {
                            break;
                        }
                        let Some(text) = answer(&mut client) else { break };
                        match text.contains(r#""offset""#) {
                            true => kept.push(data),
                            false => refused += usize::from(text.contains(r#""code":100"#)),
                        }
                    }
                    (kept, refused)
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        first.signal_stop();
        assert!(first.wait().success());
        ends.store(true, Ordering::Release);
        let done: Vec<_> = publishers.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(done.iter().all(|(kept, _)| !kept.is_empty()), "{done:?}");
        done.into_iter().map(|(kept, _)| kept).collect()
    });
    let second = Server::start(&flags);
    for (nth, acknowledged) in acknowledged.iter().enumerate() {
        let body = json!({"channel": format!("c{nth}"), "limit": 100_000}).to_string();
        let text =
            Client::dial(second.internal_address()).exchange(&api_request("history", "", &body)).1;
        let result: Value = serde_json::from_str(&text).unwrap();
        let publications = result["result"]["publications"].as_array().unwrap().iter();
        let kept: Vec<u64> = publications.map(|one| one["data"].as_u64().unwrap()).collect();
        assert!(acknowledged.iter().all(|data| kept.contains(data)), "{acknowledged:?} {kept:?}");
    }
}

/// The answer to an API call; `None`: the connection has ended.
fn answer(client: &mut Client) -> Option<String> {
    let mut text = String::new();
    loop {
        let mut part = [0; 4096];
        let count = client.stream.read(&mut part).ok().filter(|n| *n > 0)?;
        text.push_str(&String::from_utf8_lossy(&part[..count]));
        let (head, body) = match text.split_once("\r\n\r\n") {
            Some(parts) => parts,
            None => continue,
        };
        let length = head.lines().find_map(|line| {
            let line = line.to_ascii_lowercase();
            line.strip_prefix("content-length: ").and_then(|length| length.parse().ok())
        });
        if body.len() >= length.unwrap_or(0) {
            return Some(body.to_owned());
        }
    }
}

#[test]
fn without_a_folder_nothing_is_written_and_the_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let flags = ["--log.file", &log.display().to_string()];
    stop(Server::on_one_port(&flags));
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("no snapshot is written") && text.contains("store.path"), "{text}");
    let place = Place::new();
    stop(place.server(&["--store.snapshot_max_bytes", "0"]));
    assert!(place.log().contains("store.snapshot_max_bytes"), "{}", place.log());
    assert!(!place.snapshot().exists());
}

#[test]
fn a_snapshot_that_cannot_be_read_is_kept_aside_and_the_server_starts() {
    let place = Place::new();
    let first = place.server(&[]);
    let begun = epoch(&first, "a");
    publish(&first, "a", 1, "");
    stop(first);
    let mut bytes = fs::read(place.snapshot()).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(place.snapshot(), &bytes).unwrap();
    let second = place.server(&[]);
    assert!(!place.snapshot().exists());
    assert!(place.log().contains("the checksum of a block is wrong"), "{}", place.log());
    let names = fs::read_dir(place.store()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> =
        names.filter(|path| path.display().to_string().contains("snapshot.unreadable-")).collect();
    assert_eq!((aside.len(), fs::read(&aside[0]).unwrap()), (1, bytes));
    assert_eq!(recover(&second, "a", (1, &begun)), (false, vec![]));
    assert_eq!(publish(&second, "a", 1, "")["offset"], 1);
    stop(second);
    let third = place.server(&[]);
    assert_eq!(history(&third, "a"), [1]);
}

#[test]
fn a_small_bound_keeps_positions_and_the_log_counts_the_rest() {
    let place = Place::new();
    let first = place.server(&["--store.snapshot_max_bytes", "10000"]);
    let epochs: Vec<String> = (0..20).map(|nth| epoch(&first, &nth.to_string())).collect();
    for nth in 0..20 {
        (1..=50).for_each(|data| _ = publish(&first, &nth.to_string(), data, ""));
    }
    stop(first);
    assert!(fs::metadata(place.snapshot()).unwrap().len() <= 10_000);
    assert!(place.log().contains("the snapshot lacks 0 streams, "), "{}", place.log());
    let second = place.server(&[]);
    let all: Vec<usize> = (0..20).map(|nth| history(&second, &nth.to_string()).len()).collect();
    assert!(all.contains(&50) && all.contains(&0), "{all:?}");
    for (nth, epoch) in epochs.iter().enumerate() {
        assert_eq!(recover(&second, &nth.to_string(), (50, epoch)), (true, vec![]));
        assert_eq!(publish(&second, &nth.to_string(), 51, "")["offset"], 51);
    }
}

/// The number before a word of the log.
fn counted(log: &str, line: &str, word: &str) -> u64 {
    let line = log.lines().find(|found| found.contains(line)).expect(log);
    line.split(word).next().unwrap().trim_end().rsplit(' ').next().unwrap().parse().expect(line)
}

#[test]
fn when_the_time_is_over_histories_are_left_out_and_positions_stay() {
    let (place, faults) = (Place::new(), Faults::new());
    let flags = [place.flags(), vec!["--store.snapshot_timeout".into(), "3s".into()]].concat();
    let first = Server::with_variables(&words(&flags), &faults.variables(&place.store()));
    let channels: Vec<String> = (0..20).map(|nth| nth.to_string()).collect();
    let epochs: Vec<String> = channels.iter().map(|channel| epoch(&first, channel)).collect();
    let text = "x".repeat(50_000);
    for channel in &channels {
        for nth in 1..=10 {
            let body = json!({"channel": channel, "data": {"nth": nth, "text": text}});
            assert_eq!(call(&first, "publish", &body)["result"]["offset"], nth);
        }
    }
    // The snapshot has 40 blocks, and each of them takes three writes: 36 s in all.
    faults.set(b'w');
    let began = Instant::now();
    stop(first);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let log = place.log();
    let written = counted(&log, "wrote a snapshot of 20 streams", " publications");
    let left_out = counted(&log, "the snapshot lacks 0 streams", " publications");
    assert_eq!(written + left_out, 200, "{log}");
    assert!(left_out > 0 && log.contains("store.snapshot_timeout"), "{log}");
    assert!(!place.store().join("snapshot.new").exists());

    let second = place.server(&[]);
    let mut kept = 0;
    for (channel, epoch) in channels.iter().zip(&epochs) {
        let answer = call(&second, "history", &json!({"channel": channel, "limit": 1000}));
        let found = answer["result"]["publications"].as_array().unwrap().iter();
        let offsets: Vec<u64> = found.map(|one| one["offset"].as_u64().unwrap()).collect();
        assert!((1..=10).collect::<Vec<_>>().ends_with(&offsets), "{offsets:?}");
        kept += offsets.len() as u64;
        assert_eq!(recover(&second, channel, (10, epoch)), (true, vec![]));
        assert_eq!(publish(&second, channel, 11, ""), json!({"offset": 11, "epoch": epoch}));
    }
    assert_eq!(kept, written, "the next start takes over what was written");
}

#[test]
fn without_time_for_all_positions_there_is_no_snapshot_and_epochs_are_new() {
    let place = Place::new();
    let first = place.server(&["--store.snapshot_timeout", "1ms"]);
    let begun = epoch(&first, "a");
    publish(&first, "a", 1, "");
    publish(&first, "disk:a", 1, "");
    stop(first);
    let log = place.log();
    let line = log.lines().find(|line| line.contains("no snapshot is written")).expect(&log);
    assert!(line.contains("[error]") && line.contains("the time is over"), "{line}");
    assert!(line.contains("raise store.snapshot_timeout"), "{line}");
    let left = names(&place.store());
    assert!(!left.iter().any(|name| name.starts_with("snapshot")), "{left:?}");
    let second = place.server(&[]);
    assert!(!place.log().contains("took over"), "{}", place.log());
    assert_eq!(recover(&second, "a", (1, &begun)), (false, vec![]));
    assert_ne!(epoch(&second, "a"), begun);
    assert_eq!(history(&second, "disk:a"), [1], "durable channels need no snapshot");
}

#[test]
fn a_drain_and_a_start_on_a_full_disk_delete_nothing_and_leave_no_half_snapshot() {
    let Some(disk) = SmallDisk::mount("-t tmpfs -o size=96m tmpfs") else {
        return eprintln!("skipped: mounting is not permitted");
    };
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("log");
    let flags = flags(&disk.path().join("store"), &log);
    let server = || Server::with_mounts_of(disk.process(), &words(&flags));
    let text = || fs::read_to_string(&log).unwrap();
    let store = disk.here().join("store");
    let first = server();
    let begun = epoch(&first, "a");
    publish(&first, "a", 1, "");
    assert_eq!(publish(&first, "disk:a", 1, "")["offset"], 1);
    let before = names(&store);
    let filler = fill(&disk.here());
    publish(&first, "a", 2, "");
    stop(first);
    assert!(text().contains("no snapshot is written"), "{}", text());
    assert_eq!(names(&store), before);

    // The disk is still full.
    let second = server();
    assert_eq!(names(&store), before);
    assert_eq!(recover(&second, "a", (2, &begun)), (false, vec![]));
    let begun = epoch(&second, "a");
    publish(&second, "a", 3, "");
    fs::remove_file(&filler).unwrap();
    let found = || call(&second, "history", &json!({"channel": "disk:a", "limit": 1}));
    wait_for("the store to open", || found().get("result").map(|_| ()));
    stop(second);
    assert!(names(&store).contains(&"snapshot".to_owned()), "{:?}", names(&store));

    // A start on a full disk takes the snapshot over.
    fill(&disk.here());
    let third = server();
    assert_eq!(names(&store), before);
    assert_eq!(recover(&third, "a", (0, &begun)), (true, vec![3]));
    kill(third);
}

#[test]
fn a_missing_or_empty_folder_of_the_store_is_a_warning() {
    let place = Place::new();
    let warned = |what: &str| {
        let text = place.log();
        let line = text.lines().find(|line| line.contains(what)).unwrap().to_owned();
        assert!(line.contains("[warn]") && line.contains("mount its volume"), "{line}");
    };
    let first = place.server(&[]);
    assert_eq!(publish(&first, "disk:a", 1, "")["offset"], 1);
    kill(first);
    let opened = format!("opened the store in {}\n", place.store().display());
    assert!(place.log().contains(&opened), "{}", place.log());
    assert!(!place.log().contains("has no store"));
    warned("does not exist");
    fs::remove_dir_all(place.store()).unwrap();
    fs::create_dir(place.store()).unwrap();
    let _second = place.server(&[]);
    warned("has no store");
}

#[test]
fn a_half_snapshot_is_removed_at_the_start() {
    let place = Place::new();
    fs::create_dir(place.store()).unwrap();
    fs::write(place.store().join("snapshot.new"), "half").unwrap();
    let first = place.server(&[]);
    assert!(!place.store().join("snapshot.new").exists());
    publish(&first, "a", 1, "");
    stop(first);
    let second = place.server(&[]);
    assert_eq!(history(&second, "a"), [1]);
}
