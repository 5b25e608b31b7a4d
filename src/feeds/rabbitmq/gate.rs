//! The gate before the socket of a broker: it closes while too many bytes of messages wait.
//!
//! Owns the count of the bytes. Never reads. The invariants: the bytes that wait are at most the
//! limit, one read and what lapin buffers of a message that is not whole. A closed gate opens when
//! messages are settled, or when the session has seen everything that was read. A few bytes pass it
//! at every tick, so that nobody takes a broker that lives for dead.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

/// Bytes that pass a closed gate at every tick.
const SIP: usize = 64;

/// A gate, which is open until it has a limit.
#[derive(Debug, Default)]
pub struct Gate {
    /// Maximum bytes that wait; 0: no limit.
    limit: AtomicUsize,
    /// Bytes of messages that the session has and that are not settled.
    held: AtomicUsize,
    /// Bytes that were read since the session has seen everything.
    unseen: AtomicUsize,
    is_closed: AtomicBool,
    /// Whether a sip may pass.
    sip: AtomicBool,
    /// Whether the pause is counted.
    is_counted: AtomicBool,
    reader: AtomicWaker,
    closed: Notify,
}

impl Gate {
    /// Sets the limit in bytes. What was read before does not count.
    pub fn set_limit(&self, bytes: usize) {
        self.unseen.store(0, Ordering::SeqCst);
        self.limit.store(bytes, Ordering::SeqCst);
    }

    fn is_full(&self) -> bool {
        let limit = self.limit.load(Ordering::SeqCst);
        let waiting = || self.held.load(Ordering::SeqCst) + self.unseen.load(Ordering::SeqCst);
        limit > 0 && waiting() >= limit
    }

    /// Number of bytes that the reader may read now. With 0 it is woken when it may read.
    pub fn admits(&self, reader: &Waker) -> usize {
        if self.is_full() {
            self.reader.register(reader);
            self.is_closed.store(true, Ordering::SeqCst);
            if self.sip.swap(false, Ordering::SeqCst) {
                return SIP;
            }
            // The bytes may have gone meanwhile, and nobody woke the reader.
            if self.is_full() {
                if self.unseen.load(Ordering::SeqCst) > 0 {
                    self.closed.notify_one();
                }
                return 0;
            }
        }
        self.is_closed.store(false, Ordering::SeqCst);
        self.is_counted.store(false, Ordering::SeqCst);
        usize::MAX
    }

    /// Lets a sip pass if the gate is closed.
    pub fn let_sip(&self) {
        if self.is_closed() {
            self.sip.store(true, Ordering::SeqCst);
            self.reader.wake();
        }
    }

    /// Notes bytes that were read.
    pub fn note_read(&self, bytes: usize) {
        self.unseen.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Waits until the gate closes after a read. Then the session must look at what was read, and
    /// call [`Gate::note_seen`].
    pub async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Notes that the session has seen every message that was read. Returns whether a pause begins:
    /// the gate stays closed until messages are settled.
    pub fn note_seen(&self) -> bool {
        self.unseen.store(0, Ordering::SeqCst);
        if !self.is_full() {
            self.reader.wake();
            return false;
        }
        !self.is_counted.swap(true, Ordering::SeqCst)
    }

    /// Notes the bytes of messages that are not settled.
    pub fn set_held(&self, bytes: usize) {
        self.held.store(bytes, Ordering::SeqCst);
        if self.is_closed() {
            self.reader.wake();
        }
    }

    /// Whether the reader waits.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Opens the gate for good: the reader finds the end of the socket.
    pub fn open(&self) {
        self.limit.store(0, Ordering::SeqCst);
        self.reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use futures_util::FutureExt;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_full_gate_stops_the_reader_until_messages_are_settled() {
        let (gate, woken) = (Gate::default(), Arc::new(Woken::default()));
        let wakes = || woken.0.load(Ordering::SeqCst);
        let reader = Waker::from(woken.clone());
        gate.note_read(1_000);
        assert_eq!(gate.admits(&reader), usize::MAX, "no limit yet");
        gate.set_limit(100);
        gate.note_read(99);
        assert_eq!(gate.admits(&reader), usize::MAX);
        assert!(gate.closed().now_or_never().is_none());
        gate.note_read(1);
        assert_eq!(gate.admits(&reader), 0);
        assert!(gate.is_closed() && gate.closed().now_or_never().is_some(), "the session is told");
        // The bytes were a message, which is not settled.
        gate.set_held(100);
        assert!(gate.note_seen(), "a pause begins");
        assert_eq!(gate.admits(&reader), 0);
        assert!(gate.closed().now_or_never().is_none(), "there is nothing new to see");
        let before = wakes();
        gate.set_held(99);
        assert!(wakes() > before);
        assert!(gate.admits(&reader) == usize::MAX && !gate.is_closed());
    }

    #[test]
    fn a_sip_passes_a_closed_gate_and_is_the_same_pause() {
        let (gate, woken) = (Gate::default(), Arc::new(Woken::default()));
        let reader = Waker::from(woken.clone());
        gate.set_limit(100);
        gate.set_held(100);
        gate.let_sip();
        assert_eq!(gate.admits(&reader), 0, "the gate was open");
        assert!(gate.note_seen());
        gate.let_sip();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert_eq!(gate.admits(&reader), SIP);
        gate.note_read(SIP);
        assert_eq!(gate.admits(&reader), 0);
        assert!(gate.closed().now_or_never().is_some());
        assert!(!gate.note_seen(), "the pause goes on");
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "the reader rests");
    }

    #[test]
    fn bytes_without_a_message_and_the_end_of_the_socket_open_the_gate() {
        let (gate, woken) = (Gate::default(), Arc::new(Woken::default()));
        let reader = Waker::from(woken.clone());
        gate.set_limit(100);
        gate.note_read(500);
        assert_eq!(gate.admits(&reader), 0);
        // A part of a large message: the session has nothing to settle.
        assert!(!gate.note_seen());
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert_eq!(gate.admits(&reader), usize::MAX);
        gate.set_held(500);
        assert_eq!(gate.admits(&reader), 0);
        gate.open();
        assert_eq!(woken.0.load(Ordering::SeqCst), 2);
        assert_eq!(gate.admits(&reader), usize::MAX);
    }
}
