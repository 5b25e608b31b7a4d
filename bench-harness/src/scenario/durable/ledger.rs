//! What clients know of streams, and what a history must therefore hold.
//!
//! Owns what was acknowledged, seen and read, by channel and offset. Never talks to a server.
//! Invariant: everything that a client was told stays true for the life of the ledger, except that
//! a history may drop publications beyond its size.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::stream::{History, Name};

/// Findings that are kept as text.
const TOLD: usize = 5;

/// Breaches of the promise, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Acknowledged publications that are not in the history.
    pub lost_acknowledged: u64,
    /// Publications that a subscriber or an earlier history had and this history lacks.
    pub lost_seen: u64,
    /// Offsets that were given to two publications.
    pub reused_offsets: u64,
    /// Streams whose epoch changed.
    pub changed_epochs: u64,
    /// Publications of one publisher that are doubled or not in the order of their sending.
    pub disordered: u64,
    /// Offsets within a history that hold nothing.
    pub gaps: u64,
    /// The first breaches in words.
    pub told: Vec<String>,
}

/// A publication at its offset.
#[derive(Debug, Clone, Copy)]
struct Known {
    name: Name,
    acknowledged: bool,
    /// It was missing from a history. It stays known, so that its offset is not given again.
    lost: bool,
}

#[derive(Debug, Default)]
struct Stream {
    epoch: String,
    known: BTreeMap<u64, Known>,
    /// Acknowledged by an answer that names no offset.
    unplaced: HashSet<Name>,
}

/// What the clients know.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Publications that a history keeps.
    kept: u64,
    streams: HashMap<String, Stream>,
    acknowledged: u64,
    seen: u64,
    findings: Findings,
}

impl Ledger {
    /// An empty ledger of histories that keep `kept` publications.
    pub fn new(kept: u64) -> Self {
        let findings = Findings::default();
        Ledger { kept, streams: HashMap::new(), acknowledged: 0, seen: 0, findings }
    }

    /// Publications that were acknowledged so far.
    pub fn acknowledged_count(&self) -> u64 {
        self.acknowledged
    }

    /// Publications that subscribers got so far.
    pub fn seen_count(&self) -> u64 {
        self.seen
    }

    /// The breaches so far.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// A publication was acknowledged, with its epoch and offset if the answer names them.
    pub fn acknowledged(&mut self, channel: &str, name: Name, position: Option<(&str, u64)>) {
        self.acknowledged += 1;
        match position {
            Some((epoch, offset)) => {
                self.expect_epoch(channel, epoch);
                self.place(channel, offset, name, true);
            }
            None => {
                self.stream(channel).unplaced.insert(name);
            }
        }
    }

    /// A subscriber got a publication.
    pub fn seen(&mut self, channel: &str, name: Name, offset: u64) {
        self.seen += 1;
        self.place(channel, offset, name, false);
    }

    /// Compares a history with what is known, and remembers it.
    pub fn check(&mut self, channel: &str, history: &History) {
        self.expect_epoch(channel, &history.epoch);
        let oldest = (history.top + 1).saturating_sub(self.kept).max(1);
        let held: BTreeMap<u64, Name> = history.publications.iter().copied().collect();
        let stream = self.stream(channel);
        let expected = stream.known.split_off(&oldest);
        let unplaced = std::mem::take(&mut stream.unplaced);
        for (offset, known) in &expected {
            match held.get(offset) {
                Some(name) if *name == known.name => {}
                Some(name) => self.reused(channel, *offset, known.name, *name),
                None if known.lost => {}
                None => self.lost(channel, &known.name, Some(*offset), known.acknowledged),
            }
        }
        let placed: HashSet<Name> =
            held.values().copied().chain(expected.values().map(|known| known.name)).collect();
        for name in unplaced.difference(&placed) {
            self.lost(channel, name, None, true);
        }
        let gaps = (history.top + 1 - oldest).saturating_sub(held.range(oldest..).count() as u64);
        if gaps > 0 {
            self.findings.gaps += gaps;
            self.tell(format!("{channel}: {gaps} offsets up to {} hold nothing", history.top));
        }
        self.check_order(channel, &held);
        let mut known = expected;
        known.values_mut().for_each(|known| known.lost = true);
        for (offset, name) in &held {
            let acknowledged = unplaced.contains(name)
                || known.get(offset).is_some_and(|known| known.acknowledged);
            known.insert(*offset, Known { name: *name, acknowledged, lost: false });
        }
        self.stream(channel).known = known;
    }

