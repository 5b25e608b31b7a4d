//! A bounded queue of lines and its writer thread, for a descriptor or a file.
//!
//! Owns the only place where writing a line may block. Never blocks, locks or fails a caller that
//! logs. The invariant: a line that cannot be queued or written is counted, and the count is
//! written as soon as a write succeeds again.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// Maximum number of lines that wait for a writer thread.
const QUEUE: usize = 1024;
/// Minimum time between two reports of dropped lines while more lines wait.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
/// Time between two checks of [`Sink::flush`] whether all lines are written.
const FLUSH_PAUSE: Duration = Duration::from_millis(2);
/// Time between two checks whether the file still has its name.
const CHECK_PAUSE: Duration = Duration::from_secs(1);
/// Permissions of a new file: lines contain names of users.
const MODE: u32 = 0o640;

/// Makes a line about what happened to the sink.
pub type Report = Box<dyn Fn(&str) -> Vec<u8> + Send>;

/// Counts of texts that were passed to a sink, and the signals to its writer.
#[derive(Default)]
struct Shared {
    /// Texts passed to the sink.
    accepted: AtomicU64,
    /// Texts that were written or dropped.
    handled: AtomicU64,
    /// Texts that were dropped.
    dropped: AtomicU64,
    /// The writer sleeps, or is about to.
    sleeps: AtomicBool,
    /// The file is to be opened again.
    reopens: AtomicBool,
    /// The sink is gone.
    ended: AtomicBool,
}

impl Shared {
    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn handled_one(&self) {
        self.handled.fetch_add(1, Ordering::Release);
    }
}

/// The queue of a writer thread.
pub struct Sink {
    queue: Sender<Vec<u8>>,
    shared: Arc<Shared>,
    /// `None`: the thread did not start, so every line is dropped.
    writer: Option<Thread>,
}

impl Sink {
    /// Starts a writer thread for a copy of a descriptor. If the thread or the copy cannot be made,
    /// the sink drops every line. The copy never holds the lock of [`io::stderr`], so a panic in
    /// another thread never waits for it.
    pub fn of_descriptor(name: &str, descriptor: BorrowedFd<'_>, report: Report) -> Self {
        let output = descriptor.try_clone_to_owned().ok().map(Output::of_descriptor);
        Self::start(name, output, report)
    }

    /// Starts a writer thread for a file, to which lines are appended. The file is opened again
    /// when it loses its name. `complain` gets one text per outage of the file.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn of_file(path: &Path, report: Report, complain: fn(&str)) -> io::Result<Self> {
        let file = LogFile { path: path.to_owned(), complain, checked: Instant::now() };
        let output = Output { file: open(path)?, named: Some(file), torn: false, fails: false };
        Ok(Self::start("log-file", Some(output), report))
    }

    fn start(name: &str, output: Option<Output>, report: Report) -> Self {
        let (queue, lines) = bounded(QUEUE);
        let shared = Arc::new(Shared::default());
        let writer = output.and_then(|output| {
            let writer = Writer::new(output, lines, shared.clone(), report);
            let thread = thread::Builder::new().name(name.to_owned());
            // If the thread does not start, the receiver is dropped, so the queue takes no line.
            thread.spawn(move || writer.run()).ok()
        });
        Sink { queue, shared, writer: writer.map(|handle| handle.thread().clone()) }
    }

    /// Queues a text, or drops it if the queue is full.
    pub fn push(&self, text: Vec<u8>) {
        self.shared.accepted.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(text).is_err() {
            self.shared.drop_one();
            self.shared.handled_one();
        }
        self.wake();
    }

    /// Opens the file again, after it was renamed.
    pub fn reopen(&self) {
        self.shared.reopens.store(true, Ordering::Release);
        self.wake();
    }

    /// Wakes the writer if it sleeps. The writer checks the queue again after it has said that it
    /// sleeps, so one of the two sees what the other has done.
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.shared.sleeps.load(Ordering::SeqCst)
            && self.shared.sleeps.swap(false, Ordering::SeqCst)
            && let Some(writer) = &self.writer
        {
            writer.unpark();
        }
    }

    /// Waits until every text queued so far is written or dropped. Returns false at `end`.
    pub fn flush(&self, end: Instant) -> bool {
        let accepted = self.shared.accepted.load(Ordering::Relaxed);
        while self.shared.handled.load(Ordering::Acquire) < accepted {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(FLUSH_PAUSE);
        }
        true
    }

    /// Number of texts dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.wake();
    }
}

