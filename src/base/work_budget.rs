//! How much work one turn of a shard may do.
//!
//! Owns a number of units; a unit is about a nanosecond of processor time on a slow machine. Never
//! reads a clock: the code that does the work charges its cost, derived from what the work touches
//! (members walked, bytes copied), and stops when the budget of the stage is spent. The invariants:
//! only the first piece of work of a stage may use units that are reserved for later stages, and
//! each stage can do at least one small piece of work.

/// Costs of the pieces of work, in units.
pub mod cost {
    /// One command of a client, without its bytes.
    pub const COMMAND: usize = 1_500;
    /// Resuming the input of one connection, and the send that answers it.
    pub const CONNECTION: usize = 4_000;
    /// One message of the bus, without its content.
    pub const MESSAGE: usize = 1_000;
    /// One subscriber that joins or leaves.
    pub const JOIN: usize = 2_000;
    /// One io_uring completion.
    pub const COMPLETION: usize = 500;
    /// One deadline; most deadlines send a ping.
    pub const DEADLINE: usize = 8_000;
    /// Closing one connection: its last frame, its shutdown and the end of its subscriptions.
    pub const CLOSE: usize = 10_000;
    /// Looking at one entry of a table.
    pub const LOOK: usize = 100;
    /// One record of a TLS handshake. It costs more than its signature and key exchange, about
    /// 100,000 units, so that a turn has few of them and the next turn begins soon.
    pub const HANDSHAKE: usize = 250_000;
    /// Opening one TLS record, without its bytes.
    pub const RECORD: usize = 500;
    /// New keys of a TLS connection.
    pub const KEY_UPDATE: usize = 2_000;
    /// Encoding one member of a presence answer.
    pub const MEMBER: usize = 500;
    /// One byte that is written and sent: it is copied about four times.
    pub const BYTES: usize = 2;
    /// One publication of an answer, without its bytes.
    pub const PUBLICATION: usize = 150;
}

/// The stages of a turn, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Deliveries from other shards.
    Deliveries,
    /// Requests to channels whose home is this shard.
    Requests,
    /// Messages from outside: accepted sockets, commands of the control plane.
    Ingress,
    /// Completions of io_uring.
    Completions,
    /// Deadlines, and walks over tables that continue in each turn.
    Deadlines,
    /// Connections with input that an earlier turn left.
    Input,
    /// Records of TLS handshakes.
    Handshakes,
    /// Answers of homes that take several turns.
    Answers,
    /// Messages to homes and to the control plane.
    Rest,
    /// Output that a socket did not accept earlier.
    Sends,
}

impl Stage {
    /// Sixteenths of the budget that are reserved for the stages after this one.
    fn reserved(self) -> i64 {
        match self {
            Stage::Deliveries => 12,
            Stage::Requests => 10,
            Stage::Ingress => 9,
            Stage::Completions => 7,
            Stage::Deadlines => 6,
            // Handshakes get what established connections leave, and one record in each turn of
            // each shard, however many shards a worker has.
            Stage::Input | Stage::Handshakes => 4,
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
    /// The current stage.
    stage: Option<Stage>,
    /// Units that are reserved for the stages after the current one.
    reserved: i64,
    /// Whether the current stage has done no work yet.
    fresh: bool,
    /// First stage that may do one piece of work larger than the whole budget; `None`: no stage
    /// may.
    large: Option<Stage>,
    /// Whether the current stage may do such a piece of work.
    takes_large: bool,
}

impl WorkBudget {
    /// The budget of one shard for one turn. In each pass of a worker, one of its shards gets a
    /// `large` budget: only that shard may do a piece of work that costs more than the budget.
    pub fn new(units: usize, large: bool) -> Self {
        let total = units as i64;
        let first = large.then_some(Stage::Deliveries);
        WorkBudget {
            total,
            left: total,
            stage: None,
            reserved: 0,
            fresh: true,
            large: first,
            takes_large: large,
        }
    }

    /// The same budget, with the first stage that may do a large piece of work chosen by the number
    /// of the turn. Every stage becomes the first in some turn, so no stage can starve the others.
    pub fn in_turn(mut self, turn: u64) -> Self {
        let stages = [
            Stage::Deliveries,
            Stage::Requests,
            Stage::Ingress,
            Stage::Completions,
            Stage::Input,
            Stage::Handshakes,
            Stage::Answers,
        ];
        let first = stages.into_iter().nth((turn % stages.len() as u64) as usize);
        self.large = self.large.and(first);
        self
    }

    /// Units of work that the current stage may still do.
    pub fn left(&self) -> usize {
        usize::try_from(self.left - self.reserved).unwrap_or(0)
    }

    /// Units of work done in this turn.
    pub fn used(&self) -> usize {
        usize::try_from(self.total - self.left).unwrap_or(0)
    }

    /// Begins a stage. The stage may also use the units that earlier stages left.
    pub fn begin(&mut self, stage: Stage) {
        self.stage = Some(stage);
        self.reserved = self.total * stage.reserved() / 16;
        self.fresh = true;
        self.takes_large = self.large.is_some_and(|first| stage >= first);
    }

    /// Whether this is the current stage.
    pub fn is_in(&self, stage: Stage) -> bool {
        self.stage == Some(stage)
    }

    /// Whether the current stage may do a piece of work of this cost now. The first piece of a
    /// stage may exceed the stage's share if the piece is small. A piece that is not small may
    /// exceed it once per turn, if the turn has a large budget.
    pub fn affords(&self, units: usize) -> bool {
        let units = units as i64;
        let fits = self.left - units >= self.reserved;
        let has_share = self.fresh || self.left > self.reserved;
        fits || (self.fresh && units <= self.small_max()) || (self.takes_large && has_share)
    }

    /// Maximum cost of a small piece of work.
    fn small_max(&self) -> i64 {
        self.total / 4
    }

    /// Number of pieces of work of this cost that the current stage may do now, at most `most`.
    pub fn pieces(&self, units: usize, most: usize) -> usize {
        (1..=most).rev().find(|pieces| self.affords(pieces * units)).unwrap_or(0)
    }

    /// Whether the stage must leave the rest of its work to the next turn.
    pub fn is_spent(&self) -> bool {
        !self.affords(1)
    }

    /// Whether the current stage may do a piece of work of this cost, or has done nothing yet.
    pub fn affords_or_begins(&self, units: usize) -> bool {
        self.fresh || self.affords(units)
    }

    /// Charges the cost of work that was done.
    pub fn charge(&mut self, units: usize) {
        self.left -= units as i64;
        self.fresh = false;
        // The stage that may do the large piece of this turn may still come.
        if self.takes_large && units as i64 > self.small_max() {
            (self.large, self.takes_large) = (None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_leaves_later_stages_their_share() {
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
    fn every_stage_can_do_one_small_piece_of_work() {
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
    fn a_stage_that_begins_with_a_large_piece_takes_none_from_later_stages() {
        let mut budget = WorkBudget::new(1600, true).in_turn(6);
        budget.begin(Stage::Handshakes);
        assert!(!budget.affords(5000) && budget.affords_or_begins(5000));
        budget.charge(5000);
        assert!(!budget.affords_or_begins(1));
        budget.begin(Stage::Answers);
        assert!(budget.affords(400));
        let mut budget = WorkBudget::new(1600, true).in_turn(6);
        budget.begin(Stage::Handshakes);
        budget.charge(500);
        budget.begin(Stage::Answers);
        assert!(budget.affords(5000), "the large piece of this turn is left");
    }

    #[test]
    fn a_large_budget_allows_one_large_piece_of_work_per_turn() {
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
