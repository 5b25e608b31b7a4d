//! Memory budgets of a node, which its shards share.
//!
//! Owns a count of bytes for each kind of memory that peers and backends can make grow. Never
//! allocates what it counts. A shard keeps an exact count of its own ([`Share`]) and charges the
//! node's in steps, so that the hot path stays free of shared cache lines. The invariant: the
//! node's count is never below the sum of the shards' counts.
//!
//! A budget that is exceeded says which shard gives something up: the one with the greatest
//! weight, which is its largest item, or all that it holds where items are small. So a shard that
//! holds nothing large closes nobody because of another one.

use std::ops::Index;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Steps in which the shards charge a budget: together they charge at most three of each
/// shard's too much, a twentieth of the budget.
const STEPS: usize = 64;
/// Bytes of a step at most.
const STEP_MAX: usize = 64 << 10;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:literal,)*) => {
        /// What memory is used for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[doc = $doc])+ $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: [Kind; [$($name),*].len()] = [$(Kind::$kind),*];

            /// Its name in the metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Kind::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// Output of connections that are behind.
    Outboxes "outboxes",
    /// Input of connections that is not used up: parts of heads and messages, commands that wait.
    Unread "unread",
    /// Streams and the publications that they keep.
    History "history",
    /// Publications that wait for their lap, or are in one.
    Backlog "backlog",
    /// Tags filters.
    Filters "filters",
    /// Idempotency keys.
    Keys "keys",
    /// Disconnects and unsubscribes to tell the backend.
    Hooks "hooks",
    /// Tokens to verify and questions to the backend that wait for an answer.
    Questions "questions",
}

/// Bytes of each kind that a node may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([usize; Kind::ALL.len()]);

impl Limits {
    /// The same number of bytes for each kind.
    pub fn all(bytes: usize) -> Self {
        Limits([bytes; Kind::ALL.len()])
    }

    /// The same with another number of bytes for one kind.
    #[must_use]
    pub fn with(mut self, kind: Kind, bytes: usize) -> Self {
        self.0[kind as usize] = bytes;
        self
    }

    /// Bytes of one kind.
    pub fn of(&self, kind: Kind) -> usize {
        self.0[kind as usize]
    }
}

/// Every budget of a node.
#[derive(Clone, Debug)]
pub struct Budgets {
    all: Arc<[Arc<Budget>]>,
    exceeded: Arc<Exceeded>,
}

/// Which budgets may be exceeded, by bits: one number that every turn of every shard reads, and
/// that is written only where a budget is exceeded or is no more.
#[derive(Debug, Default)]
struct Exceeded(AtomicU32);

impl Exceeded {
    /// Sequentially consistent with the count: of whoever adds and whoever takes the note off at
    /// once, one sees what the other has done.
    fn note(&self, bit: u32) {
        if self.0.load(Ordering::SeqCst) & bit == 0 {
            self.0.fetch_or(bit, Ordering::SeqCst);
        }
    }
}

impl Budgets {
    /// Budgets that so many shards share.
    pub fn new(limits: &Limits, shards: usize) -> Self {
        let exceeded = Arc::new(Exceeded::default());
        let budget = |kind: Kind| {
            let noted = (exceeded.clone(), 1 << kind as u32);
            Arc::new(Budget::new(limits.of(kind), shards, noted))
        };
        Budgets { all: Kind::ALL.into_iter().map(budget).collect(), exceeded }
    }

    /// Whether a budget may be exceeded. [`Share::relief`] knows for certain.
    pub fn may_be_exceeded(&self) -> bool {
        self.exceeded.0.load(Ordering::Relaxed) != 0
    }

    /// A shard's share of one budget, of which nothing is used yet.
    pub fn share(&self, kind: Kind, shard: usize) -> Share {
        let by_total = matches!(kind, Kind::History | Kind::Keys);
        Share { budget: self[kind].clone(), shard, by_total, used: 0, charged: 0, weight: 0 }
    }

    /// Bytes that all budgets allow together.
    pub fn limit(&self) -> usize {
        self.all.iter().fold(0, |sum, budget| sum.saturating_add(budget.limit))
    }
}

impl Index<Kind> for Budgets {
    type Output = Arc<Budget>;

    fn index(&self, kind: Kind) -> &Arc<Budget> {
        &self.all[kind as usize]
    }
}

