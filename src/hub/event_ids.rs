//! Ids of server-sent events: the positions of an SSE connection in its channels, from which a
//! browser recovers.
//!
//! Publications are shared bytes, so they cannot contain the positions of one connection in its
//! other channels. Each event of a connection with several recoverable channels is left open, and
//! its own id closes it.

use crate::hub::connections::{NONE, Phase, ServerSubscription};
use crate::hub::output::keep_buffer;
use crate::hub::shard_state::Hub;
use crate::hub::subscriptions::RequestedOptions;
use crate::model::message::{StreamAccess, Subscribed};
use crate::wire::event_id::{CHANNELS_MAX, ChannelEventId, ConnectionEventId, EventIdMode};
use crate::wire::http::Transport;
use crate::wire::protocol::Position;

impl Hub {
    /// Prepares own event ids if several server-side subscriptions of an SSE client are
    /// recoverable.
    pub(super) fn begin_event_positions(&mut self, slot: u32, server_subs: &[ServerSubscription]) {
        if self.connections[slot].transport != Transport::UniSse {
            return;
        }
        let recoverable = server_subs.iter().filter(|server_sub| {
            let options = self.settings.namespaces.of(&server_sub.channel).ok();
            let terms = |options| {
                self.granted_options(
                    slot,
                    options,
                    &RequestedOptions::default(),
                    server_sub.grant.overrides,
                )
            };
            options.is_some_and(|options| terms(options).0.recoverable)
        });
        if recoverable.count() > 1 {
            self.connections.event_positions.insert(slot, ConnectionEventId::default());
        }
    }

    /// Which event ids a new subscription gets. Channels joined after the connect have none: the
    /// next connect does not request them, so their ids would only hide the positions of the other
    /// channels.
    pub(super) fn event_ids_for(&self, slot: u32, stream_access: StreamAccess) -> EventIdMode {
        let connection = &self.connections[slot];
        let connecting = connection.phase == Phase::Open && connection.hold != NONE;
        let speaks = connection.transport == Transport::UniSse && connecting;
        match self.connections.event_positions.contains_key(&slot) {
            _ if !speaks || !stream_access.recoverable => EventIdMode::None,
            false => EventIdMode::Channel,
            true if usize::from(connection.subscribed) < CHANNELS_MAX => EventIdMode::Connection,
            true => EventIdMode::None,
        }
    }

    /// Notes the position of an answered subscription of a connecting client.
    pub(super) fn note_event_position(&mut self, answer: &Subscribed) {
        if let Some(trail) = self.connections.event_positions.get_mut(&answer.subscriber.slot) {
            set_position(trail, answer);
        }
    }

    /// The id line of the first event.
    pub(super) fn first_event_id(&self, slot: u32, answers: &[Subscribed]) -> Vec<u8> {
        let mut line = Vec::new();
        if self.connections.event_positions.contains_key(&slot) {
            // Later publications are still to be sent.
            let mut trail = ConnectionEventId::default();
            answers.iter().for_each(|answer| set_position(&mut trail, answer));
            trail.write_line(&mut line);
        }
        let shared =
            answers.iter().find(|answer| answer.encoding.event_ids == EventIdMode::Channel);
        if let Some(answer) = shared
            && let Some(position) = answer.top
        {
            ChannelEventId { position, channel: &answer.channel }.write_line(&mut line);
        }
        line
    }

    /// Writes an event without content, whose id contains the positions after the held output.
    pub(super) fn write_event_position(&mut self, slot: u32) {
        let mut line = Vec::new();
        if let Some(trail) = self.connections.event_positions.get(&slot) {
            trail.write_line(&mut line);
            line.push(b'\n');
        }
        self.write(slot, |out| out.extend_from_slice(&line));
    }

    /// Closes an event with the own id of the connection. `place`: hash and position of its channel
    /// after the event.
    pub(super) fn write_event_id(&mut self, slot: u32, place: Option<(u64, Position)>) {
        let connection = &self.connections[slot];
        if !connection.takes_output() {
            return;
        }
        let held = connection.hold != NONE;
        let mut line = std::mem::take(&mut self.body);
        line.clear();
        if let Some(trail) = self.connections.event_positions.get_mut(&slot)
            && let Some((hash, position)) = place
        {
            trail.follow(hash, position);
            // While other answers are missing, an id would lack their positions.
            if !held {
                trail.write_line(&mut line);
            }
        }
        line.push(b'\n');
        self.write(slot, |out| out.extend_from_slice(&line));
        keep_buffer(&mut self.body, line);
    }
}

/// Sets the position of a channel with own event ids after the answer of its home.
fn set_position(trail: &mut ConnectionEventId, answer: &Subscribed) {
    if answer.encoding.event_ids == EventIdMode::Connection
        && let Some(position) = answer.top
    {
        trail.set(&answer.channel, answer.hash, position);
    }
}
