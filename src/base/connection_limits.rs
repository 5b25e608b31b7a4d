//! Limits on the connections of a node: clients, new connections per second, and sockets on the
//! control plane.
//!
//! Owns the counters, which all shards share. Never waits. The invariants: the number of clients
//! exceeds its limit by at most the number of shards, because every shard may admit one client at
//! the same moment; the control plane never has more sockets than its limit.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::address_limits::{AddressLimits, AddressRefused, NOT_COUNTED};

/// The control plane closes idle connections when fewer sockets than this are free, or fewer than
/// an eighth of its limit.
const CONTROL_FREE_MAX: u64 = 64;

/// Low bits of `connects`, which count the connections of one second. The high bits name the
/// second.
const COUNT_BITS: u32 = 32;

/// The limits of a node and how much of each is used.
#[derive(Debug)]
pub struct ConnectionLimits {
    /// Maximum number of clients; 0: no limit.
    clients_max: AtomicU64,
    /// Maximum number of new connections per second; 0: no limit.
    connects_max: AtomicU64,
    clients: AtomicU64,
    /// The current second and the number of connections admitted in it.
    connects: AtomicU64,
    /// Maximum number of sockets on the control plane.
    control_max: u64,
    control_sockets: AtomicU64,
    /// Limits per client address; `None`: there never are any.
    addresses: Option<AddressLimits>,
}

impl Default for ConnectionLimits {
    /// No limits.
    fn default() -> Self {
        ConnectionLimits::new(0, 0)
    }
}

impl ConnectionLimits {
    /// Limits the clients and the new connections per second; 0: no limit.
    pub fn new(clients_max: u64, connects_max: u64) -> Self {
        let (clients, connects, control_sockets) = Default::default();
        ConnectionLimits {
            clients_max: AtomicU64::new(clients_max),
            connects_max: AtomicU64::new(connects_max),
            clients,
            connects,
            control_max: u64::MAX,
            control_sockets,
            addresses: None,
        }
    }

    /// Limits the connections of each client address, and its new ones per second; 0: no limit.
    /// `slots` is the number of connections that the node has room for.
    pub fn with_address_limits(self, connections: u64, rate: u64, slots: usize) -> Self {
        ConnectionLimits { addresses: Some(AddressLimits::new(connections, rate, slots)), ..self }
    }

    /// Whether connections are counted by their address.
    pub fn limits_addresses(&self) -> bool {
        self.addresses.as_ref().is_some_and(AddressLimits::is_on)
    }

    /// Changes the limits per client address; 0: no limit. They apply to new connections.
    pub fn set_address_limits(&self, connections: u64, rate: u64) {
        if let Some(addresses) = &self.addresses {
            addresses.set(connections, rate);
        }
    }

    /// Counts a connection of an address at `now`, in milliseconds; returns the place of its count.
    pub fn admit_address(&self, address: u64, now: u64) -> Result<u32, AddressRefused> {
        let addresses = self.addresses.as_ref();
        addresses.map_or(Ok(NOT_COUNTED), |addresses| addresses.admit(address, now))
    }

    /// Ends the count of a connection at this place.
    pub fn release_address(&self, place: u32) {
        if let Some(addresses) = &self.addresses {
            addresses.release(place);
        }
    }

    /// Changes the limits of clients and of new connections per second; 0: no limit. Clients above
    /// a new limit stay connected.
    pub fn set(&self, clients_max: u64, connects_max: u64) {
        self.clients_max.store(clients_max, Ordering::Relaxed);
        self.connects_max.store(connects_max, Ordering::Relaxed);
    }

    /// Limits the sockets that the control plane has, or that are on their way to it.
    pub fn with_control_max(self, control_max: u64) -> Self {
        ConnectionLimits { control_max, ..self }
    }

    /// Whether the node has as many clients as it accepts.
    pub fn is_full(&self) -> bool {
        let most = self.clients_max.load(Ordering::Relaxed);
        most > 0 && self.clients.load(Ordering::Relaxed) >= most
    }

    /// Counts a client that has connected.
    pub fn client_connected(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a client that has disconnected.
    pub fn client_disconnected(&self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a new connection at `now`, in milliseconds. Returns `false` if the node is full or
    /// has admitted too many connections in this second. Ask before the upgrade is answered, so
    /// that a refused client gets an HTTP status and tries again later.
    pub fn admit_connection(&self, now: u64) -> bool {
        if self.is_full() {
            return false;
        }
        let most = self.connects_max.load(Ordering::Relaxed);
        if most == 0 {
            return true;
        }
        let second = (now / 1000) << COUNT_BITS;
        let counted = self.connects.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let count = if word & !(u64::from(u32::MAX)) == second { word as u32 } else { 0 };
            (u64::from(count) < most).then_some(second | u64::from(count + 1))
        });
        counted.is_ok()
    }

    /// Reserves a socket on the control plane; `false`: the limit is reached. The caller makes a
    /// [`ControlPermit`] of the reservation, or calls [`ConnectionLimits::release_control`].
    pub fn reserve_control(&self) -> bool {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let next = |sockets: u64| (sockets < self.control_max).then_some(sockets + 1);
        self.control_sockets.fetch_update(order.0, order.1, next).is_ok()
    }

