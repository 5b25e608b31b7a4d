//! One io_uring: direct descriptors, multishot polls, provided buffers, and borrowed sends that
//! are finished when [`Ring::transmit`] returns.
//!
//! Owns the ring, its receive buffers and the scratch that system calls point into. Never knows
//! what a connection is: it takes slots and tokens and gives completions. The invariant: no
//! pointer handed to the kernel outlives the call that handed it over, except into memory that
//! the ring itself owns.
//!
//! The flags are the ones that were measured to be right: sends carry
//! `MSG_DONTWAIT|MSG_WAITALL|MSG_NOSIGNAL` and skip their completion on success, so that a short
//! or refused send, and only that, posts one.

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::sys;

const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
const READABLE: u32 =
    (libc::POLLIN | libc::POLLRDHUP | libc::POLLERR | libc::POLLHUP) as u16 as u32;
const BUFFER_GROUP: u16 = 0;

/// Unsent data is dropped at the close, and the peer told so.
static LINGER_NONE: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

/// Bytes of a small receive buffer (the kernel doubles them).
static SMALL_BUFFER: libc::c_int = 32 * 1024;

/// What an operation was; the first byte of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// A connection accepted into a reserved slot.
    Accept = 1,
    /// Multishot readiness of a slot.
    Poll,
    /// One read into a provided buffer.
    Receive,
    /// A send that came back short or refused.
    Send,
    /// Oneshot writability of a slot that is behind.
    Writable,
    /// Both directions of a slot shut down.
    Shutdown,
    /// A slot set to reset its peer when it is closed.
    Reset,
    /// A poll cancelled.
    Cancel,
    /// A slot's descriptor closed.
    Close,
    /// The doorbell rang; never comes out of the ring.
    Wake,
    /// A slot made an ordinary descriptor too.
    Install,
    /// A slot's socket sent to another ring.
    Pass,
    /// A socket arrived from another ring.
    Arrive,
    /// A socket made in a slot.
    Socket,
    /// A slot given a small receive buffer.
    Narrow,
    /// A slot connected to its peer.
    Connect,
}

const OPS: [Op; 16] = [
    Op::Accept,
    Op::Poll,
    Op::Receive,
    Op::Send,
    Op::Writable,
    Op::Shutdown,
    Op::Reset,
    Op::Cancel,
    Op::Close,
    Op::Wake,
    Op::Install,
    Op::Pass,
    Op::Arrive,
    Op::Socket,
    Op::Narrow,
    Op::Connect,
];

/// Names an operation: what, on which slot, of which of the slot's lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The operation.
    pub op: Op,
    /// The slot's generation, 24 bits.
    pub generation: u32,
    /// The slot: index of the direct descriptor and of the connection.
    pub slot: u32,
}

impl Token {
    /// A token; the generation is cut to 24 bits.
    pub fn new(op: Op, generation: u32, slot: u32) -> Self {
        Token { op, generation: generation & 0xff_ffff, slot }
    }

    /// As the kernel carries it: op:8 | generation:24 | slot:32.
    pub fn to_user_data(self) -> u64 {
        (self.op as u64) << 56 | u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// Back from the kernel. The kernel returns only what `to_user_data` gave it.
    pub fn from_user_data(data: u64) -> Self {
        let op = OPS[(data >> 56) as usize - 1];
        Token { op, generation: (data >> 32) as u32 & 0xff_ffff, slot: data as u32 }
    }
}

/// One completion.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// What completed.
    pub token: Token,
    /// Bytes, a descriptor or an event mask; below zero a negated errno.
    pub result: i32,
    flags: u32,
}

impl Completion {
    /// Whether the multishot operation goes on.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// Whether the socket had more to read than fitted.
    pub fn socket_nonempty(&self) -> bool {
        cqueue::sock_nonempty(self.flags)
    }

    /// The provided buffer that holds what was read.
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The errno, if it failed.
    pub fn errno(&self) -> Option<i32> {
        (self.result < 0).then_some(-self.result)
    }
}

/// Sizes of a ring, all fixed at its start.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Submission entries.
    pub submissions: u32,
    /// Completion entries.
    pub completions: u32,
    /// Direct descriptors.
    pub slots: u32,
    /// Receive buffers, a power of two.
    pub buffers: u16,
    /// Bytes of one receive buffer.
    pub buffer_bytes: u32,
}

