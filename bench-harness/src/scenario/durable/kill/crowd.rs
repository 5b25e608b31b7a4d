//! The clients between two kills: publishers by every interface, and subscribers of every channel.
//!
//! Owns their requests, and writes what they are told into the ledger. Never decides when the
//! server is killed. Invariant: between two checks a channel gets fewer publications than its
//! history keeps, so every one of them can be looked for.

use anyhow::{Context, Result};
use drumline::wire::protocol::Wire;
use fastrand::Rng;
use serde::Deserialize;

use super::super::data::Records;
use super::super::ledger::Ledger;
use super::super::stream::{Name, Publication};
use super::super::talk::{Heard, Interface, Load};
use crate::wire;

/// Channels, and publications that each keeps.
pub(super) const CHANNELS: usize = 64;
pub(super) const KEPT: u64 = 512;
/// Publications of a channel between two checks.
const SENT_MAX: u64 = KEPT / 2;
/// Subscribers of all channels.
const SUBSCRIBERS: usize = 2;
/// The interfaces of the publishers.
const PUBLISHERS: [(Interface, usize); 3] = [
    (Interface::Http, 8),
    (Interface::WebSocket(Wire::Json), 4),
    (Interface::WebSocket(Wire::Protobuf), 4),
];

/// The channel with this number.
pub(super) fn channel(nth: usize) -> String {
    format!("c{nth}")
}

/// A publication whose answer is awaited.
#[derive(Debug, Clone)]
struct Outstanding {
    channel: String,
    name: Name,
}

/// The clients and what they know.
pub(super) struct Crowd {
    /// What they know.
    pub ledger: Ledger,
    /// Publications that the server refused.
    pub refused: u64,
    /// The first refusal.
    pub refusal: Option<String>,
    random: Rng,
    records: Records,
    interfaces: Vec<Interface>,
    /// By publisher: the number of its last publication, and the one that is outstanding.
    sequences: Vec<u32>,
    outstanding: Vec<Option<Outstanding>>,
    /// By subscriber: whether it has subscribed.
    subscribed: [bool; SUBSCRIBERS],
    /// By channel: publications since the last check.
    sent: [u64; CHANNELS],
}

#[derive(Deserialize)]
struct Answer {
    result: Position,
}

#[derive(Deserialize)]
struct Position {
    offset: u64,
    epoch: String,
}

#[derive(Deserialize)]
struct Pushed {
    push: Push,
}

#[derive(Deserialize)]
struct Push {
    channel: String,
    #[serde(rename = "pub")]
    publication: Option<Publication>,
}

impl Crowd {
    /// A crowd whose choices follow from the seed.
    pub fn new(seed: u64) -> Self {
        let interfaces: Vec<Interface> = PUBLISHERS
            .iter()
            .flat_map(|(interface, count)| std::iter::repeat_n(*interface, *count))
            .collect();
        Crowd {
            ledger: Ledger::new(KEPT),
            refused: 0,
            refusal: None,
            random: Rng::with_seed(seed),
            records: Records::new(seed),
            sequences: vec![0; interfaces.len()],
            outstanding: vec![None; interfaces.len()],
            interfaces,
            subscribed: [false; SUBSCRIBERS],
            sent: [0; CHANNELS],
        }
    }

    /// The interface of each connection: publishers, then subscribers.
    pub fn connections(&self) -> Vec<Interface> {
        let subscribers = [Interface::WebSocket(Wire::Json); SUBSCRIBERS];
        [&self.interfaces[..], &subscribers].concat()
    }

    /// Begins a life of the server whose histories have just been checked.
    pub fn begin(&mut self) {
        self.sent = [0; CHANNELS];
        self.subscribed = [false; SUBSCRIBERS];
        self.outstanding.fill(None);
    }

    fn publish(&mut self, publisher: usize, out: &mut Vec<u8>) -> bool {
        let nth = self.random.usize(..CHANNELS);
        if self.sent[nth] >= SENT_MAX {
            return false;
        }
        self.sent[nth] += 1;
        self.sequences[publisher] += 1;
        let name = Name { publisher: publisher as u32, sequence: self.sequences[publisher] };
        let channel = channel(nth);
        let record = self.records.named(&name.to_string());
        self.interfaces[publisher].publish(&channel, record, out);
        self.outstanding[publisher] = Some(Outstanding { channel, name });
        true
    }

