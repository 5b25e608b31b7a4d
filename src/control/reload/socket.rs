//! The socket by which `drumline reload` asks the server of the same machine for a reload.
//!
//! Owns the socket: an abstract one, so no file is left behind, and it works without a folder that
//! the server may write to. Its name contains the ID of the process and a random number. The
//! invariant: only the user of the server and root are served, and the command believes only the
//! process whose ID the name has, of its own user or of root; root believes every user's.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::base::failure::Failure;
use crate::base::log::is_special;
use crate::base::sys;

/// Begin of the names of these sockets. The ID of the process follows.
const PREFIX: &str = "drumline-reload-";
/// Connections that are served at a time.
const CONNECTIONS_MAX: usize = 16;
/// Pause after an accept that failed, because descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Maximum time that a command has to take the outcome.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// First byte of an answer: whether the reload succeeded.
const SUCCEEDED: u8 = b'+';
const FAILED: u8 = b'-';
/// Maximum size of an answer in bytes.
const ANSWER_MAX: u64 = 1 << 20;

/// The outcome of a reload: a line about what has changed, or why nothing has.
pub type Outcome = Result<String, Failure>;

/// A request whose sender waits for the outcome.
pub type Request = oneshot::Sender<Outcome>;

/// The socket of a running server.
pub struct ReloadSocket {
    listener: UnixListener,
    places: Semaphore,
}

impl ReloadSocket {
    /// Listens. Call it in the context of the runtime.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn listen() -> io::Result<Self> {
        let random = u64::from_ne_bytes(sys::random()?);
        let name = format!("{PREFIX}{}-{random:016x}", std::process::id());
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(ReloadSocket { listener, places: Semaphore::new(CONNECTIONS_MAX) })
    }

    /// Passes on the requests of commands, and answers them.
    pub async fn serve(self: Arc<Self>, requests: mpsc::Sender<Request>) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (socket, requests) = (self.clone(), requests.clone());
            if is_trusted(&stream) {
                tokio::spawn(async move { socket.answer(stream, requests).await });
            }
        }
    }

    async fn answer(&self, mut stream: UnixStream, requests: mpsc::Sender<Request>) {
        // A command that finds no place is closed without an answer, and says so.
        let Ok(_place) = self.places.try_acquire() else { return };
        let (sender, outcome) = oneshot::channel();
        if requests.try_send(sender).is_err() {
            return;
        }
        let Ok(outcome) = outcome.await else { return };
        let (first, text) = match outcome {
            Ok(report) => (SUCCEEDED, report),
            Err(Failure { cause, cure }) => (FAILED, format!("{cause}\n{cure}")),
        };
        let answer = [&[first], text.as_bytes()].concat();
        // The command may have been interrupted.
        let _ = timeout(WRITE_TIME, stream.write_all(&answer)).await;
    }
}

/// Whether the process at the other end belongs to root or to the user of this process.
fn is_trusted(stream: &UnixStream) -> bool {
    let own = sys::user();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

/// Whether the process with this ID listens at the other end. Any process can choose the name of
/// its socket, but not the ID that the kernel reports.
fn is_process(stream: &UnixStream, pid: u32) -> bool {
    let id = stream.peer_cred().ok().and_then(|peer| peer.pid());
    id.and_then(|id| u32::try_from(id).ok()) == Some(pid)
}

/// A running server, and the name of its socket.
struct Found {
    pid: u32,
    name: String,
}

/// The servers of this machine, or of this container, that can reload.
fn servers() -> Vec<Found> {
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let found = sockets.lines().filter_map(|line| {
        // The name of an abstract socket is shown with an @ in front.
        let name = line.split_whitespace().last()?.strip_prefix('@')?;
        let (pid, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
        Some(Found { pid: pid.parse().ok()?, name: name.to_owned() })
    });
    let mut found: Vec<Found> = found.collect();
    found.sort_by(|one, other| (one.pid, &one.name).cmp(&(other.pid, &other.name)));
    found.dedup_by(|later, first| later.name == first.name);
    found
}

/// Asks a server for a reload and waits for the outcome: the server with this process ID, or the
/// only one that runs.
///
/// # Errors
/// The reload failed for the cause that the server names, or no server answers.
pub fn request(pid: Option<u32>) -> Outcome {
    let found: Vec<Found> =
        servers().into_iter().filter(|found| pid.is_none_or(|pid| pid == found.pid)).collect();
    let mut ids: Vec<u32> = found.iter().map(|found| found.pid).collect();
    ids.dedup();
    let id = match (&ids[..], pid) {
        ([id], _) => *id,
        ([], Some(pid)) => {
            return Err(Failure::new(
                format!("no server with the process ID {pid} runs here"),
                "run the command in the network namespace or container of the server",
            ));
        }
        ([], None) => {
            return Err(Failure::new(
                "no server runs here",
                "run the command in the network namespace or container of the server",
            ));
        }
        (several, _) => {
            let ids: Vec<_> = several.iter().map(u32::to_string).collect();
            return Err(Failure::new(
                format!("several servers run here, with the process IDs {}", ids.join(", ")),
                "choose one with --pid",
            ));
        }
    };
    // Another process may have sockets with names of the same ID. It is not asked.
    let mut last = io::ErrorKind::NotFound.into();
    for server in &found {
        match ask(server) {
            Ok(outcome) => return outcome,
            Err(error) => last = error,
        }
    }
    Err(Failure::new(
        format!("the server with the process ID {id} gave no answer: {last}"),
        "run the command as root or as the server's user, in its container; or see its log",
    ))
}

/// Whether a character of an answer may reach the terminal.
fn is_shown(letter: char) -> bool {
    letter == '\n' || !is_special(letter)
}

fn ask(server: &Found) -> io::Result<Outcome> {
    let stream = StdStream::connect_addr(&SocketAddr::from_abstract_name(&server.name)?)?;
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stream = UnixStream::from_std(stream)?;
        let is_own = is_trusted(&stream) || sys::user() == 0;
        if !is_own || !is_process(&stream, server.pid) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut answer = String::new();
        (&mut stream).take(ANSWER_MAX).read_to_string(&mut answer).await?;
        let text: String = answer.chars().skip(1).filter(|letter| is_shown(*letter)).collect();
        match answer.as_bytes().first() {
            Some(&SUCCEEDED) => Ok(Ok(text)),
            Some(&FAILED) => {
                let (cause, cure) = text.split_once('\n').unwrap_or((&text, ""));
                Ok(Err(Failure::new(cause, cure)))
            }
            _ => Err(io::Error::other("it closed the connection")),
        }
    })
}