/// A file with a name.
struct LogFile {
    path: PathBuf,
    complain: fn(&str),
    /// When the name was checked last.
    checked: Instant,
}

/// Opens a file to append to. It never waits for the reader of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE).custom_flags(flags.bits() as i32);
    options.open(path)
}

/// Where a writer writes.
struct Output {
    file: File,
    /// The name of the file; `None`: a descriptor of the process.
    named: Option<LogFile>,
    /// The last write stopped in the middle of a text.
    torn: bool,
    /// The last write failed.
    fails: bool,
}

impl Output {
    fn of_descriptor(descriptor: OwnedFd) -> Self {
        Output { file: descriptor.into(), named: None, torn: false, fails: false }
    }

    /// Writes a text. The first failure of an outage is told to the operator.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let written = self.check_name().and_then(|()| self.write_whole(text));
        match (&written, &self.named) {
            (Err(error), Some(LogFile { path, complain, .. })) if !self.fails => {
                complain(&format!(
                    "cannot write to {}: {error}; log lines are lost",
                    path.display()
                ));
            }
            _ => {}
        }
        self.fails = written.is_err();
        written
    }

    /// Opens the file again if it has lost its name, or if the last write failed.
    fn check_name(&mut self) -> io::Result<()> {
        let Some(named) = &mut self.named else { return Ok(()) };
        if named.checked.elapsed() < CHECK_PAUSE {
            return if self.fails { Err(ErrorKind::NotFound.into()) } else { Ok(()) };
        }
        named.checked = Instant::now();
        if self.file.metadata().is_ok_and(|file| file.nlink() > 0) {
            return Ok(());
        }
        self.reopen()
    }

    /// Opens the file again by its name.
    fn reopen(&mut self) -> io::Result<()> {
        if let Some(LogFile { path, .. }) = &self.named {
            let file = open(path)?;
            let identity = |file: &File| file.metadata().map(|data| (data.dev(), data.ino())).ok();
            self.torn &= identity(&file) == identity(&self.file);
            self.file = file;
        }
        Ok(())
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
                // A pipe is full, or another process has made the descriptor non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.await_room()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the descriptor can be written, for at most a second. A file with a name may be
    /// replaced meanwhile, so the text is given up then.
    fn await_room(&self) -> io::Result<()> {
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], Some(&second)) {
            Ok(0) if self.named.is_some() => Err(ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The writer thread: the only place where a write may block.
struct Writer {
    output: Output,
    lines: Receiver<Vec<u8>>,
    shared: Arc<Shared>,
    report: Report,
    /// Number of dropped lines that were reported.
    reported: u64,
    reported_at: Option<Instant>,
}

impl Writer {
    fn new(output: Output, lines: Receiver<Vec<u8>>, shared: Arc<Shared>, report: Report) -> Self {
        Writer { output, lines, shared, report, reported: 0, reported_at: None }
    }

    fn run(mut self) {
        while let Some(text) = self.next() {
            if self.output.write(&text).is_err() {
                self.shared.drop_one();
            } else {
                self.report_dropped();
            }
            self.shared.handled_one();
        }
    }

    /// Waits for the next text; `None`: the sink is gone.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.shared.reopens.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            match self.lines.try_recv() {
                Ok(text) => return Some(text),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if self.shared.ended.load(Ordering::Acquire) => {
                    return None;
                }
                Err(TryRecvError::Empty) => {}
            }
            self.shared.sleeps.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let Shared { reopens, ended, .. } = &*self.shared;
            let has_news = reopens.load(Ordering::Acquire) || ended.load(Ordering::Acquire);
            if self.lines.is_empty() && !has_news {
                thread::park();
            }
            self.shared.sleeps.store(false, Ordering::SeqCst);
        }
    }

    /// Opens the file again. If it cannot, lines go to the former file.
    fn reopen(&mut self) {
        if let (Err(error), Some(named)) = (self.output.reopen(), &self.output.named) {
            let path = named.path.display();
            let kept = "lines go to the former file";
            (named.complain)(&format!("cannot open {path} again: {error}; {kept}"));
        }
    }

    /// Writes how many lines were dropped since the last report: when the queue is empty, or after
    /// [`REPORT_PAUSE`] while it is not.
    fn report_dropped(&mut self) {
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        let reported_recently = self.reported_at.is_some_and(|at| at.elapsed() < REPORT_PAUSE);
        if dropped == self.reported || (reported_recently && !self.lines.is_empty()) {
            return;
        }
        let count = dropped - self.reported;
        let message = format!("{count} lines were dropped: the output was full, slow or closed");
        if self.output.write_whole(&(self.report)(&message)).is_ok() {
            self.reported = dropped;
            self.reported_at = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn report() -> Report {
        Box::new(|message| format!("log: {message}\n").into_bytes())
    }

    fn push(sink: &Sink, message: &str) {
        sink.push(format!("test: {message}\n").into_bytes());
    }

    fn flushed(sink: &Sink) {
        assert!(sink.flush(Instant::now() + PATIENCE));
    }

    #[test]
    fn a_slow_reader_loses_lines_and_gets_their_number() {
        let (near, mut far) = UnixStream::pair().unwrap();
        for nonblocking in [false, true] {
            near.set_nonblocking(nonblocking).unwrap();
            let sink = Sink::of_descriptor("test", near.as_fd(), report());
            let total = 2 * QUEUE + 5_000;
            for nth in 0..total {
                push(&sink, &format!("{nth} {}", "x".repeat(1000)));
            }
            assert!(!sink.flush(Instant::now()), "a full pipe cannot be flushed");
            let dropped = sink.dropped();
            assert!(dropped > 1000, "{dropped}");
            let mut text = String::new();
            let mut chunk = [0; 64 * 1024];
            // The writer may have reported some before the socket was full.
            let reported = |text: &str| {
                let counts = text.split("log: ").skip(1).map(|rest| rest.split_once(" lines"));
                counts.map(|count| count.unwrap().0.parse::<u64>().unwrap()).sum::<u64>()
            };
            let written = |text: &str| text.matches("test: ").count() as u64;
            let ends = |text: &str| text.is_empty() || text.ends_with('\n');
            while !ends(&text)
                || reported(&text) < dropped
                || written(&text) + dropped < total as u64
            {
                let count = far.read(&mut chunk).unwrap();
                text.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
            }
            flushed(&sink);
            assert_eq!(written(&text) + dropped, total as u64);
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_never_delays_a_caller() {
        let (near, _far) = UnixStream::pair().unwrap();
        let sink = Sink::of_descriptor("test", near.as_fd(), report());
        let began = Instant::now();
        let mut slowest = Duration::ZERO;
        for _ in 0..50_000 {
            let at = Instant::now();
            push(&sink, "line");
            slowest = slowest.max(at.elapsed());
        }
        assert!(sink.dropped() > 10_000, "{}", sink.dropped());
        // A write to the full pipe would take forever.
        assert!(began.elapsed() < PATIENCE && slowest < PATIENCE / 10, "{slowest:?}");
    }

    #[test]
    fn a_writer_that_sleeps_is_woken_by_the_next_line() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let sink = Sink::of_descriptor("test", near.as_fd(), report());
        for nth in 0..1000 {
            push(&sink, "x");
            let mut line = [0; 8];
            far.read_exact(&mut line).unwrap_or_else(|error| panic!("line {nth}: {error}"));
            assert_eq!(&line, b"test: x\n");
        }
    }

    #[test]
    fn a_closed_or_full_descriptor_only_loses_lines() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (closed, other) = UnixStream::pair().unwrap();
        drop(other);
        for descriptor in [full.as_fd(), closed.as_fd()] {
            let sink = Sink::of_descriptor("test", descriptor, report());
            (0..10).for_each(|_| push(&sink, "lost"));
            flushed(&sink);
            assert_eq!(sink.dropped(), 10);
        }
    }

    #[test]
    fn lines_lost_on_a_full_device_are_reported_after_the_next_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (queue, lines) = bounded(QUEUE);
        let output = Output::of_descriptor(full.into());
        let mut writer = Writer::new(output, lines, Arc::default(), report());
        queue.send(b"lost\n".to_vec()).unwrap();
        drop(queue);
        while let Some(text) = writer.next() {
            assert!(writer.output.write(&text).is_err());
            writer.shared.drop_one();
        }
        (writer.output.file, writer.output.torn) = (File::create(&path).unwrap(), true);
        writer.output.write(b"here\n").unwrap();
        writer.report_dropped();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with("\nhere\nlog: 1 lines were dropped"), "{text}");
    }

    #[test]
    fn a_torn_line_ends_before_the_next_when_the_same_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let named = LogFile { path: path.clone(), complain: |_| {}, checked: Instant::now() };
        let file = open(&path).unwrap();
        let mut output = Output { file, named: Some(named), torn: false, fails: false };
        output.write_all(b"to").unwrap();
        output.torn = true;
        output.reopen().unwrap();
        output.write(b"next\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "to\nnext\n");
        output.torn = true;
        std::fs::rename(&path, folder.path().join("log.1")).unwrap();
        output.reopen().unwrap();
        output.write(b"first\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first\n");
    }

    #[test]
    fn a_named_pipe_whose_reader_hangs_can_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        let flags = OFlags::NONBLOCK.bits() as i32;
        let _reader = OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
        let sink = Sink::of_file(&path, report(), |_| {}).unwrap();
        (0..200).for_each(|_| push(&sink, &"x".repeat(1000)));
        std::fs::remove_file(&path).unwrap();
        let began = Instant::now();
        while !std::fs::read_to_string(&path).is_ok_and(|text| text.contains("test: here\n")) {
            assert!(began.elapsed() < PATIENCE, "the writer still waits for the pipe");
            sink.reopen();
            push(&sink, "here");
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_renamed_file_is_opened_again_and_new_files_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let sink = Sink::of_file(&path, report(), |text| panic!("{text}")).unwrap();
        push(&sink, "first");
        flushed(&sink);
        std::fs::rename(&path, &old).unwrap();
        push(&sink, "second");
        flushed(&sink);
        sink.reopen();
        push(&sink, "third");
        flushed(&sink);
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&old), "test: first\ntest: second\n");
        assert_eq!(read(&path), "test: third\n");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, MODE & !umask());
    }

    fn umask() -> u32 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
        u32::from_str_radix(line.trim(), 8).unwrap()
    }

    #[test]
    fn a_vanished_folder_is_told_once_and_lines_return_with_it() {
        static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        let path = logs.join("log");
        let complain = |text: &str| TOLD.lock().unwrap().push(text.to_owned());
        let sink = Sink::of_file(&path, report(), complain).unwrap();
        std::fs::remove_dir_all(&logs).unwrap();
        thread::sleep(CHECK_PAUSE);
        (0..10).for_each(|_| push(&sink, "lost"));
        flushed(&sink);
        assert_eq!(sink.dropped(), 10);
        std::fs::create_dir(&logs).unwrap();
        thread::sleep(CHECK_PAUSE);
        push(&sink, "here");
        flushed(&sink);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("test: here\nlog: 10 lines were dropped"), "{text}");
        let told = TOLD.lock().unwrap();
        assert!(told.len() == 1 && told[0].contains("log lines are lost"), "{told:?}");
    }

    #[test]
    fn a_full_disk_is_told_once_and_counted() {
        static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let complain = |text: &str| TOLD.lock().unwrap().push(text.to_owned());
        let sink = Sink::of_file(Path::new("/dev/full"), report(), complain).unwrap();
        (0..10).for_each(|_| push(&sink, "lost"));
        flushed(&sink);
        assert_eq!(sink.dropped(), 10);
        let told = TOLD.lock().unwrap();
        assert!(told.len() == 1 && told[0].contains("No space left"), "{told:?}");
    }

    #[test]
    fn a_pipe_without_a_reader_does_not_hold_up_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(Sink::of_file(&path, report(), |_| ()).is_err());
    }
}
