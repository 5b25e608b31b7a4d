//! Log lines and the startup banner: a bounded queue and a writer thread for stderr, and another
//! pair for stdout.
//!
//! Owns all writes to stderr and stdout, except the crash report (`crash`). Never blocks or fails a
//! caller that logs, whatever stderr is. The invariant: a line that cannot be queued or written is
//! counted, and the count is logged as soon as a write succeeds again. Levels and targets are those
//! of the `tracing` crate, so a `tracing` subscriber only needs to call [`write`].

use std::fmt::{self, Display, Write as _};
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Maximum number of lines that wait for a writer thread.
const QUEUE: usize = 1024;
/// Maximum size of one line in bytes.
const LINE_BYTES: usize = 4096;
/// Minimum time between two reports of dropped lines while more lines wait.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
/// Time between two checks of [`flush`] whether all lines are written.
const FLUSH_PAUSE: Duration = Duration::from_millis(2);

/// How serious a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A failure that the operator must fix.
    Error,
    /// A failure that the server continues after.
    Warn,
    /// An event that the operator may want to know.
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

/// Logs an event that the operator may want to know. `target` names the part of the server.
pub fn info(target: &str, message: impl Display) {
    write(Level::Info, target, &message);
}

/// Queues one line for stderr. Control characters in the message are escaped, so that text from a
/// client or backend cannot forge a log line.
pub fn write(level: Level, target: &str, message: &dyn Display) {
    stderr().push(line(level, target, message).into_bytes());
}

/// Queues a text of several lines for stderr, without escapes.
pub fn text(text: impl Into<String>) {
    stderr().push(text.into().into_bytes());
}

/// Queues a text for stdout, without escapes: the startup banner.
pub fn screen(text: impl Into<String>) {
    stdout().push(text.into().into_bytes());
}

/// Writes the output of a command to stdout and waits until it is written.
///
/// # Errors
/// The error of the kernel, such as EPIPE if the reader has closed the pipe, or ENOSPC if the
/// device is full.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Starts the writer threads. Without this call they start with the first line and run on the
/// processor to which the caller of that moment is pinned.
pub fn start() {
    stderr();
    stdout();
}

/// Waits until every text queued so far is written or dropped, for at most `within`. Returns false
/// if the time ran out.
pub fn flush(within: Duration) -> bool {
    let end = Instant::now() + within;
    stderr().flush(end) & stdout().flush(end)
}

/// Number of lines dropped since the start because the queue was full or the write failed.
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

/// The text of a line, including the line break.
fn line(level: Level, target: &str, message: &dyn Display) -> String {
    let mut escaped = Escaped(format!("drumline [{level}] {target}: "));
    // `write!` fails if the line is too long or if the message's `Display` fails. The line then
    // consists of the text written so far.
    let _ = write!(escaped, "{message}");
    escaped.0.push('\n');
    escaped.0
}

/// Text of a line with control characters escaped, of at most [`LINE_BYTES`] and an ellipsis.
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

/// Counts of texts that were passed to a sink.
#[derive(Default)]
struct Counts {
    /// Texts passed to the sink.
    accepted: AtomicU64,
    /// Texts that were written or dropped.
    handled: AtomicU64,
    /// Texts that were dropped.
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

/// The queue of the writer thread of one descriptor.
struct Sink {
    queue: Sender<Vec<u8>>,
    counts: Arc<Counts>,
}

impl Sink {
    /// Starts a writer thread. If the thread or a copy of the descriptor cannot be made, the sink
    /// drops every line.
    fn start(name: &str, descriptor: BorrowedFd<'_>) -> Self {
        let (queue, lines) = bounded(QUEUE);
        let counts = Arc::new(Counts::default());
        if let Ok(descriptor) = descriptor.try_clone_to_owned() {
            let writer = Writer::new(descriptor, lines, counts.clone());
            let thread = std::thread::Builder::new().name(name.to_owned());
            // If the thread does not start, the receiver is dropped, so the queue accepts no line.
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
            std::thread::sleep(FLUSH_PAUSE);
        }
        true
    }
}

/// The writer thread: the only place where a write may block.
struct Writer {
    file: File,
    lines: Receiver<Vec<u8>>,
    counts: Arc<Counts>,
    /// Number of dropped lines that were reported.
    reported: u64,
    reported_at: Option<Instant>,
    /// Whether the last write stopped in the middle of a text.
    torn: bool,
}

impl Writer {
    /// The descriptor is a copy, so that the writer never holds the lock of [`io::stderr`] and a
    /// panic in another thread never waits for it.
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

    /// Logs how many lines were dropped since the last report: when the queue is empty, or after
    /// [`REPORT_PAUSE`] while it is not.
    fn report(&mut self) {
        let dropped = self.counts.dropped.load(Ordering::Relaxed);
        let reported_recently = self.reported_at.is_some_and(|at| at.elapsed() < REPORT_PAUSE);
        if dropped == self.reported || (reported_recently && !self.lines.is_empty()) {
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
                // Another process that shares the descriptor has made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.await_room()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the descriptor can be written, for at most a second.
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
    fn control_characters_are_escaped_and_long_lines_are_cut() {
        let forged = line(Level::Warn, "backend", &"a\nb\u{1b}[31m\r\u{85}");
        assert_eq!(forged, "drumline [warn] backend: a\\nb\\u{1b}[31m\\r\\u{85}\n");
        let long = line(Level::Error, "backend", &"\u{1F980}".repeat(10_000));
        assert!(long.len() < LINE_BYTES + 16 && long.ends_with("...\n"), "{}", long.len());
    }

    #[test]
    fn a_slow_reader_loses_lines_and_gets_their_number() {
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
    fn a_closed_or_full_descriptor_only_loses_lines() {
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
    fn lines_lost_on_a_full_device_are_reported_after_the_next_write() {
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
