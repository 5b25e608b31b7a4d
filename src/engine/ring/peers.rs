//! Addresses of peers, which the kernel writes while it accepts.
//!
//! Owns memory that accepts in progress point to. The invariant: an entry is not moved or used
//! again before its accept has completed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses for the accepts in progress that ask for one.
#[derive(Default)]
// The kernel has their addresses, so they must not move when the list grows.
#[allow(clippy::vec_box)]
pub(super) struct Peers(Vec<Box<Peer>>);

/// Memory for one address.
pub(super) struct Peer {
    /// Slot of the accept; `None`: the entry is free.
    slot: Option<u32>,
    address: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl Peers {
    /// Memory for the address of the peer that is accepted into `slot`.
    pub(super) fn room_for(&mut self, slot: u32) -> &mut Peer {
        let free = self.0.iter().position(|peer| peer.slot.is_none());
        let at = free.unwrap_or(self.0.len());
        if free.is_none() {
            // SAFETY: sockaddr_storage is plain data for which all zeroes is a value.
            let address = unsafe { std::mem::zeroed() };
            self.0.push(Box::new(Peer { slot: None, address, length: 0 }));
        }
        let peer = &mut self.0[at];
        peer.slot = Some(slot);
        peer.address.ss_family = 0;
        peer.length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        peer
    }

    /// The address that the kernel wrote for `slot`; its entry is free afterwards.
    pub(super) fn take(&mut self, slot: u32) -> Option<IpAddr> {
        let peer = self.0.iter_mut().find(|peer| peer.slot == Some(slot))?;
        peer.slot = None;
        let address = &raw const peer.address;
        match libc::c_int::from(peer.address.ss_family) {
            libc::AF_INET => {
                // SAFETY: the memory is large enough and aligned for every family, and all bytes
                // of it are initialized.
                let found = unsafe { std::ptr::read(address.cast::<libc::sockaddr_in>()) };
                Some(Ipv4Addr::from_bits(u32::from_be(found.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let found = unsafe { std::ptr::read(address.cast::<libc::sockaddr_in6>()) };
                Some(Ipv6Addr::from(found.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

impl Peer {
    /// Where the kernel writes the address and its length.
    pub(super) fn pointers(&mut self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        ((&raw mut self.address).cast(), &raw mut self.length)
    }
}
