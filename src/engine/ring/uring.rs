//! The ring itself: set up, entered, waited on and reaped.
//!
//! Owns the ring, its receive buffers and the scratch that system calls point into. No pointer
//! handed to the kernel outlives the call that handed it over, except into memory that the ring
//! owns; nothing is concluded from a completion that is not there before the completions that the
//! kernel keeps aside, because the queue was full, have been taken.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::types::{DestinationSlot, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, squeue};

use super::buffers::Buffers;
use super::completion::{Completion, Unsent};
use super::operations as opcode;
use super::sizes::RingSizes;
use super::token::{Op, Token};
use crate::base::{crash, sys};

pub(super) const BUFFER_GROUP: u16 = 0;

/// Ranges of one send past which further ones are copied into one.
pub(super) const SEGMENTS: usize = 256;
/// Enters in a row that the kernel may refuse for want of something, before the ring is given up.
const REFUSALS_MAX: u32 = 5_000;
/// Refusals in a row that are tried again at once.
const REFUSALS_AT_ONCE: u32 = 16;
/// Time between two tries after that.
const REFUSAL_PAUSE: Duration = Duration::from_millis(1);

/// A ring as others see it: they can pass sockets to it.
#[derive(Debug)]
pub struct RingHandle(pub(super) OwnedFd);

/// One thread's io_uring.
pub struct Ring {
    pub(super) ring: IoUring,
    pub(super) buffers: Rc<Buffers>,
    /// Completions taken out of the kernel's queue but not reaped yet.
    pub(super) stash: VecDeque<Completion>,
    /// Number of the present batch of sends, and what came back of it.
    pub(super) batch: u8,
    pub(super) unsent: Vec<Unsent>,
    /// Refusals of the kernel since the last enter that succeeded.
    pub(super) refusals: u32,
    pub(super) overflows: u64,
    /// What connections are accepted from.
    pub(super) listener: Option<OwnedFd>,
    /// What ends a wait from outside, and whether it is being watched.
    pub(super) doorbell: Option<OwnedFd>,
    pub(super) doorbell_watched: bool,
    /// Peer addresses of queued connects; each lives until its submission is consumed.
    pub(super) addresses: Box<[libc::sockaddr_in]>,
    pub(super) next_address: usize,
    /// What queued sends of several ranges point to; cleared once they are submitted.
    pub(super) iovecs: Vec<libc::iovec>,
    pub(super) messages: Vec<libc::msghdr>,
    pub(super) copies: Vec<Vec<u8>>,
}

