//! Operations that only the load generator uses: connecting sockets, and small receive buffers.
//!
//! Owns nothing. They are here because a peer address must stay in memory of the ring until the
//! kernel has read it, and only this folder may use `unsafe`.

use std::net::SocketAddrV4;

use io_uring::types::Fixed;

use super::operations as opcode;
use super::token::{Op, Token};
use super::uring::{Ring, destination};

/// Bytes of a small receive buffer (the kernel doubles them).
static SMALL_BUFFER: libc::c_int = 32 * 1024;

impl Ring {
    /// Gives the socket of a slot a receive buffer that does not grow. Must be called before the
    /// connect.
    pub fn limit_receive_buffer(&mut self, generation: u32, slot: u32) {
        self.set_option(
            Token::new(Op::LimitReceiveBuffer, generation, slot),
            libc::SO_RCVBUF,
            &SMALL_BUFFER,
        );
    }

    /// Creates a TCP socket in a slot.
    pub fn socket(&mut self, generation: u32, slot: u32) {
        let entry = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP)
            .file_index(Some(destination(slot)))
            .build();
        self.queue(entry, Token::new(Op::Socket, generation, slot));
    }

    /// Connects the socket of a slot.
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
}
