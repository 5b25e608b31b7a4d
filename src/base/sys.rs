//! What a shard needs of the operating system besides its ring: listeners, limits, pinning,
//! doorbell descriptors, the clock.
//!
//! Owns no state. Never touches a connection. Everything here is a thin, safe wrapper; an error
//! is the kernel's own `io::Error` with the operation named.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::EventfdFlags;
use rustix::process::{Resource, Rlimit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::base::failure::Failure;

/// Options that every accepted socket inherits from its listener.
#[derive(Clone, Copy, Debug)]
pub struct ListenerOptions {
    /// Kernel send buffer in bytes (the kernel doubles it); bounds what a stalled reader pins.
    pub send_buffer: usize,
    /// Kernel receive buffer in bytes (the kernel doubles it).
    pub receive_buffer: usize,
    /// Unacknowledged data older than this ends the connection (TCP_USER_TIMEOUT).
    pub user_timeout: Duration,
    /// Length of the accept queue asked for; the kernel caps it at net.core.somaxconn.
    pub backlog: i32,
}

/// How long a start waits for a port that is in use.
const PORT_PATIENCE: Duration = Duration::from_secs(1);
/// Time between two tries.
const PORT_PAUSE: Duration = Duration::from_millis(20);

/// A listening TCP socket with SO_REUSEPORT, one of several on the same address.
pub fn listener(address: SocketAddr, options: &ListenerOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(options.send_buffer)?;
    socket.set_recv_buffer_size(options.receive_buffer)?;
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket)
}

/// An error if `address` could not be listened on, as when something listens there already.
/// SO_REUSEPORT would hide that: two servers of one user would silently share the port. Never
/// listens itself: who connected meanwhile would be reset. Waits for up to [`PORT_PATIENCE`] where
/// the address is in use: the kernel gives the listeners of a server's rings up only some time
/// after the server has ended, so a quick restart would find its own port taken.
pub fn try_bind(address: SocketAddr) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        match socket.bind(&address.into()) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < PORT_PATIENCE =>
            {
                std::thread::sleep(PORT_PAUSE);
            }
            result => return result,
        }
    }
}

/// The address to listen on; an empty string means every IPv4 address.
pub fn listen_address(address: &str, port: u16) -> Result<SocketAddr, Failure> {
    let ip: IpAddr = match address {
        "" => IpAddr::from([0, 0, 0, 0]),
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        text => text.parse().map_err(|_| {
            let cause = format!("`{text}` is not an IP address");
            Failure::new(cause, "use an IP address, or leave the key empty")
        })?,
    };
    Ok(SocketAddr::new(ip, port))
}

/// Raises the soft limit of open files to the hard one and returns it: the direct descriptor
/// table of each ring is capped by the soft limit.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum {
        rustix::process::setrlimit(Resource::Nofile, wanted)?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Number of descriptors that the process has open.
pub fn open_descriptors() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |found| found.count() as u64)
}

/// Raises the soft limit of locked memory to the hard one: rings count against it.
pub fn raise_locked_memory() -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(rustix::process::setrlimit(Resource::Memlock, wanted)?)
}

/// What `work` returns while this process may lock no memory.
pub fn without_locked_memory<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let none = Rlimit { current: Some(0), maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Memlock, none)?;
    let result = work();
    rustix::process::setrlimit(Resource::Memlock, limit)?;
    Ok(result)
}

/// Number of processors this process may run on.
pub fn processors() -> usize {
    core_affinity::get_core_ids().map_or(1, |ids| ids.len().max(1))
}

/// Pins the calling thread to the `nth` processor (modulo their number) that the process may use;
/// returns which one, or `None` where the kernel refused.
pub fn pin(nth: usize) -> Option<usize> {
    let ids = core_affinity::get_core_ids()?;
    let id = *ids.get(nth % ids.len().max(1))?;
    core_affinity::set_for_current(id).then_some(id.id)
}

/// Holds every processor of the machine out of deep idle until the result is dropped: a sleeping
/// thread's wake-up then takes microseconds, and the processors take more power. Needs root.
///
/// Source: the kernel's documentation of PM QoS; tuned's profile `latency-performance` does the
/// same.
pub fn hold_processors_awake() -> io::Result<OwnedFd> {
    let file = std::fs::OpenOptions::new().write(true).open("/dev/cpu_dma_latency")?;
    rustix::io::write(&file, &0i32.to_ne_bytes())?;
    Ok(file.into())
}

/// A doorbell: an eventfd, of which every ring is a fresh edge for a multishot poll.
pub fn doorbell() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)
}

/// Rings a doorbell. A full counter still leaves it readable, so that error is no error.
pub fn ring_doorbell(bell: impl AsFd) {
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

/// Takes all rings of a doorbell back. None to take is no error.
pub fn silence_doorbell(bell: impl AsFd) {
    let _ = rustix::io::read(bell, &mut [0; 8]);
}

/// Fills `bytes` with randomness from the kernel.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Processor time that the process has taken, by its own code and by the kernel for it.
pub fn processor_time() -> Duration {
    let taken = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(taken.tv_sec as u64, taken.tv_nsec as u32)
}

/// Processor time that the calling thread has taken, in microseconds. A system call.
pub fn thread_micros() -> u64 {
    let taken = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    taken.tv_sec as u64 * 1_000_000 + taken.tv_nsec as u64 / 1000
}

/// Bytes that a line of /proc/self/status says, such as `VmRSS:`.
pub fn memory(line: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let rest = status.lines().find_map(|found| found.strip_prefix(line))?;
    Some(rest.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Unix time in milliseconds.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// What time it is, by both clocks at once: all the time that the data plane knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the clock was made, by the monotonic clock: what durations count in.
    pub millis: u64,
    /// Unix time in milliseconds, by the wall clock, which may step: what tokens count in.
    pub unix: u64,
}

impl Now {
    /// How far the wall clock is ahead of the monotonic one, in milliseconds.
    pub fn ahead(self) -> i64 {
        self.unix as i64 - self.millis as i64
    }
}

/// Counts milliseconds from when it was made, and reads the wall clock beside.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Starts at zero.
    pub fn new() -> Self {
        Clock(Instant::now())
    }

    /// What both clocks say now, and the microseconds since the start. The wall clock is read where
    /// its milliseconds can have changed since `last`.
    pub fn now_after(&self, last: Now) -> (Now, u64) {
        let micros = self.micros();
        let millis = micros / 1000;
        let unix = if millis == last.millis { last.unix } else { unix_millis() };
        (Now { millis, unix }, micros)
    }

    /// Milliseconds since the start.
    pub fn millis(&self) -> u64 {
        self.micros() / 1000
    }

    /// Microseconds since the start.
    pub fn micros(&self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }
}
