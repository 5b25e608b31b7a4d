//! API calls that a shard answers itself: a plain publish, without another thread between the
//! socket of the backend and the home of the channel.
//!
//! Every other request goes to the control plane with its bytes; the control plane knows all
//! methods and all errors. A connection has one call at a time: the next request is read when the
//! previous answer was sent.

use crate::base::planted_faults::{PlantedFault, planted};
use crate::hub::connections::{NONE, Phase};
use crate::hub::paused_input::PauseReason;
use crate::hub::publish::{PublishOptions, publication_kind};
use crate::hub::settings::HubSettings;
use crate::hub::shard_state::Hub;
use crate::model::message::{Post, ReplyTo};
use crate::model::namespaces::Options;
use crate::model::publication::PublicationKind;
use crate::wire::http::PublishCall;
use crate::wire::lenient_json;
use crate::wire::protocol::json::PlainPublish;

impl Hub {
    /// Whether the previous answer must be sent before the next request is read. If so, the
    /// connection continues afterwards.
    pub(super) fn awaits_flush(&mut self, slot: u32) -> bool {
        let connection = &mut self.connections[slot];
        if planted(PlantedFault::CallServedBeforeFlush) {
            return false;
        }
        if connection.turn != NONE || self.turn.is_full() {
            self.pause(slot, PauseReason::Ready);
            true
        } else if connection.outbox != NONE {
            connection.flags.set_paused(true);
            true
        } else {
            false
        }
    }

    /// Handles a call that takes `used` bytes of the input; returns the bytes that are used up.
    pub(super) fn publish_call(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        (call, used): (&PublishCall<'_>, usize),
        input: &[u8],
    ) -> Option<usize> {
        let settings = self.settings.clone();
        let Some((request, options)) = plain_publish(&settings, call) else {
            return self.hand_over(slot, input);
        };
        // With history, the answer contains the position, so the call waits for the home. Without,
        // the answer confirms only that the publication was sent.
        let PlainPublish { channel, data, skip_history } = &request;
        let waits = !skip_history && options.retention.is_some();
        let reply_to = if waits { ReplyTo::ApiCaller(self.address(slot)) } else { ReplyTo::None };
        let named = (&**channel, self.names.hash(channel));
        let draft = (data.get().as_bytes(), PublicationKind::Data, None);
        let terms = PublishOptions { skip_history: *skip_history, ..PublishOptions::default() };
        if self.send_home(post, named, options, draft, terms, reply_to).is_err() {
            self.pause(slot, PauseReason::Blocked);
            return None;
        }
        self.connections[slot].stamp = self.stamp();
        if waits {
            self.connections[slot].phase = Phase::AwaitingAnswer;
            self.serve_own_mid_input(post);
            let connection = &mut self.connections[slot];
            // A home on this shard has usually answered by now.
            if connection.phase == Phase::AwaitingAnswer {
                connection.flags.set_paused(true);
            }
        } else {
            self.answer_call(slot, Ok(None));
        }
        self.metrics.calls.add(1);
        Some(used)
    }
}

/// The publish request of a call and the options of its channel, if the call is plain and valid.
fn plain_publish<'a, 's>(
    settings: &'s HubSettings,
    call: &PublishCall<'a>,
) -> Option<(PlainPublish<'a>, &'s Options)> {
    if settings.hands_over_calls || !settings.api.opens_for(call.key) {
        return None;
    }
    // The parser would also accept an array of the fields.
    if !call.body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let request: PlainPublish<'a> = lenient_json::read_object(call.body).ok()?;
    let data = request.data.get().as_bytes();
    let fits = data.len() <= settings.outbox_bytes;
    let options = settings.namespaces.of(&request.channel).ok()?;
    (fits && publication_kind(options.format, data, true).is_ok()).then_some((request, options))
}