/// A memory mapping of the ring's own; unmapped with it.
struct Mapping {
    address: *mut u8,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no
        // memory of ours.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { address: address.cast(), bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: address and length are the mapping's own, and nothing borrows it any more.
        unsafe { libc::munmap(self.address.cast(), self.bytes) };
    }
}

/// The provided receive buffers: a ring of descriptors that the kernel takes from, and the bytes.
struct Buffers {
    descriptors: Mapping,
    bytes: Mapping,
    count: u16,
    buffer_bytes: u32,
    tail: u16,
}

impl Buffers {
    fn new(count: u16, buffer_bytes: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel masks the index");
        let descriptor_bytes = usize::from(count) * size_of::<io_uring::types::BufRingEntry>();
        Ok(Buffers {
            descriptors: Mapping::new(descriptor_bytes)?,
            bytes: Mapping::new(usize::from(count) * buffer_bytes as usize)?,
            count,
            buffer_bytes,
            tail: 0,
        })
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        assert!(buffer < self.count, "the kernel returns only buffers it was given");
        // SAFETY: the index is below the count, so the result is inside the mapping.
        unsafe { self.bytes.address.add(usize::from(buffer) * self.buffer_bytes as usize) }
    }

    fn offer(&mut self, buffer: u16) {
        let address = self.address(buffer) as u64;
        let entries: *mut io_uring::types::BufRingEntry = self.descriptors.address.cast();
        // SAFETY: the masked index is inside the mapping; the kernel reads an entry only after
        // the tail store below has published it.
        unsafe {
            let entry = &mut *entries.add(usize::from(self.tail & (self.count - 1)));
            entry.set_addr(address);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail field lies in the first entry of the page-aligned mapping, is only
        // ever accessed as an atomic by us, and the kernel only reads it.
        let tail =
            unsafe { AtomicU16::from_ptr(io_uring::types::BufRingEntry::tail(entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// One thread's io_uring.
pub struct Ring {
    ring: IoUring,
    buffers: Buffers,
    /// Completions taken out of the kernel's queue to make room while submitting.
    stash: Vec<Completion>,
    /// What ends a wait from outside, and whether it is being watched.
    doorbell: Option<OwnedFd>,
    doorbell_watched: bool,
    /// Peer addresses of queued connects; each lives until its submission is consumed.
    addresses: Box<[libc::sockaddr_in]>,
    next_address: usize,
    iovecs: Vec<libc::iovec>,
    messages: Vec<libc::msghdr>,
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
        let mut buffers = Buffers::new(sizes.buffers, sizes.buffer_bytes)?;
        if sizes.slots > 0 {
            ring.submitter().register_files_sparse(sizes.slots)?;
        }
        // SAFETY: the mapping has room for `count` entries, is page-aligned, and is unmapped
        // after the ring (field order), which ends the registration.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.descriptors.address as u64,
                sizes.buffers,
                BUFFER_GROUP,
                0,
            )?;
        }
        for buffer in 0..sizes.buffers {
            buffers.offer(buffer);
        }
        // Saves a descriptor look-up an enter; a kernel that cannot is no worse off.
        let _ = ring.submitter().register_ring_fd();
        let submissions = ring.submission().capacity();
        // SAFETY: sockaddr_in is plain data for which all zeroes is a value.
        let blank: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        Ok(Ring {
            ring,
            buffers,
            stash: Vec::new(),
            doorbell: None,
            doorbell_watched: false,
            addresses: vec![blank; submissions].into_boxed_slice(),
            next_address: 0,
            iovecs: Vec::with_capacity(submissions * 4),
            messages: Vec::with_capacity(submissions),
        })
    }

    /// The ring's descriptor, for others to pass sockets to.
    pub fn descriptor(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    fn push(&mut self, entry: squeue::Entry, token: Token) {
        if self.ring.submission().is_full() {
            self.submit();
        }
        let entry = entry.user_data(token.to_user_data());
        // SAFETY: everything an entry points to is owned by the ring until its submission is
        // consumed, or borrowed for the whole of `transmit`.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("submit leaves the queue empty");
    }

    /// Gives everything queued to the kernel; runs what it deferred.
    pub fn submit(&mut self) {
        loop {
            match self.ring.submit() {
                Ok(_) if self.ring.submission().is_empty() => break,
                Ok(_) => {}
                Err(error) => self.make_room(&error),
            }
        }
        self.iovecs.clear();
        self.messages.clear();
    }

    /// After a refused enter: takes completions out so that the next try can go on. Queued sends
    /// borrow memory, so returning with them unsubmitted is not an option.
    fn make_room(&mut self, error: &io::Error) {
        match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => {}
            Some(libc::EBUSY) => {
                let mut stash = std::mem::take(&mut self.stash);
                self.drain_into(&mut stash);
                self.stash = stash;
            }
            _ => panic!("io_uring_enter failed for good: {error}"),
        }
    }

    fn drain_into(&mut self, into: &mut Vec<Completion>) {
        for entry in self.ring.completion() {
            let token = Token::from_user_data(entry.user_data());
            if token.op == Op::Wake {
                self.doorbell_watched = cqueue::more(entry.flags());
                continue;
            }
            into.push(Completion { token, result: entry.result(), flags: entry.flags() });
        }
    }

    /// Moves all completions that are there into `into`.
    pub fn reap(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.stash);
        self.drain_into(into);
    }

    /// Submits, then waits for a completion, the doorbell if it is armed, or `timeout`; `None`
    /// waits for ever and zero only runs what the kernel deferred.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        let timespec;
        let mut arguments = SubmitArgs::new();
        if let Some(timeout) = timeout {
            timespec = Timespec::from(timeout);
            arguments = arguments.timespec(&timespec);
        }
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => {}
            Err(error) => self.make_room(&error),
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

    /// Accepts one connection from `listener` into `slot`.
    pub fn accept(&mut self, listener: RawFd, generation: u32, slot: u32) {
        let entry = opcode::Accept::new(Fd(listener), ptr::null_mut(), ptr::null_mut())
            .file_index(Some(destination(slot)))
            .build();
        self.push(entry, Token::new(Op::Accept, generation, slot));
    }

    /// Watches a slot for input, end and error until cancelled; edge-triggered.
    pub fn watch(&mut self, generation: u32, slot: u32) {
        let entry = opcode::PollAdd::new(Fixed(slot), READABLE).multi(true).build();
        self.push(entry, Token::new(Op::Poll, generation, slot));
    }

    /// Which doorbell, an eventfd, [`Ring::arm_doorbell`] watches.
    pub fn watch_doorbell(&mut self, doorbell: OwnedFd) {
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
        self.push(entry, Token::new(Op::Wake, 0, 0));
    }

    /// Reads once, without waiting, into a provided buffer.
    pub fn receive(&mut self, generation: u32, slot: u32) {
        let entry = opcode::Recv::new(Fixed(slot), ptr::null_mut(), self.buffers.buffer_bytes)
            .flags(libc::MSG_DONTWAIT)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry, Token::new(Op::Receive, generation, slot));
    }

    /// The bytes that a completed `receive` brought. Give the buffer back with
    /// [`Ring::recycle`].
    pub fn received(&mut self, buffer: u16, bytes: usize) -> &mut [u8] {
        assert!(bytes <= self.buffers.buffer_bytes as usize, "a read fits its buffer");
        // SAFETY: the kernel handed this buffer to us with the completion and does not touch it
        // until it is offered again; `&mut self` keeps that from happening meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.buffers.address(buffer), bytes) }
    }

    /// Gives a receive buffer back to the kernel.
    pub fn recycle(&mut self, buffer: u16) {
        self.buffers.offer(buffer);
    }

    /// Completes once when the slot takes bytes again.
    pub fn watch_writable(&mut self, generation: u32, slot: u32) {
        let events = (libc::POLLOUT | libc::POLLERR | libc::POLLHUP) as u16 as u32;
        let entry = opcode::PollAdd::new(Fixed(slot), events).build();
        self.push(entry, Token::new(Op::Writable, generation, slot));
    }

    /// Shuts both directions of a slot down.
    pub fn shutdown(&mut self, generation: u32, slot: u32) {
        let entry = opcode::Shutdown::new(Fixed(slot), libc::SHUT_RDWR).build();
        self.push(entry, Token::new(Op::Shutdown, generation, slot));
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
        self.push(entry, token);
    }

    /// Cancels the operation that `target` names; completes with `Op::Cancel` of its slot.
    pub fn cancel(&mut self, target: Token) {
        let entry =
            opcode::AsyncCancel2::new(CancelBuilder::user_data(target.to_user_data())).build();
        self.push(entry, Token::new(Op::Cancel, target.generation, target.slot));
    }

    /// Closes a slot's descriptor.
    pub fn close(&mut self, generation: u32, slot: u32) {
        let entry = opcode::Close::new(Fixed(slot)).build();
        self.push(entry, Token::new(Op::Close, generation, slot));
    }

    /// Makes an ordinary descriptor of a slot's socket; the result is its number.
    pub fn install(&mut self, generation: u32, slot: u32) {
        let entry = opcode::FixedFdInstall::new(Fixed(slot), 0).build();
        self.push(entry, Token::new(Op::Install, generation, slot));
    }

    /// Takes over the descriptor that a completed `install` made.
    pub fn installed(&self, completion: &Completion) -> OwnedFd {
        assert!(completion.token.op == Op::Install && completion.result >= 0);
        // SAFETY: the kernel made this descriptor for us in this very operation; nobody else
        // knows its number.
        unsafe { OwnedFd::from_raw_fd(completion.result) }
    }

    /// Puts an ordinary descriptor's socket into an empty slot; the caller's descriptor may be
    /// closed afterwards.
    pub fn place(&mut self, slot: u32, socket: &OwnedFd) -> io::Result<()> {
        self.ring.submitter().register_files_update(slot, &[socket.as_raw_fd()])?;
        Ok(())
    }

    /// Sends a slot's socket into `target_slot` of another ring, which gets `Op::Arrive` with
    /// `target_generation`.
    pub fn pass(&mut self, source: Token, ring: RawFd, target_generation: u32, target_slot: u32) {
        let arrival = Token::new(Op::Arrive, target_generation, target_slot);
        let entry = opcode::MsgRingSendFd::new(
            Fd(ring),
            Fixed(source.slot),
            destination(target_slot),
            arrival.to_user_data(),
        )
        .build();
        self.push(entry, Token::new(Op::Pass, source.generation, source.slot));
    }

    /// Makes a TCP socket in a slot.
    pub fn socket(&mut self, generation: u32, slot: u32) {
        let entry = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP)
            .file_index(Some(destination(slot)))
            .build();
        self.push(entry, Token::new(Op::Socket, generation, slot));
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
        self.push(entry, Token::new(Op::Connect, generation, slot));
    }

