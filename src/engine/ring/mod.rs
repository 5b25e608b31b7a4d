//! One io_uring: direct descriptors, multishot polls, provided buffers, and borrowed sends that
//! are finished when [`Ring::transmit`] returns.
//!
//! Owns the ring, its receive buffers and the scratch that system calls point into. Never knows
//! what a connection is: it takes slots and tokens and gives completions. The invariants: no
//! pointer handed to the kernel outlives the call that handed it over, except into memory that
//! the ring itself owns; nothing is concluded from a completion that is not there before the
//! completions that the kernel keeps aside, because the queue was full, have been taken.
//!
//! The flags are the ones that were measured to be right: sends carry
//! `MSG_DONTWAIT|MSG_WAITALL|MSG_NOSIGNAL` and skip their completion on success, so that a short
//! or refused send, and only that, posts one.

mod batch;
mod buffers;
mod completion;
mod operations;
mod token;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::rc::Rc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, squeue};

use crate::base::{crash, sys};

use self::buffers::Buffers;
use self::operations as opcode;

pub use self::batch::Batch;
pub use self::buffers::Received;
pub use self::completion::{Completion, Unsent};
pub use self::operations::{Version, count as operations, least_kernel};
pub use self::token::{Op, Token};

const READABLE: u32 =
    (libc::POLLIN | libc::POLLRDHUP | libc::POLLERR | libc::POLLHUP) as u16 as u32;
const BUFFER_GROUP: u16 = 0;

/// Unsent data is dropped at the close, and the peer told so.
static LINGER_NONE: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

/// Bytes of a small receive buffer (the kernel doubles them).
static SMALL_BUFFER: libc::c_int = 32 * 1024;

/// Enters in a row that the kernel may refuse for want of something, before the ring is given up.
const REFUSALS_MAX: u32 = 5_000;
/// Refusals in a row that are tried again at once.
const REFUSALS_AT_ONCE: u32 = 16;
/// Time between two tries after that.
const REFUSAL_PAUSE: Duration = Duration::from_millis(1);

/// Sizes of a ring, all fixed at its start.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
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
/// Bytes in front of a ring's completions: heads, tails and masks.
const RING_HEADER: u64 = 320;

