//! Addresses of clients: which one is counted, and where its count is kept.
//!
//! Owns nothing: the counts are the node's, their places those of the connections. The invariants:
//! the address of a peer that is trusted is never counted, only the one that it reports; a
//! connection has at most one place, which is released when its slot is freed or moves along with
//! its socket.

use std::net::IpAddr;

use crate::base::address_limits::{AddressRefused, NOT_COUNTED};
use crate::hub::shard_state::Hub;
use crate::wire::client_address;
use crate::wire::http;

/// Name of the header that names the client of a proxied request.
const FORWARDED_FOR: &str = "x-forwarded-for";

impl Hub {
    /// Whether sockets of this entrance have a peer's address. It is asked for even without limits,
    /// because a reload may set them while an accept is in progress.
    pub fn wants_peer(&self, entrance: u8) -> bool {
        let found = self.settings.entrances.get(usize::from(entrance));
        found.is_some_and(|found| !found.unix)
    }

    /// Whether addresses of clients are limited or logged.
    fn uses_addresses(&self) -> bool {
        self.connection_limits.limits_addresses() || self.settings.logs_access
    }

    /// Counts the peer of an accepted socket; returns `false` if its address has reached a limit.
    /// A trusted peer is not counted: the client that it reports is. A Unix socket has no address
    /// and is trusted.
    pub fn admit_peer(&mut self, slot: u32, peer: Option<IpAddr>) -> bool {
        if !self.uses_addresses() {
            return true;
        }
        self.note_address(slot, peer);
        let peer = peer.filter(|peer| !self.settings.trusted_proxies.contains(*peer));
        self.connections[slot].flags.set_forwarded(peer.is_none());
        peer.is_none_or(|peer| self.count_address(slot, peer))
    }

    /// Counts the client that the PROXY header of a trusted peer names.
    pub(super) fn admit_proxied(&mut self, slot: u32, client: Option<IpAddr>) -> bool {
        match client.filter(|_| self.connections[slot].flags.forwarded()) {
            Some(client) => self.admit_peer(slot, Some(client)),
            None => true,
        }
    }

    /// Counts the client that the head of a trusted peer's request names; without one, counts
    /// nothing.
    pub(super) fn admit_forwarded(&mut self, slot: u32, head: &[u8]) -> Result<(), AddressRefused> {
        if !self.connections[slot].flags.forwarded() {
            return Ok(());
        }
        let values = http::kept_headers(head, &[FORWARDED_FOR.to_owned()]);
        let values = values.iter().map(|(_, value)| &**value);
        let client = self.settings.trusted_proxies.client(values);
        self.note_address(slot, client);
        match client {
            Some(client) if !self.count_address(slot, client) => Err(AddressRefused),
            _ => {
                self.connections[slot].flags.set_forwarded(false);
                Ok(())
            }
        }
    }

    fn count_address(&mut self, slot: u32, client: IpAddr) -> bool {
        if !self.connection_limits.limits_addresses() {
            return true;
        }
        let group = client_address::group(client);
        let place = self.connection_limits.admit_address(group, self.now);
        match place {
            Ok(place) => self.connections.address_places.set(slot, place),
            Err(_) => self.metrics.accepts_refused_by_address.add(1),
        }
        place.is_ok()
    }

    /// Takes the place of a connection's count: the caller keeps it with the socket.
    pub fn take_address_place(&mut self, slot: u32) -> u32 {
        self.connections.address_places.take(slot)
    }

    /// Place of the count of a connection's address, and whether a trusted peer is still to name
    /// the client.
    pub fn address_place(&self, slot: u32) -> (u32, bool) {
        let forwarded = self.connections[slot].flags.forwarded();
        (self.connections.address_places.get(slot), forwarded)
    }

    /// Gives a connection the place of the count of its socket, and notes whether the client is
    /// still to be reported by a trusted peer.
    pub fn keep_address_place(&mut self, slot: u32, place: u32, forwarded: bool) {
        self.connections.address_places.set(slot, place);
        self.connections[slot].flags.set_forwarded(forwarded);
    }

    /// Ends the count of a connection's address.
    pub(super) fn release_address(&mut self, slot: u32) {
        let place = self.take_address_place(slot);
        if place != NOT_COUNTED {
            self.connection_limits.release_address(place);
        }
    }
}
