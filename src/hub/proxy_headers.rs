//! The PROXY header at the start of a connection, on entrances that require one.
//!
//! Owns nothing. The invariants: nothing of the header reaches what reads the bytes behind it; a
//! connection without a valid header gets no answer and is closed.

use crate::base::buffer;
use crate::hub::connections::Phase;
use crate::hub::shard_state::Hub;
use crate::wire::proxy_protocol::{self, ProxyHeader};

impl Hub {
    /// Handles bytes of a connection whose PROXY header is arriving; returns those behind it.
    pub(super) fn take_proxy_header(&mut self, slot: u32, bytes: &[u8]) -> Vec<u8> {
        let kept = self.connections.take_inbound(slot);
        let mut input = kept.map(|inbound| inbound.bytes).unwrap_or_default();
        buffer::append(&mut input, bytes);
        match proxy_protocol::parse(&input) {
            ProxyHeader::Partial => {
                if let Some(inbound) = self.connections.inbound_or_insert(slot) {
                    inbound.bytes = input;
                }
                self.connections.unread.settle(self.connections[slot].inbound, true);
                self.close_largest_unread();
                return Vec::new();
            }
            ProxyHeader::Complete { used, source } => {
                if self.admit_proxied(slot, source.map(|source| source.ip())) {
                    self.begin_entrance(slot);
                    input.drain(..used);
                    return input;
                }
            }
            ProxyHeader::Invalid => self.metrics.proxy_protocol_errors.add(1),
        }
        self.end(slot);
        Vec::new()
    }

    /// Whether a connection waits for its PROXY header.
    pub(super) fn awaits_proxy_header(&self, slot: u32) -> bool {
        self.connections[slot].phase == Phase::ProxyHeader
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::connection_limits::ConnectionLimits;
    use crate::base::sys::Now;
    use crate::hub::HubSettings;
    use crate::hub::tests::{LoneShardBus, ROOMY, hub as plain_hub, transmit};
    use crate::model::entrance::Entrance;
    use crate::wire::client_address::TrustedNetworks;

    const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";

    fn hub(tls: bool) -> Hub {
        let mut hub = plain_hub(ROOMY, ROOMY, ROOMY);
        let entrance = Entrance { proxy_protocol: true, tls, ..Entrance::default() };
        let trusted_proxies = TrustedNetworks::read(["10.0.0.0/8"]).unwrap();
        let entrances = Arc::new([entrance]);
        let settings = HubSettings { entrances, trusted_proxies, ..(*hub.settings).clone() };
        hub.settings = Arc::new(settings);
        hub
    }

    fn opened(hub: &mut Hub) -> u32 {
        let (slot, _) = hub.reserve().unwrap();
        hub.socket_opened(slot);
        slot
    }

    fn headers() -> Vec<Vec<u8>> {
        let v2 = |command: u8, family: u8, body: &[u8]| {
            let length = (body.len() as u16).to_be_bytes();
            [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, body].concat()
        };
        let four = [&[192, 0, 2, 1, 198, 51, 100, 1, 1, 2, 3, 4][..], &[4; 100]].concat();
        vec![
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(),
            b"PROXY TCP6 2001:db8::7 2001:db8::1 443 443\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            v2(0x20, 0, &[]),
            v2(0x20, 0x11, &[9; 84]),
            v2(0x21, 0, &[]),
            v2(0x21, 0x11, &four),
            v2(0x21, 0x21, &[1; 2036]),
        ]
    }

    /// Gives the pieces of `bytes` up to and from each position to a connection of its own.
    fn at_each_cut(hub: &mut Hub, bytes: &[u8], mut check: impl FnMut(&mut Hub, u32, usize)) {
        let mut bus = LoneShardBus::default();
        for cut in 0..=bytes.len() {
            let slot = opened(hub);
            hub.receive(&mut bus, slot, &mut bytes[..cut].to_vec());
            if cut < bytes.len() {
                hub.receive(&mut bus, slot, &mut bytes[cut..].to_vec());
            }
            check(hub, slot, cut);
            hub.end(slot);
            transmit(hub, &[]);
            hub.free(slot);
        }
    }

    #[test]
    fn a_header_in_pieces_is_skipped_before_a_request() {
        let mut hub = hub(false);
        for header in headers() {
            at_each_cut(&mut hub, &[&header[..], REQUEST].concat(), |hub, slot, cut| {
                let sent: Vec<u8> =
                    transmit(hub, &[]).into_iter().flat_map(|(_, bytes)| bytes).collect();
                let sent = String::from_utf8(sent).unwrap();
                assert!(sent.starts_with("HTTP/1.1 200 "), "{header:?} at {cut}: {sent}");
                assert_eq!(hub.connections[slot].phase, Phase::KeptAlive);
            });
        }
    }

    #[test]
    fn a_header_in_pieces_is_skipped_before_a_handshake() {
        let mut hub = hub(true);
        // The beginning of a record with a ClientHello.
        let hello = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc];
        for header in headers() {
            at_each_cut(&mut hub, &[&header[..], &hello].concat(), |hub, slot, cut| {
                assert_eq!(hub.connections[slot].phase, Phase::Handshake, "{header:?} at {cut}");
                let kept = hub.connections.inbound_mut(slot).map(|inbound| &inbound.sealed[..]);
                assert_eq!(kept, Some(&hello[..]), "{header:?} at {cut}");
            });
        }
    }

