//! Log lines and the first screen: a bounded queue and a writer thread for stderr, and another
//! pair for stdout.
//!
//! Owns the only writes to stderr and stdout, but for the last report of the process (`crash`).
//! The invariants: logging neither fails nor blocks, whatever stderr is; a line that cannot be
//! queued or written is counted, and the count is written as soon as a write succeeds again.
//! Levels and targets are those of the `tracing` crate, so a subscriber of it needs no more than a
//! call of [`write`].

use std::fmt::{self, Display, Write as _};
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Lines that wait for a writer at most.
const QUEUE: usize = 1024;
/// Bytes of one line at most.
const LINE_BYTES: usize = 4096;
/// Between two reports of dropped lines while lines keep coming.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at whether the queue is empty.
const FLUSH_LOOK: Duration = Duration::from_millis(2);

/// How serious a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed that an operator must mend.
    Error,
    /// Something failed, and the server goes on without it.
    Warn,
    /// Something happened that an operator may want to know.
    Info,
}

impl Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
        })
    }
}

/// Logs an error. `target` names the part of the server.
pub fn error(target: &str, message: impl Display) {
    write(Level::Error, target, &message);
}

/// Logs a warning. `target` names the part of the server.
pub fn warn(target: &str, message: impl Display) {
    write(Level::Warn, target, &message);
}

/// Logs what an operator may want to know. `target` names the part of the server.
pub fn info(target: &str, message: impl Display) {
    write(Level::Info, target, &message);
}

/// Queues one line for stderr. Control characters in the message are escaped, so that a message
/// from outside cannot pretend to be another line.
pub fn write(level: Level, target: &str, message: &dyn Display) {
    stderr().push(line(level, target, message).into_bytes());
}

/// Queues a text of several lines for stderr as it is.
pub fn text(text: impl Into<String>) {
    stderr().push(text.into().into_bytes());
}

/// Queues a text for stdout as it is: the first screen of the server.
pub fn screen(text: impl Into<String>) {
    stdout().push(text.into().into_bytes());
}

/// Writes the output of a command to stdout and waits for it.
///
/// # Errors
/// The kernel's, such as EPIPE where the reader has gone and ENOSPC where the device is full.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Starts the writer threads. Without this call they start with the first line, on whatever
/// processor the caller is pinned to.
pub fn start() {
    stderr();
    stdout();
}

/// Waits until everything that was queued so far is written or has failed, at most this long;
/// returns whether it is.
pub fn flush(within: Duration) -> bool {
    let end = Instant::now() + within;
    stderr().flush(end) & stdout().flush(end)
}

/// Lines that were dropped since the start: the queue was full, or the write failed.
pub fn dropped() -> u64 {
    stderr().counts.dropped.load(Ordering::Relaxed)
}

fn stderr() -> &'static Sink {
    static SINK: OnceLock<Sink> = OnceLock::new();
    SINK.get_or_init(|| Sink::start("log-stderr", io::stderr().as_fd()))
}

fn stdout() -> &'static Sink {
    static SINK: OnceLock<Sink> = OnceLock::new();
    SINK.get_or_init(|| Sink::start("log-stdout", io::stdout().as_fd()))
}

/// The text of a line, its end included.
fn line(level: Level, target: &str, message: &dyn Display) -> String {
    let mut escaped = Escaped(format!("drumline [{level}] {target}: "));
    // It refuses what is over the bound, and a message may fail to show itself: what is there by
    // then is the line.
    let _ = write!(escaped, "{message}");
    escaped.0.push('\n');
    escaped.0
}

/// A line's text so far, which grows to its bound at most.
struct Escaped(String);

