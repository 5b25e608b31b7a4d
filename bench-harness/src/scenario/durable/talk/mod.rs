//! Closed-loop connections: each sends its next request when the previous one is answered.
//!
//! Owns one epoll loop on the calling thread, so that a request costs the client two system calls.
//! Never interprets an answer: the load does. Invariant: a connection has at most one outstanding
//! request, and every answer reaches the load.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::clock::RunClock;
use crate::wire;

mod interface;

pub(super) use interface::{Heard, Interface, api_request};

/// Bytes of one read.
const READ_BYTES: usize = 256 * 1024;
/// Maximum wait for the last answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Events taken from epoll at a time.
const EVENTS: usize = 256;

/// What the connections say.
pub(super) trait Load {
    /// Appends the next request of connection `nth`; false: it has none now.
    fn next(&mut self, nth: usize, now_ns: u64, out: &mut Vec<u8>) -> bool;

    /// Takes a message of connection `nth`, whose last request went out at `sent_ns`.
    fn hear(&mut self, nth: usize, heard: Heard<'_>, sent_ns: u64, now_ns: u64) -> Result<()>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Upgrading,
    Connecting,
    Idle,
    Waiting,
    Ended,
}

struct Connection {
    interface: Interface,
    stream: TcpStream,
    phase: Phase,
    sent_ns: u64,
    /// Read and not yet taken: an incomplete message.
    input: Vec<u8>,
}

/// The connections and their load.
pub(super) struct Talk<L> {
    /// The load.
    pub load: L,
    connections: Vec<Connection>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    output: Vec<u8>,
    clock: RunClock,
    tolerates_ends: bool,
    /// Nothing more is sent.
    rests: bool,
}

impl<L: Load> Talk<L> {
    /// Opens a connection for each interface. Each sends its first request as soon as it may.
    pub fn open(
        server: SocketAddr,
        interfaces: &[Interface],
        load: L,
        clock: RunClock,
    ) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot make an epoll")?;
        let mut talk = Talk {
            load,
            connections: Vec::with_capacity(interfaces.len()),
            epoll,
            events: Vec::with_capacity(EVENTS),
            buffer: vec![0; READ_BYTES],
            output: Vec::new(),
            clock,
            tolerates_ends: false,
            rests: false,
        };
        for (nth, interface) in interfaces.iter().enumerate() {
            let connection = Connection::open(server, *interface)?;
            let data = epoll::EventData::new_u64(nth as u64);
            epoll::add(&talk.epoll, &connection.stream, data, epoll::EventFlags::IN)
                .context("cannot watch a connection")?;
            talk.connections.push(connection);
        }
        talk.send_idle()?;
        Ok(talk)
    }

    /// From now on a connection may end: it is not an error.
    pub fn tolerate_ends(&mut self) {
        self.tolerates_ends = true;
    }

    /// Connections that have not ended.
    pub fn standing(&self) -> usize {
        self.connections.iter().filter(|one| one.phase != Phase::Ended).count()
    }

    /// Connections whose request is not answered.
    pub fn outstanding(&self) -> usize {
        self.connections.iter().filter(|one| one.phase == Phase::Waiting).count()
    }