    fn confirmed(&mut self, publisher: usize, answer: &[u8]) -> Result<()> {
        let Some(Outstanding { channel, name }) = self.outstanding[publisher].take() else {
            return Ok(());
        };
        if self.interfaces[publisher] != Interface::Http {
            self.ledger.acknowledged(&channel, name, None);
            return Ok(());
        }
        let told = || format!("no position in {}", String::from_utf8_lossy(answer));
        let Answer { result } = serde_json::from_slice(answer).with_context(told)?;
        self.ledger.acknowledged(&channel, name, Some((&result.epoch, result.offset)));
        Ok(())
    }

    fn pushed(&mut self, push: &[u8]) -> Result<()> {
        let told = || format!("an unknown push: {}", String::from_utf8_lossy(push));
        let Pushed { push } = serde_json::from_slice(push).with_context(told)?;
        if let Some(publication) = push.publication {
            let name = Name::of(&publication.data)?;
            self.ledger.seen(&push.channel, name, publication.offset);
        }
        Ok(())
    }
}

/// Appends the commands that subscribe to all channels.
fn subscribe_to_all(out: &mut Vec<u8>) {
    let commands: Vec<String> = (0..CHANNELS)
        .map(|nth| {
            format!("{{\"id\":{},\"subscribe\":{{\"channel\":\"{}\"}}}}", nth + 2, channel(nth))
        })
        .collect();
    wire::client_frame(wire::TEXT, commands.join("\n").as_bytes(), out);
}

impl Load for Crowd {
    fn next(&mut self, nth: usize, _now_ns: u64, out: &mut Vec<u8>) -> bool {
        let Some(subscriber) = nth.checked_sub(self.interfaces.len()) else {
            return self.publish(nth, out);
        };
        let first = !std::mem::replace(&mut self.subscribed[subscriber], true);
        if first {
            subscribe_to_all(out);
        }
        first
    }

    fn hear(&mut self, nth: usize, heard: Heard<'_>, _sent_ns: u64, _now_ns: u64) -> Result<()> {
        match heard {
            Heard::Push(push) => self.pushed(push),
            Heard::Confirmed(answer) if nth < self.interfaces.len() => self.confirmed(nth, answer),
            Heard::Confirmed(_) => Ok(()),
            Heard::Refused(answer) => {
                self.refused += 1;
                let told = || String::from_utf8_lossy(answer).into_owned();
                self.refusal.get_or_insert_with(told);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ledger::Findings;
    use super::*;

    #[test]
    fn a_channel_gets_fewer_publications_than_it_keeps() {
        let mut crowd = Crowd::new(7);
        let mut out = Vec::new();
        let sent = (0..1_000_000).filter(|_| crowd.next(0, 0, &mut out)).count() as u64;
        assert_eq!(sent, CHANNELS as u64 * SENT_MAX);
        crowd.begin();
        assert!(crowd.next(1, 0, &mut out));
    }

    #[test]
    fn answers_and_pushes_reach_the_ledger() {
        let mut crowd = Crowd::new(7);
        let mut out = Vec::new();
        assert!(crowd.next(0, 0, &mut out));
        let request = String::from_utf8(out.clone()).unwrap();
        let body = request.split("\r\n\r\n").nth(1).unwrap();
        let push = body.replace("{\"channel\"", "{\"push\":{\"channel\"");
        let push = push.replace(",\"data\"", ",\"pub\":{\"data\"");
        let push = push.replace("\"}", "\",\"offset\":7}}}");
        let answer = b"{\"result\":{\"offset\":8,\"epoch\":\"e\"}}";
        crowd.hear(0, Heard::Confirmed(answer), 0, 0).unwrap();
        assert_eq!(crowd.ledger.acknowledged_count(), 1);
        assert_eq!(*crowd.ledger.findings(), Findings::default());
        crowd.hear(16, Heard::Push(push.as_bytes()), 0, 0).unwrap();
        assert_eq!(crowd.ledger.seen_count(), 1);
        out.clear();
        assert!(crowd.next(4, 0, &mut out));
        crowd.hear(4, Heard::Refused(b"no"), 0, 0).unwrap();
        assert_eq!(crowd.refused, 1);
        assert!(crowd.hear(16, Heard::Push(b"{}"), 0, 0).is_err());
    }
}
