//! The record of all publications of a run, by which every client checks its own view.

use std::collections::BTreeMap;

use crate::client::View;

#[derive(Clone, Copy)]
struct Published {
    at: usize,
    acknowledged: bool,
}

#[derive(Default)]
struct Channel {
    /// By publisher and its number.
    publications: BTreeMap<(usize, u64), Published>,
    /// By offset.
    places: BTreeMap<u64, (usize, u64)>,
    epoch: String,
}

/// Every publication of a run.
pub struct Ledger {
    channels: Vec<Channel>,
    /// Deliveries of all clients, for the account of the run.
    pub seen: usize,
}

impl Ledger {
    pub fn new(channels: usize) -> Self {
        Ledger { channels: (0..channels).map(|_| Channel::default()).collect(), seen: 0 }
    }

    pub fn published(&mut self, channel: usize, publisher: usize, n: u64, at: usize) {
        let published = Published { at, acknowledged: false };
        self.channels[channel].publications.insert((publisher, n), published);
    }

    pub fn acknowledged(&mut self, channel: usize, publisher: usize, n: u64) {
        if let Some(found) = self.channels[channel].publications.get_mut(&(publisher, n)) {
            found.acknowledged = true;
        }
    }

    /// A client received a publication: some client must have published it.
    pub fn sent(&mut self, channel: usize, publisher: usize, n: u64) -> Result<(), String> {
        self.seen += 1;
        let known = self.channels[channel].publications.contains_key(&(publisher, n));
        known.then_some(()).ok_or(format!("{publisher} never published {n} in c{channel}"))
    }

    /// All clients see the same publication at an offset.
    pub fn placed(
        &mut self,
        channel: usize,
        offset: u64,
        what: (usize, u64),
    ) -> Result<(), String> {
        let before = *self.channels[channel].places.entry(offset).or_insert(what);
        (before == what).then_some(()).ok_or(format!("offset {offset} is {before:?} and {what:?}"))
    }

    /// A channel stays in its epoch.
    pub fn epoch(&mut self, channel: usize, epoch: &str) -> Result<(), String> {
        let known = &mut self.channels[channel].epoch;
        if known.is_empty() {
            *known = epoch.to_owned();
        }
        (known == epoch).then_some(()).ok_or(format!("epoch {epoch} after {known}"))
    }

    /// A subscriber has every acknowledged publication since its subscribe reply.
    pub fn check_complete(&self, channel: usize, view: &View) -> Result<(), String> {
        for ((publisher, n), published) in &self.channels[channel].publications {
            let due = published.acknowledged && published.at > view.since;
            if due && view.seen.get(publisher).is_none_or(|seen| seen < n) {
                return Err(format!(
                    "number {n} of publisher {publisher} in c{channel} is missing"
                ));
            }
        }
        let top = self.channels[channel].places.last_key_value();
        match top {
            Some((top, _)) if view.offset < *top => {
                Err(format!("the position in c{channel} is {}, not {top}", view.offset))
            }
            _ => Ok(()),
        }
    }
}
