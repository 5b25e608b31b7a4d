//! A look at the words of a ring that the kernel shares, without an enter.
//!
//! Owns a mapping of these words, so a worker can keep the looks of all its rings in one array. A
//! look reads three words: the flags of the submission queue, and both ends of the completion
//! queue. If a worker has several rings, each writes to an eventfd, but not during a turn of its
//! shard; the order of the steps after a turn is that of `resume_writes` in `engine/wakeups.rs`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use io_uring::Parameters;

use super::buffers::Mapping;
use super::uring::Ring;
use crate::engine::wakeups::KernelNews;

/// `IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN`: an enter would find completions.
const ENTER_FINDS_MORE: u32 = 1 << 1 | 1 << 2;
/// `IORING_CQ_EVENTFD_DISABLED`.
const EVENTFD_DISABLED: u32 = 1;

/// 32-bit words of `struct io_uring_params`.
const PARAMETERS: usize = 30;
/// Words of it that have the offset of a shared word: `sq_off.flags`, `cq_off.head`, `cq_off.tail`
/// and `cq_off.flags`.
const OFFSETS: [usize; 4] = [14, 20, 21, 26];

const _: () = assert!(size_of::<Parameters>() == PARAMETERS * size_of::<u32>());

/// The words of a ring that show whether it has news.
pub struct RingNews {
    sq_flags: *const AtomicU32,
    cq_head: *const AtomicU32,
    cq_tail: *const AtomicU32,
    cq_flags: *const AtomicU32,
    _mapping: Mapping,
}

impl RingNews {
    /// The words of a ring. Errors are those of the kernel.
    pub fn of(ring: &Ring) -> io::Result<Self> {
        let parameters: *const Parameters = ring.ring.params();
        // SAFETY: `Parameters` is a transparent `struct io_uring_params`, which consists of words
        // (and of aligned pairs of them) and is initialized by the kernel.
        let parameters: &[u32; PARAMETERS] = unsafe { &*parameters.cast() };
        let offsets = OFFSETS.map(|at| parameters[at]);
        let bytes = offsets.into_iter().max().unwrap_or(0) as usize + size_of::<u32>();
        // SAFETY: the ring owns its descriptor for as long as it is borrowed here.
        let descriptor = unsafe { BorrowedFd::borrow_raw(ring.ring.as_raw_fd()) };
        let mapping = Mapping::shared(descriptor, bytes)?;
        let [Some(sq_flags), Some(cq_head), Some(cq_tail), Some(cq_flags)] =
            offsets.map(|offset| mapping.word(offset))
        else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        Ok(RingNews { sq_flags, cq_head, cq_tail, cq_flags, _mapping: mapping })
    }

    fn load(word: *const AtomicU32) -> u32 {
        // SAFETY: the word is aligned and inside the mapping, which lives as long as `self`, and
        // the kernel and this process access it atomically.
        unsafe { &*word }.load(Ordering::Acquire)
    }
}

impl KernelNews for RingNews {
    #[inline]
    fn has_news(&self) -> bool {
        Self::load(self.sq_flags) & ENTER_FINDS_MORE != 0
            || Self::load(self.cq_tail) != Self::load(self.cq_head)
    }

    #[inline]
    fn set_eventfd(&self, writes: bool) {
        // SAFETY: as in `load`. Only the owner of a ring writes this word, and only this flag of
        // it is defined.
        let flags = unsafe { &*self.cq_flags };
        flags.store(if writes { 0 } else { EVENTFD_DISABLED }, Ordering::Release);
    }
}