/// A number on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Weight(AtomicUsize);

/// Bytes of one kind that a node may use, and how many it does.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    step: usize,
    used: Weight,
    /// What each shard would give up, or holds.
    weights: Box<[Weight]>,
    /// Where it is noted that the budget may be exceeded, and by which bit.
    noted: (Arc<Exceeded>, u32),
}

impl Budget {
    fn new(limit: usize, shards: usize, noted: (Arc<Exceeded>, u32)) -> Self {
        let step = (limit / (STEPS * shards.max(1))).clamp(1, STEP_MAX);
        let weights = (0..shards).map(|_| Weight::default()).collect();
        Budget { limit, step, used: Weight::default(), weights, noted }
    }

    /// Bytes that the node may use.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that the node uses, what shards have charged in advance included.
    pub fn used(&self) -> usize {
        self.used.0.load(Ordering::Relaxed)
    }

    /// Bytes that the node uses beyond what it may.
    pub fn excess(&self) -> usize {
        self.used().saturating_sub(self.limit)
    }

    /// Counts bytes, a negative number as it wraps; returns how many there were.
    fn add(&self, bytes: usize) -> usize {
        let before = self.used.0.fetch_add(bytes, Ordering::SeqCst);
        if before.wrapping_add(bytes) > self.limit {
            self.noted.0.note(self.noted.1);
        }
        before
    }

    /// Bytes beyond what the node may use. Where there are none, that is noted.
    fn settle(&self) -> usize {
        let (exceeded, bit) = &self.noted;
        if exceeded.0.load(Ordering::Relaxed) & bit == 0 {
            return 0;
        }
        if self.excess() == 0 {
            exceeded.0.fetch_and(!bit, Ordering::SeqCst);
            // Whoever added meanwhile may have found the note still there.
            if self.used.0.load(Ordering::SeqCst) > self.limit {
                exceeded.note(*bit);
            }
        }
        self.excess()
    }

    /// Counts bytes until what is returned is dropped; `None`: there is no room for them.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let before = self.add(bytes);
        let charge = Charge { budget: self.clone(), bytes };
        (before.saturating_add(bytes) <= self.limit).then_some(charge)
    }

    /// The shard with the greatest weight, the first of several.
    fn heaviest(&self) -> Option<usize> {
        let weights = self.weights.iter().map(|weight| weight.0.load(Ordering::Relaxed));
        let heavy = weights.enumerate().filter(|(_, weight)| *weight > 0);
        let heaviest = heavy.reduce(|one, other| if other.1 > one.1 { other } else { one });
        heaviest.map(|(shard, _)| shard)
    }
}

/// Bytes that count in a budget for as long as this lives.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Who gives something up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relief {
    /// Nobody: the budget holds, or nothing can be given up.
    None,
    /// This shard.
    Here,
    /// Another shard.
    There(usize),
}

/// What one shard uses of a budget.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    shard: usize,
    /// Whether the weight is all that the shard uses.
    by_total: bool,
    used: usize,
    charged: usize,
    weight: usize,
}

impl Share {
    /// Bytes that the shard uses.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Says how many bytes the shard uses.
    pub fn set(&mut self, bytes: usize) {
        self.used = bytes;
        let Budget { step, limit, .. } = *self.budget;
        let used = self.budget.used();
        if bytes <= self.charged && self.charged - bytes <= 2 * step && used <= limit {
            return;
        }
        // Near the limit every byte counts.
        let others = used.saturating_sub(self.charged);
        let rounded = bytes.div_ceil(step).saturating_mul(step);
        let charged = if others.saturating_add(rounded) <= limit { rounded } else { bytes };
        // Wraps where less is charged than before.
        let change = charged.wrapping_sub(self.charged);
        self.budget.add(change);
        self.charged = charged;
        if self.by_total {
            self.weigh(charged);
        }
    }

    /// Something that used `before` bytes now uses `after`.
    pub fn change(&mut self, before: usize, after: usize) {
        self.set((self.used + after).saturating_sub(before));
    }

    /// Says how much the shard would give up at once.
    pub fn weigh(&mut self, weight: usize) {
        if self.weight != weight {
            self.weight = weight;
            if let Some(shown) = self.budget.weights.get(self.shard) {
                shown.0.store(weight, Ordering::Relaxed);
            }
        }
    }

