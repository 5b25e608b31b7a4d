//! Operations on sockets in the slots of a ring.
//!
//! Owns nothing. Does not know connections: it takes slots and tokens.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use io_uring::squeue;
use io_uring::types::{CancelBuilder, Fd, Fixed};

use super::operations as opcode;
use super::token::{Op, Token};
use super::uring::{BUFFER_GROUP, Ring, RingHandle, destination};

const READABLE: u32 =
    (libc::POLLIN | libc::POLLRDHUP | libc::POLLERR | libc::POLLHUP) as u16 as u32;

/// Makes the close drop unsent data and reset the peer.
static LINGER_NONE: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };

impl Ring {
    /// Sets the listeners that [`Ring::accept`] accepts from.
    pub fn listen<L: Into<OwnedFd>>(&mut self, listeners: impl IntoIterator<Item = L>) {
        self.stop_listening();
        self.listeners = listeners.into_iter().map(Into::into).collect();
    }

    /// Closes the listeners. The caller must cancel accepts in progress.
    pub fn stop_listening(&mut self) {
        // Queued entries refer to the descriptors by number, so they are submitted first.
        self.submit();
        self.listeners.clear();
    }

    /// Accepts one connection of the listener with this index into `slot`; returns whether there
    /// is such a listener. With `tells_peer`, [`Ring::accepted_peer`] returns the peer's address
    /// afterwards.
    pub fn accept(
        &mut self,
        generation: u32,
        slot: u32,
        listener: usize,
        tells_peer: bool,
    ) -> bool {
        let Some(listener) = self.listeners.get(listener).map(AsRawFd::as_raw_fd) else {
            return false;
        };
        let (address, length) = match tells_peer.then(|| self.peers.room_for(slot)) {
            Some(peer) => peer.pointers(),
            None => (ptr::null_mut(), ptr::null_mut()),
        };
        let entry = opcode::Accept::new(Fd(listener), address, length)
            .file_index(Some(destination(slot)))
            .build();
        self.queue(entry, Token::new(Op::Accept, generation, slot));
        true
    }

    /// Address of the peer that was accepted into `slot`; `None`: it was not asked for, or it is
    /// not an IP address. Must be called once after each accept that asked for it, failed or not.
    pub fn accepted_peer(&mut self, slot: u32) -> Option<IpAddr> {
        self.peers.take(slot)
    }

    /// Size of a receive buffer, which is the most that one [`Ring::receive`] reads.
    pub fn buffer_bytes(&self) -> u32 {
        self.buffers.buffer_bytes()
    }

    /// Polls a slot for input, end and error until cancelled; edge-triggered.
    pub fn watch(&mut self, generation: u32, slot: u32) {
        let entry = opcode::PollAdd::new(Fixed(slot), READABLE).multi(true).build();
        self.queue(entry, Token::new(Op::Poll, generation, slot));
    }

    /// Reads once into a provided buffer, without waiting.
    pub fn receive(&mut self, generation: u32, slot: u32) {
        let entry = opcode::Recv::new(Fixed(slot), ptr::null_mut(), self.buffers.buffer_bytes())
            .flags(libc::MSG_DONTWAIT)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.queue(entry, Token::new(Op::Receive, generation, slot));
    }

    /// Completes once when the slot is writable.
    pub fn watch_writable(&mut self, generation: u32, slot: u32) {
        let events = (libc::POLLOUT | libc::POLLERR | libc::POLLHUP) as u16 as u32;
        let entry = opcode::PollAdd::new(Fixed(slot), events).build();
        self.queue(entry, Token::new(Op::Writable, generation, slot));
    }

    /// Shuts down both directions of a slot.
    pub fn shutdown(&mut self, generation: u32, slot: u32) {
        let entry = opcode::Shutdown::new(Fixed(slot), libc::SHUT_RDWR).build();
        self.queue(entry, Token::new(Op::Shutdown, generation, slot));
    }

    /// Makes the close of a slot a reset: unsent data in the kernel is dropped.
    pub fn reset(&mut self, generation: u32, slot: u32) {
        self.set_option(Token::new(Op::Reset, generation, slot), libc::SO_LINGER, &LINGER_NONE);
    }

    pub(super) fn set_option<T>(&mut self, token: Token, option: libc::c_int, value: &'static T) {
        let (level, option) = (libc::SOL_SOCKET as u32, option as u32);
        let (value, bytes) = (std::ptr::from_ref(value), size_of::<T>() as u32);
        let slot = Fixed(token.slot);
        let entry = opcode::SetSockOpt::new(slot, level, option, value.cast(), bytes).build();
        self.queue(entry, token);
    }

    /// Cancels the operation `target`; completes with `Op::Cancel` of its slot.
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

    /// Creates an ordinary descriptor for the socket of a slot; the result is its number.
    pub fn install(&mut self, generation: u32, slot: u32) {
        let entry = opcode::FixedFdInstall::new(Fixed(slot), 0).build();
        self.queue(entry, Token::new(Op::Install, generation, slot));
    }

    /// Puts the socket of an ordinary descriptor into an empty slot. The caller may close its
    /// descriptor afterwards.
    pub fn place(&mut self, slot: u32, socket: &OwnedFd) -> io::Result<()> {
        self.ring.submitter().register_files_update(slot, &[socket.as_raw_fd()])?;
        Ok(())
    }

    /// Sends a slot's socket into `target_slot` of another ring. That ring gets a completion
    /// `Op::SocketArrived` with `target_generation`. If `Op::SendSocket` fails, the socket can
    /// still be in the target slot, without an `Op::SocketArrived`: the other ring must close the
    /// slot.
    pub fn send_socket(
        &mut self,
        source: Token,
        ring: &RingHandle,
        target_generation: u32,
        target_slot: u32,
    ) {
        let arrival = Token::new(Op::SocketArrived, target_generation, target_slot);
        let entry = opcode::MsgRingSendFd::new(
            Fd(ring.0.as_raw_fd()),
            Fixed(source.slot),
            destination(target_slot),
            arrival.to_user_data(),
        )
        .build();
        self.queue(entry, Token::new(Op::SendSocket, source.generation, source.slot));
        // Submitted at once, because the entry refers to the other ring by descriptor number.
        self.submit();
    }
}