    /// Each publisher sends one publication after the other.
    fn check_order(&mut self, channel: &str, held: &BTreeMap<u64, Name>) {
        let mut latest: HashMap<u32, u32> = HashMap::new();
        for (offset, name) in held {
            let before = latest.insert(name.publisher, name.sequence);
            if before.is_some_and(|before| before >= name.sequence) {
                self.findings.disordered += 1;
                self.tell(format!("{channel}: {name} at {offset} is doubled or out of order"));
            }
        }
    }

    fn stream(&mut self, channel: &str) -> &mut Stream {
        if !self.streams.contains_key(channel) {
            self.streams.insert(channel.to_owned(), Stream::default());
        }
        self.streams.entry(channel.to_owned()).or_default()
    }

    fn place(&mut self, channel: &str, offset: u64, name: Name, acknowledged: bool) {
        let stream = self.stream(channel);
        let known = stream.known.entry(offset).or_insert(Known { name, acknowledged, lost: false });
        known.acknowledged |= acknowledged;
        let earlier = known.name;
        if earlier != name {
            self.reused(channel, offset, earlier, name);
        }
    }

    /// A stream that had publications keeps its epoch.
    fn expect_epoch(&mut self, channel: &str, epoch: &str) {
        let stream = self.stream(channel);
        if stream.epoch == epoch {
            return;
        }
        let before =
            std::mem::replace(stream, Stream { epoch: epoch.to_owned(), ..Stream::default() });
        if before.epoch.is_empty() || before.known.is_empty() && before.unplaced.is_empty() {
            // Before the first publication there is nothing to keep. Known publications of a
            // stream whose epoch was not told yet belong to this one.
            let stream = self.stream(channel);
            (stream.known, stream.unplaced) = (before.known, before.unplaced);
            return;
        }
        self.findings.changed_epochs += 1;
        self.tell(format!("{channel}: the epoch changed from {} to {epoch}", before.epoch));
        for (offset, known) in before.known.iter().filter(|(_, known)| !known.lost) {
            self.lost(channel, &known.name, Some(*offset), known.acknowledged);
        }
        before.unplaced.iter().for_each(|name| self.lost(channel, name, None, true));
    }

    fn lost(&mut self, channel: &str, name: &Name, offset: Option<u64>, acknowledged: bool) {
        let place =
            offset.map_or("at an unknown offset".to_owned(), |offset| format!("at {offset}"));
        let how = if acknowledged { "acknowledged" } else { "seen" };
        match acknowledged {
            true => self.findings.lost_acknowledged += 1,
            false => self.findings.lost_seen += 1,
        }
        self.tell(format!("{channel}: {name}, {how} {place}, is lost"));
    }

    fn reused(&mut self, channel: &str, offset: u64, earlier: Name, later: Name) {
        self.findings.reused_offsets += 1;
        self.tell(format!("{channel}: offset {offset} was {earlier} and is {later}"));
    }

