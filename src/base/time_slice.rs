//! The time slice of a thread: how long the scheduler lets it run at a time.
//!
//! Owns no state. Never changes the share of the processor that a thread gets, nor its policy.

use std::io;
use std::time::Duration;

use libc::{c_long, sched_attr};

/// The shortest slice that the kernel grants.
pub const SHORTEST: Duration = Duration::from_micros(100);

/// The calling thread, for the kernel.
const THIS_THREAD: c_long = 0;
const NO_FLAGS: c_long = 0;

/// Asks for time slices of this length for the calling thread. When it wakes, a thread with short
/// slices runs ahead of threads with longer ones. Kernels before Linux 6.12 ignore the length. A
/// thread whose policy is not a normal one (SCHED_OTHER, SCHED_BATCH) is left as it is.
///
/// Source: sched_setattr(2) and the kernel's documentation of EEVDF.
///
/// # Errors
/// The kernel, or a filter of system calls, refuses.
pub fn request(slice: Duration) -> io::Result<()> {
    let mut attributes = attributes()?;
    if ![libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&(attributes.sched_policy as i32)) {
        return Ok(());
    }
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads `size` bytes, which `attributes` has, and keeps no pointer.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_setattr, THIS_THREAD, &raw const attributes, NO_FLAGS)
    };
    check(result)
}

/// How the calling thread is scheduled.
fn attributes() -> io::Result<sched_attr> {
    let size = size_of::<sched_attr>() as u32;
    let mut found = sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes, which `found` has, each value of them is a
    // valid number, and it keeps no pointer.
    let result = unsafe {
        let place = &raw mut found;
        libc::syscall(libc::SYS_sched_getattr, THIS_THREAD, place, c_long::from(size), NO_FLAGS)
    };
    check(result)?;
    // What `sched_setattr` reads.
    found.size = size;
    Ok(found)
}

fn check(result: c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slice_changes_and_nothing_else_does() {
        let before = attributes().unwrap();
        request(SHORTEST).unwrap();
        let after = attributes().unwrap();
        let rest = |found: &sched_attr| {
            (found.sched_policy, found.sched_flags, found.sched_nice, found.sched_priority)
        };
        assert_eq!(rest(&after), rest(&before));
        // Linux 6.12 and later tell the slice, earlier ones 0.
        let told = Duration::from_nanos(after.sched_runtime);
        assert!([Duration::ZERO, SHORTEST].contains(&told), "{told:?}");
    }
}
