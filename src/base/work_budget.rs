//! How much work one turn of a shard may do.
//!
//! Owns a number of units; a unit is about a nanosecond of processor time on a slow machine. Never
//! reads a clock: whoever does work charges what the work costs by what it touches (members walked,
//! bytes copied), and stops when the budget of the stage is spent. The invariants: no stage of a
//! turn uses what is kept for the stages behind it but for its first piece of work, and each stage
//! does at least one small piece.

/// What the pieces of work cost, in units.
pub mod cost {
    /// One command of a client, beside its bytes.
    pub const COMMAND: usize = 1_500;
    /// Resuming the input of one connection, and the send that answers it.
    pub const CONNECTION: usize = 4_000;
    /// One message of the bus, beside what it carries.
    pub const MESSAGE: usize = 1_000;
    /// A subscriber that joins or leaves.
    pub const JOIN: usize = 2_000;
    /// One completion of the kernel.
    pub const COMPLETION: usize = 500;
    /// One deadline, which mostly is the send of a ping.
    pub const DEADLINE: usize = 8_000;
    /// Closing one connection: its last frame, its shutdown and the end of its subscriptions.
    pub const CLOSE: usize = 10_000;
    /// Looking at one entry of a table.
    pub const LOOK: usize = 100;
    /// Encoding one member of a presence answer.
    pub const MEMBER: usize = 500;
    /// A byte that is written and sent: it is copied about four times.
    pub const BYTES: usize = 2;
    /// One publication of an answer, beside its bytes.
    pub const PUBLICATION: usize = 150;
}

/// The stages of a turn, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Deliveries of other shards.
    Deliveries,
    /// Requests to channels at home here.
    Requests,
    /// What comes from outside.
    Ingress,
    /// Completions of the kernel.
    Completions,
    /// Deadlines, and walks over tables that go on each turn.
    Deadlines,
    /// Connections that were left with input.
    Input,
    /// Answers of homes that take many turns.
    Answers,
    /// What homes and the control plane are told.
    Rest,
    /// Output that sockets did not take before.
    Sends,
}

impl Stage {
    /// Sixteenths of the budget that are kept for the stages behind this one.
    fn kept(self) -> i64 {
        match self {
            Stage::Deliveries => 12,
            Stage::Requests => 10,
            Stage::Ingress => 9,
            Stage::Completions => 7,
            Stage::Deadlines => 6,
            Stage::Input => 4,
            Stage::Answers => 3,
            Stage::Rest => 2,
            Stage::Sends => 0,
        }
    }
}

/// The work that a turn may still do.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkBudget {
    total: i64,
    left: i64,
    /// What the stages behind this one are to have.
    kept: i64,
    /// The stage has done nothing yet.
    fresh: bool,
    /// A piece of work may be larger than the whole budget, from this stage on.
    large: Option<Stage>,
    /// Such a piece may be done in this stage.
    takes_large: bool,
}

impl WorkBudget {
    /// The share of a turn. One of the shards of a worker gets a `large` one in each pass: only
    /// there a piece of work may cost more than the share.
    pub fn new(units: usize, large: bool) -> Self {
        let total = units as i64;
        let first = large.then_some(Stage::Deliveries);
        WorkBudget { total, left: total, kept: 0, fresh: true, large: first, takes_large: large }
    }

    /// The same, where the stages take turns to be the first that may do a large piece of work:
    /// none takes it from the others for ever.
    pub fn in_turn(mut self, turn: u64) -> Self {
        let stages = [
            Stage::Deliveries,
            Stage::Requests,
            Stage::Ingress,
            Stage::Completions,
            Stage::Input,
            Stage::Answers,
        ];
        let first = stages.into_iter().nth((turn % stages.len() as u64) as usize);
        self.large = self.large.and(first);
        self
    }

    /// Units of work that the stage may still do.
    pub fn left(&self) -> usize {
        usize::try_from(self.left - self.kept).unwrap_or(0)
    }

    /// Units of work that were done.
    pub fn used(&self) -> usize {
        usize::try_from(self.total - self.left).unwrap_or(0)
    }

    /// A stage begins. What the stages before it left is for this one.
    pub fn begin(&mut self, stage: Stage) {
        self.kept = self.total * stage.kept() / 16;
        self.fresh = true;
        self.takes_large = self.large.is_some_and(|first| stage >= first);
    }

    /// Whether a piece of work of this cost may be done now. The first of a stage may go beyond the
    /// stage's share if it is small; one that is not may do so once in a turn with a large share.
    pub fn affords(&self, units: usize) -> bool {
        let units = units as i64;
        let fits = self.left - units >= self.kept;
        let goes_on = self.fresh || self.left > self.kept;
        fits || (self.fresh && units <= self.small()) || (self.takes_large && goes_on)
    }

    /// The largest piece of work that is a small one.
    fn small(&self) -> i64 {
        self.total / 4
    }

    /// How many pieces of work of this cost may be done now, at most so many.
    pub fn pieces(&self, units: usize, most: usize) -> usize {
        (1..=most).rev().find(|pieces| self.affords(pieces * units)).unwrap_or(0)
    }

    /// Whether the stage must leave the rest of its work to the next turn.
    pub fn is_spent(&self) -> bool {
        !self.affords(1)
    }

    /// Some work was done.
    pub fn charge(&mut self, units: usize) {
        self.left -= units as i64;
        self.fresh = false;
        if units as i64 > self.small() {
            (self.large, self.takes_large) = (None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_leaves_the_later_ones_their_share() {
        let mut budget = WorkBudget::new(1600, false);
        budget.begin(Stage::Deliveries);
        let mut done = 0;
        while !budget.is_spent() {
            budget.charge(100);
            done += 1;
        }
        assert_eq!(done, 4);
        budget.begin(Stage::Rest);
        assert!(budget.affords(1000) && !budget.is_spent());
    }

    #[test]
    fn every_stage_does_one_small_piece_of_work() {
        let mut budget = WorkBudget::new(1600, false);
        budget.begin(Stage::Rest);
        budget.charge(1600);
        for stage in [Stage::Deliveries, Stage::Completions, Stage::Sends] {
            budget.begin(stage);
            assert!(budget.affords(400) && !budget.affords(401) && !budget.is_spent());
            budget.charge(1);
            assert!(budget.is_spent());
        }
    }

    #[test]
    fn one_piece_of_work_beyond_a_large_share_is_done_in_a_turn() {
        let mut budget = WorkBudget::new(1600, true);
        budget.begin(Stage::Deliveries);
        assert!(budget.affords(1_000_000));
        budget.charge(1_000_000);
        assert!(budget.is_spent());
        budget.begin(Stage::Input);
        assert!(!budget.affords(401) && budget.affords(400));
        let mut budget = WorkBudget::new(1600, true).in_turn(4);
        for (stage, takes) in [(Stage::Deliveries, false), (Stage::Input, true)] {
            budget.begin(stage);
            budget.charge(1);
            assert_eq!(budget.affords(1_000_000), takes, "{stage:?}");
        }
    }
}
