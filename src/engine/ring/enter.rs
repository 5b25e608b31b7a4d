//! io_uring_enter by the index of a registered ring, which saves the look-up of the descriptor.
//!
//! Owns the index. The kernel registers at most 16 rings per thread; further rings enter by their
//! descriptor.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use io_uring::types::SubmitArgs;
use io_uring::{EnterFlags, IoUring};

/// `IORING_REGISTER_RING_FDS`.
const REGISTER_RING_FDS: libc::c_uint = 20;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    /// In: the wanted index, `u32::MAX` for any. Out: the index.
    offset: u32,
    reserved: u32,
    data: u64,
}

/// Index of a ring among those that the thread registered; `None`: it is not registered.
#[derive(Clone, Copy)]
pub(super) struct RingIndex(Option<libc::c_int>);

impl RingIndex {
    /// Registers a ring with the calling thread. Only this thread may enter the ring, as
    /// `IORING_SETUP_SINGLE_ISSUER` requires anyway. The registration holds the ring until the
    /// thread ends.
    pub fn register(ring: &IoUring) -> Self {
        let descriptor = ring.as_raw_fd();
        let data = u64::try_from(descriptor).unwrap_or(u64::MAX);
        let mut update = ResourceUpdate { offset: u32::MAX, reserved: 0, data };
        // SAFETY: the kernel reads and writes one `io_uring_rsrc_update` during the call.
        let registered = unsafe {
            let update: *mut ResourceUpdate = &raw mut update;
            libc::syscall(libc::SYS_io_uring_register, descriptor, REGISTER_RING_FDS, update, 1)
        };
        RingIndex((registered == 1).then(|| update.offset.try_into().ok()).flatten())
    }

    /// Submits `submissions` queued entries, and waits for so many `completions`. `arguments` may
    /// limit the wait. Returns the number of consumed entries. Errors are those of the kernel.
    ///
    /// # Safety
    ///
    /// Whatever the queued entries point to is valid, and the ring is the one that was registered.
    pub unsafe fn enter(
        self,
        ring: &IoUring,
        submissions: u32,
        completions: u32,
        flags: EnterFlags,
        arguments: Option<&SubmitArgs<'_, '_>>,
    ) -> io::Result<usize> {
        let Some(index) = self.0 else {
            // SAFETY: the caller's promise.
            return unsafe {
                ring.submitter().enter(submissions, completions, flags.bits(), arguments)
            };
        };
        let flags = (flags | EnterFlags::REGISTERED_RING).bits();
        let arguments: *const SubmitArgs<'_, '_> = arguments.map_or(ptr::null(), ptr::from_ref);
        let bytes = size_of::<SubmitArgs<'_, '_>>();
        // SAFETY: the caller's promise; the kernel reads the arguments only during the call, and
        // only if the flags say that there are any.
        let consumed = unsafe {
            let call = libc::SYS_io_uring_enter;
            libc::syscall(call, index, submissions, completions, flags, arguments, bytes)
        };
        usize::try_from(consumed).map_err(|_| io::Error::last_os_error())
    }
}
