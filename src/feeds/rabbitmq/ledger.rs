//! Delivery tags that the broker has to learn: which acknowledgements to send.
//!
//! Owns the tags of one channel. Never sends. The invariants: a tag is acknowledged once, after it
//! was settled. One frame acknowledges all tags up to the first that is not settled; it names a tag
//! that the broker has no acknowledgement of, because the broker refuses any other.

use std::collections::BTreeSet;

/// Settled tags behind one that is not, before they are acknowledged one by one.
const BEHIND_MAX: usize = 64;

/// The tags of a channel.
#[derive(Debug)]
pub struct Ledger {
    /// The lowest tag that is not acknowledged.
    next: u64,
    /// Settled tags that are not acknowledged.
    settled: BTreeSet<u64>,
    /// Tags above `next` that are acknowledged or rejected.
    told: BTreeSet<u64>,
    /// The highest settled tag below `next` that is not acknowledged.
    highest: Option<u64>,
}

/// An acknowledgement to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The tag.
    pub tag: u64,
    /// Acknowledge all tags up to this one.
    pub multiple: bool,
}

impl Default for Ledger {
    fn default() -> Self {
        // The broker counts from 1.
        Ledger { next: 1, settled: BTreeSet::new(), told: BTreeSet::new(), highest: None }
    }
}

impl Ledger {
    /// Notes that a tag is to be acknowledged.
    pub fn settle(&mut self, tag: u64) {
        if tag == self.next {
            self.highest = Some(tag);
            self.next += 1;
        } else if tag > self.next {
            self.settled.insert(tag);
        }
    }

    /// Notes that a tag was rejected.
    pub fn reject(&mut self, tag: u64) {
        self.told.insert(tag);
    }

    /// The acknowledgements to send now. With `all`, tags behind an open one are acknowledged too.
    pub fn take(&mut self, all: bool) -> Vec<Acknowledgement> {
        loop {
            if self.settled.remove(&self.next) {
                self.highest = Some(self.next);
            } else if !self.told.remove(&self.next) {
                break;
            }
            self.next += 1;
        }
        let mut found = Vec::new();
        if let Some(tag) = self.highest.take() {
            found.push(Acknowledgement { tag, multiple: true });
        }
        if all || self.settled.len() >= BEHIND_MAX {
            let behind = std::mem::take(&mut self.settled);
            self.told.extend(&behind);
            found.extend(behind.into_iter().map(|tag| Acknowledgement { tag, multiple: false }));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(ledger: &mut Ledger, all: bool) -> Vec<(u64, bool)> {
        ledger.take(all).into_iter().map(|one| (one.tag, one.multiple)).collect()
    }

    #[test]
    fn one_frame_acknowledges_all_tags_up_to_the_first_open_one() {
        let mut ledger = Ledger::default();
        for tag in [2, 1, 3, 5] {
            ledger.settle(tag);
        }
        assert_eq!(tags(&mut ledger, false), [(3, true)]);
        assert!(tags(&mut ledger, false).is_empty());
        assert_eq!(tags(&mut ledger, true), [(5, false)]);
        assert!(tags(&mut ledger, true).is_empty());
        ledger.settle(4);
        // The broker refuses a frame with a tag that it has an acknowledgement of.
        assert_eq!(tags(&mut ledger, false), [(4, true)]);
        ledger.settle(6);
        assert_eq!(tags(&mut ledger, false), [(6, true)]);
    }

    #[test]
    fn a_rejected_tag_is_passed_and_many_tags_do_not_wait_behind_an_open_one() {
        let mut ledger = Ledger::default();
        ledger.reject(1);
        assert!(tags(&mut ledger, true).is_empty());
        ledger.settle(2);
        assert_eq!(tags(&mut ledger, false), [(2, true)]);
        for tag in 0..BEHIND_MAX as u64 {
            ledger.settle(4 + tag);
        }
        let behind = tags(&mut ledger, false);
        assert_eq!(behind.len(), BEHIND_MAX);
        assert!(behind.iter().all(|(tag, multiple)| *tag >= 4 && !multiple));
    }
}
