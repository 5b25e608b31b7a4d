//! Lookups on the control plane: tokens whose signature is expensive to verify, and requests to the
//! backend.
//!
//! The connection waits for the outcome. Then the command that needs it is run again.

use std::sync::Arc;

use crate::base::memory::MemoryKind;
use crate::hub::command_failure::StopReason;
use crate::hub::shard_state::Hub;
use crate::model::message::{
    Lookup, LookupOutcome, LookupRequest, Message, Post, Rank, TokenPurpose,
};

/// Bytes of memory of a waiting token beside its text.
const TOKEN_OVERHEAD: usize = 1024;

impl Hub {
    /// The outcome of the lookup for a command, or why the connection must wait. The outcome is
    /// kept until the command is done. If the budget has no room for the lookup, the outcome is
    /// `Busy`.
    pub(super) fn request_lookup(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        lookup: impl FnOnce(&Self) -> Option<Lookup>,
    ) -> Result<Arc<LookupOutcome>, StopReason> {
        match self.connections.awaited_answers.get(&slot) {
            Some(Some(outcome)) => return Ok(outcome.clone()),
            Some(None) => {}
            None if !post.reserve(self.control, Rank::Ingress) => return Err(StopReason::Room),
            None => {
                let Some(lookup) = lookup(self) else {
                    post.cancel(self.control, Rank::Ingress);
                    return Ok(Arc::new(LookupOutcome::Busy));
                };
                let request = LookupRequest { address: self.address(slot), lookup };
                post.send(self.control, Message::LookupRequest(Box::new(request)));
                self.connections[slot].stamp = self.stamp();
            }
        }
        self.connections.awaited_answers.insert(slot, None);
        Err(StopReason::Wait)
    }

    /// Creates the lookup of a token, if the budget has room for it.
    pub(super) fn token_lookup(&self, token: &str, purpose: TokenPurpose) -> Option<Lookup> {
        let charge = self.budgets[MemoryKind::Questions].charge(TOKEN_OVERHEAD + token.len())?;
        Some(Lookup::Token { token: token.into(), purpose, charge })
    }

    /// Drops the outcome of a lookup after its command is done.
    pub(super) fn use_up_answer(&mut self, slot: u32) {
        if !self.connections.awaited_answers.is_empty() {
            self.connections.awaited_answers.remove(&slot);
        }
    }

    /// Drops the lookup of a connection that no longer waits.
    pub(super) fn forget_answer(&mut self, slot: u32) {
        self.connections.awaited_answers.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::settings::HubSettings;
    use crate::hub::tests::{ROOMY, hub, say_on, subscriber};
    use crate::model::backend::{ProxyAnswer, Upstream};
    use crate::model::message::LookupReply;
    use crate::model::message::tests::Recorder;
    use crate::model::namespaces::{Namespaces, Options};

    fn set_publish_proxy(hub: &mut Hub, publish_proxy: Option<Upstream>) {
        let without = Options { publish_proxy, ..hub.settings.namespaces.without.clone() };
        let namespaces = Arc::new(Namespaces { without, ..Namespaces::default() });
        hub.settings = Arc::new(HubSettings { namespaces, ..(*hub.settings).clone() });
    }

    #[test]
    fn a_command_waits_for_its_answer_also_when_it_needs_none_any_more() {
        let (mut hub, mut bus) = (hub(ROOMY, ROOMY, ROOMY), Recorder::default());
        let slot = subscriber(&mut hub);
        set_publish_proxy(&mut hub, Some(Upstream(0)));
        say_on(&mut bus, &mut hub, slot, r#"{"id":3,"publish":{"channel":"c","data":1}}"#);
        let asked = |message: &Message| matches!(message, Message::LookupRequest(_));
        assert!(bus.sent.drain(..).any(|(_, message)| asked(&message)));
        set_publish_proxy(&mut hub, None);
        hub.resume_later(slot);
        hub.resume_paused(&mut bus);
        assert_eq!(hub.resource_counts().awaited_answers, 1, "its answer is on the way");
        assert!(bus.sent.is_empty());
        let outcome = LookupOutcome::Command(Ok(ProxyAnswer::Publish(Box::default())));
        hub.lookup_answered(LookupReply { address: hub.address(slot), outcome });
        hub.resume_paused(&mut bus);
        assert_eq!(hub.resource_counts().awaited_answers, 0);
        assert!(matches!(bus.sent[..], [(0, Message::Publish(_))]));
    }
}
