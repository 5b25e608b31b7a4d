//! How long tables in memory have been filled.
//!
//! Owns which tables are old. Never writes one. A table that gets little would otherwise stay in
//! memory, and its part of the journal on disk, for as long as the server runs.

use std::time::{Duration, Instant};

/// Age at which a table in memory is written to disk, however small it is.
const AGE_MAX: Duration = Duration::from_secs(300);
/// Pause between two looks at the tables.
const PAUSE: Duration = Duration::from_secs(10);

/// A table in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableInMemory {
    /// Another table that takes its place has another ID.
    pub id: u64,
    /// Whether it has no entries.
    pub is_empty: bool,
}

/// The ages of `N` tables.
#[derive(Debug)]
pub struct TableAges<const N: usize> {
    next_look: Instant,
    /// Each table at the last look, and when it had no entries or was not seen yet.
    since: [Option<(TableInMemory, Instant)>; N],
}

impl<const N: usize> TableAges<N> {
    /// No table was seen yet.
    pub fn new(now: Instant) -> Self {
        TableAges { next_look: now, since: [None; N] }
    }

    /// Which tables are old. `tables` is called if it is time to look at them.
    pub fn old(&mut self, now: Instant, tables: impl FnOnce() -> [TableInMemory; N]) -> [bool; N] {
        if now < self.next_look {
            return [false; N];
        }
        self.next_look = now + PAUSE;
        let tables = tables();
        for (since, table) in self.since.iter_mut().zip(tables) {
            let is_same = since.is_some_and(|(seen, _)| seen.id == table.id);
            if !is_same || table.is_empty {
                *since = Some((table, now));
            }
        }
        self.since
            .map(|since| since.is_some_and(|(_, at)| now.saturating_duration_since(at) >= AGE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_old_when_it_has_had_entries_for_long_and_was_not_replaced() {
        let begin = Instant::now();
        let mut ages = TableAges::<3>::new(begin);
        let table = |id, is_empty| TableInMemory { id, is_empty };
        let mut old = Vec::new();
        for second in 0..1000 {
            let tables = [
                table(1, false),
                // Replaced often.
                table(second / 200, false),
                // It gets its first entry late.
                table(7, second < 500),
            ];
            let found = ages.old(begin + Duration::from_secs(second), || tables);
            for (at, _) in found.iter().enumerate().filter(|(_, is_old)| **is_old) {
                if !old.iter().any(|(seen, _)| *seen == at) {
                    old.push((at, second));
                }
            }
        }
        assert_eq!(old, [(0, 300), (2, 790)]);
    }

    #[test]
    fn the_tables_are_looked_at_now_and_then() {
        let begin = Instant::now();
        let mut ages = TableAges::<1>::new(begin);
        let mut looks = 0;
        for millis in 0..60_000 {
            ages.old(begin + Duration::from_millis(millis), || {
                looks += 1;
                [TableInMemory { id: 1, is_empty: false }]
            });
        }
        assert_eq!(looks, 6);
    }
}
