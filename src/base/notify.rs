//! Notifications to the service manager: the protocol of `sd_notify`.
//!
//! Owns the socket that `NOTIFY_SOCKET` names. Never blocks or fails a caller: without a service
//! manager, or while its queue is full, a notification has no effect.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Sends a notification: assignments such as `READY=1`, one per line.
pub fn notify(assignments: &str) {
    if let Some((socket, manager)) = manager() {
        let _ = socket.send_to_addr(assignments.as_bytes(), manager);
    }
}

/// Notifies that a reload begins. `READY=1` must follow, whatever becomes of it.
pub fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// Asks for more time for a step of the start, and says which step it is.
pub fn extend_start(by: Duration, step: &str) {
    notify(&format!("EXTEND_TIMEOUT_USEC={}\nSTATUS={step}", by.as_micros()));
}

/// Time within which the service manager wants a notification `WATCHDOG=1` again and again; `None`:
/// it watches no process, or another one.
pub fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let time = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_ours)?;
    manager().map(|_| Duration::from_micros(time))
}

fn manager() -> Option<&'static (UnixDatagram, SocketAddr)> {
    static MANAGER: OnceLock<Option<(UnixDatagram, SocketAddr)>> = OnceLock::new();
    MANAGER.get_or_init(connect).as_ref()
}

fn connect() -> Option<(UnixDatagram, SocketAddr)> {
    let name = std::env::var_os("NOTIFY_SOCKET")?;
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok()?,
        _ => SocketAddr::from_pathname(&name).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}
