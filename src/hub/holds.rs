//! Holds: connects whose reply waits for the homes of the server-side subscriptions.

use crate::hub::connections::{Hold, NONE, ServerSubscription};
use crate::hub::paused_input::PauseReason;
use crate::hub::shard_state::Hub;
use crate::model::message::Post;
use crate::wire::event_id::LastEventId;

/// An accepted connect that is not answered yet.
pub(super) struct AcceptedConnect {
    /// Server-side subscriptions to request.
    pub(super) server_subs: Vec<ServerSubscription>,
    /// Data of the backend for the client.
    pub(super) data: Option<Box<[u8]>>,
    /// The last event id of the client if it is invalid; otherwise empty.
    pub(super) unknown_event_id: Box<str>,
}

impl AcceptedConnect {
    /// Sets the positions from the last event id, for channels that are subscribed anyway.
    pub(super) fn recover_from(&mut self, last_event: Result<LastEventId, Box<str>>) {
        match last_event {
            Ok(last) => {
                for server_sub in &mut self.server_subs {
                    server_sub.since = last.place(&server_sub.channel).or(server_sub.since);
                }
            }
            Err(text) => self.unknown_event_id = text,
        }
    }
}

impl Hub {
    /// Creates the hold of an accepted connect and requests its subscriptions.
    pub(super) fn hold(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        newcomer: AcceptedConnect,
    ) {
        let AcceptedConnect { server_subs: to_request, data, unknown_event_id } = newcomer;
        self.begin_event_positions(slot, &to_request);
        let pending = to_request.len();
        let admission = self.initial_admission(slot);
        let hold = Hold {
            slot,
            command,
            began: self.answering.1,
            admission,
            to_request,
            pending,
            data,
            unknown_event_id,
            ..Hold::default()
        };
        self.connections.keep_hold(slot, hold);
        self.ask_homes(post, slot);
    }

    /// Requests the subscriptions of a hold, while inboxes have room.
    pub(super) fn ask_homes(&mut self, post: &mut impl Post, slot: u32) {
        if !self.is_admitted(post, slot) {
            return;
        }
        let at = self.connections[slot].hold as usize;
        while let Some(server_sub) =
            self.connections.holds.get_mut(at).and_then(|hold| hold.to_request.pop())
        {
            if let Err(server_sub) = self.join_unasked(post, slot, server_sub) {
                if let Some(hold) = self.connections.holds.get_mut(at) {
                    hold.to_request.push(server_sub);
                }
                return self.pause(slot, PauseReason::Blocked);
            }
            if self.connections[slot].hold == NONE {
                return;
            }
        }
        self.finish_hold(slot);
    }
}
