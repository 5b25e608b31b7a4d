//! Publishers to random channels of a full store, so that a stop finds the store at work.
//!
//! Owns their requests, and writes the acknowledgements into the ledger. Never publishes to
//! channels that were not filled. Invariant: no two runs on one folder give the same name twice.

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use serde::Deserialize;

use super::super::data::Records;
use super::super::ledger::Ledger;
use super::super::stream::Name;
use super::super::talk::{Heard, Interface, Load};
use super::channels::channel;

/// Publishers.
pub(super) const VISITORS: usize = 64;

/// The publishers and what they know.
pub(super) struct Visitors {
    /// What they know.
    pub ledger: Ledger,
    /// Channels with an acknowledgement, in its order.
    pub visited: Vec<u64>,
    channels: u64,
    random: Rng,
    records: Records,
    /// Number of the first publisher: random, because earlier runs have used others.
    first: u32,
    sequence: u32,
    outstanding: Vec<Option<(u64, Name)>>,
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

impl Visitors {
    /// Publishers to so many channels, which keep `kept` publications.
    pub fn new(channels: u64, kept: u64) -> Self {
        Visitors {
            ledger: Ledger::new(kept),
            visited: Vec::new(),
            channels,
            random: Rng::new(),
            records: Records::new(fastrand::u64(..)),
            first: fastrand::u32(1..u32::MAX - VISITORS as u32),
            sequence: 0,
            outstanding: vec![None; VISITORS],
        }
    }
}

impl Load for Visitors {
    fn next(&mut self, nth: usize, _now_ns: u64, out: &mut Vec<u8>) -> bool {
        let number = self.random.u64(..self.channels);
        self.sequence += 1;
        let name = Name { publisher: self.first + nth as u32, sequence: self.sequence };
        let record = self.records.named(&name.to_string());
        Interface::Http.publish(&channel(number), record, out);
        self.outstanding[nth] = Some((number, name));
        true
    }

    fn hear(&mut self, nth: usize, heard: Heard<'_>, _sent_ns: u64, _now_ns: u64) -> Result<()> {
        let Heard::Confirmed(answer) = heard else { bail!("a publication was refused: {heard:?}") };
        let Some((number, name)) = self.outstanding[nth].take() else { return Ok(()) };
        let told = || format!("no position in {}", String::from_utf8_lossy(answer));
        let Answer { result } = serde_json::from_slice(answer).with_context(told)?;
        let position = Some((&*result.epoch, result.offset));
        self.ledger.acknowledged(&channel(number), name, position);
        self.visited.push(number);
        Ok(())
    }
}
