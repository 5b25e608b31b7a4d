//! Hook events of disconnects and unsubscribes, and the other messages for the control plane.
//!
//! Renewals and hook events wait for room in the inbox of the control plane. The hook events of a
//! connection keep their order.

use std::sync::Arc;

use crate::base::memory::MemoryKind;
use crate::base::planted_faults::{PlantedFault, planted};
use crate::hub::shard_state::Hub;
use crate::model::backend::{ProxyEvent, ProxyRequest, Upstream};
use crate::model::message::{HookEvent, Message, Post, Rank};

/// Why a subscription ended, for the backend: a code and a reason.
pub(super) type UnsubscribeReason<'a> = (u32, &'a str);
/// The client unsubscribed.
pub(super) const CLIENT_UNSUBSCRIBED: UnsubscribeReason<'_> = (0, "client unsubscribed");

impl Hub {
    /// Creates a request to the backend, if the budget has room for it.
    pub(super) fn backend_request(
        &self,
        slot: u32,
        upstream: Upstream,
        event: ProxyEvent,
        kind: MemoryKind,
    ) -> Option<ProxyRequest> {
        let connection = &self.connections[slot];
        let mut request = ProxyRequest {
            upstream,
            client: self.client_id(slot),
            user: connection.user().into(),
            transport: connection.transport,
            wire: connection.wire,
            context: self.connections.context.get(&slot).cloned(),
            event,
            charge: None,
        };
        request.charge = Some(self.budgets[kind].charge(request.size())?);
        Some(request)
    }

    pub(super) fn queue_hook(&mut self, slot: u32, upstream: Upstream, event: ProxyEvent) {
        self.metrics.hook_events.add(1);
        let request = (self.outgoing.len() < self.settings.proxies.waiting_max)
            .then(|| self.backend_request(slot, upstream, event, MemoryKind::Hooks))
            .flatten();
        let Some(request) = request else { return self.metrics.hook_events_dropped.add(1) };
        let event = HookEvent { address: self.address(slot), request };
        self.outgoing.push_back(Message::HookEvent(Box::new(event)));
        self.queued_since_send = true;
    }

    /// Queues the unsubscribe hook of a subscription.
    pub(super) fn queue_unsubscribe_hook(
        &mut self,
        slot: u32,
        upstream: Upstream,
        channel: &Arc<str>,
        (code, reason): UnsubscribeReason<'_>,
    ) {
        if self.connections[slot].flags.counted() {
            let (channel, reason) = (channel.clone(), reason.into());
            self.queue_hook(slot, upstream, ProxyEvent::Unsubscribe { channel, code, reason });
        }
    }

    /// Whether messages wait for the control plane.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends the waiting messages, while the inbox of the control plane has room.
    pub(super) fn send_to_control(&mut self, post: &mut impl Post) {
        while let Some(message) = self.outgoing.pop_front() {
            if !post.reserve(self.control, Rank::Ingress) {
                if !planted(PlantedFault::HookEventDropped) {
                    self.outgoing.push_front(message);
                }
                return;
            }
            post.send(self.control, message);
        }
    }
}