impl Sizes {
    /// Bytes of the ring that the kernel counts as locked memory of a user without CAP_IPC_LOCK:
    /// completions with the submission index, submissions, and the ring of buffers.
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

/// A ring as others see it: they can pass sockets to it.
#[derive(Debug)]
pub struct Handle(OwnedFd);

/// One thread's io_uring.
pub struct Ring {
    ring: IoUring,
    buffers: Rc<Buffers>,
    /// Completions taken out of the kernel's queue but not reaped yet.
    stash: VecDeque<Completion>,
    /// Number of the present batch of sends, and what came back of it.
    batch: u8,
    unsent: Vec<Unsent>,
    /// Refusals of the kernel since the last enter that succeeded.
    refusals: u32,
    overflows: u64,
    /// What connections are accepted from.
    listener: Option<OwnedFd>,
    /// What ends a wait from outside, and whether it is being watched.
    doorbell: Option<OwnedFd>,
    doorbell_watched: bool,
    /// Peer addresses of queued connects; each lives until its submission is consumed.
    addresses: Box<[libc::sockaddr_in]>,
    next_address: usize,
    /// What queued sends of several ranges point to; cleared once they are submitted.
    iovecs: Vec<libc::iovec>,
    messages: Vec<libc::msghdr>,
    copies: Vec<Vec<u8>>,
}

impl Ring {
    /// Sets a ring up. Errors are the kernel's: EPERM where io_uring is forbidden, ENOSYS where
    /// it is missing, EINVAL where the kernel is too old for the flags, EMFILE where the slots
    /// exceed RLIMIT_NOFILE.
    pub fn new(sizes: &Sizes) -> io::Result<Self> {
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
            iovecs: Vec::with_capacity((submissions * 4).max(batch::SEGMENTS)),
            messages: Vec::with_capacity(submissions),
            copies: Vec::new(),
        })
    }

    /// The ring for others to pass sockets to.
    pub fn handle(&self) -> io::Result<Handle> {
        // SAFETY: the ring owns its descriptor for as long as it is borrowed here.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        descriptor.try_clone_to_owned().map(Handle)
    }

    /// Queues an entry.
    ///
    /// # Safety
    ///
    /// Whatever the entry points to lives until it is submitted.
    unsafe fn push(&mut self, entry: squeue::Entry, user_data: u64) {
        let entry = entry.user_data(user_data);
        // SAFETY: the caller's promise.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.submit();
        }
    }

    /// Queues an entry that points to nothing but 'static memory or the ring's own.
    fn queue(&mut self, entry: squeue::Entry, token: Token) {
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
    fn refused(&mut self, error: &io::Error) {
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
    fn drain(&mut self) {
        let queue = self.ring.completion();
        // Counted where the kernel had no memory to keep a completion that found no room.
        if queue.overflow() > 0 {
            crash::end("the kernel dropped completions of io_uring for want of memory");
        }
        for entry in queue {
            // Nothing here has such a name: nobody waits for it.
            let Some((token, batch)) = Token::from_user_data(entry.user_data()) else { continue };
            if token.op == Op::Wake {
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

    /// Takes every completion that there is, those that the kernel keeps because the queue was
    /// full included. It ends: nothing is submitted meanwhile, and while the kernel keeps
    /// completions each operation posts its last one.
    fn collect(&mut self) {
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

    /// Takes all completions that are there from the kernel.
    pub fn reap(&mut self) {
        self.collect();
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
    pub fn announce(&mut self, doorbell: &OwnedFd) -> io::Result<()> {
        self.ring.submitter().register_eventfd(doorbell.as_raw_fd())
    }

    /// What [`Ring::accept`] accepts from.
    pub fn listen(&mut self, listener: impl Into<OwnedFd>) {
        self.stop_listening();
        self.listener = Some(listener.into());
    }

    /// Closes what connections were accepted from. Accepts under way have to be cancelled.
    pub fn stop_listening(&mut self) {
        // Queued entries name the descriptor by its number.
        self.submit();
        self.listener = None;
    }

    /// Accepts one connection into `slot`; returns whether there is something to accept from.
    pub fn accept(&mut self, generation: u32, slot: u32) -> bool {
        let Some(listener) = self.listener.as_ref().map(AsRawFd::as_raw_fd) else { return false };
        let entry = opcode::Accept::new(Fd(listener), ptr::null_mut(), ptr::null_mut())
            .file_index(Some(destination(slot)))
            .build();
        self.queue(entry, Token::new(Op::Accept, generation, slot));
        true
    }

    /// Watches a slot for input, end and error until cancelled; edge-triggered.
    pub fn watch(&mut self, generation: u32, slot: u32) {
        let entry = opcode::PollAdd::new(Fixed(slot), READABLE).multi(true).build();
        self.queue(entry, Token::new(Op::Poll, generation, slot));
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
        self.queue(entry, Token::new(Op::Wake, 0, 0));
    }

    /// Reads once, without waiting, into a provided buffer.
    pub fn receive(&mut self, generation: u32, slot: u32) {
        let entry = opcode::Recv::new(Fixed(slot), ptr::null_mut(), self.buffers.buffer_bytes())
            .flags(libc::MSG_DONTWAIT)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.queue(entry, Token::new(Op::Receive, generation, slot));
    }

    /// Completes once when the slot takes bytes again.
    pub fn watch_writable(&mut self, generation: u32, slot: u32) {
        let events = (libc::POLLOUT | libc::POLLERR | libc::POLLHUP) as u16 as u32;
        let entry = opcode::PollAdd::new(Fixed(slot), events).build();
        self.queue(entry, Token::new(Op::Writable, generation, slot));
    }

    /// Shuts both directions of a slot down.
    pub fn shutdown(&mut self, generation: u32, slot: u32) {
        let entry = opcode::Shutdown::new(Fixed(slot), libc::SHUT_RDWR).build();
        self.queue(entry, Token::new(Op::Shutdown, generation, slot));
    }

    /// Makes the coming close of a slot a reset: what the kernel still holds for it is dropped.
    pub fn reset(&mut self, generation: u32, slot: u32) {
        self.set_option(Token::new(Op::Reset, generation, slot), libc::SO_LINGER, &LINGER_NONE);
    }

    /// Gives a slot's socket, before it is connected, a receive buffer that does not grow.
    pub fn narrow(&mut self, generation: u32, slot: u32) {
        self.set_option(Token::new(Op::Narrow, generation, slot), libc::SO_RCVBUF, &SMALL_BUFFER);
    }

    fn set_option<T>(&mut self, token: Token, option: libc::c_int, value: &'static T) {
        let (level, option) = (libc::SOL_SOCKET as u32, option as u32);
        let (value, bytes) = (std::ptr::from_ref(value), size_of::<T>() as u32);
        let slot = Fixed(token.slot);
        let entry = opcode::SetSockOpt::new(slot, level, option, value.cast(), bytes).build();
        self.queue(entry, token);
    }

    /// Cancels the operation that `target` names; completes with `Op::Cancel` of its slot.
    pub fn cancel(&mut self, target: Token) {
        let entry =
            opcode::AsyncCancel2::new(CancelBuilder::user_data(target.to_user_data())).build();
        self.queue(entry, Token::new(Op::Cancel, target.generation, target.slot));
    }

    /// Closes a slot's descriptor.
    pub fn close(&mut self, generation: u32, slot: u32) {
        let entry = opcode::Close::new(Fixed(slot)).build();
        self.queue(entry, Token::new(Op::Close, generation, slot));
    }

    /// Makes an ordinary descriptor of a slot's socket; the result is its number.
    pub fn install(&mut self, generation: u32, slot: u32) {
        let entry = opcode::FixedFdInstall::new(Fixed(slot), 0).build();
        self.queue(entry, Token::new(Op::Install, generation, slot));
    }

    /// Puts an ordinary descriptor's socket into an empty slot; the caller's descriptor may be
    /// closed afterwards.
    pub fn place(&mut self, slot: u32, socket: &OwnedFd) -> io::Result<()> {
        self.ring.submitter().register_files_update(slot, &[socket.as_raw_fd()])?;
        Ok(())
    }

    /// Sends a slot's socket into `target_slot` of another ring, which gets `Op::Arrive` with
    /// `target_generation`. Where `Op::Pass` fails, the socket may be there all the same, without
    /// an `Op::Arrive`: the other ring has to close its slot.
    pub fn pass(&mut self, source: Token, ring: &Handle, target_generation: u32, target_slot: u32) {
        let arrival = Token::new(Op::Arrive, target_generation, target_slot);
        let entry = opcode::MsgRingSendFd::new(
            Fd(ring.0.as_raw_fd()),
            Fixed(source.slot),
            destination(target_slot),
            arrival.to_user_data(),
        )
        .build();
        self.queue(entry, Token::new(Op::Pass, source.generation, source.slot));
        // At once, since the entry names the other ring's descriptor by its number.
        self.submit();
    }

    /// Makes a TCP socket in a slot.
    pub fn socket(&mut self, generation: u32, slot: u32) {
        let entry = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP)
            .file_index(Some(destination(slot)))
            .build();
        self.queue(entry, Token::new(Op::Socket, generation, slot));
    }

    /// Connects a slot's socket.
    pub fn connect(&mut self, generation: u32, slot: u32, peer: SocketAddrV4) {
        if self.ring.submission().is_full() {
            self.submit();
        }
        let at = self.next_address;
        self.next_address = (at + 1) % self.addresses.len();
        self.addresses[at] = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: peer.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*peer.ip()).to_be() },
            sin_zero: [0; 8],
        };
        let address: *const libc::sockaddr_in = &raw const self.addresses[at];
        let bytes = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        let entry = opcode::Connect::new(Fixed(slot), address.cast(), bytes).build();
        self.queue(entry, Token::new(Op::Connect, generation, slot));
    }

    /// Completion entries that are free once everything queued has completed.
    fn room(&mut self) -> usize {
        let completions = self.ring.completion();
        let free = completions.capacity() - completions.len();
        drop(completions);
        free.saturating_sub(self.ring.submission().len())
    }

    fn finish_sends(&mut self) {
        self.submit();
        self.collect();
    }

    /// Sends borrowed bytes to many slots at once. `fill` queues at most one send a slot; when
    /// this returns, each is done. The result is every send that was not done in full.
    #[must_use]
    pub fn transmit<'bytes>(&mut self, fill: impl FnOnce(&mut Batch<'_, 'bytes>)) -> &[Unsent] {
        self.batch = token::next_batch(self.batch);
        self.unsent.clear();
        fill(&mut Batch::new(self));
        &self.unsent
    }
}

/// A slot that the kernel puts a new descriptor into. The kernel refuses one that is beyond the
/// table, and no table is as large as what cannot be named.
fn destination(slot: u32) -> DestinationSlot {
    let named = DestinationSlot::try_from_slot_target(slot.min(u32::MAX - 2));
    named.unwrap_or(DestinationSlot::auto_target())
}

/// Sets a small ring up, as a shard does its own, and asks the kernel for the operations that a
/// ring needs. The names are those of missing operations.
///
/// # Errors
/// The kernel's, as [`Ring::new`] gives them.
pub fn try_out() -> io::Result<Vec<&'static str>> {
    let sizes = Sizes { submissions: 8, completions: 16, slots: 1, buffers: 1, buffer_bytes: 64 };
    operations::missing(&Ring::new(&sizes)?.ring)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn ring_of(submissions: u32, completions: u32, buffers: u16) -> Ring {
        let sizes = Sizes { submissions, completions, slots: 64, buffers, buffer_bytes: 4096 };
        Ring::new(&sizes).expect("io_uring is there in tests")
    }

    fn ring() -> Ring {
        ring_of(64, 256, 8)
    }

    fn reap(ring: &mut Ring, into: &mut Vec<Completion>) {
        ring.reap();
        into.extend(std::iter::from_fn(|| ring.next_reaped()));
    }

    /// At least one completion.
    fn some(ring: &mut Ring) -> Vec<Completion> {
        let mut completions = Vec::new();
        while completions.is_empty() {
            ring.wait(Some(PATIENCE));
            reap(ring, &mut completions);
        }
        completions
    }

    fn next(ring: &mut Ring) -> Completion {
        let mut completions = some(ring);
        assert_eq!(completions.len(), 1, "{completions:?}");
        completions.remove(0)
    }

    /// Peers of so many slots of a ring, from slot 0.
    fn peers(ring: &mut Ring, count: u32) -> Vec<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        ring.listen(listener);
        (0..count)
            .map(|slot| {
                let peer = TcpStream::connect(address).unwrap();
                peer.set_read_timeout(Some(PATIENCE)).unwrap();
                assert!(ring.accept(1, slot));
                let accepted = next(ring);
                assert_eq!((accepted.token, accepted.result), (Token::new(Op::Accept, 1, slot), 0));
                peer
            })
            .collect()
    }

    /// Fills the sockets of so many slots until they take nothing more.
    fn fill(ring: &mut Ring, count: u32) {
        let block = vec![7u8; 1 << 20];
        for slot in 0..count {
            while ring.transmit(|batch| batch.send(1, slot, &block)).is_empty() {}
        }
    }

    #[test]
    fn a_borrowed_send_is_done_when_transmit_returns() {
        let mut ring = ring();
        let mut peer = peers(&mut ring, 1).remove(0);
        let mut one = b"one ".to_vec();
        let (two, three) = (b"two ".to_vec(), b"three".to_vec());
        assert_eq!(ring.transmit(|batch| batch.send(1, 0, &one)), []);
        one.fill(b'x');
        let segments = [&two[..], &three[..]];
        assert_eq!(ring.transmit(|batch| batch.send_segments(1, 0, segments)), []);
        let mut bytes = [0; 13];
        peer.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"one two three");
        let mut completions = Vec::new();
        ring.poll();
        reap(&mut ring, &mut completions);
        assert!(completions.is_empty(), "success posts nothing: {completions:?}");
    }

    /// An iterator that says too little about its length.
    struct Lying<I>(I);

    impl<I: Iterator> Iterator for Lying<I> {
        type Item = I::Item;

        fn next(&mut self) -> Option<I::Item> {
            self.0.next()
        }

        fn size_hint(&self) -> (usize, Option<usize>) {
            (0, Some(0))
        }
    }

    impl<I: Iterator> ExactSizeIterator for Lying<I> {}

    #[test]
    fn a_send_may_have_any_number_of_ranges_whatever_their_iterator_says() {
        for submissions in [2, 4, 64] {
            let mut ring = ring_of(submissions, 64, 2);
            let mut peers = peers(&mut ring, 9);
            for count in [1, 2, 3, 200, 255, 256, 257, 258, 1000, 5000] {
                let ranges: Vec<Vec<u8>> = (0..count).map(|nth| vec![nth as u8; 3]).collect();
                let expected = ranges.concat();
                // Plain sends between them, so that the queue fills up at each of them once.
                let unsent = ring.transmit(|batch| {
                    for slot in 0..9 {
                        if (slot + count) % 3 == 0 {
                            let ranges = Lying(ranges.iter().map(Vec::as_slice));
                            batch.send_segments(1, slot, ranges);
                        } else {
                            batch.send(1, slot, &expected);
                        }
                    }
                });
                assert_eq!(unsent, [], "{count} ranges");
                for peer in &mut peers {
                    let mut bytes = vec![0; expected.len()];
                    peer.read_exact(&mut bytes).unwrap();
                    assert!(bytes == expected, "{count} ranges, {submissions} submissions");
                }
            }
        }
    }

    #[test]
    fn a_short_send_is_told_with_what_was_taken() {
        let mut ring = ring();
        let peer = peers(&mut ring, 1).remove(0);
        let block = vec![7u8; 1 << 20];
        let short = loop {
            if let [short] = ring.transmit(|batch| batch.send(1, 0, &block)) {
                break *short;
            }
        };
        assert_eq!((short.slot, short.generation), (0, 1));
        assert!(short.taken.is_some_and(|taken| taken < block.len()), "{short:?}");
        fill(&mut ring, 1);
        let again = ring.transmit(|batch| batch.send(1, 0, &block));
        assert!(matches!(again, [Unsent { taken: Some(_), .. }]), "{again:?}");
        drop(peer);
    }

    #[test]
    fn every_refused_send_is_told_however_small_the_completion_queue() {
        for (submissions, completions) in [(2, 2), (4, 4), (8, 8), (4, 16), (16, 16)] {
            let mut ring = ring_of(submissions, completions, 2);
            let peers = peers(&mut ring, 50);
            fill(&mut ring, 50);
            // Completions of other operations share the queue.
            for slot in 0..50 {
                ring.watch_writable(1, slot);
                ring.receive(1, slot);
                ring.cancel(Token::new(Op::Writable, 1, slot));
            }
            // Sockets that are full may have room for a little by now.
            let bytes = vec![7; 4 << 20];
            let unsent =
                ring.transmit(|batch| (0..50).for_each(|slot| batch.send(1, slot, &bytes)));
            let slots: Vec<u32> = unsent.iter().map(|send| send.slot).collect();
            assert_eq!(slots, (0..50).collect::<Vec<u32>>(), "{completions} completions");
            assert!(
                unsent.iter().all(|send| send.taken.is_some_and(|taken| taken < bytes.len())),
                "{unsent:?}"
            );
            let mut others = Vec::new();
            reap(&mut ring, &mut others);
            ring.poll();
            reap(&mut ring, &mut others);
            let of = |op| others.iter().filter(|found| found.token.op == op).count();
            let counts = [Op::Send, Op::Receive, Op::Cancel, Op::Writable].map(of);
            assert_eq!(counts, [0, 50, 50, 50], "{completions} completions");
            assert!(completions == 16 || ring.overflows() > 0);
            drop(peers);
        }
    }

    #[test]
    fn a_send_to_a_broken_socket_is_told_in_the_same_transmit() {
        let mut ring = ring_of(2, 2, 2);
        let peers = peers(&mut ring, 40);
        for peer in peers {
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        }
        let expected: Vec<_> =
            (0..40).map(|slot| Unsent { slot, generation: 1, taken: None }).collect();
        let unsent = ring.transmit(|batch| (0..40).for_each(|slot| batch.send(1, slot, b"x")));
        assert_eq!(unsent, expected);
    }

    #[test]
    fn readiness_of_more_sockets_than_completion_entries_is_reaped_at_once() {
        let mut ring = ring_of(4, 4, 2);
        let mut peers = peers(&mut ring, 60);
        (0..60).for_each(|slot| ring.watch(1, slot));
        ring.submit();
        peers.iter_mut().for_each(|peer| peer.write_all(b"x").unwrap());
        ring.poll();
        let mut completions = Vec::new();
        reap(&mut ring, &mut completions);
        let mut slots: Vec<u32> = completions.iter().map(|found| found.token.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots, (0..60).collect::<Vec<u32>>());
        assert!(ring.overflows() > 0);
        assert!(!ring.has_news(), "nothing is left");
    }

    #[test]
    fn a_buffer_is_given_back_once_its_bytes_are_dropped() {
        let mut ring = ring_of(8, 8, 2);
        let mut peers = peers(&mut ring, 3);
        for round in 0..20u8 {
            peers.iter_mut().for_each(|peer| peer.write_all(&[round]).unwrap());
            (0..3).for_each(|slot| ring.receive(1, slot));
            let mut completions = Vec::new();
            while completions.len() < 3 {
                completions.extend(some(&mut ring));
            }
            let mut held = Vec::new();
            for completion in &mut completions {
                held.extend(completion.take_received());
                assert!(completion.take_received().is_none(), "one owner for each buffer");
            }
            assert_eq!(held.iter().map(|bytes| bytes[0]).collect::<Vec<_>>(), [round; 2]);
            let refused = completions.iter().find(|found| found.errno() == Some(libc::ENOBUFS));
            let slot = refused.expect("two buffers for three reads").token.slot;
            drop(held);
            // Bytes that nobody takes give their buffer back as well.
            ring.receive(1, slot);
            assert_eq!(next(&mut ring).result, 1);
        }
        // They may outlive the ring.
        peers[0].write_all(b"last").unwrap();
        ring.receive(1, 0);
        let mut bytes = next(&mut ring).take_received().expect("the bytes");
        drop(ring);
        bytes[0] = b'L';
        assert_eq!(&bytes[..], b"Last");
    }

    #[test]
    fn an_installed_descriptor_has_one_owner() {
        let mut ring = ring();
        let mut peer = peers(&mut ring, 1).remove(0);
        for round in 0..2 {
            ring.install(1, 0);
            let mut completion = next(&mut ring);
            let descriptor = completion.take_descriptor().expect("a descriptor");
            assert!(completion.take_descriptor().is_none());
            if round == 0 {
                continue;
            }
            ring.shutdown(1, 0);
            next(&mut ring);
            ring.close(1, 0);
            next(&mut ring);
            drop(TcpStream::from(descriptor));
            assert_eq!(peer.read(&mut [0]).unwrap(), 0, "no copy is left");
        }
    }

    #[test]
    fn a_passed_socket_arrives_though_the_other_queue_is_full() {
        let (mut from, mut to) = (ring_of(8, 8, 2), ring_of(2, 2, 2));
        let mut peers = peers(&mut from, 20);
        let handle = to.handle().unwrap();
        for slot in 0..20 {
            from.pass(Token::new(Op::Pass, 1, slot), &handle, 5, slot);
        }
        let (mut passed, mut arrived) = (Vec::new(), Vec::new());
        while passed.len() < 20 {
            to.poll();
            from.wait(Some(Duration::from_millis(10)));
            reap(&mut from, &mut passed);
        }
        to.poll();
        reap(&mut to, &mut arrived);
        assert!(passed.iter().all(|found| found.result >= 0), "{passed:?}");
        assert_eq!(arrived.len(), 20);
        assert!(arrived.iter().all(|found| found.token.op == Op::Arrive));
        let unsent = to.transmit(|batch| (0..20).for_each(|slot| batch.send(5, slot, b"here")));
        assert_eq!(unsent, []);
        for peer in &mut peers {
            let mut bytes = [0; 4];
            peer.read_exact(&mut bytes).unwrap();
            peer.shutdown(Shutdown::Both).unwrap();
        }
    }

    #[test]
    fn a_slot_that_nothing_came_into_can_be_closed() {
        let mut ring = ring();
        ring.close(1, 9);
        let closed = next(&mut ring);
        assert_eq!((closed.token.op, closed.errno()), (Op::Close, Some(libc::EBADF)));
    }

    #[test]
    fn a_slot_beyond_the_table_is_an_error_of_the_operation() {
        let mut ring = ring();
        for slot in [64, 1 << 20, u32::MAX - 2, u32::MAX] {
            ring.socket(1, slot);
            let made = next(&mut ring);
            assert_eq!((made.token, made.result < 0), (Token::new(Op::Socket, 1, slot), true));
        }
    }

    #[test]
    fn an_armed_doorbell_ends_the_wait_whoever_rings_it() {
        let bell = sys::doorbell().unwrap();
        let (mut leader, mut follower) = (ring(), ring());
        follower.announce(&bell).unwrap();
        leader.watch_doorbell(bell.try_clone().unwrap());
        let mut completions = Vec::new();
        for round in 0..50 {
            leader.arm_doorbell();
            let begun = std::time::Instant::now();
            if round % 2 == 0 {
                sys::ring_doorbell(&bell);
            } else {
                // A completion of the other ring rings too, and ends the watch.
                follower.cancel(Token::new(Op::Poll, 0, 0));
                follower.submit();
            }
            leader.wait(Some(PATIENCE));
            assert!(begun.elapsed() < PATIENCE / 2, "round {round}");
            reap(&mut leader, &mut completions);
            reap(&mut follower, &mut completions);
            // A ring before the bell is armed again is for whoever looks behind that.
            sys::ring_doorbell(&bell);
        }
        assert!(completions.iter().all(|completion| completion.token.op == Op::Cancel));
    }
}
