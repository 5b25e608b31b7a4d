//! Durable channels: their publications are committed when the store has them on disk.
//!
//! Owns what is on its way to the store and back: writes, questions, and the requests that wait for
//! them. Never waits itself: a request for which nothing can be sent gets error 100. The
//! invariants: the writes of a home are committed in the order in which they were sent, and only
//! what is on disk is committed; after a failed write, it and every write that was sent behind it
//! fail; a request of a channel whose earlier request waits for the store waits behind it.

mod leftovers;
pub mod requests;
mod sent;
pub mod state;
pub mod stored;
mod streams;
mod store_tests;
mod tests;
mod upkeep;
mod waits;
mod writes;

use crate::base::work_budget::WorkBudget;
use crate::home::Home;
use crate::model::message::Post;

impl Home {
    /// Continues what waited for room or for its time.
    pub(super) fn continue_durable(&mut self, post: &mut impl Post, budget: &mut WorkBudget) {
        self.durable.goes_on = false;
        self.commit_written(post);
        self.send_refusals(post);
        self.resume_all(post, budget);
        self.keep_up(post, budget);
    }
}