    /// Sends borrowed bytes to many slots at once. `fill` queues at most one send a slot; when
    /// this returns, each is done, and only short or refused ones have posted a completion.
    pub fn transmit<'bytes>(&mut self, fill: impl FnOnce(&mut Batch<'_, 'bytes>)) {
        let mut batch = Batch { ring: self, bytes: PhantomData };
        fill(&mut batch);
    }
}

/// Sends being queued; submitted when it is dropped, which [`Ring::transmit`] makes sure of.
pub struct Batch<'ring, 'bytes> {
    ring: &'ring mut Ring,
    bytes: PhantomData<&'bytes [u8]>,
}

impl<'bytes> Batch<'_, 'bytes> {
    /// The most segments that one send may have.
    pub const SEGMENTS: usize = 256;

    /// Queues a send of one range.
    pub fn send(&mut self, generation: u32, slot: u32, bytes: &'bytes [u8]) {
        let entry = opcode::Send::new(Fixed(slot), bytes.as_ptr(), bytes.len() as u32)
            .flags(SEND_FLAGS)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        self.ring.push(entry, Token::new(Op::Send, generation, slot));
    }

    /// Queues a send of several ranges, at most [`Batch::SEGMENTS`], one after the other.
    pub fn send_segments(
        &mut self,
        generation: u32,
        slot: u32,
        segments: impl ExactSizeIterator<Item = &'bytes [u8]>,
    ) {
        assert!(segments.len() <= Self::SEGMENTS, "segments of one send are bounded");
        if segments.len() == 1 {
            return segments.for_each(|bytes| self.send(generation, slot, bytes));
        }
        let ring = &mut *self.ring;
        let full = ring.iovecs.len() + segments.len() > ring.iovecs.capacity()
            || ring.messages.len() == ring.messages.capacity()
            || ring.ring.submission().is_full();
        if full {
            ring.submit();
        }
        let first = ring.iovecs.len();
        ring.iovecs.extend(segments.map(|bytes| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        }));
        // SAFETY: msghdr is plain data for which all zeroes is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = ring.iovecs[first..].as_mut_ptr();
        message.msg_iovlen = ring.iovecs.len() - first;
        ring.messages.push(message);
        let message: *const libc::msghdr = &raw const ring.messages[ring.messages.len() - 1];
        let entry = opcode::SendMsg::new(Fixed(slot), message)
            .flags(SEND_FLAGS as u32)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        ring.push(entry, Token::new(Op::Send, generation, slot));
    }
}

