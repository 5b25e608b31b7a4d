//! The socket of a running store, for `drumline store export`, `check` and `stats`: the database
//! can be open in one process only.
//!
//! Owns the socket in the folder of the store. Serves one request at a time and never waits longer
//! than its time limit for a client. The invariant: only root and the user of the server are
//! served.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::failure::Failure;
use crate::base::sys;
use crate::store::disk::{Disk, Fault};
use crate::store::folder::SOCKET;
use crate::store::tools::{export, report};

/// Maximum time that a client has to send its request, or to take a piece of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, because descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest request in bytes.
const REQUEST_MAX: u64 = 64;
/// Bytes of an answer that are sent at a time.
const PIECE: usize = 64 << 10;

/// Where an operator finds the cause of an unavailable store.
pub const UNAVAILABLE_CURE: &str =
    "see the log of the server and drumline_store_accepts_writes, and try again";

/// First byte of an answer that is what was asked for.
pub const DONE: u8 = b'+';
/// First byte of the report of a store with faults.
pub const FAULTY: u8 = b'!';
/// First byte of an answer that is an error: its cause, a line feed and its cure.
pub const FAILED: u8 = b'-';

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// An export.
    Export,
    /// A report about all records.
    Check,
    /// The numbers of records.
    Stats,
}

impl Request {
    const ALL: [(Request, &'static str); 3] =
        [(Request::Export, "export"), (Request::Check, "check"), (Request::Stats, "stats")];

    /// The line that asks for it.
    pub fn word(self) -> &'static str {
        let found = Self::ALL.iter().find(|(request, _)| *request == self);
        found.map_or("", |(_, word)| word)
    }

    fn of(line: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, word)| *word == line);
        found.map(|(request, _)| *request)
    }
}

/// The path of a file in a folder, in a form that fits into the address of a socket whatever its
/// length is. The folder must stay open.
fn short_path(folder: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).into()
}

/// Connects to the server that uses the store in a folder; `None`: no server does.
///
/// # Errors
/// The kernel refuses the connection, or another user's process listens.
pub fn connect(folder: &Path) -> io::Result<Option<UnixStream>> {
    let folder = match File::open(folder) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match UnixStream::connect(short_path(&folder, SOCKET)) {
        Ok(stream) if sys::user() == 0 || is_trusted(&stream) => Ok(Some(stream)),
        Ok(_) => Err(io::ErrorKind::PermissionDenied.into()),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error),
        },
    }
}

/// Whether the process at the other end belongs to root or to the user of this process.
fn is_trusted(stream: &impl AsFd) -> bool {
    let own = sys::user();
    sys::peer_user(stream).is_ok_and(|peer| peer == 0 || peer == own)
}

/// The running service.
pub struct Service {
    folder: PathBuf,
    is_stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Service {
    /// Listens in the folder of a store that this process has locked.
    ///
    /// # Errors
    /// The folder cannot be written, or the kernel starts no thread.
    pub fn start(folder: &Path, disk: Arc<impl Disk>) -> io::Result<Self> {
        // The lock of the folder is held, so an earlier socket has no listener.
        match fs::remove_file(folder.join(SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(short_path(&File::open(folder)?, SOCKET))?;
        let is_stopping = Arc::new(AtomicBool::new(false));
        let server = Server { folder: folder.to_owned(), disk, is_stopping: is_stopping.clone() };
        let builder = std::thread::Builder::new().name("store-tools".to_owned());
        let thread = builder.spawn(move || server.run(&listener))?;
        Ok(Service { folder: folder.to_owned(), is_stopping, thread })
    }

    /// Ends the service and what it is doing.
    pub fn stop(self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        // A connection ends the wait. If there is none, the folder is gone, and so is the socket.
        let is_woken = connect(&self.folder).is_ok_and(|stream| stream.is_some());
        let _ = fs::remove_file(self.folder.join(SOCKET));
        if is_woken {
            // A panic of the thread ends the process, except in a test.
            let _ = self.thread.join();
        }
    }
}

struct Server<D> {
    folder: PathBuf,
    disk: Arc<D>,
    is_stopping: Arc<AtomicBool>,
}

impl<D: Disk> Server<D> {
    fn run(self, listener: &UnixListener) {
        loop {
            let accepted = listener.accept();
            if self.is_stopping.load(Ordering::Relaxed) {
                return;
            }
            match accepted {
                // The client may have been interrupted.
                Ok((stream, _)) if is_trusted(&stream) => drop(self.answer(stream)),
                Ok(_) => {}
                Err(_) => std::thread::sleep(ACCEPT_PAUSE),
            }
        }
    }

    fn answer(&self, stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new((&stream).take(REQUEST_MAX)).read_line(&mut line)?;
        let guarded = Guarded { stream, is_stopping: &self.is_stopping };
        let mut to = BufWriter::with_capacity(PIECE, guarded);
        let readable = self.disk.view().map(drop).map_err(|fault| unavailable(&fault));
        let report = match (Request::of(line.trim_end()), readable) {
            (None, _) => {
                Err(Failure::new("the server does not know the request", "update the server"))
            }
            (_, Err(failure)) => Err(failure),
            (Some(Request::Export), Ok(())) => {
                to.write_all(&[DONE])?;
                // The client notices an export without an end.
                return match export::write(&*self.disk, sys::unix_millis(), &mut to) {
                    Ok(_) => to.flush(),
                    Err(failure) => {
                        tracing::warn!(target: "store", "an export ended early: {failure}");
                        Ok(())
                    }
                };
            }
            (Some(Request::Check), Ok(())) => report::check(&*self.disk, &self.folder),
            (Some(Request::Stats), Ok(())) => report::stats(&*self.disk, &self.folder),
        };
        match report {
            Ok(report) => {
                let first = if report.faults_found == 0 { DONE } else { FAULTY };
                to.write_all(&[first])?;
                write!(to, "{report}")?;
            }
            Err(Failure { cause, cure }) => {
                to.write_all(&[FAILED])?;
                write!(to, "{cause}\n{cure}")?;
            }
        }
        to.flush()
    }
}

/// The server has closed its store, until the cause of a fault is gone.
fn unavailable(fault: &Fault) -> Failure {
    Failure::new(format!("the server's store is unavailable: {fault}"), UNAVAILABLE_CURE)
}

/// A client's stream that takes nothing once the service stops.
struct Guarded<'a> {
    stream: UnixStream,
    is_stopping: &'a AtomicBool,
}

impl Write for Guarded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.is_stopping.load(Ordering::Relaxed) {
            true => Err(io::Error::other("the server stops")),
            false => self.stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
