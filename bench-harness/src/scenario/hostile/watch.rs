//! Watches the server's memory and its health and API endpoints during a load.
//!
//! Owns two threads. Never sends requests to the data plane. Invariant: a request without an answer
//! in time counts as one failure.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::account;
use crate::server::API_KEY;

/// From one look at the memory to the next.
const MEMORY_EVERY: Duration = Duration::from_millis(20);
/// From one question to the next.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// The most resident anonymous memory, in bytes.
    pub rss_anon: u64,
    /// Questions to the control plane.
    pub asked: u64,
    /// Those of them without the right answer.
    pub failed: u64,
    /// The longest answer.
    pub longest: Duration,
    /// Why the first failed.
    pub cause: Option<String>,
}

/// Watches until it is stopped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    memory: JoinHandle<u64>,
    control: JoinHandle<Seen>,
}

impl Watch {
    /// Watches the process, and asks for its health and its API at `control`.
    pub fn start(pid: u32, control: SocketAddr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let [told, too] = [stop.clone(), stop.clone()];
        let peak = AtomicU64::new(0);
        let memory = std::thread::Builder::new().name("memory".to_owned()).spawn(move || {
            while !told.load(Ordering::Relaxed) {
                peak.fetch_max(account::rss_anon(pid).unwrap_or_default(), Ordering::Relaxed);
                std::thread::sleep(MEMORY_EVERY);
            }
            peak.into_inner()
        })?;
        let control = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            let mut seen = Seen::default();
            while !too.load(Ordering::Relaxed) {
                seen.ask(|| get(control, "/health").map(drop));
                seen.ask(|| post(control, "info", "{}").map(drop));
                std::thread::sleep(ASK_EVERY);
            }
            seen
        })?;
        Ok(Watch { stop, memory, control })
    }

    /// What was seen.
    pub fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let rss_anon = self.memory.join().map_err(|_| anyhow!("the memory's watcher panicked"))?;
        let seen = self.control.join().map_err(|_| anyhow!("the control's watcher panicked"))?;
        Ok(Seen { rss_anon, ..seen })
    }
}

impl Seen {
    fn ask(&mut self, question: impl Fn() -> Result<()>) {
        let begun = Instant::now();
        let answer = question();
        self.asked += 1;
        self.longest = self.longest.max(begun.elapsed());
        if let Err(error) = answer {
            self.failed += 1;
            self.cause.get_or_insert_with(|| format!("{error:#}"));
        }
    }
}

/// The body of a GET on a connection of its own.
pub fn get(server: SocketAddr, path: &str) -> Result<String> {
    exchange(server, &format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n"))
}

/// What the API answers.
pub fn post(server: SocketAddr, method: &str, body: &str) -> Result<String> {
    post_with(server, method, body, API_KEY)
}

/// What the API answers to a request with this key.
pub fn post_with(server: SocketAddr, method: &str, body: &str, key: &str) -> Result<String> {
    exchange(server, &api_request(server, method, body, key))
}

/// A request of the API with this key, on a connection of its own.
pub fn api_request(server: SocketAddr, method: &str, body: &str, key: &str) -> String {
    let length = body.len();
    format!(
        "POST /api/{method} HTTP/1.1\r\nHost: {server}\r\nX-API-Key: {key}\r\n\
         Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn exchange(server: SocketAddr, request: &str) -> Result<String> {
    let (status, text) = answer(server, request)?;
    ensure!(status == 200, "{}: answered {}", first_line(request), first_line(&text));
    let (_, body) = text.split_once("\r\n\r\n").with_context(|| first_line(request))?;
    Ok(body.to_owned())
}

/// The answer to a request on a connection of its own: its status, and its whole text.
pub fn answer(server: SocketAddr, request: &str) -> Result<(u16, String)> {
    let told = || first_line(request);
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).with_context(told)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(told)?;
    stream.write_all(request.as_bytes()).with_context(told)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(told)?;
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    Ok((status.with_context(|| format!("{}: answered {text:?}", told()))?, text))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