    fn tell(&mut self, finding: String) {
        if self.findings.told.len() < TOLD {
            self.findings.told.push(finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: u64 = 4;

    fn name(sequence: u32) -> Name {
        Name { publisher: 1, sequence }
    }

    /// Publications `names` of publisher 1 at consecutive offsets up to `top`.
    fn history(top: u64, names: &[u32]) -> History {
        let first = top + 1 - names.len() as u64;
        let publications = (first..).zip(names.iter().map(|one| name(*one))).collect();
        History { epoch: "e".into(), top, publications }
    }

    /// A ledger that knows publication `n` at offset `n`, up to `top`, by answers with offsets.
    fn ledger(top: u64) -> Ledger {
        let mut ledger = Ledger::new(KEPT);
        for offset in 1..=top {
            ledger.acknowledged("c", name(offset as u32), Some(("e", offset)));
        }
        ledger
    }

    fn findings(mut ledger: Ledger, history: &History) -> Findings {
        ledger.check("c", history);
        Findings { told: Vec::new(), ..ledger.findings }
    }

    #[test]
    fn a_history_with_everything_and_more_is_no_finding() {
        let whole = history(6, &[3, 4, 5, 6]);
        assert_eq!(findings(ledger(5), &whole), Findings::default(), "one more than acknowledged");
        let mut checked = ledger(5);
        checked.check("c", &whole);
        checked.acknowledged("c", name(7), None);
        checked.seen("c", name(7), 7);
        checked.seen("c", name(8), 8);
        assert_eq!(checked.acknowledged_count(), 6);
        assert_eq!(findings(checked, &history(8, &[5, 6, 7, 8])), Findings::default());
    }

    #[test]
    fn each_breach_has_its_count() {
        let none = Findings::default;
        let lost = Findings { lost_acknowledged: 1, ..none() };
        assert_eq!(findings(ledger(5), &history(4, &[1, 2, 3, 4])), lost, "the latest");
        let mut seen = ledger(4);
        seen.seen("c", name(5), 5);
        let lost = Findings { lost_seen: 1, ..none() };
        assert_eq!(findings(seen, &history(4, &[1, 2, 3, 4])), lost);
        let mut unplaced = ledger(4);
        unplaced.acknowledged("c", name(5), None);
        let lost = Findings { lost_acknowledged: 1, ..none() };
        assert_eq!(findings(unplaced, &history(4, &[1, 2, 3, 4])), lost);
        let mut given_again = ledger(5);
        given_again.check("c", &history(4, &[1, 2, 3, 4]));
        given_again.seen("c", name(6), 5);
        let both = Findings { lost_acknowledged: 1, reused_offsets: 1, ..none() };
        assert_eq!(findings(given_again, &history(4, &[1, 2, 3, 4])), both);
        let reused = Findings { reused_offsets: 1, ..none() };
        assert_eq!(findings(ledger(5), &history(5, &[2, 3, 4, 6])), reused);
        let mut twice = ledger(5);
        twice.seen("c", name(6), 5);
        assert_eq!(findings(twice, &history(5, &[2, 3, 4, 5])), reused, "by a subscriber");
        let disordered = Findings { disordered: 1, ..none() };
        assert_eq!(findings(ledger(0), &history(4, &[1, 3, 2, 4])), disordered);
        assert_eq!(findings(ledger(0), &history(4, &[1, 2, 2, 3])), disordered, "doubled");
        let gaps = Findings { gaps: 1, ..none() };
        assert_eq!(findings(ledger(0), &history(4, &[2, 3, 4])), gaps);
    }

    #[test]
    fn a_history_that_was_read_must_stay_and_a_stream_must_keep_its_epoch() {
        let mut read = ledger(0);
        read.check("c", &history(2, &[1, 2]));
        let lost = Findings { lost_seen: 1, ..Findings::default() };
        assert_eq!(findings(read, &history(1, &[1])), lost);
        let other = History { epoch: "f".into(), ..History::default() };
        let found = findings(ledger(2), &other);
        let wanted = Findings { lost_acknowledged: 2, changed_epochs: 1, ..Findings::default() };
        assert_eq!(found, wanted);
        let found = findings(Ledger::new(KEPT), &other);
        assert_eq!(found, Findings::default(), "a stream without publications");
    }
}
