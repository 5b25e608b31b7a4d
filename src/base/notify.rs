//! Notifications to the service manager: the protocol of `sd_notify`.
//!
//! Owns the socket that `NOTIFY_SOCKET` names. Never blocks or fails a caller: without a service
//! manager, or while its queue is full, a notification has no effect.

use std::fmt::Display;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time within which the next notification of a shutdown comes.
pub const STOP_STEP: Duration = Duration::from_secs(20);
/// Maximum time of a step of the start.
const START_STEP: Duration = Duration::from_secs(60);

/// Sends a notification: assignments such as `READY=1`, one per line.
pub fn notify(assignments: &str) {
    if let Some((socket, manager)) = manager() {
        let _ = socket.send_to_addr(assignments.as_bytes(), manager);
    }
}

/// Notifies what the process does now, in a few words without a newline.
pub fn status(text: impl Display) {
    notify(&format!("STATUS={text}"));
}

/// Notifies that the start has reached this step. The next step must begin in time.
pub fn starting(step: &str) {
    status(format_args!("Starting: {step}"));
    extend_timeout(START_STEP);
}

/// Notifies that the shutdown begins, and that it may take longer than the service manager thinks.
pub fn stopping() {
    notify("STOPPING=1");
    extend_timeout(STOP_STEP);
}

/// Asks for more time for the start or the shutdown: the next notification comes within `time`.
pub fn extend_timeout(time: Duration) {
    notify(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()));
}

/// Time within which the service manager expects `WATCHDOG=1`; `None`: it does not.
pub fn watchdog_time() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    watchdog_of(number("WATCHDOG_USEC"), number("WATCHDOG_PID"), std::process::id())
}

fn watchdog_of(micros: Option<u64>, pid: Option<u64>, own: u32) -> Option<Duration> {
    let is_own = pid.is_none_or(|pid| pid == u64::from(own));
    micros.filter(|micros| *micros > 0 && is_own).map(Duration::from_micros)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_that_the_service_manager_names_feeds_the_watchdog() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog_of(Some(1_000_000), None, 7), second);
        assert_eq!(watchdog_of(Some(1_000_000), Some(7), 7), second);
        assert_eq!(watchdog_of(Some(1_000_000), Some(8), 7), None);
        assert_eq!(watchdog_of(Some(0), None, 7), None);
        assert_eq!(watchdog_of(None, Some(7), 7), None);
    }
}
