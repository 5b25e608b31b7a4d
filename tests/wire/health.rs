//! Health: a shard that does not turn is named, and the service manager is not told that all is
//! well.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Client, PATIENCE, Server, wait_for};

const STOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/stop_thread.py");
const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: test\r\n\r\n";
const READY: &str = "GET /health/ready HTTP/1.1\r\nHost: test\r\n\r\n";

/// A thread that is stopped until this is dropped.
struct Stopped(Child);

impl Stopped {
    fn thread(id: &str) -> Stopped {
        let mut child = Command::new("python3")
            .args([STOP, id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "stopped\n", "the test needs the permission to trace its child");
        Stopped(child)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The last worker of a server: the id of its thread.
fn last_worker(pid: u32) -> String {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let workers = threads.filter_map(|entry| {
        let entry = entry.unwrap();
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        let is_worker = name.starts_with("worker-");
        is_worker.then(|| (name, entry.file_name().into_string().unwrap()))
    });
    workers.max().expect("a worker").1
}

/// The answer on a connection; `None`: there is none soon.
fn asked(client: &mut Client, request: &str) -> Option<String> {
    client.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    client.stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = [0; 4096];
    let count = client.stream.read(&mut bytes).ok().filter(|count| *count > 0)?;
    Some(String::from_utf8(bytes[..count].to_vec()).unwrap())
}

#[test]
fn a_stuck_shard_is_named_and_the_watchdog_is_not_fed() {
    let name = format!("drumline-test-watchdog-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&address).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 4096];
    let mut next = move || {
        let count = manager.recv(&mut bytes).expect("a notification in time");
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    };
    let flags = ["--client.insecure", "--shards", "2", "--engine.slots_per_shard", "100"];
    let mut server = Server::launch(&flags, |command| {
        command.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "1000000");
    });
    let start = next();
    assert!(start.starts_with("STATUS=Starting: "), "{start}");
    let mut extended = false;
    while let heard = next()
        && !heard.contains("READY=1")
    {
        extended |= heard.starts_with("EXTEND_TIMEOUT_USEC=");
    }
    assert!(extended, "the start takes its time");
    let health = || Client::dial(server.internal_address()).exchange(HEALTH);
    wait_for("health", || (health().0 == 200).then_some(()));
    // Idle for long enough that only a shard that is woken turns.
    let mut beats = 0;
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        beats += usize::from(next() == "WATCHDOG=1");
    }
    assert!(beats >= 5, "{beats} in 4 seconds: at least twice within the watchdog's time");
    assert_eq!(health(), (200, "{}".to_owned()));

    let stopped = Stopped::thread(&last_worker(server.id()));
    let (status, body) = wait_for("a stuck shard", || Some(health()).filter(|(at, _)| *at != 200));
    let is_named = |text: &str| text.contains("no turn within 2 seconds: shard");
    assert!(status == 503 && is_named(&body), "{status} {body}");
    let ready = Client::dial(server.internal_address()).exchange(READY);
    assert!(ready.0 == 503 && is_named(&ready.1), "{ready:?}");
    while let heard = next()
        && !is_named(&heard)
    {
        assert!(heard == "WATCHDOG=1" || heard.starts_with("STATUS="), "{heard}");
    }
    std::thread::sleep(Duration::from_secs(2));
    drop(stopped);
    while let heard = next()
        && heard != "STATUS=every shard turns again"
    {
        assert!(is_named(&heard), "the watchdog was fed: {heard}");
    }
    assert_eq!(next(), "WATCHDOG=1");
    assert_eq!(health(), (200, "{}".to_owned()));
    server.signal_stop();
    while let heard = next()
        && heard != "STOPPING=1"
    {
        assert!(heard == "WATCHDOG=1", "{heard}");
    }
    assert!(next().starts_with("EXTEND_TIMEOUT_USEC="));
    assert!(server.wait().success());
}

#[test]
fn a_shard_that_turns_tells_of_another_one_that_is_stuck() {
    let server = Server::on_one_port(&[]);
    let mut kept: Vec<Client> = (0..16).map(|_| Client::dial(&server)).collect();
    for client in &mut kept {
        assert_eq!(client.exchange(HEALTH), (200, "{}".to_owned()));
    }
    if drumline::base::sys::processors() < 2 {
        return; // One worker turns both shards.
    }
    let stopped = Stopped::thread(&last_worker(server.id()));
    std::thread::sleep(Duration::from_secs(4));
    let answers: Vec<String> = kept.iter_mut().filter_map(|client| asked(client, HEALTH)).collect();
    assert!(!answers.is_empty() && answers.len() < 16, "{answers:?}");
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with(r#"{"error":"no turn within 2 seconds: shard 1"}"#), "{answer}");
    }
    drop(stopped);
    wait_for("all shards to turn", || {
        (Client::dial(&server).exchange(HEALTH).0 == 200).then_some(())
    });
}
