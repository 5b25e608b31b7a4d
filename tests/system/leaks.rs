//! Ten thousand connections come and go, and the kernel keeps nothing of them. Certificates are
//! replaced two thousand times, and memory does not grow.
//!
//! A target of its own, so that no other test of this run holds sockets meanwhile.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use drumline::base::sys;
use drumline::config::ServerTls;
use drumline::tls::store::CertificateStore;

use common::certificates::Authority;
use common::{Client, Server, WEBSOCKET};

const CYCLES: usize = 10_000;
/// Certificates that are replaced.
const RELOADS: usize = 2000;
const WORKERS: usize = 4;
/// What may stay: the kernel counts whole slabs as active, and the box has other work.
const SLACK: i64 = 2000;
const CACHES: [&str; 3] = ["io_kiocb", "TCP", "filp"];

/// Active objects of each cache; `None` where this user may not look.
fn caches() -> Option<[i64; 3]> {
    let text = std::fs::read_to_string("/proc/slabinfo").ok()?;
    Some(CACHES.map(|name| {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    }))
}

fn cycle(server: &Server, nth: usize) {
    let mut client = Client::open(server, WEBSOCKET);
    client.send(concat!(
        r#"{"id":1,"connect":{}}"#,
        "\n",
        r#"{"id":2,"subscribe":{"channel":"a"}}"#
    ));
    if nth % 3 != 2 {
        client.text();
        client.text();
    }
    match nth % 3 {
        0 => {
            client.send_raw(&common::client_frame(0x88, b"\x03\xe8"));
            assert_eq!(client.closed().0, 1000);
        }
        1 => drop(client),
        _ => client.vanish(),
    }
}

/// The tests look at memory and sockets, so one runs after the other.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn replaced_certificates_take_no_memory() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let authority = Authority::new();
    let pairs = ["a.test", "b.test"].map(|host| authority.issue(host));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let write = |nth: usize| {
        std::fs::write(path("crt"), &pairs[nth % 2].certificate).unwrap();
        std::fs::write(path("key"), &pairs[nth % 2].key).unwrap();
    };
    write(0);
    let options = ServerTls {
        cert_pem: path("crt"),
        key_pem: path("key").into(),
        client_ca_pem: authority.pem.clone(),
        ..ServerTls::default()
    };
    let store = CertificateStore::new("tls", &options).unwrap();
    let mut before = 0;
    for nth in 1..=RELOADS + 100 {
        write(nth);
        assert_eq!(store.reload(), Ok(true), "another certificate");
        if nth == 100 {
            before = sys::memory("RssAnon:").unwrap();
        }
    }
    let grown = sys::memory("RssAnon:").unwrap().saturating_sub(before);
    assert!(grown <= 1 << 20, "{RELOADS} reloads took {grown} bytes");
}

#[test]
fn closed_connections_leave_nothing_behind() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&[]);
    for nth in 0..500 {
        cycle(&server, nth);
    }
    server.wait_metric("drumline_clients", |clients| clients == 0);
    let (sockets, before) = (server.settle(), caches());
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let server = &server;
            scope.spawn(move || {
                (worker..CYCLES).step_by(WORKERS).for_each(|nth| cycle(server, nth));
            });
        }
    });
    server.wait_metric("drumline_clients", |clients| clients == 0);
    server.wait_metric("drumline_sockets", |now| now <= sockets);
    server.wait_metric("drumline_subscriptions", |count| count == 0);
    assert!(server.metric("drumline_connects_total") >= CYCLES as u64 * 2 / 3);
    let Some(before) = before else {
        return eprintln!(
            "/proc/slabinfo may not be read: only the server's own count was checked"
        );
    };
    let start = Instant::now();
    loop {
        let now = caches().expect("it could be read before");
        let grown: Vec<i64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
        if grown.iter().all(|grown| *grown < SLACK) {
            return;
        }
        let waited = start.elapsed();
        assert!(waited < Duration::from_secs(60), "{CACHES:?} grew by {grown:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
}