impl Ring {
    /// Sets a ring up. Errors are the kernel's: EPERM where io_uring is forbidden, ENOSYS where
    /// it is missing, EINVAL where the kernel is too old for the flags, EMFILE where the slots
    /// exceed RLIMIT_NOFILE.
    pub fn new(sizes: &RingSizes) -> io::Result<Self> {
        let mut ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(sizes.completions)
            .build(sizes.submissions)?;
        let buffers = Buffers::new(sizes.buffers, sizes.buffer_bytes)?;
        if sizes.slots > 0 {
            ring.submitter().register_files_sparse(sizes.slots)?;
        }
        // SAFETY: the mapping has room for `count` entries and is page-aligned. It is unmapped
        // after the ring (field order), which ends the registration.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.descriptors(),
                buffers.count(),
                BUFFER_GROUP,
                0,
            )?;
        }
        for buffer in 0..buffers.count() {
            // SAFETY: nothing refers to a buffer yet, and the kernel has none.
            unsafe { buffers.offer(buffer) };
        }
        // Saves a descriptor look-up an enter; a kernel that cannot is no worse off.
        let _ = ring.submitter().register_ring_fd();
        let submissions = ring.submission().capacity();
        // SAFETY: sockaddr_in is plain data for which all zeroes is a value.
        let blank: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        Ok(Ring {
            ring,
            buffers: Rc::new(buffers),
            stash: VecDeque::new(),
            batch: 0,
            unsent: Vec::new(),
            refusals: 0,
            overflows: 0,
            listener: None,
            doorbell: None,
            doorbell_watched: false,
            addresses: vec![blank; submissions].into_boxed_slice(),
            next_address: 0,
            iovecs: Vec::with_capacity((submissions * 4).max(SEGMENTS)),
            messages: Vec::with_capacity(submissions),
            copies: Vec::new(),
        })
    }

    /// The ring for others to pass sockets to.
    pub fn handle(&self) -> io::Result<RingHandle> {
        // SAFETY: the ring owns its descriptor for as long as it is borrowed here.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        descriptor.try_clone_to_owned().map(RingHandle)
    }

    /// Queues an entry.
    ///
    /// # Safety
    ///
    /// Whatever the entry points to lives until it is submitted.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, user_data: u64) {
        let entry = entry.user_data(user_data);
        // SAFETY: the caller's promise.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.submit();
        }
    }

    /// Queues an entry that points to nothing but 'static memory or the ring's own.
    pub(super) fn queue(&mut self, entry: squeue::Entry, token: Token) {
        // SAFETY: private, and called only with entries that are built from numbers, from
        // statics, or from `addresses`, of which there are as many as submission entries.
        unsafe { self.push(entry, token.to_user_data()) };
    }

    /// Gives everything queued to the kernel; runs what it deferred.
    pub fn submit(&mut self) {
        loop {
            let before = self.ring.submission().len();
            match self.ring.submit() {
                Ok(_) if self.ring.submission().is_empty() => break,
                Ok(_) if self.ring.submission().len() < before => {}
                Ok(_) => self.refused(&io::ErrorKind::WouldBlock.into()),
                Err(error) => self.refused(&error),
            }
        }
        self.refusals = 0;
        self.iovecs.clear();
        self.messages.clear();
        self.copies.clear();
    }

    /// After a refused enter: takes completions out so that the next try can go on. Queued sends
    /// borrow memory, so returning with them unsubmitted is not an option. A ring that cannot be
    /// entered serves nobody and gives nothing back: it ends the process.
    pub(super) fn refused(&mut self, error: &io::Error) {
        let is_transient = error.kind() == io::ErrorKind::WouldBlock
            || matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::ENOMEM));
        self.refusals += 1;
        if !is_transient || self.refusals > REFUSALS_MAX {
            let times = self.refusals;
            crash::end(&format!("io_uring_enter failed, {times} times in a row: {error}"));
        }
        self.drain();
        if self.refusals > REFUSALS_AT_ONCE {
            std::thread::sleep(REFUSAL_PAUSE);
        }
    }

    /// Takes what is in the completion queue.
    pub(super) fn drain(&mut self) {
        let queue = self.ring.completion();
        // Counted where the kernel had no memory to keep a completion that found no room.
        if queue.overflow() > 0 {
            crash::end("the kernel dropped completions of io_uring for want of memory");
        }
        for entry in queue {
            // Nothing here has such a name: nobody waits for it.
            let Some((token, batch)) = Token::from_user_data(entry.user_data()) else { continue };
            if token.op == Op::Doorbell {
                self.doorbell_watched = cqueue::more(entry.flags());
            } else if batch == Some(self.batch) {
                self.unsent.push(Unsent::new(token, entry.result()));
            } else {
                // SAFETY: the entry comes from this ring's queue, which gives it once.
                let completion = unsafe { Completion::new(token, &entry, &self.buffers) };
                self.stash.push_back(completion);
            }
        }
    }

    /// Takes every completion that there is from the kernel, those that it keeps because the queue
    /// was full included. It ends: nothing is submitted meanwhile, and while the kernel keeps
    /// completions each operation posts its last one.
    pub fn reap(&mut self) {
        self.drain();
        while self.ring.submission().cq_overflow() {
            self.overflows += 1;
            self.submit();
            self.drain();
        }
    }

    /// How many times the kernel had to keep completions since the queue was full.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Whether completions were taken from the kernel that nobody has handled yet.
    pub fn has_reaped(&self) -> bool {
        !self.stash.is_empty()
    }

    /// The first of them.
    pub fn next_reaped(&mut self) -> Option<Completion> {
        self.stash.pop_front()
    }

    /// Submits, then waits for a completion, the doorbell if it is armed, or `timeout`; `None`
    /// waits for ever and zero only runs what the kernel deferred.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        if !self.stash.is_empty() {
            return self.poll();
        }
        let timespec;
        let mut arguments = SubmitArgs::new();
        if let Some(timeout) = timeout {
            timespec = Timespec::from(timeout);
            arguments = arguments.timespec(&timespec);
        }
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Err(error) if error.raw_os_error() != Some(libc::ETIME) => self.refused(&error),
            _ => self.refusals = 0,
        }
    }

    /// Gives queued entries to the kernel and runs what it deferred, if there is either.
    pub fn poll(&mut self) {
        let submissions = self.ring.submission();
        if !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow() {
            drop(submissions);
            self.submit();
        }
    }

    /// Whether [`Ring::reap`] or [`Ring::poll`] would bring something.
    pub fn has_news(&mut self) -> bool {
        let submissions = self.ring.submission();
        let waits = submissions.taskrun() || submissions.cq_overflow();
        drop(submissions);
        waits || !self.stash.is_empty() || !self.ring.completion().is_empty()
    }

    /// Rings `doorbell` whenever there is news, for a thread that waits on another ring.
    ///
    /// A ring that defers its task work wakes nobody who polls its descriptor; the registered
    /// eventfd is the way that works.
    pub fn ring_doorbell_on_news(&mut self, doorbell: &OwnedFd) -> io::Result<()> {
        self.ring.submitter().register_eventfd(doorbell.as_raw_fd())
    }

    /// Which doorbell, an eventfd, [`Ring::arm_doorbell`] watches.
    pub fn watch_doorbell(&mut self, doorbell: OwnedFd) {
        // A queued entry names the present one by its number.
        self.submit();
        self.doorbell = Some(doorbell);
        self.doorbell_watched = false;
    }

    /// Makes the next wait end when the doorbell rings from now on. Call it before the last look
    /// for what the bell tells of: earlier rings are taken back, or a new watch would complete at
    /// once. A watch ends when another ring's news rings the bell: the kernel takes it for a loop.
    pub fn arm_doorbell(&mut self) {
        let Some(doorbell) = self.doorbell.as_ref().filter(|_| !self.doorbell_watched) else {
            return;
        };
        let descriptor = doorbell.as_raw_fd();
        sys::silence_doorbell(doorbell);
        self.doorbell_watched = true;
        let entry = opcode::PollAdd::new(Fd(descriptor), libc::POLLIN as u32).multi(true).build();
        self.queue(entry, Token::new(Op::Doorbell, 0, 0));
    }
}

/// A slot that the kernel puts a new descriptor into. The kernel refuses one that is beyond the
/// table, and no table is as large as what cannot be named.
pub(super) fn destination(slot: u32) -> DestinationSlot {
    let named = DestinationSlot::try_from_slot_target(slot.min(u32::MAX - 2));
    named.unwrap_or(DestinationSlot::auto_target())
}

/// Sets a small ring up, as a shard does its own, and asks the kernel for the operations that a
/// ring needs. The names are those of missing operations.
///
/// # Errors
/// The kernel's, as [`Ring::new`] gives them.
pub fn try_out() -> io::Result<Vec<&'static str>> {
    let sizes =
        RingSizes { submissions: 8, completions: 16, slots: 1, buffers: 1, buffer_bytes: 64 };
    opcode::missing(&Ring::new(&sizes)?.ring)
}
