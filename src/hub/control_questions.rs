//! Questions to the control plane: tokens whose signature takes long to check, and requests to the
//! backend.
//!
//! The connection waits for the answer. The command that led to the question is run again when the
//! answer is there.

use std::sync::Arc;

use crate::base::memory::Kind;
use crate::hub::Hub;
use crate::hub::commands::Stop;
use crate::model::message::{Consult, Consulted, Matter, Message, Post, Purpose, Rank, Verdict};

/// Bytes that a token takes while it waits, beside its own.
const TOKEN_BESIDE: usize = 1024;

impl Hub {
    /// What was found out for a connection's command, or why the connection has to wait. The
    /// verdict stays until the command has come through. Where the budget has no room for the
    /// matter, the verdict is that too much waits already.
    pub(super) fn consult(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        matter: impl FnOnce(&Self) -> Option<Matter>,
    ) -> Result<Arc<Verdict>, Stop> {
        match self.connections.awaited_answers.get(&slot) {
            Some(Some(verdict)) => return Ok(verdict.clone()),
            Some(None) => {}
            None if !post.reserve(self.control, Rank::Ingress) => return Err(Stop::Room),
            None => {
                let Some(matter) = matter(self) else {
                    post.cancel(self.control, Rank::Ingress);
                    return Ok(Arc::new(Verdict::Busy));
                };
                let consult = Consult { address: self.address(slot), matter };
                post.send(self.control, Message::Consult(Box::new(consult)));
            }
        }
        self.connections.awaited_answers.insert(slot, None);
        Err(Stop::Wait)
    }

    /// A token that the control plane is to look at, if the budget has room for it.
    pub(super) fn token_matter(&self, token: &str, purpose: Purpose) -> Option<Matter> {
        let charge = self.budgets[Kind::Questions].charge(TOKEN_BESIDE + token.len())?;
        Some(Matter::Token { token: token.into(), purpose, charge })
    }

    /// Something has been found out; its connection goes on if it is still there.
    pub(super) fn consulted(&mut self, consulted: Consulted) {
        let Consulted { address, verdict } = consulted;
        if self.connection(address.slot, address.generation).is_none() {
            return;
        }
        if let Verdict::Renewal(channel, told) = verdict {
            self.renewed(address.slot, channel.as_deref(), told);
        } else if let Some(awaited) = self.connections.awaited_answers.get_mut(&address.slot) {
            *awaited = Some(Arc::new(verdict));
            self.go_on_later(address.slot);
        }
    }

    /// The command that a verdict was for has come through.
    pub(super) fn use_up_answer(&mut self, slot: u32) {
        if !self.connections.awaited_answers.is_empty() {
            self.connections.awaited_answers.remove(&slot);
        }
    }

    /// The connection does not wait any more.
    pub(super) fn forget_answer(&mut self, slot: u32) {
        self.connections.awaited_answers.remove(&slot);
    }
}
