//! The drain: newcomers are answered 503, and each established connection is closed once.
//!
//! Owns no state beside the hub's. The shard accepts sockets and chooses when each connection is
//! closed. The invariant: a connection that has not begun a transport when the drain begins never
//! begins one, so no client is closed with code 3001 after it was closed with it before.

use crate::hub::connections::Phase;
use crate::hub::shard_state::Hub;
use crate::wire::http::Head;

impl Hub {
    /// Refuses newcomers from now on.
    pub fn begin_drain(&mut self) {
        self.draining = true;
        self.home.begin_drain();
    }

    /// Starts a connection in a reserved slot that gets no other answer than 503. Its request is
    /// read first; without reading it, the close would reset the response.
    pub fn socket_opened_to_refuse(&mut self, slot: u32) {
        self.socket_opened(slot);
        self.refuse_later(slot);
    }

    /// Closes a connection because the node shuts down: a client with code 3001, an idle HTTP
    /// connection without an answer, and one that has sent no request with 503.
    pub fn close_to_drain(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        match connection.phase {
            Phase::ProxyHeader | Phase::Handshake | Phase::Head => self.refuse_later(slot),
            Phase::KeptAlive | Phase::AwaitingAnswer | Phase::Open | Phase::Connected => {
                connection.flags.set_shutting_down(true);
                self.set_deadline(slot, 0);
            }
            Phase::Reserved | Phase::Leaving | Phase::Closing | Phase::Ending => {}
        }
    }

    /// Whether a request is refused because the node drains: every request of a newcomer, and the
    /// begin of a transport on any connection.
    pub(super) fn refuses_to_drain(&self, slot: u32, head: &Head<'_>) -> bool {
        let begins = matches!(head, Head::Upgrade(..) | Head::OpenEmulation(..));
        let answers_itself = matches!(head, Head::Partial | Head::Health(..) | Head::Refused(_));
        self.draining && (begins || self.is_refused(slot) && !answers_itself)
    }

    /// Marks a connection as one whose only answer is 503.
    fn refuse_later(&mut self, slot: u32) {
        let flags = &mut self.connections[slot].flags;
        if !flags.refusing() {
            flags.set_refusing(true);
            self.refusals += 1;
        }
        self.set_deadline(slot, self.refusal_time());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sys::Now;
    use crate::hub::tests::{LoneShardBus, ROOMY, hub, subscriber, transmit};

    const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    const OTHER: &str = "GET /other HTTP/1.1\r\nHost: a\r\n\r\n";

    fn receive(hub: &mut Hub, slot: u32, request: &str) -> String {
        hub.receive(&mut LoneShardBus::default(), slot, &mut request.as_bytes().to_vec());
        let sent = transmit(hub, &[]);
        let bytes = sent.into_iter().filter(|(to, _)| *to == slot).flat_map(|(_, bytes)| bytes);
        String::from_utf8(bytes.collect()).unwrap()
    }

    fn newcomer(hub: &mut Hub) -> u32 {
        let (slot, _) = hub.reserve().unwrap();
        hub.socket_opened_to_refuse(slot);
        slot
    }

    #[test]
    fn newcomers_get_503_but_health_and_are_not_counted_as_established() {
        let mut hub = hub(ROOMY, ROOMY, ROOMY);
        subscriber(&mut hub);
        let (early, _) = hub.reserve().unwrap();
        hub.socket_opened(early);
        transmit(&mut hub, &[]);
        hub.begin_drain();
        assert_eq!(hub.established(), 2);
        let slots = [newcomer(&mut hub), newcomer(&mut hub)];
        assert!(receive(&mut hub, slots[0], HEALTH).starts_with("HTTP/1.1 200 "));
        let refused = receive(&mut hub, slots[1], OTHER);
        assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: 5"));
        hub.close_to_drain(early);
        assert_eq!(hub.established(), 1, "it sent no request, so it gets 503 too");
        assert!(receive(&mut hub, early, OTHER).starts_with("HTTP/1.1 503 "));
        for slot in [slots[0], slots[1], early] {
            hub.end(slot);
            hub.free(slot);
        }
        assert_eq!((hub.established(), hub.len(), hub.refusals), (1, 1, 0));
    }

    #[test]
    fn a_client_is_closed_once_however_often_it_is_told_to() {
        let mut hub = hub(ROOMY, ROOMY, ROOMY);
        let slot = subscriber(&mut hub);
        transmit(&mut hub, &[]);
        hub.begin_drain();
        let mut closes = 0;
        for turn in 0..4 {
            hub.close_to_drain(slot);
            let millis = turn * 200;
            hub.begin_turn(Now { millis, micros: millis * 1000, unix: millis });
            hub.expire();
            let sent: Vec<u8> =
                transmit(&mut hub, &[]).into_iter().flat_map(|sent| sent.1).collect();
            let code = 3001u16.to_be_bytes();
            closes += sent.windows(2).filter(|at| *at == code).count();
        }
        assert_eq!(closes, 1);
    }
}
