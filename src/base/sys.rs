//! Thin, safe wrappers of the operating system, besides io_uring: listeners, resource limits,
//! pinning to processors, doorbells (eventfd), randomness and clocks.
//!
//! Owns no state. Never touches a connection. Errors are those of the kernel.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Resource, Rlimit};
use rustix::termios;
use socket2::{Domain, Protocol, Socket, Type};

use crate::base::cgroup;
use crate::base::failure::Failure;

/// Options of a listener. Accepted sockets inherit all of them except the backlog.
#[derive(Clone, Copy, Debug)]
pub struct ListenerOptions {
    /// Kernel send buffer in bytes (the kernel doubles it). It bounds the kernel memory that a
    /// client that stops reading can hold.
    pub send_buffer: usize,
    /// Kernel receive buffer in bytes (the kernel doubles it).
    pub receive_buffer: usize,
    /// Time for which sent data may stay unacknowledged before the kernel closes the connection
    /// (TCP_USER_TIMEOUT).
    pub user_timeout: Duration,
    /// Requested length of the accept queue. The kernel limits it to net.core.somaxconn.
    pub backlog: i32,
}

/// Time for which the start waits for a port that is in use.
const PORT_PATIENCE: Duration = Duration::from_secs(1);
/// Time between two attempts.
const PORT_PAUSE: Duration = Duration::from_millis(20);

/// Opens a listening TCP socket with SO_REUSEPORT, so that several can share an address.
pub fn listener(address: SocketAddr, options: &ListenerOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    serve_both_families(&socket, address)?;
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

/// Makes an IPv6 socket serve IPv4 too, whatever the default of the machine is
/// (net.ipv6.bindv6only).
fn serve_both_families(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() { socket.set_only_v6(false) } else { Ok(()) }
}

/// Checks that the server can listen on `address`, for example that no other process does.
///
/// SO_REUSEPORT would hide another server: two servers of the same user would silently share the
/// port. The check does not listen, because a client that connected during the check would be
/// reset. If the address is in use, it retries for up to [`PORT_PATIENCE`]: the kernel closes the
/// listeners of an io_uring some time after the process has ended, so a quick restart would find
/// its own port in use.
pub fn try_bind(address: SocketAddr) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        serve_both_families(&socket, address)?;
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

/// Raises the soft limit of open files (RLIMIT_NOFILE) to the hard limit and returns it. The soft
/// limit bounds the direct descriptor table of each ring.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum {
        rustix::process::setrlimit(Resource::Nofile, wanted)?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Number of open descriptors of this process.
pub fn open_descriptors() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |found| found.count() as u64)
}

/// Raises the soft limit of locked memory (RLIMIT_MEMLOCK) to the hard limit. The kernel counts the
/// memory of rings against it.
pub fn raise_locked_memory() -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(rustix::process::setrlimit(Resource::Memlock, wanted)?)
}

/// Runs `work` while this process may lock no memory, and returns its result.
pub fn without_locked_memory<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let none = Rlimit { current: Some(0), maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Memlock, none)?;
    let result = work();
    rustix::process::setrlimit(Resource::Memlock, limit)?;
    Ok(result)
}

/// Number of processors that this process may keep busy: those of its affinity and cpuset, and no
/// more than the quota of its control groups.
pub fn processors() -> usize {
    let allowed = core_affinity::get_core_ids().map_or(1, |ids| ids.len().max(1));
    cgroup::processor_quota().map_or(allowed, |quota| quota.min(allowed))
}

/// Pins the calling thread to the `nth` processor (modulo their number) of those that the process
/// may use. Returns the processor, or `None` if the kernel refuses or a quota grants fewer
/// processors: threads of several containers would then meet on the first ones.
pub fn pin(nth: usize) -> Option<usize> {
    let ids = core_affinity::get_core_ids()?;
    if processors() < ids.len() {
        return None;
    }
    let id = *ids.get(nth % ids.len().max(1))?;
    core_affinity::set_for_current(id).then_some(id.id)
}

/// Whether this process runs in a container, as far as Docker, Podman, Kubernetes and
/// systemd-nspawn show it.
pub fn is_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|file| std::path::Path::new(file).exists())
        || ["container", "KUBERNETES_SERVICE_HOST"]
            .iter()
            .any(|name| std::env::var_os(name).is_some())
}

/// Keeps every processor of the machine out of deep idle states until the result is dropped. A
/// sleeping thread then wakes up within microseconds; the processors use more power. Requires root.
///
/// Source: the kernel's documentation of PM QoS; tuned's profile `latency-performance` does the
/// same.
pub fn hold_processors_awake() -> io::Result<OwnedFd> {
    let file = std::fs::OpenOptions::new().write(true).open("/dev/cpu_dma_latency")?;
    rustix::io::write(&file, &0i32.to_ne_bytes())?;
    Ok(file.into())
}