impl fmt::Write for Escaped {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if self.0.len() >= LINE_BYTES {
                self.0.push_str("...");
                return Err(fmt::Error);
            }
            if letter.is_control() {
                self.0.extend(letter.escape_default());
            } else {
                self.0.push(letter);
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Counts {
    /// Texts that were to be queued.
    accepted: AtomicU64,
    /// Those of them that were written, or never will be.
    handled: AtomicU64,
    /// Those of them that never will be.
    dropped: AtomicU64,
}

impl Counts {
    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn handled_one(&self) {
        self.handled.fetch_add(1, Ordering::Release);
    }
}

/// The way to a descriptor.
struct Sink {
    queue: Sender<Vec<u8>>,
    counts: Arc<Counts>,
}

impl Sink {
    /// Starts a writer. Where there is no thread or descriptor for it, every line is dropped.
    fn start(name: &str, descriptor: BorrowedFd<'_>) -> Self {
        let (queue, lines) = bounded(QUEUE);
        let counts = Arc::new(Counts::default());
        if let Ok(descriptor) = descriptor.try_clone_to_owned() {
            let writer = Writer::new(descriptor, lines, counts.clone());
            let thread = std::thread::Builder::new().name(name.to_owned());
            // The queue of a thread that did not start is closed, and so refuses every line.
            let _ = thread.spawn(move || writer.run());
        }
        Sink { queue, counts }
    }

    fn push(&self, text: Vec<u8>) {
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(text).is_err() {
            self.counts.drop_one();
            self.counts.handled_one();
        }
    }

    fn flush(&self, end: Instant) -> bool {
        let accepted = self.counts.accepted.load(Ordering::Relaxed);
        while self.counts.handled.load(Ordering::Acquire) < accepted {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(FLUSH_LOOK);
        }
        true
    }
}

/// The thread's part: what may block, blocks here.
struct Writer {
    file: File,
    lines: Receiver<Vec<u8>>,
    counts: Arc<Counts>,
    /// Dropped lines that were reported.
    reported: u64,
    reported_at: Option<Instant>,
    /// Whether the last write ended within a line.
    torn: bool,
}

impl Writer {
    /// The descriptor is a copy: the locks of [`io::stderr`] stay free, so that a panic elsewhere
    /// never waits for a write here.
    fn new(descriptor: OwnedFd, lines: Receiver<Vec<u8>>, counts: Arc<Counts>) -> Self {
        let file = File::from(descriptor);
        Writer { file, lines, counts, reported: 0, reported_at: None, torn: false }
    }

    fn run(mut self) {
        while let Ok(text) = self.lines.recv() {
            if self.write_whole(&text).is_err() {
                self.counts.drop_one();
            } else {
                self.report();
            }
            self.counts.handled_one();
        }
    }

    /// Says how many lines were dropped since it was last said: once the queue is empty, and now
    /// and then while it is not.
    fn report(&mut self) {
        let dropped = self.counts.dropped.load(Ordering::Relaxed);
        let soon = self.reported_at.is_some_and(|at| at.elapsed() < REPORT_PAUSE);
        if dropped == self.reported || (soon && !self.lines.is_empty()) {
            return;
        }
        let count = dropped - self.reported;
        let message = format!("{count} lines were dropped: the output was full, slow or closed");
        if self.write_whole(line(Level::Warn, "log", &message).as_bytes()).is_ok() {
            self.reported = dropped;
            self.reported_at = Some(Instant::now());
        }
    }

    fn write_whole(&mut self, text: &[u8]) -> io::Result<()> {
        if self.torn {
            self.write_all(b"\n")?;
            self.torn = false;
        }
        self.write_all(text)
    }

    fn write_all(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody who shares the descriptor has made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.await_room()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn await_room(&self) -> io::Result<()> {
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], Some(&second)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn push(sink: &Sink, message: &str) {
        sink.push(line(Level::Warn, "test", &message).into_bytes());
    }

    #[test]
    fn a_message_from_outside_stays_one_line_of_bounded_length() {
        let forged = line(Level::Warn, "backend", &"a\nb\u{1b}[31m\r\u{85}");
        assert_eq!(forged, "drumline [warn] backend: a\\nb\\u{1b}[31m\\r\\u{85}\n");
        let long = line(Level::Error, "backend", &"\u{1F980}".repeat(10_000));
        assert!(long.len() < LINE_BYTES + 16 && long.ends_with("...\n"), "{}", long.len());
    }

    #[test]
    fn a_slow_reader_costs_lines_and_learns_how_many() {
        let (near, mut far) = UnixStream::pair().unwrap();
        for nonblocking in [false, true] {
            near.set_nonblocking(nonblocking).unwrap();
            let sink = Sink::start("test", near.as_fd());
            let total = 2 * QUEUE + 5_000;
            for nth in 0..total {
                push(&sink, &format!("{nth} {}", "x".repeat(1000)));
            }
            assert!(!sink.flush(Instant::now()), "a full pipe cannot be flushed");
            let dropped = sink.counts.dropped.load(Ordering::Relaxed);
            assert!(dropped > 1000, "{dropped}");
            let mut text = String::new();
            let mut chunk = [0; 64 * 1024];
            let said = format!("drumline [warn] log: {dropped} lines were dropped");
            let written = |text: &str| text.matches("] test: ").count() as u64;
            while !text.contains(&said) || written(&text) + dropped < total as u64 {
                let count = far.read(&mut chunk).unwrap();
                text.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
            }
            assert!(sink.flush(Instant::now() + PATIENCE));
            assert_eq!(written(&text) + dropped, total as u64);
        }
    }

    #[test]
    fn a_closed_and_a_full_descriptor_cost_lines_alone() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (closed, other) = UnixStream::pair().unwrap();
        drop(other);
        for descriptor in [full.as_fd(), closed.as_fd()] {
            let sink = Sink::start("test", descriptor);
            (0..10).for_each(|_| push(&sink, "lost"));
            assert!(sink.flush(Instant::now() + PATIENCE));
            assert_eq!(sink.counts.dropped.load(Ordering::Relaxed), 10);
        }
    }

    #[test]
    fn lines_lost_to_a_full_device_are_reported_once_it_has_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (queue, lines) = bounded(QUEUE);
        let mut writer = Writer::new(full.into(), lines, Arc::default());
        queue.send(b"lost\n".to_vec()).unwrap();
        drop(queue);
        let counts = writer.counts.clone();
        while let Ok(text) = writer.lines.recv() {
            assert!(writer.write_whole(&text).is_err());
            counts.drop_one();
        }
        (writer.file, writer.torn) = (File::create(&path).unwrap(), true);
        writer.write_whole(b"here\n").unwrap();
        writer.report();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with("\nhere\ndrumline [warn] log: 1 lines were dropped"), "{text}");
    }
}
