//! A coarse timing wheel over slab indices: one deadline per slot, no allocation per timer.
//!
//! Owns the deadlines. Never reads a clock: the caller passes the current tick. The invariant: a
//! slot with a deadline is linked in exactly one bucket, that of its deadline; a slot without one
//! is in no bucket.

use std::cell::Cell;

const NONE: u32 = u32::MAX;

/// Entry of a slot in the list of its bucket.
#[derive(Clone, Copy)]
struct Link {
    next: u32,
    previous: u32,
    /// Tick at which the slot is due; `NONE` if it has no deadline.
    deadline: u32,
}

const UNLINKED: Link = Link { next: NONE, previous: NONE, deadline: NONE };

/// Deadlines of slots, in ticks.
pub struct Wheel {
    heads: Box<[u32]>,
    links: Vec<Link>,
    /// The next tick that has not been swept.
    now: u32,
    linked: usize,
    /// A tick before which no bucket has slots: where the search for the next one begins.
    empty_until: Cell<u32>,
}

impl Wheel {
    /// A wheel with `buckets` buckets (a power of two) that starts at tick 0. If a deadline is more
    /// than `buckets` ticks away, sweeps skip it once per turn of the wheel until it is due.
    pub fn new(buckets: usize) -> Self {
        assert!(buckets.is_power_of_two(), "the number of buckets must be a power of two");
        Wheel {
            heads: vec![NONE; buckets].into_boxed_slice(),
            links: Vec::new(),
            now: 0,
            linked: 0,
            empty_until: Cell::new(0),
        }
    }

    fn bucket(&self, deadline: u32) -> usize {
        deadline as usize & (self.heads.len() - 1)
    }

    /// Sets the slot's deadline and replaces the previous one. A deadline in the past is due at the
    /// next sweep.
    pub fn set(&mut self, slot: u32, deadline: u32) {
        self.clear(slot);
        if self.links.len() <= slot as usize {
            self.links.resize(slot as usize + 1, UNLINKED);
        }
        let deadline = deadline.max(self.now);
        let bucket = self.bucket(deadline);
        let head = self.heads[bucket];
        self.links[slot as usize] = Link { next: head, previous: NONE, deadline };
        if head != NONE {
            self.links[head as usize].previous = slot;
        }
        self.heads[bucket] = slot;
        self.linked += 1;
        // The next tick of this bucket.
        let ahead = (deadline - self.now) & (self.heads.len() as u32 - 1);
        self.empty_until.set(self.empty_until.get().min(self.now.saturating_add(ahead)));
    }

    /// The slot's deadline, if it has one.
    pub fn deadline(&self, slot: u32) -> Option<u32> {
        let link = self.links.get(slot as usize)?;
        Some(link.deadline).filter(|deadline| *deadline != NONE)
    }

    /// Removes the slot's deadline, if it has one.
    pub fn clear(&mut self, slot: u32) {
        let Some(&link) = self.links.get(slot as usize) else { return };
        if link.deadline == NONE {
            return;
        }
        if link.previous == NONE {
            let bucket = self.bucket(link.deadline);
            self.heads[bucket] = link.next;
        } else {
            self.links[link.previous as usize].next = link.next;
        }
        if link.next != NONE {
            self.links[link.next as usize].previous = link.previous;
        }
        self.links[slot as usize] = UNLINKED;
        self.linked -= 1;
    }

    /// Unlinks every slot that is due at or before `now` and adds it to `due`, until `due` has
    /// `limit` entries; returns whether these are all. The next call adds the rest.
    pub fn sweep(&mut self, now: u32, limit: usize, due: &mut Vec<u32>) -> bool {
        if self.linked == 0 {
            self.now = self.now.max(now.saturating_add(1));
            return true;
        }
        while self.now <= now {
            let mut slot = self.heads[self.bucket(self.now)];
            while slot != NONE {
                let link = self.links[slot as usize];
                if link.deadline <= self.now {
                    if due.len() >= limit {
                        return false;
                    }
                    self.clear(slot);
                    due.push(slot);
                }
                slot = link.next;
            }
            self.now += 1;
        }
        true
    }

    /// Whether everything that is due at or before `now` was swept, and nothing was due since.
    pub fn is_swept(&self, now: u32) -> bool {
        self.linked == 0 || self.now > now
    }

    /// The earliest tick at which a slot may be due; `None` if no slot has a deadline. The tick is
    /// exact within one turn of the wheel, and may be too early beyond it.
    pub fn next_due(&self) -> Option<u32> {
        if self.linked == 0 {
            return None;
        }
        let end = self.now.saturating_add(self.heads.len() as u32);
        let mut ticks = self.empty_until.get().max(self.now)..end;
        let next = ticks.find(|tick| self.heads[self.bucket(*tick)] != NONE).unwrap_or(end);
        self.empty_until.set(next);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(wheel: &mut Wheel, now: u32) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.sweep(now, usize::MAX, &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn a_deadline_is_due_once_and_at_its_tick() {
        let mut wheel = Wheel::new(8);
        wheel.set(5, 3);
        wheel.set(6, 3);
        wheel.set(7, 20);
        assert_eq!(wheel.next_due(), Some(3));
        assert_eq!((wheel.deadline(7), wheel.deadline(4)), (Some(20), None));
        assert_eq!(sweep(&mut wheel, 2), [0u32; 0]);
        assert!(wheel.is_swept(2) && !wheel.is_swept(3));
        assert_eq!(sweep(&mut wheel, 3), [5, 6]);
        assert_eq!(sweep(&mut wheel, 19), [0u32; 0]);
        assert_eq!(sweep(&mut wheel, 25), [7]);
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn set_replaces_a_deadline_and_clear_removes_it() {
        let mut wheel = Wheel::new(8);
        for slot in 0..4 {
            wheel.set(slot, 2);
        }
        wheel.set(1, 5);
        wheel.clear(2);
        wheel.clear(9);
        assert_eq!(sweep(&mut wheel, 4), [0, 3]);
        assert_eq!(sweep(&mut wheel, 5), [1]);
    }

    #[test]
    fn a_limited_sweep_continues_where_it_stopped() {
        let mut wheel = Wheel::new(8);
        for slot in 0..5 {
            wheel.set(slot, 1);
        }
        let mut due = Vec::new();
        wheel.sweep(4, 3, &mut due);
        assert_eq!(due.len(), 3);
        wheel.sweep(4, 10, &mut due);
        due.sort_unstable();
        assert_eq!(due, [0, 1, 2, 3, 4]);
        wheel.set(0, 1);
        assert_eq!(sweep(&mut wheel, 5), [0], "a deadline in the past is due at once");
    }

    #[test]
    fn the_next_tick_agrees_with_a_search_of_all_buckets() {
        let mut seed = 3u64;
        let mut random = move |below: u32| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u32 % below
        };
        let (mut wheel, mut now) = (Wheel::new(16), 0);
        for _ in 0..50_000 {
            match random(4) {
                0 => wheel.set(random(6), now + random(40)),
                1 => wheel.clear(random(6)),
                2 => now += random(5),
                _ => drop(wheel.sweep(now, random(3) as usize, &mut Vec::new())),
            }
            let buckets = 0..wheel.heads.len() as u32;
            let mut ticks = buckets.map(|ahead| wheel.now + ahead);
            let first = ticks.find(|tick| wheel.heads[wheel.bucket(*tick)] != NONE);
            // The answer is not asked for after every step.
            if random(2) == 0 {
                assert_eq!(wheel.next_due(), first);
            }
        }
    }
}
