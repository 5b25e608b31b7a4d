//! The feed of prices: a thread that publishes to a server or into files.
//!
//! Owns the schedule. Never waits longer for a server than for one answer. Invariant: a price
//! carries the time at which it was due.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};

use crate::clock::RunClock;
use crate::dense::Channels;
use crate::random::Random;
use crate::reader::Window;
use crate::server::API_KEY;
use crate::wire::{self, Stamp};

/// Where prices go.
#[derive(Debug, Clone)]
pub(super) enum Sink {
    /// The HTTP API of a server.
    Http(SocketAddr, Api),
    /// A file per channel in this folder, each replaced at once.
    Files(PathBuf),
}

/// How a price is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    /// As Drumline takes it.
    Drumline,
    /// The price alone is the body: nchan and the article's server.
    Bare,
}

/// The prices to publish.
#[derive(Debug, Clone)]
pub(super) struct Feed {
    pub(super) sink: Sink,
    pub(super) channels: Channels,
    pub(super) channel_count: u64,
    /// Prices per second of all channels together.
    pub(super) per_second: f64,
    /// Prices are due at random times on random channels instead of regular ones.
    pub(super) random: bool,
    /// Bytes of a price.
    pub(super) bytes: usize,
}

/// The running feed; returns the number of prices published.
pub(super) struct RunningFeed(JoinHandle<Result<u64>>);

impl RunningFeed {
    /// Waits for its end.
    pub(super) fn join(self) -> Result<u64> {
        self.0.join().map_err(|_| anyhow!("the thread of the feed panicked"))?
    }
}

impl Feed {
    /// Publishes a first price on each channel, then starts the thread, which ends with the window.
    pub(super) fn start(self, clock: RunClock, window: Arc<Window>) -> Result<RunningFeed> {
        let mut publisher = Publisher {
            http: match &self.sink {
                Sink::Http(server, api) => Some(Http::open(*server, *api)?),
                Sink::Files(folder) => {
                    fs::create_dir_all(folder).context("cannot make the folder of prices")?;
                    None
                }
            },
            sequences: vec![0; self.channel_count as usize],
            feed: self,
        };
        for channel in 0..publisher.feed.channel_count {
            publisher.publish(channel, clock.now_ns())?;
        }
        let thread = std::thread::Builder::new().name("feed".to_owned());
        let handle = thread.spawn(move || publisher.run(clock, &window));
        Ok(RunningFeed(handle.context("cannot start the thread of the feed")?))
    }
}

struct Publisher {
    feed: Feed,
    http: Option<Http>,
    /// Prices published so far, by channel.
    sequences: Vec<u32>,
}

impl Publisher {
    fn run(mut self, clock: RunClock, window: &Window) -> Result<u64> {
        let mean_ns = 1e9 / self.feed.per_second;
        let mut random = Random::new(clock.now_ns());
        let (mut due_ns, mut published) = (clock.now_ns() as f64, 0);
        while (due_ns as u64) < window.end_ns() {
            due_ns += if self.feed.random { mean_ns * random.exponential() } else { mean_ns };
            // The window may be set, or end, during the wait.
            std::thread::sleep(clock.until(due_ns as u64));
            let count = self.feed.channel_count;
            let channel =
                if self.feed.random { random.number() % count } else { published % count };
            self.publish(channel, due_ns as u64)?;
            published += 1;
        }
        Ok(published)
    }

    fn publish(&mut self, channel: u64, due_ns: u64) -> Result<()> {
        let sequence = self.sequences.get_mut(channel as usize).context("no such channel")?;
        *sequence += 1;
        let mut price = Vec::new();
        let stamp = Stamp { due_ns, phase: 1, sequence: *sequence };
        stamp.write(self.feed.bytes, &mut price);
        let name = self.feed.channels.nth(channel);
        match (&self.feed.sink, &mut self.http) {
            (Sink::Files(folder), _) => replace(folder, &name, &price),
            (Sink::Http(..), Some(http)) => http.publish(&name, &price),
            (Sink::Http(..), None) => Err(anyhow!("the feed is not connected")),
        }
    }
}

/// Replaces a file at once: a reader gets the old or the new content.
fn replace(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    let (path, fresh) = (folder.join(name), folder.join(format!(".{name}")));
    fs::write(&fresh, content)
        .and_then(|()| fs::rename(&fresh, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A kept-alive connection to the HTTP API.
struct Http {
    stream: TcpStream,
    server: SocketAddr,
    api: Api,
}

impl Http {
    fn open(server: SocketAddr, api: Api) -> Result<Self> {
        let stream = TcpStream::connect(server).context("the feed cannot connect")?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        Ok(Http { stream, server, api })
    }

    /// Publishes and waits for the answer.
    fn publish(&mut self, channel: &str, price: &[u8]) -> Result<()> {
        let request = self.api.request(self.server, channel, price);
        self.stream.write_all(&request).context("the feed cannot write")?;
        let (mut heard, mut buffer) = (Vec::new(), [0; 1024]);
        while !is_whole(&heard)? {
            let read = self.stream.read(&mut buffer).context("the feed cannot read")?;
            ensure!(read > 0, "the server closed the connection of the feed");
            heard.extend_from_slice(buffer.get(..read).unwrap_or_default());
        }
        ensure!(
            heard.starts_with(b"HTTP/1.1 20") && wire::find(&heard, b"\"error\"").is_none(),
            "the server refused a price: {}",
            String::from_utf8_lossy(&heard)
        );
        Ok(())
    }
}

impl Api {
    fn request(self, server: SocketAddr, channel: &str, price: &[u8]) -> Vec<u8> {
        let (path, headers, body) = match self {
            Api::Drumline => {
                let opening = format!("{{\"channel\":\"{channel}\",\"data\":");
                let headers = format!("X-API-Key: {API_KEY}\r\nContent-Type: application/json\r\n");
                let body = [opening.as_bytes(), price, b"}"].concat();
                ("/api/publish".to_owned(), headers, body)
            }
            Api::Bare => (format!("/publish/{channel}"), String::new(), price.to_vec()),
        };
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {server}\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        [head.as_bytes(), &body].concat()
    }
}

/// Whether an answer is complete.
fn is_whole(bytes: &[u8]) -> Result<bool> {
    let Some(start) = wire::head_bytes(bytes) else { return Ok(false) };
    let head = String::from_utf8_lossy(&bytes[..start]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("an answer without a length")?.trim().parse()?;
    Ok(bytes.len() >= start + length)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_feed_publishes_until_the_window_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (clock, window) = (RunClock::start(), Arc::new(Window::default()));
        let feed = Feed {
            sink: Sink::Files(folder.path().join("prices")),
            channels: Channels::Rooms(3),
            channel_count: 3,
            per_second: 1000.0,
            random: false,
            bytes: 48,
        };
        let running = feed.start(clock, window.clone()).unwrap();
        let read = |name: &str| fs::read(folder.path().join("prices").join(name)).unwrap();
        assert_eq!(read("r2").len(), 48, "a first price at once");
        std::thread::sleep(Duration::from_millis(20));
        window.set(0, clock.now_ns() + 50_000_000);
        let published = running.join().unwrap();
        assert!(published >= 50, "{published}");
        let last = Stamp::find(&read("r0")).unwrap();
        assert!(u64::from(last.sequence) > published / 3, "{last:?}");
        assert_eq!(fs::read_dir(folder.path().join("prices")).unwrap().count(), 3);
    }

    #[test]
    fn an_answer_is_whole_with_its_body() {
        assert!(is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap());
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{").unwrap());
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\n").unwrap());
    }
}
