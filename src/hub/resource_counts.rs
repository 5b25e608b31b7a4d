//! What a shard holds: the numbers for tests and for the metrics.

use crate::hub::Hub;

/// What a hub still holds; all 0 once every client is gone and every message has been handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceCounts {
    /// Slots taken.
    pub connections: usize,
    /// Subscriptions, pending ones included.
    pub subscriptions: usize,
    /// Channels known locally.
    pub channels: usize,
    /// Channels at home here.
    pub homes: usize,
    /// Connections with unread input.
    pub inbound: usize,
    /// Bytes that their input takes.
    pub inbound_bytes: usize,
    /// Connections with unsent output.
    pub outboxes: usize,
    /// Bytes of their outboxes.
    pub outbox_bytes: usize,
    /// Clients whose channels are being joined.
    pub holds: usize,
    /// Subscriptions with something of their own.
    pub grants: usize,
    /// Homes to be told of somebody's leaving.
    pub leaves: usize,
    /// Connections with a user.
    pub users: usize,
    /// Users at home here, and connections that their homes are to be told of.
    pub counted_users: usize,
    /// Connections that wait for something to be found out.
    pub awaited_answers: usize,
    /// Connections of which something is kept for the backend's eyes.
    pub context: usize,
    /// What is to be told to the backend.
    pub outgoing: usize,
    /// Pings put off.
    pub postponed_pings: usize,
    /// Event streams with several channels.
    pub event_streams: usize,
    /// Channels whose subscribers' position is checked.
    pub position_checks: usize,
    /// Bytes waiting for a lap or in one.
    pub backlog: usize,
}

impl Hub {
    /// What is still held.
    pub fn resource_counts(&self) -> ResourceCounts {
        ResourceCounts {
            connections: self.connections.len(),
            subscriptions: self.locals.subscriptions(),
            channels: self.locals.len(),
            homes: self.home.len(),
            inbound: self.connections.unread.len(),
            inbound_bytes: self.connections.unread.share().used(),
            outboxes: self.connections.outboxes.len(),
            outbox_bytes: self.connections.outboxes.share().used(),
            holds: self.connections.holds.len(),
            grants: self.connections.grants.len(),
            leaves: self.leaves.len(),
            users: self.connections.with_user(),
            counted_users: self.home.users() + self.departures.len(),
            awaited_answers: self.connections.awaited_answers.len(),
            postponed_pings: self.connections.postponed_pings.len(),
            event_streams: self.connections.event_positions.len()
                + self.connections.last_events.len(),
            position_checks: self.locals.position_checks.len(),
            context: self.connections.context.len(),
            outgoing: self.outgoing.len(),
            backlog: self.locals.backlog(),
        }
    }

    /// Brings the gauges of the metrics up to date.
    pub fn measure(&mut self) {
        self.backlog.set(self.locals.backlog());
        let metrics = &self.metrics;
        metrics.users.set(self.connections.different_users());
        metrics.subscriptions.set(self.locals.subscriptions() as u64);
        self.home.measure();
        metrics.outboxes.set(self.connections.outboxes.len() as u64);
        metrics.outbox_bytes.set(self.connections.outboxes.share().used() as u64);
        metrics.unread.set(self.connections.unread.len() as u64);
        metrics.unread_bytes.set(self.connections.unread.share().used() as u64);
        metrics.backlog_bytes.set(self.locals.backlog() as u64);
        metrics.replaced.set(self.locals.replaced_publications());
    }
}