    /// Releases a socket that was reserved on the control plane.
    pub fn release_control(&self) {
        self.control_sockets.fetch_sub(1, Ordering::AcqRel);
    }

    /// Number of sockets that are reserved on the control plane.
    pub fn control_sockets(&self) -> u64 {
        self.control_sockets.load(Ordering::Acquire)
    }

    /// Whether the control plane has so few free sockets that it should close idle connections.
    pub fn control_is_nearly_full(&self) -> bool {
        let free = (self.control_max / 8).clamp(1, CONTROL_FREE_MAX);
        self.control_sockets() > self.control_max.saturating_sub(free)
    }
}

/// The count of a connection's address, which ends when this is dropped, and the address.
#[derive(Debug)]
pub struct AddressPermit {
    limits: Arc<ConnectionLimits>,
    place: u32,
    client: Option<IpAddr>,
}

impl AddressPermit {
    /// Counts a connection of a client, whose address belongs to `group`, at `now`, in
    /// milliseconds.
    pub fn admit(
        limits: &Arc<ConnectionLimits>,
        client: IpAddr,
        group: u64,
        now: u64,
    ) -> Result<Self, AddressRefused> {
        let place = limits.admit_address(group, now)?;
        Ok(AddressPermit { limits: limits.clone(), place, client: Some(client) })
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        if self.place != NOT_COUNTED {
            self.limits.release_address(self.place);
        }
    }
}

/// A socket that is reserved on the control plane until this is dropped, and the count of its
/// address.
#[derive(Debug)]
pub struct ControlPermit {
    limits: Arc<ConnectionLimits>,
    address: AddressPermit,
    forwarded: bool,
}

impl ControlPermit {
    /// Reserves a socket; `None`: the limit is reached.
    pub fn reserve(limits: &Arc<ConnectionLimits>) -> Option<Self> {
        limits.reserve_control().then(|| ControlPermit::from_reserved(limits))
    }

    /// The permit of a socket that [`ConnectionLimits::reserve_control`] has reserved.
    pub fn from_reserved(limits: &Arc<ConnectionLimits>) -> Self {
        let address = AddressPermit { limits: limits.clone(), place: NOT_COUNTED, client: None };
        ControlPermit { limits: limits.clone(), address, forwarded: false }
    }

    /// Keeps the place of the socket's count, the client's address if the access log shows it, and
    /// whether a trusted peer is still to name the client.
    pub fn with_address(mut self, place: u32, client: Option<IpAddr>, forwarded: bool) -> Self {
        (self.address.place, self.address.client) = (place, client);
        self.forwarded = forwarded;
        self
    }

    /// Keeps the count of the client that a trusted peer has named.
    pub fn set_address(&mut self, address: AddressPermit) {
        self.address = address;
        self.forwarded = false;
    }

    /// Takes the place of the socket's count.
    pub fn take_address(&mut self) -> u32 {
        std::mem::replace(&mut self.address.place, NOT_COUNTED)
    }

    /// The address of the client, if it is known.
    pub fn client(&self) -> Option<IpAddr> {
        self.address.client
    }

    /// Whether a trusted peer is still to name the client of the socket.
    pub fn is_forwarded(&self) -> bool {
        self.forwarded
    }

    /// The limits that count the socket.
    pub fn limits(&self) -> &Arc<ConnectionLimits> {
        &self.limits
    }
}

impl Drop for ControlPermit {
    fn drop(&mut self) {
        self.limits.release_control();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_node_and_a_second_over_its_rate_admit_nothing() {
        let unlimited = ConnectionLimits::default();
        assert!((0..100).all(|_| unlimited.admit_connection(0)) && !unlimited.is_full());
        let limits = ConnectionLimits::new(2, 3);
        limits.client_connected();
        assert!(!limits.is_full());
        limits.client_connected();
        assert!(limits.is_full() && !limits.admit_connection(0));
        limits.client_disconnected();
        assert!(!limits.is_full());
        let admitted = |now| (0..10).filter(|_| limits.admit_connection(now)).count();
        assert_eq!((admitted(1_500), admitted(1_999), admitted(2_000)), (3, 0, 3));
    }

    #[test]
    fn a_dropped_permit_frees_its_socket() {
        let limits = Arc::new(ConnectionLimits::default().with_control_max(16));
        let mut permits: Vec<ControlPermit> = Vec::new();
        while let Some(permit) = ControlPermit::reserve(&limits) {
            permits.push(permit);
            assert_eq!(limits.control_is_nearly_full(), permits.len() > 14, "{}", permits.len());
        }
        assert_eq!((permits.len(), limits.control_sockets()), (16, 16));
        drop(permits.pop());
        assert!(limits.reserve_control() && !limits.reserve_control());
        drop(ControlPermit::from_reserved(&limits));
        drop(permits);
        assert_eq!(limits.control_sockets(), 0);
        assert!(ControlPermit::reserve(&Arc::new(ConnectionLimits::default())).is_some());
    }
}
