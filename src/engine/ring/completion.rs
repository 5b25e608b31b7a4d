//! Completions of operations, with the buffer or descriptor that the kernel attached.

use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::buffers::{Buffers, ReceivedBytes};
use super::token::{Op, Token};

use std::rc::Rc;

/// One completion. Dropping it returns its buffer and closes its descriptor.
#[derive(Debug)]
pub struct Completion {
    /// The completed operation.
    pub token: Token,
    /// Number of bytes, a descriptor or an event mask; negative: a negated errno.
    pub result: i32,
    flags: u32,
    received: Option<ReceivedBytes>,
    descriptor: Option<OwnedFd>,
}

impl Completion {
    /// The completion of an entry that was just taken out of the completion queue of the ring
    /// that owns `buffers`.
    ///
    /// # Safety
    ///
    /// The kernel posted the entry, and no other completion is made of it.
    pub(super) unsafe fn new(token: Token, entry: &cqueue::Entry, buffers: &Rc<Buffers>) -> Self {
        let (result, flags) = (entry.result(), entry.flags());
        let bytes = usize::try_from(result).unwrap_or(0);
        let received = cqueue::buffer_select(flags).and_then(|id| {
            // SAFETY: the kernel gave this buffer away with this entry, of which this is the only
            // completion.
            unsafe { Buffers::taken(buffers, id, bytes) }
        });
        let descriptor = (token.op == Op::Install && result >= 0).then(|| {
            // SAFETY: the kernel created this descriptor for this operation, and this is its only
            // completion, so nothing else owns it.
            unsafe { OwnedFd::from_raw_fd(result) }
        });
        Completion { token, result, flags, received, descriptor }
    }

    /// Whether the multishot operation continues.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// Whether the socket had more to read than the buffer could hold.
    pub fn socket_nonempty(&self) -> bool {
        cqueue::sock_nonempty(self.flags)
    }

    /// Takes the bytes of a completed `receive`. The kernel gets their buffer back when they are
    /// dropped.
    pub fn take_received(&mut self) -> Option<ReceivedBytes> {
        self.received.take()
    }

    /// Takes the descriptor that a completed `install` created.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// The errno of a failed operation.
    pub fn errno(&self) -> Option<i32> {
        (self.result < 0).then(|| self.result.saturating_neg())
    }
}

/// A send that the socket did not take completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// The slot.
    pub slot: u32,
    /// The slot's generation.
    pub generation: u32,
    /// Number of bytes that the socket took; `None`: the socket is broken.
    pub taken: Option<usize>,
}

impl Unsent {
    pub(super) fn new(token: Token, result: i32) -> Self {
        let taken = match result {
            errno if errno == -libc::EAGAIN => Some(0),
            bytes => usize::try_from(bytes).ok(),
        };
        Unsent { slot: token.slot, generation: token.generation, taken }
    }
}
