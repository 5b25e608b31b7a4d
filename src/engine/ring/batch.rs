//! Sends of one transmit.

use std::marker::PhantomData;

use io_uring::squeue;
use io_uring::types::Fixed;

use super::completion::Unsent;
use super::operations as opcode;
use super::token::{Token, next_batch};
use super::uring::{Ring, SEGMENTS};

const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
/// Maximum bytes of a plain send, whose length has 32 bits. A longer send is a vector of one range.
const PLAIN_BYTES: usize = 1 << 30;

impl Ring {
    /// Number of completion entries that are free once everything queued has completed.
    pub(super) fn room(&mut self) -> usize {
        let completions = self.ring.completion();
        let free = completions.capacity() - completions.len();
        drop(completions);
        free.saturating_sub(self.ring.submission().len())
    }

    pub(super) fn finish_sends(&mut self) {
        self.submit();
        self.reap();
    }

    /// Sends borrowed bytes to many slots. `fill` queues at most one send per slot; all are
    /// finished when this returns. Returns the sends that were short or failed.
    #[must_use]
    pub fn transmit<'bytes>(&mut self, fill: impl FnOnce(&mut SendBatch<'_, 'bytes>)) -> &[Unsent] {
        self.batch = next_batch(self.batch);
        self.unsent.clear();
        fill(&mut SendBatch::new(self));
        &self.unsent
    }
}

/// Sends being queued. Dropping it submits them; [`Ring::transmit`] makes sure that it is dropped.
pub struct SendBatch<'ring, 'bytes> {
    ring: &'ring mut Ring,
    bytes: PhantomData<&'bytes [u8]>,
    /// Number of sends for which completion entries are free if all of them fail.
    room: usize,
}

impl<'ring, 'bytes> SendBatch<'ring, 'bytes> {
    pub(super) fn new(ring: &'ring mut Ring) -> Self {
        let room = ring.room();
        SendBatch { ring, bytes: PhantomData, room }
    }

    /// Makes sure that a completion entry is free for this send, so that the kernel need not keep
    /// completions.
    fn make_room(&mut self) {
        if self.room == 0 {
            self.ring.finish_sends();
            self.room = self.ring.room().max(1);
        }
        self.room -= 1;
        self.ring.sends += 1;
    }

    /// Queues a send of one range.
    pub fn send(&mut self, generation: u32, slot: u32, bytes: &'bytes [u8]) {
        if bytes.len() > PLAIN_BYTES {
            return self.send_vector(generation, slot, bytes, std::iter::empty());
        }
        self.make_room();
        let entry = opcode::Send::new(Fixed(slot), bytes.as_ptr(), bytes.len() as u32)
            .flags(SEND_FLAGS)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        let token = Token::of_send(generation, slot, self.ring.batch);
        // SAFETY: `'bytes` outlives the call of `transmit`, which submits before it returns, and
        // a send that does not wait is done when it is submitted.
        unsafe { self.ring.push(entry, token) };
    }

    /// Queues a send of several ranges, one after the other.
    pub fn send_segments(
        &mut self,
        generation: u32,
        slot: u32,
        segments: impl IntoIterator<Item = &'bytes [u8]>,
    ) {
        let mut segments = segments.into_iter();
        let Some(first) = segments.next() else { return };
        match segments.next() {
            None => self.send(generation, slot, first),
            Some(second) => {
                let rest = std::iter::once(second).chain(segments);
                self.send_vector(generation, slot, first, rest);
            }
        }
    }

    fn send_vector(
        &mut self,
        generation: u32,
        slot: u32,
        first: &'bytes [u8],
        mut rest: impl Iterator<Item = &'bytes [u8]>,
    ) {
        self.make_room();
        let ring = &mut *self.ring;
        // Queued entries point into both lists, so neither may exceed its capacity. The push below
        // must not submit, because that clears the lists.
        let is_full = ring.iovecs.capacity() - ring.iovecs.len() < SEGMENTS
            || ring.messages.len() == ring.messages.capacity()
            || ring.ring.submission().is_full();
        if is_full {
            ring.submit();
        }
        let start = ring.iovecs.len();
        let range = |bytes: &[u8]| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        ring.iovecs.push(range(first));
        ring.iovecs.extend(rest.by_ref().take(SEGMENTS - 2).map(range));
        let copied: Vec<u8> = rest.flatten().copied().collect();
        if !copied.is_empty() {
            // The bytes of a copy do not move when the list of copies grows.
            ring.iovecs.push(range(&copied));
            ring.copies.push(copied);
        }
        // SAFETY: msghdr is plain data for which all zeroes is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = ring.iovecs[start..].as_mut_ptr();
        message.msg_iovlen = ring.iovecs.len() - start;
        ring.messages.push(message);
        let message: *const libc::msghdr = &raw const ring.messages[ring.messages.len() - 1];
        let entry = opcode::SendMsg::new(Fixed(slot), message)
            .flags(SEND_FLAGS as u32)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        let token = Token::of_send(generation, slot, ring.batch);
        // SAFETY: message, vector and copies are the ring's own, had room without moving, and are
        // cleared only when the queue has been submitted; the bytes live as in `send`.
        unsafe { ring.push(entry, token) };
    }
}

impl Drop for SendBatch<'_, '_> {
    fn drop(&mut self) {
        self.ring.finish_sends();
    }
}