/// Makes a doorbell: an eventfd. Every call of [`ring_doorbell`] triggers a multishot poll of it.
pub fn doorbell() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)
}

/// Rings a doorbell. The call ignores errors: if the counter is full, the doorbell is readable
/// already.
pub fn ring_doorbell(bell: impl AsFd) {
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

/// Resets a doorbell. The call ignores errors: a doorbell that was not rung has nothing to reset.
pub fn silence_doorbell(bell: impl AsFd) {
    let _ = rustix::io::read(bell, &mut [0; 8]);
}

/// Waits until a doorbell rings or the time is over. The call ignores errors: the caller looks for
/// news in any case.
pub fn wait_for_doorbell(bell: impl AsFd, patience: Duration) {
    let time = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    let _ = rustix::event::poll(&mut [PollFd::new(&bell, PollFlags::IN)], Some(&time));
}

/// Duplicates the descriptors that this process has open under a path. A duplicate shares position
/// and flags with its original. Another thread can have closed and opened files meanwhile, so the
/// caller compares the inodes.
pub fn own_descriptors(path: &Path) -> io::Result<Vec<File>> {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(number) = number
            && std::fs::read_link(entry.path()).is_ok_and(|target| target == path)
        {
            let duplicate = rustix::process::pidfd_getfd(&own, number, PidfdGetfdFlags::empty())?;
            found.push(duplicate.into());
        }
    }
    Ok(found)
}

/// Returns random bytes from the kernel.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Stops a terminal from showing what is typed, until the returned value is dropped.
pub fn hide_typing(terminal: &impl AsFd) -> io::Result<HiddenTyping> {
    let terminal = terminal.as_fd().try_clone_to_owned()?;
    let shown = termios::tcgetattr(&terminal)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(termios::LocalModes::ECHO);
    hidden.local_modes.insert(termios::LocalModes::ECHONL);
    termios::tcsetattr(&terminal, termios::OptionalActions::Now, &hidden)?;
    Ok(HiddenTyping { terminal, shown })
}

/// A terminal that does not show what is typed.
pub struct HiddenTyping {
    terminal: OwnedFd,
    shown: termios::Termios,
}

impl Drop for HiddenTyping {
    fn drop(&mut self) {
        // Nothing is left to do if the terminal is gone.
        let _ = termios::tcsetattr(&self.terminal, termios::OptionalActions::Now, &self.shown);
    }
}

/// Processor time that the process has used, in user space and in the kernel.
pub fn processor_time() -> Duration {
    let taken = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(taken.tv_sec as u64, taken.tv_nsec as u32)
}

/// Processor time that the calling thread has used, in microseconds. It costs a system call.
pub fn thread_micros() -> u64 {
    let taken = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    taken.tv_sec as u64 * 1_000_000 + taken.tv_nsec as u64 / 1000
}

/// Value in bytes of a line of /proc/self/status, such as `VmRSS:`.
pub fn memory(line: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let rest = status.lines().find_map(|found| found.strip_prefix(line))?;
    Some(rest.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Limit of open file descriptors; `None`: no limit.
pub fn descriptor_limit() -> Option<u64> {
    rustix::process::getrlimit(Resource::Nofile).current
}

/// Unix time in milliseconds.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// The current time of the monotonic clock and of the wall clock. The data plane reads no clock
/// itself; it gets this value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of the monotonic clock since the [`Clock`] was made. Durations use it.
    pub millis: u64,
    /// Microseconds of the same clock. Metrics use it.
    pub micros: u64,
    /// Unix time in milliseconds of the wall clock, which may step. Tokens use it.
    pub unix: u64,
}

impl Now {
    /// Difference between the wall clock and the monotonic clock in milliseconds.
    pub fn ahead(self) -> i64 {
        self.unix as i64 - self.millis as i64
    }
}

/// Measures the time since it was made, and reads the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that starts at zero.
    pub fn new() -> Self {
        Clock(Instant::now())
    }

    /// The current time, and the microseconds since the start. Reads the wall clock only if the
    /// monotonic milliseconds differ from those of `last`.
    pub fn now_after(&self, last: Now) -> (Now, u64) {
        let micros = self.micros();
        let millis = micros / 1000;
        let unix = if millis == last.millis { last.unix } else { unix_millis() };
        (Now { millis, micros, unix }, micros)
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

/// ID of the user that the process acts as; 0: root.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// ID of the user of the process at the other end of a Unix socket.
pub fn peer_user(socket: impl AsFd) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}
