//! Counts of what a shard holds, for tests and metrics.

use crate::hub::shard_state::Hub;

/// Resources that a hub holds. All are 0 once every client is gone and every message has been
/// handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceCounts {
    /// Slots in use.
    pub connections: usize,
    /// Subscriptions, pending ones included.
    pub subscriptions: usize,
    /// Channels with local subscribers.
    pub channels: usize,
    /// Channels whose home is this shard.
    pub homes: usize,
    /// Connections with unread input.
    pub inbound: usize,
    /// Bytes of memory of their input.
    pub inbound_bytes: usize,
    /// Connections with unsent output.
    pub outboxes: usize,
    /// Bytes of memory of the outboxes.
    pub outbox_bytes: usize,
    /// Connects that wait for the homes of their channels.
    pub holds: usize,
    /// Subscriptions with a grant.
    pub grants: usize,
    /// Leaves that homes have not got yet.
    pub leaves: usize,
    /// Connections with a user.
    pub users: usize,
    /// Users that are counted here, and departures that homes have not got yet.
    pub counted_users: usize,
    /// Connections that wait for a lookup.
    pub awaited_answers: usize,
    /// Connections with context for the backend.
    pub context: usize,
    /// Messages that wait for the control plane, and orders that it waits for.
    pub outgoing: usize,
    /// Connections whose ping was postponed for an expiry.
    pub postponed_pings: usize,
    /// SSE connections with several recoverable channels.
    pub event_streams: usize,
    /// Channels whose position is checked.
    pub position_checks: usize,
    /// Bytes of publications that wait for a lap or are in one.
    pub backlog: usize,
    /// Times at which a connection may run its next command.
    pub rate_waits: usize,
    /// Writes and channels that wait for the store, and answers that its failures owe.
    pub store_waits: usize,
    /// Bytes of memory of writes and requests that wait for the store.
    pub store_bytes: usize,
    /// Reasons to keep streams in memory.
    pub pins: usize,
}

impl Hub {
    /// Counts the resources that the hub holds.
    pub fn resource_counts(&self) -> ResourceCounts {
        ResourceCounts {
            connections: self.connections.len(),
            subscriptions: self.locals.subscriptions(),
            channels: self.locals.len(),
            homes: self.home.len(),
            inbound: self.connections.unread.len(),
            inbound_bytes: self.connections.unread.usage().used(),
            outboxes: self.connections.outboxes.len(),
            outbox_bytes: self.connections.outboxes.usage().used(),
            holds: self.connections.holds.len(),
            grants: self.connections.grants.len(),
            leaves: self.leaves.len(),
            users: self.connections.with_user(),
            counted_users: self.home.users() + self.departures.len(),
            awaited_answers: self.connections.awaited_answers.len(),
            postponed_pings: self.connections.postponed_pings.len(),
            event_streams: self.connections.event_positions.len()
                + self.connections.last_events.len()
                + self.connections.pending_heads.len(),
            position_checks: self.locals.position_checks.len(),
            context: self.connections.context.len(),
            outgoing: self.outgoing.len() + self.orders.len(),
            backlog: self.locals.backlog(),
            rate_waits: self.connections.command_rates.waits(),
            store_waits: self.home.store_waits(),
            store_bytes: self.home.store_bytes(),
            pins: self.home.pins(),
        }
    }

    /// Updates the gauges of the metrics.
    pub fn measure(&mut self) {
        self.backlog.set(self.locals.backlog());
        let metrics = &self.metrics;
        metrics.users.set(self.connections.different_users());
        metrics.subscriptions.set(self.locals.subscriptions() as u64);
        self.home.measure();
        metrics.outboxes.set(self.connections.outboxes.len() as u64);
        metrics.outbox_bytes.set(self.connections.outboxes.usage().used() as u64);
        metrics.unread.set(self.connections.unread.len() as u64);
        metrics.unread_bytes.set(self.connections.unread.usage().used() as u64);
        metrics.backlog_bytes.set(self.locals.backlog() as u64);
        metrics.filtered.set(self.locals.filtered_publications());
        metrics.replaced.set(self.locals.replaced_publications());
    }
}
