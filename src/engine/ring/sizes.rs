//! Sizes of a ring, and the memory that the kernel accounts for it.
//!
//! Owns the arithmetic. Never sets up a ring.

/// Sizes of a ring, fixed at its setup.
#[derive(Clone, Copy, Debug)]
pub struct RingSizes {
    /// Submission entries.
    pub submissions: u32,
    /// Completion entries, at least as many as submission entries.
    pub completions: u32,
    /// Direct descriptors.
    pub slots: u32,
    /// Receive buffers, a power of two.
    pub buffers: u16,
    /// Bytes of one receive buffer.
    pub buffer_bytes: u32,
}

/// Bytes of a submission, of a completion, and of an entry of a ring of buffers.
const SUBMISSION_BYTES: u64 = 64;
const ENTRY_BYTES: u64 = 16;
/// Bytes before the completions of a ring: heads, tails and masks.
const RING_HEADER: u64 = 320;

impl RingSizes {
    /// Bytes that the kernel accounts as locked memory of a user without CAP_IPC_LOCK: completions
    /// with the submission index, submissions, and the ring of buffers.
    pub fn locked_bytes(&self) -> u64 {
        let page = rustix::param::page_size() as u64;
        let (submissions, completions) = (u64::from(self.submissions), u64::from(self.completions));
        let index = submissions * size_of::<u32>() as u64;
        [
            RING_HEADER + completions * ENTRY_BYTES + index,
            submissions * SUBMISSION_BYTES,
            u64::from(self.buffers) * ENTRY_BYTES,
        ]
        .into_iter()
        .map(|bytes| bytes.div_ceil(page) * page)
        .sum()
    }
}
