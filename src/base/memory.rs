//! Memory budgets of a node, which its shards share.
//!
//! Owns a count of bytes for each kind of memory that peers and backends can make grow. Never
//! allocates what it counts. A shard keeps an exact count of its own ([`ShardUsage`]) and charges
//! the node's count in steps, so that the hot path stays free of shared cache lines. The
//! invariant: the node's count is never below the sum of the shards' counts.
//!
//! When a budget is exceeded, the shard with the greatest weight frees memory. The weight of a
//! shard is the size of its largest item, or its total where items are small. So a shard without
//! large items closes no connection because of another shard.

use std::ops::Index;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Number of steps into which the shards together divide a budget. Every shard charges at most
/// three steps too much, so the node's count is at most a twentieth of the budget too high.
const STEPS: usize = 64;
/// Maximum size of a step, in bytes.
const STEP_MAX: usize = 64 << 10;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:literal,)*) => {
        /// The uses of memory that have a budget.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum MemoryKind {
            $($(#[doc = $doc])+ $kind,)*
        }

        impl MemoryKind {
            /// Every kind.
            pub const ALL: [MemoryKind; [$($name),*].len()] = [$(MemoryKind::$kind),*];

            /// The name of the budget in the metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(MemoryKind::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// Unsent output of slow consumers.
    Outboxes "outboxes",
    /// Unprocessed input: partial heads and messages, and commands that wait.
    Unread "unread",
    /// Streams and their publications.
    History "history",
    /// Publications that wait for a lap or are in one.
    Backlog "backlog",
    /// Tags filters.
    Filters "filters",
    /// Idempotency keys.
    Keys "keys",
    /// Disconnect and unsubscribe events that wait for the backend.
    Hooks "hooks",
    /// Tokens that wait for verification, and proxy requests that wait for an answer.
    Questions "questions",
    /// Publications on their way to the store, and requests that wait for it.
    Stored "stored",
}

/// Maximum number of bytes that a node uses of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits([usize; MemoryKind::ALL.len()]);

impl MemoryLimits {
    /// The same limit for each kind.
    pub fn all(bytes: usize) -> Self {
        MemoryLimits([bytes; MemoryKind::ALL.len()])
    }

    /// Replaces the limit of one kind.
    #[must_use]
    pub fn with(mut self, kind: MemoryKind, bytes: usize) -> Self {
        self.0[kind as usize] = bytes;
        self
    }

    /// The limit of one kind, in bytes.
    pub fn of(&self, kind: MemoryKind) -> usize {
        self.0[kind as usize]
    }
}

/// All budgets of a node.
#[derive(Clone, Debug)]
pub struct MemoryBudgets {
    all: Arc<[Arc<MemoryBudget>]>,
    exceeded: Arc<Exceeded>,
}

/// One bit for each budget that may be exceeded. Every turn of every shard reads this number. It
/// is written only when a budget becomes exceeded or stops being exceeded.
#[derive(Debug, Default)]
struct Exceeded(AtomicU32);

impl Exceeded {
    /// Sequentially consistent with the count: when one shard adds bytes while another clears the
    /// bit, at least one of them sees the other's change.
    fn set(&self, bit: u32) {
        if self.0.load(Ordering::SeqCst) & bit == 0 {
            self.0.fetch_or(bit, Ordering::SeqCst);
        }
    }
}

impl MemoryBudgets {
    /// Budgets that `shards` shards share.
    pub fn new(limits: &MemoryLimits, shards: usize) -> Self {
        let exceeded = Arc::new(Exceeded::default());
        let budget = |kind: MemoryKind| {
            let bit = 1 << kind as u32;
            Arc::new(MemoryBudget::new(limits.of(kind), shards, exceeded.clone(), bit))
        };
        MemoryBudgets { all: MemoryKind::ALL.into_iter().map(budget).collect(), exceeded }
    }

    /// Whether a budget may be exceeded. [`ShardUsage::shard_to_free`] checks it exactly.
    pub fn may_be_exceeded(&self) -> bool {
        self.exceeded.0.load(Ordering::Relaxed) != 0
    }

    /// Counts the bytes that one shard uses of a budget, from 0.
    pub fn shard_usage(&self, kind: MemoryKind, shard: usize) -> ShardUsage {
        let weighs_total = matches!(kind, MemoryKind::History | MemoryKind::Keys);
        ShardUsage {
            budget: self[kind].clone(),
            shard,
            weighs_total,
            used: 0,
            charged: 0,
            weight: 0,
        }
    }

    /// The sum of all limits, in bytes.
    pub fn limit(&self) -> usize {
        self.all.iter().fold(0, |sum, budget| sum.saturating_add(budget.limit))
    }
}

impl Index<MemoryKind> for MemoryBudgets {
    type Output = Arc<MemoryBudget>;

    fn index(&self, kind: MemoryKind) -> &Arc<MemoryBudget> {
        &self.all[kind as usize]
    }
}

/// A counter on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct PaddedCounter(AtomicUsize);

/// The bytes of one kind that a node may use, and those that it uses.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: usize,
    step: usize,
    used: PaddedCounter,
    /// The weight of each shard.
    weights: Box<[PaddedCounter]>,
    /// The bits of all budgets.
    exceeded: Arc<Exceeded>,
    /// The bit of this budget.
    exceeded_bit: u32,
}

impl MemoryBudget {
    fn new(limit: usize, shards: usize, exceeded: Arc<Exceeded>, exceeded_bit: u32) -> Self {
        let step = (limit / (STEPS * shards.max(1))).clamp(1, STEP_MAX);
        let weights = (0..shards).map(|_| PaddedCounter::default()).collect();
        let used = PaddedCounter::default();
        MemoryBudget { limit, step, used, weights, exceeded, exceeded_bit }
    }

    /// Maximum number of bytes that the node uses.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that the node uses, including bytes that shards have charged in advance.
    pub fn used(&self) -> usize {
        self.used.0.load(Ordering::Relaxed)
    }

    /// Bytes that the node uses beyond the limit.
    pub fn excess(&self) -> usize {
        self.used().saturating_sub(self.limit)
    }

    /// Adds to the count and returns the count before. The addition wraps, so it also subtracts.
    fn add(&self, bytes: usize) -> usize {
        let before = self.used.0.fetch_add(bytes, Ordering::SeqCst);
        if before.wrapping_add(bytes) > self.limit {
            self.exceeded.set(self.exceeded_bit);
        }
        before
    }

    /// Returns the excess in bytes. Clears the budget's bit if there is none.
    fn check_excess(&self) -> usize {
        let (exceeded, bit) = (&self.exceeded.0, self.exceeded_bit);
        if exceeded.load(Ordering::Relaxed) & bit == 0 {
            return 0;
        }
        if self.excess() == 0 {
            exceeded.fetch_and(!bit, Ordering::SeqCst);
            // Another shard may have added bytes and seen the bit before it was cleared.
            if self.used.0.load(Ordering::SeqCst) > self.limit {
                self.exceeded.set(bit);
            }
        }
        self.excess()
    }

    /// A budget that no shard frees: its user stops while it is exceeded.
    pub fn alone(limit: usize) -> Arc<Self> {
        Arc::new(MemoryBudget::new(limit, 0, Arc::default(), 0))
    }

    /// Counts bytes until the returned charge is dropped; `None`: the budget has no room.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let (before, charge) = self.count(bytes);
        (before.saturating_add(bytes) <= self.limit).then_some(charge)
    }

    /// Counts bytes until the returned charge is dropped, also past the limit.
    pub fn charge_anyway(self: &Arc<Self>, bytes: usize) -> Charge {
        self.count(bytes).1
    }

    /// The count before, and a charge of these bytes.
    fn count(self: &Arc<Self>, bytes: usize) -> (usize, Charge) {
        (self.add(bytes), Charge { budget: self.clone(), bytes })
    }

    /// The shard with the greatest weight; the first one of equal shards.
    fn heaviest(&self) -> Option<usize> {
        let weights = self.weights.iter().map(|weight| weight.0.load(Ordering::Relaxed));
        let heavy = weights.enumerate().filter(|(_, weight)| *weight > 0);
        let heaviest = heavy.reduce(|one, other| if other.1 > one.1 { other } else { one });
        heaviest.map(|(shard, _)| shard)
    }
}

