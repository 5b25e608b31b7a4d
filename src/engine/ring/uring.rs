//! The ring itself: setup, submission, waiting and completions.
//!
//! Owns the ring, its receive buffers and the memory that system calls point to. A pointer given to
//! the kernel is not used after the call that passed it, except a pointer into memory that the ring
//! owns. Before the ring concludes anything from a missing completion, it takes the completions
//! that the kernel keeps because the queue was full.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::types::{DestinationSlot, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

use super::buffers::Buffers;
use super::completion::{Completion, Unsent};
use super::enter::RingIndex;
use super::operations as opcode;
use super::peers::Peers;
use super::sizes::RingSizes;
use super::token::{Op, Token};
use crate::base::{crash, sys};

pub(super) const BUFFER_GROUP: u16 = 0;

/// Maximum number of ranges per send; further ones are copied into one range.
pub(super) const SEGMENTS: usize = 256;
/// Number of refused io_uring_enter calls in a row after which the process ends.
const REFUSALS_MAX: u32 = 5_000;
/// Number of refusals in a row that are retried at once.
const REFUSALS_AT_ONCE: u32 = 16;
/// Pause between later retries.
const REFUSAL_PAUSE: Duration = Duration::from_millis(1);

/// A handle of a ring: other rings can send sockets to it.
#[derive(Debug)]
pub struct RingHandle(pub(super) OwnedFd);

/// The io_uring of one shard.
pub struct Ring {
    pub(super) ring: IoUring,
    index: RingIndex,
    pub(super) buffers: Rc<Buffers>,
    /// Completions taken from the kernel and not handled yet.
    pub(super) stash: VecDeque<Completion>,
    /// Number of the current batch of sends, and its short or failed sends.
    pub(super) batch: u8,
    pub(super) unsent: Vec<Unsent>,
    /// Refusals since the last successful enter.
    pub(super) refusals: u32,
    pub(super) overflows: u64,
    /// Calls of io_uring_enter, and sends.
    pub(super) enters: u64,
    pub(super) sends: u64,
    /// The listeners.
    pub(super) listeners: Vec<OwnedFd>,
    /// The eventfd that ends a wait, and whether it is polled.
    pub(super) doorbell: Option<OwnedFd>,
    pub(super) doorbell_watched: bool,
    /// Peer addresses of queued connects; each stays until its submission is consumed.
    pub(super) addresses: Box<[libc::sockaddr_in]>,
    pub(super) next_address: usize,
    /// Addresses that accepts in progress ask for. The ring is closed before they are freed.
    pub(super) peers: Peers,
    /// Memory that queued vectored sends point to; cleared after their submission.
    pub(super) iovecs: Vec<libc::iovec>,
    pub(super) messages: Vec<libc::msghdr>,
    pub(super) copies: Vec<Vec<u8>>,
}

impl Ring {
    /// Sets up a ring. Errors are those of the kernel: EPERM if io_uring is forbidden, ENOSYS if it
    /// is missing, EINVAL if the kernel is too old for the flags, EMFILE if the slots exceed
    /// RLIMIT_NOFILE.
    pub fn new(sizes: &RingSizes) -> io::Result<Self> {
        Ring::register(set_up(sizes)?, sizes)
    }

    /// Registers the slots and receive buffers of a ring.
    fn register(mut ring: IoUring, sizes: &RingSizes) -> io::Result<Self> {
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
        let index = RingIndex::register(&ring);
        let submissions = ring.submission().capacity();
        // SAFETY: sockaddr_in is plain data for which all zeroes is a value.
        let blank: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        Ok(Ring {
            ring,
            index,
            buffers: Rc::new(buffers),
            stash: VecDeque::new(),
            batch: 0,
            unsent: Vec::new(),
            refusals: 0,
            overflows: 0,
            enters: 0,
            sends: 0,
            listeners: Vec::new(),
            doorbell: None,
            doorbell_watched: false,
            addresses: vec![blank; submissions].into_boxed_slice(),
            next_address: 0,
            peers: Peers::default(),
            iovecs: Vec::with_capacity((submissions * 4).max(SEGMENTS)),
            messages: Vec::with_capacity(submissions),
            copies: Vec::new(),
        })
    }

    /// A handle through which other rings send sockets to this one.
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

    /// Submits what is queued, runs deferred work of the kernel, and waits for so many completions.
    fn enter(
        &mut self,
        completions: u32,
        arguments: Option<&SubmitArgs<'_, '_>>,
    ) -> io::Result<usize> {
        let queue = self.ring.submission();
        let submissions = queue.len() as u32;
        let mut flags = EnterFlags::empty();
        flags.set(EnterFlags::EXT_ARG, arguments.is_some());
        // The kernel runs deferred work only for a call that asks for completions.
        let wants = completions > 0 || queue.taskrun() || queue.cq_overflow();
        flags.set(EnterFlags::GETEVENTS, wants);
        drop(queue);
        self.enters += 1;
        // SAFETY: `push` and `queue` require that queued entries point to live memory, and the
        // index is that of this ring.
        unsafe { self.index.enter(&self.ring, submissions, completions, flags, arguments) }
    }