    /// Bytes that the node uses beyond what it may.
    pub fn excess(&self) -> usize {
        self.budget.excess()
    }

    /// Which shard gives something up, if one must.
    pub fn relief(&self) -> Relief {
        if self.budget.settle() == 0 {
            return Relief::None;
        }
        match self.budget.heaviest() {
            Some(shard) if shard == self.shard => Relief::Here,
            Some(shard) => Relief::There(shard),
            None => Relief::None,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.0.fetch_sub(self.charged, Ordering::Relaxed);
        self.weigh(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(limit: usize, count: usize, kind: Kind) -> (Arc<Budget>, Vec<Share>) {
        let budgets = Budgets::new(&Limits::all(0).with(kind, limit), count);
        let shares = (0..count).map(|shard| budgets.share(kind, shard)).collect();
        (budgets[kind].clone(), shares)
    }

    #[test]
    fn the_node_counts_all_shards_and_little_too_much() {
        let (budget, mut shares) = shares(1 << 20, 4, Kind::Unread);
        for round in 0..100 {
            for (nth, share) in shares.iter_mut().enumerate() {
                share.set((round * 7919 + nth * 104_729) % 200_000);
            }
            let exact: usize = shares.iter().map(Share::used).sum();
            let most = exact + (1 << 20) / 20;
            assert!((exact..=most).contains(&budget.used()), "{exact} {}", budget.used());
        }
        shares[0].set(0);
        shares[0].change(0, 100);
        shares[0].change(100, 70);
        assert_eq!(shares[0].used(), 70);
        drop(shares);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_shard_with_the_largest_item_gives_it_up() {
        let (budget, mut shares) = shares(1000, 3, Kind::Outboxes);
        shares[0].set(900);
        shares[0].weigh(10);
        shares[1].set(100);
        shares[1].weigh(100);
        assert_eq!(shares[0].relief(), Relief::None);
        shares[2].set(1);
        shares[2].weigh(1);
        assert!(budget.excess() > 0);
        assert_eq!(shares[0].relief(), Relief::There(1));
        assert_eq!(shares[1].relief(), Relief::Here);
        shares[1].weigh(0);
        assert_eq!((shares[0].relief(), shares[2].relief()), (Relief::Here, Relief::There(0)));
        shares.iter_mut().for_each(|share| share.weigh(0));
        assert_eq!(shares[0].relief(), Relief::None, "nobody has anything to give up");
    }

    #[test]
    fn the_shard_that_keeps_most_history_gives_some_up() {
        let (_, mut shares) = shares(1000, 2, Kind::History);
        shares[0].set(400);
        shares[1].set(700);
        assert_eq!((shares[0].relief(), shares[1].relief()), (Relief::There(1), Relief::Here));
        shares[1].set(300);
        assert_eq!(shares[0].relief(), Relief::None);
    }

    #[test]
    fn a_charge_holds_until_it_is_dropped() {
        let (budget, _) = shares(100, 1, Kind::Filters);
        let charge = budget.charge(60);
        assert!(charge.is_some() && budget.charge(41).is_none());
        assert_eq!(budget.used(), 60);
        let rest = budget.charge(40);
        assert!(rest.is_some());
        drop((charge, rest));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn limits_are_summed() {
        let budgets = Budgets::new(&Limits::all(10).with(Kind::Keys, 15), 1);
        assert_eq!(budgets.limit(), 10 * Kind::ALL.len() + 5);
    }

    #[test]
    fn an_exceeded_budget_is_noted_until_it_holds_again() {
        let budgets = Budgets::new(&Limits::all(1000), 2);
        let (mut one, mut other) = (budgets.share(Kind::Unread, 0), budgets.share(Kind::Unread, 1));
        one.set(900);
        one.weigh(900);
        assert!(!budgets.may_be_exceeded());
        other.set(101);
        assert!(budgets.may_be_exceeded());
        assert_eq!((one.relief(), other.relief()), (Relief::Here, Relief::There(0)));
        one.set(0);
        assert!(budgets.may_be_exceeded(), "nobody has looked yet");
        assert_eq!(other.relief(), Relief::None);
        assert!(!budgets.may_be_exceeded());
    }
}