    /// Waits until something comes, at most for `wait` in whole milliseconds, and handles it.
    pub fn turn(&mut self, wait: Duration) -> Result<()> {
        let timeout =
            Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let spare = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, spare, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the server"),
        }
        for event in &events {
            let data = event.data;
            self.receive(data.u64() as usize)?;
        }
        self.events = events;
        Ok(())
    }

    /// Handles what comes until this time of the run.
    pub fn run_until(&mut self, at_ns: u64) -> Result<()> {
        loop {
            let left = self.clock.until(at_ns);
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left)?;
        }
    }

    /// Asks the load for requests of the connections that have none outstanding.
    pub fn send_idle(&mut self) -> Result<()> {
        for nth in 0..self.connections.len() {
            if self.connections[nth].phase == Phase::Idle {
                self.send_next(nth)?;
            }
        }
        Ok(())
    }

    /// Waits for the outstanding answers, and sends nothing more.
    pub fn rest(&mut self) -> Result<()> {
        self.rests = true;
        let end_ns = self.clock.now_ns() + PATIENCE.as_nanos() as u64;
        while self.outstanding() > 0 {
            self.turn(PATIENCE)?;
            ensure!(self.clock.now_ns() < end_ns, "no answer after {PATIENCE:?}");
        }
        Ok(())
    }

    fn receive(&mut self, nth: usize) -> Result<()> {
        let connection = &mut self.connections[nth];
        let read = recv(&connection.stream, &mut self.buffer[..], RecvFlags::DONTWAIT);
        let read = match read {
            Ok((read, _)) if read > 0 => read,
            Ok(_) => return self.end(nth, "the end of the stream"),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return self.end(nth, &error.to_string()),
        };
        if connection.input.is_empty() {
            let used = self.take(nth, None, read)?;
            let rest = &self.buffer[used..read];
            self.connections[nth].input.extend_from_slice(rest);
        } else {
            let mut input = std::mem::take(&mut connection.input);
            input.extend_from_slice(&self.buffer[..read]);
            let length = input.len();
            let used = self.take(nth, Some(&input), length)?;
            input.drain(..used);
            self.connections[nth].input = input;
        }
        if self.connections[nth].phase == Phase::Idle {
            self.send_next(nth)?;
        }
        Ok(())
    }

    /// Handles the whole messages in the first `length` bytes of `input`, or of the read buffer.
    /// Returns the bytes of these messages.
    fn take(&mut self, nth: usize, input: Option<&[u8]>, length: usize) -> Result<usize> {
        let now_ns = self.clock.now_ns();
        let Talk { connections, load, buffer, .. } = self;
        let input = input.unwrap_or(&buffer[..length]);
        let connection = &mut connections[nth];
        let mut used = 0;
        if connection.phase == Phase::Upgrading {
            let Some(head) = wire::head_bytes(input) else { return Ok(0) };
            let told = || format!("refused: {}", String::from_utf8_lossy(&input[..head]));
            ensure!(wire::accepted(&input[..head]), told());
            connection.send(&connection.interface.connect(), now_ns)?;
            connection.phase = Phase::Connecting;
            used = head;
        }
        let (mut phase, sent_ns) = (connection.phase, connection.sent_ns);
        let mut each = |heard: Heard<'_>| match (phase, heard) {
            (Phase::Connecting, Heard::Confirmed(_)) => {
                phase = Phase::Idle;
                Ok(())
            }
            (Phase::Connecting, other) => bail!("cannot connect: {other:?}"),
            (_, Heard::Push(_)) => load.hear(nth, heard, sent_ns, now_ns),
            _ => {
                phase = Phase::Idle;
                load.hear(nth, heard, sent_ns, now_ns)
            }
        };
        while let Some(more) = connection.interface.hear(&input[used..], &mut each)? {
            used += more;
        }
        connection.phase = phase;
        Ok(used)
    }

    fn send_next(&mut self, nth: usize) -> Result<()> {
        let now_ns = self.clock.now_ns();
        self.output.clear();
        if self.rests || !self.load.next(nth, now_ns, &mut self.output) {
            return Ok(());
        }
        let connection = &mut self.connections[nth];
        connection.phase = Phase::Waiting;
        match connection.send(&self.output, now_ns) {
            Err(error) if self.tolerates_ends => self.end(nth, &format!("{error:#}")),
            other => other,
        }
    }

    fn end(&mut self, nth: usize, cause: &str) -> Result<()> {
        ensure!(self.tolerates_ends, "the server closed a connection: {cause}");
        let connection = &mut self.connections[nth];
        if connection.phase != Phase::Ended {
            connection.phase = Phase::Ended;
            epoll::delete(&self.epoll, &connection.stream).context("cannot leave a connection")?;
        }
        Ok(())
    }
}

impl Connection {
    fn open(server: SocketAddr, interface: Interface) -> Result<Self> {
        let stream = TcpStream::connect(server);
        let stream = stream.with_context(|| format!("cannot connect to {server}"))?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        let phase = if interface.is_websocket() { Phase::Upgrading } else { Phase::Idle };
        let mut connection = Connection { interface, stream, phase, sent_ns: 0, input: Vec::new() };
        if interface.is_websocket() {
            connection.send(&interface.upgrade(server.port()), 0)?;
        }
        Ok(connection)
    }

    /// Sends a request. The only outstanding one fits the socket's buffer, or the server reads it
    /// at once, so this waits for no answer.
    fn send(&mut self, bytes: &[u8], now_ns: u64) -> Result<()> {
        self.sent_ns = now_ns;
        self.stream.write_all(bytes).context("cannot write to the server")
    }
}