    /// Submits everything queued, and runs deferred work of the kernel.
    pub fn submit(&mut self) {
        loop {
            let before = self.ring.submission().len();
            match self.enter(0, None) {
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

    /// Handles a refused enter: takes completions so that the next try can succeed. Queued sends
    /// borrow memory, so they must be submitted before this returns. A ring that stays refused ends
    /// the process.
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

    /// Takes all completions from the queue.
    pub(super) fn drain(&mut self) {
        let queue = self.ring.completion();
        // The kernel counts completions that it had no memory to keep.
        if queue.overflow() > 0 {
            crash::end("the kernel dropped completions of io_uring for want of memory");
        }
        for entry in queue {
            // Unknown user data: nothing waits for this completion.
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

    /// Takes every completion, including those that the kernel keeps because the queue was full.
    /// The loop ends: nothing is submitted meanwhile, and each operation posts one last completion.
    pub fn reap(&mut self) {
        self.drain();
        while self.ring.submission().cq_overflow() {
            self.overflows += 1;
            self.submit();
            self.drain();
        }
    }

    /// Number of times the kernel had to keep completions because the queue was full.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Number of calls of io_uring_enter.
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// Number of sends.
    pub fn sends(&self) -> u64 {
        self.sends
    }

    /// Whether taken completions wait to be handled.
    pub fn has_reaped(&self) -> bool {
        !self.stash.is_empty()
    }

    /// Takes the next completion.
    pub fn next_reaped(&mut self) -> Option<Completion> {
        self.stash.pop_front()
    }

    /// Takes the next completion if it is of this operation.
    pub fn next_reaped_of(&mut self, op: Op) -> Option<Completion> {
        let is_next = self.stash.front().is_some_and(|next| next.token.op == op);
        if is_next { self.stash.pop_front() } else { None }
    }

    /// Submits, then waits for a completion, the armed eventfd or `timeout`. `None` waits without
    /// limit; zero only runs deferred work of the kernel.
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
        match self.enter(1, Some(&arguments)) {
            Err(error) if error.raw_os_error() != Some(libc::ETIME) => self.refused(&error),
            _ => self.refusals = 0,
        }
    }

    /// Submits queued entries and runs deferred work of the kernel, if there is either.
    pub fn poll(&mut self) {
        let submissions = self.ring.submission();
        if !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow() {
            drop(submissions);
            self.submit();
        }
    }

    /// Whether [`Ring::reap`] or [`Ring::poll`] would find completions.
    pub fn has_news(&mut self) -> bool {
        let submissions = self.ring.submission();
        let waits = submissions.taskrun() || submissions.cq_overflow();
        drop(submissions);
        waits || !self.stash.is_empty() || !self.ring.completion().is_empty()
    }

    /// Writes to the eventfd `doorbell` whenever this ring has completions, for a thread that waits
    /// on another ring.
    ///
    /// A ring with deferred task work does not wake a thread that polls its descriptor, but it does
    /// write to a registered eventfd.
    pub fn ring_doorbell_on_news(&mut self, doorbell: &OwnedFd) -> io::Result<()> {
        self.ring.submitter().register_eventfd(doorbell.as_raw_fd())
    }

    /// Sets the eventfd that [`Ring::arm_doorbell`] polls.
    pub fn watch_doorbell(&mut self, doorbell: OwnedFd) {
        // A queued entry refers to the current eventfd by number, so it is submitted first.
        self.submit();
        self.doorbell = Some(doorbell);
        self.doorbell_watched = false;
    }

    /// Makes the next wait end when the eventfd is written from now on. Call it before the last
    /// check for news: earlier writes are cleared, because a new poll would complete at once. A
    /// poll ends when the completions of another ring write to the eventfd, because the kernel
    /// treats that as a loop.
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

/// The slot for a new descriptor. The kernel refuses a slot beyond the table, and no table is as
/// large as the highest value.
pub(super) fn destination(slot: u32) -> DestinationSlot {
    let named = DestinationSlot::try_from_slot_target(slot.min(u32::MAX - 2));
    named.unwrap_or(DestinationSlot::auto_target())
}

/// Sets up a ring, without slots and receive buffers.
fn set_up(sizes: &RingSizes) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(sizes.completions)
        .build(sizes.submissions)
}

/// A system call of io_uring that failed, and its error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the system call.
    pub call: &'static str,
    /// Error number; 0: unknown.
    pub errno: i32,
}

impl Refusal {
    fn of(call: &'static str) -> impl Fn(io::Error) -> Refusal {
        move |error| Refusal { call, errno: error.raw_os_error().unwrap_or(0) }
    }
}

/// Sets up a small ring with the flags of a shard, enters it, and returns the names of the
/// operations that a ring needs and the kernel lacks.
///
/// # Errors
/// The first call that the kernel, or a filter before it, refuses.
pub fn try_out() -> Result<Vec<&'static str>, Refusal> {
    let sizes =
        RingSizes { submissions: 8, completions: 16, slots: 1, buffers: 1, buffer_bytes: 64 };
    let registered = Refusal::of("io_uring_register");
    let ring = set_up(&sizes).map_err(Refusal::of("io_uring_setup"))?;
    let mut ring = Ring::register(ring, &sizes).map_err(&registered)?;
    let missing = opcode::missing(&ring.ring).map_err(&registered)?;
    ring.enter(0, None).map_err(Refusal::of("io_uring_enter"))?;
    Ok(missing)
}