impl Drop for Batch<'_, '_> {
    fn drop(&mut self) {
        self.ring.submit();
    }
}

fn destination(slot: u32) -> DestinationSlot {
    DestinationSlot::try_from_slot_target(slot).expect("a slot is below the table's size")
}

/// Whether this process may set up rings with the flags that a shard needs; the error names
/// cause and cure.
pub fn permitted() -> Result<(), String> {
    let sizes = Sizes { submissions: 8, completions: 16, slots: 1, buffers: 1, buffer_bytes: 64 };
    let error = match Ring::new(&sizes) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let cure = match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "this kernel has no io_uring, or a seccomp profile hides it; use Linux 6.6 or newer \
             and allow io_uring_setup, io_uring_enter and io_uring_register"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden here; set `sysctl -w kernel.io_uring_disabled=0`, or allow \
             io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp \
             profile"
        }
        Some(libc::EINVAL) => "this kernel's io_uring is too old; use Linux 6.6 or newer",
        Some(libc::ENOMEM) => "no memory for a ring; raise RLIMIT_MEMLOCK or the memory limit",
        _ => "see `drumline check`",
    };
    Err(format!("io_uring cannot be set up: {error}: {cure}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    fn ring() -> Ring {
        let sizes =
            Sizes { submissions: 64, completions: 256, slots: 16, buffers: 8, buffer_bytes: 4096 };
        Ring::new(&sizes).expect("io_uring is there in tests")
    }

    fn next(ring: &mut Ring) -> Completion {
        let mut completions = Vec::new();
        while completions.is_empty() {
            ring.wait(Some(Duration::from_secs(5)));
            ring.reap(&mut completions);
        }
        assert_eq!(completions.len(), 1, "{completions:?}");
        completions[0]
    }

    #[test]
    fn tokens_survive_the_kernel() {
        for op in OPS {
            let token = Token::new(op, 0xab_cdef, 0x1234_5678);
            assert_eq!(Token::from_user_data(token.to_user_data()), token);
        }
    }

    #[test]
    fn a_borrowed_send_is_done_when_transmit_returns() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut ring = ring();
        ring.accept(listener.as_raw_fd(), 1, 3);
        let accepted = next(&mut ring);
        assert_eq!((accepted.token, accepted.result), (Token::new(Op::Accept, 1, 3), 0));

        let mut one = b"one ".to_vec();
        let (two, three) = (b"two ".to_vec(), b"three".to_vec());
        ring.transmit(|batch| batch.send(1, 3, &one));
        one.fill(b'x');
        ring.transmit(|batch| batch.send_segments(1, 3, [&two[..], &three[..]].into_iter()));
        let mut bytes = [0; 13];
        peer.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"one two three");
        let mut completions = Vec::new();
        ring.poll();
        ring.reap(&mut completions);
        assert!(completions.is_empty(), "success posts nothing: {completions:?}");
    }

    #[test]
    fn a_short_send_posts_what_was_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut ring = ring();
        ring.accept(listener.as_raw_fd(), 1, 0);
        next(&mut ring);
        let block = vec![7u8; 1 << 20];
        let mut short = Vec::new();
        for _ in 0..64 {
            ring.transmit(|batch| batch.send(1, 0, &block));
            ring.reap(&mut short);
            if !short.is_empty() {
                break;
            }
        }
        assert_eq!(short[0].token.op, Op::Send);
        assert!(short[0].result < block.len() as i32);
        drop(peer);
    }

    #[test]
    fn an_armed_doorbell_ends_the_wait_whoever_rings_it() {
        let bell = sys::doorbell().unwrap();
        let (mut leader, mut follower) = (ring(), ring());
        follower.announce(&bell).unwrap();
        leader.watch_doorbell(bell.try_clone().unwrap());
        let patience = Duration::from_secs(20);
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
            leader.wait(Some(patience));
            assert!(begun.elapsed() < patience / 2, "round {round}");
            leader.reap(&mut completions);
            follower.reap(&mut completions);
            // A ring before the bell is armed again is for whoever looks behind that.
            sys::ring_doorbell(&bell);
        }
        assert!(completions.iter().all(|completion| completion.token.op == Op::Cancel));
    }
}