/// Bytes that count in a budget until this is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The shard that must free memory of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardToFree {
    /// No shard: the budget is not exceeded, or no shard has anything to free.
    None,
    /// This shard.
    This,
    /// Another shard.
    Other(usize),
}

/// The bytes that one shard uses of a budget.
#[derive(Debug)]
pub struct ShardUsage {
    budget: Arc<MemoryBudget>,
    shard: usize,
    /// Whether the shard's total is its weight.
    weighs_total: bool,
    used: usize,
    charged: usize,
    weight: usize,
}

impl ShardUsage {
    /// Bytes that the shard uses.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Sets the number of bytes that the shard uses.
    pub fn set(&mut self, bytes: usize) {
        self.used = bytes;
        let MemoryBudget { step, limit, .. } = *self.budget;
        let used = self.budget.used();
        if bytes <= self.charged && self.charged - bytes <= 2 * step && used <= limit {
            return;
        }
        // Near the limit the shard charges exactly.
        let others = used.saturating_sub(self.charged);
        let rounded = bytes.div_ceil(step).saturating_mul(step);
        let charged = if others.saturating_add(rounded) <= limit { rounded } else { bytes };
        // Wraps if the shard charges less than before.
        let change = charged.wrapping_sub(self.charged);
        self.budget.add(change);
        self.charged = charged;
        if self.weighs_total {
            self.set_weight(charged);
        }
    }

    /// Changes the size of one item from `before` bytes to `after`.
    pub fn change(&mut self, before: usize, after: usize) {
        self.set((self.used + after).saturating_sub(before));
    }

    /// Sets the weight: the bytes that the shard can free at once.
    pub fn set_weight(&mut self, weight: usize) {
        if self.weight != weight {
            self.weight = weight;
            if let Some(shown) = self.budget.weights.get(self.shard) {
                shown.0.store(weight, Ordering::Relaxed);
            }
        }
    }