    #[test]
    fn a_connection_without_a_header_is_closed_without_an_answer() {
        let (mut hub, mut bus) = (hub(false), LoneShardBus::default());
        let slot = opened(&mut hub);
        hub.receive(&mut bus, slot, &mut REQUEST.to_vec());
        assert_eq!(hub.connections[slot].phase, Phase::Ending);
        assert_eq!(hub.metrics.proxy_protocol_errors.get(), 1);
        let silent = opened(&mut hub);
        hub.receive(&mut bus, silent, &mut b"PROXY TCP4 ".to_vec());
        for millis in [500, 1100, 1300, 1500] {
            hub.begin_turn(Now { millis, unix: millis, ..Now::default() });
            hub.expire();
        }
        assert_eq!(hub.connections[silent].phase, Phase::Ending);
        assert!(transmit(&mut hub, &[]).is_empty());
    }

    #[test]
    fn the_client_that_a_trusted_peer_names_is_counted_and_given_back() {
        let (mut hub, mut bus) = (hub(false), LoneShardBus::default());
        let limits = ConnectionLimits::default().with_address_limits(1, 0, 100);
        hub.connection_limits = Arc::new(limits);
        let mut through = |hub: &mut Hub, peer: &str, client: &str| {
            let slot = opened(hub);
            if !hub.admit_peer(slot, Some(peer.parse().unwrap())) {
                hub.free(slot);
                return None;
            }
            let header = format!("PROXY TCP4 {client} 1.1.1.1 1 2\r\n");
            hub.receive(&mut bus, slot, &mut header.into_bytes());
            let is_open = hub.connections[slot].phase == Phase::Head;
            if !is_open {
                hub.free(slot);
            }
            is_open.then_some(slot)
        };
        // A trusted peer, directly or inside IPv6: the client of the header is counted.
        let first = through(&mut hub, "10.0.0.1", "9.9.9.9").unwrap();
        assert!((0..50).all(|_| through(&mut hub, "::ffff:10.0.0.2", "9.9.9.9").is_none()));
        let second = through(&mut hub, "10.0.0.1", "9.9.9.8").unwrap();
        // Another peer: its own address is counted, whatever it writes.
        let third = through(&mut hub, "8.8.8.8", "7.7.7.7").unwrap();
        assert!(through(&mut hub, "8.8.8.8", "7.7.7.6").is_none());
        for slot in [first, second, third] {
            hub.free(slot);
        }
        assert!(through(&mut hub, "10.0.0.1", "9.9.9.9").is_some());
        assert!(through(&mut hub, "8.8.8.8", "7.7.7.7").is_some());
    }
}
