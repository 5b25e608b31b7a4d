//! Notifications to the service manager: the protocol of `sd_notify`.
//!
//! Owns the socket that `NOTIFY_SOCKET` names. Never blocks or fails a caller: without a service
//! manager, or while its queue is full, a notification has no effect.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;

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