    /// Bytes that the node uses beyond the limit.
    pub fn excess(&self) -> usize {
        self.budget.excess()
    }

    /// The shard that must free memory, if the budget is exceeded.
    pub fn shard_to_free(&self) -> ShardToFree {
        if self.budget.check_excess() == 0 {
            return ShardToFree::None;
        }
        match self.budget.heaviest() {
            Some(shard) if shard == self.shard => ShardToFree::This,
            Some(shard) => ShardToFree::Other(shard),
            None => ShardToFree::None,
        }
    }
}

impl Drop for ShardUsage {
    fn drop(&mut self) {
        self.budget.used.0.fetch_sub(self.charged, Ordering::Relaxed);
        self.set_weight(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usages(
        limit: usize,
        count: usize,
        kind: MemoryKind,
    ) -> (Arc<MemoryBudget>, Vec<ShardUsage>) {
        let budgets = MemoryBudgets::new(&MemoryLimits::all(0).with(kind, limit), count);
        let usages = (0..count).map(|shard| budgets.shard_usage(kind, shard)).collect();
        (budgets[kind].clone(), usages)
    }

    #[test]
    fn the_count_of_the_node_exceeds_the_sum_of_its_shards_by_a_twentieth_at_most() {
        let (budget, mut usages) = usages(1 << 20, 4, MemoryKind::Unread);
        for round in 0..100 {
            for (nth, usage) in usages.iter_mut().enumerate() {
                usage.set((round * 7919 + nth * 104_729) % 200_000);
            }
            let exact: usize = usages.iter().map(ShardUsage::used).sum();
            let most = exact + (1 << 20) / 20;
            assert!((exact..=most).contains(&budget.used()), "{exact} {}", budget.used());
        }
        usages[0].set(0);
        usages[0].change(0, 100);
        usages[0].change(100, 70);
        assert_eq!(usages[0].used(), 70);
        drop(usages);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_shard_with_the_largest_item_frees_memory() {
        let (budget, mut usages) = usages(1000, 3, MemoryKind::Outboxes);
        usages[0].set(900);
        usages[0].set_weight(10);
        usages[1].set(100);
        usages[1].set_weight(100);
        assert_eq!(usages[0].shard_to_free(), ShardToFree::None);
        usages[2].set(1);
        usages[2].set_weight(1);
        assert!(budget.excess() > 0);
        assert_eq!(usages[0].shard_to_free(), ShardToFree::Other(1));
        assert_eq!(usages[1].shard_to_free(), ShardToFree::This);
        usages[1].set_weight(0);
        assert_eq!(
            (usages[0].shard_to_free(), usages[2].shard_to_free()),
            (ShardToFree::This, ShardToFree::Other(0))
        );
        usages.iter_mut().for_each(|usage| usage.set_weight(0));
        assert_eq!(usages[0].shard_to_free(), ShardToFree::None, "no shard has anything to free");
    }

    #[test]
    fn the_shard_with_the_most_history_frees_memory() {
        let (_, mut usages) = usages(1000, 2, MemoryKind::History);
        usages[0].set(400);
        usages[1].set(700);
        assert_eq!(
            (usages[0].shard_to_free(), usages[1].shard_to_free()),
            (ShardToFree::Other(1), ShardToFree::This)
        );
        usages[1].set(300);
        assert_eq!(usages[0].shard_to_free(), ShardToFree::None);
    }

    #[test]
    fn a_charge_counts_until_it_is_dropped() {
        let (budget, _) = usages(100, 1, MemoryKind::Filters);
        let charge = budget.charge(60);
        assert!(charge.is_some() && budget.charge(41).is_none());
        assert_eq!(budget.used(), 60);
        let rest = budget.charge(40);
        assert!(rest.is_some());
        drop((charge, rest));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_limit_of_all_budgets_is_their_sum() {
        let budgets = MemoryBudgets::new(&MemoryLimits::all(10).with(MemoryKind::Keys, 15), 1);
        assert_eq!(budgets.limit(), 10 * MemoryKind::ALL.len() + 5);
    }

    #[test]
    fn an_exceeded_budget_sets_its_bit_until_a_shard_finds_no_excess() {
        let budgets = MemoryBudgets::new(&MemoryLimits::all(1000), 2);
        let (mut one, mut other) = (
            budgets.shard_usage(MemoryKind::Unread, 0),
            budgets.shard_usage(MemoryKind::Unread, 1),
        );
        one.set(900);
        one.set_weight(900);
        assert!(!budgets.may_be_exceeded());
        other.set(101);
        assert!(budgets.may_be_exceeded());
        assert_eq!(
            (one.shard_to_free(), other.shard_to_free()),
            (ShardToFree::This, ShardToFree::Other(0))
        );
        one.set(0);
        assert!(budgets.may_be_exceeded(), "no shard has checked yet");
        assert_eq!(other.shard_to_free(), ShardToFree::None);
        assert!(!budgets.may_be_exceeded());
    }
}
