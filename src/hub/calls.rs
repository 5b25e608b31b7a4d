//! Calls of the API that a shard answers itself: a plain publish, with no thread between the
//! backend's socket and the channel's home.
//!
//! Whatever is not plain and right goes to the control plane with its bytes, which knows every
//! other method and every refusal. A connection has one call at a time: the next request is read
//! when the answer before it has been sent.

use crate::base::faults::{Planted, planted};
use crate::hub::connections::{NONE, Phase};
use crate::hub::output::keep_buffer;
use crate::hub::paused_input::PauseReason;
use crate::hub::publish::{PublishOptions, publication_kind};
use crate::hub::{Hub, HubSettings};
use crate::model::ids::Address;
use crate::model::message::{Post, Published, ReplyTo};
use crate::model::namespaces::Options;
use crate::model::publication::PublicationKind;
use crate::wire::http::{self, PublishCall};
use crate::wire::protocol::json::{self, PlainPublish};
use crate::wire::protocol::{Error, Position};
use crate::wire::reading;

impl Hub {
    /// Whether an answer is still to be sent before the next request may be read; if so, the
    /// connection goes on when it has been.
    pub(super) fn awaits_flush(&mut self, slot: u32) -> bool {
        let connection = &mut self.connections[slot];
        if planted(Planted::CallBeforeFlush) {
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

    /// Serves a call whose request takes so many bytes of the input; returns them if they are used
    /// up.
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
        // A place is waited for only where there is one: without history the answer says no more
        // than that the publication is on its way.
        let PlainPublish { channel, data, skip_history } = &request;
        let waits = !skip_history && options.retention.is_some();
        let reply_to = if waits { ReplyTo::Caller(self.address(slot)) } else { ReplyTo::Nobody };
        let named = (&**channel, self.names.hash(channel));
        let draft = (data.get().as_bytes(), PublicationKind::Data, None);
        let terms = PublishOptions { skip_history: *skip_history, ..PublishOptions::default() };
        if self.send_home(post, named, options, draft, terms, reply_to).is_err() {
            self.pause(slot, PauseReason::Blocked);
            return None;
        }
        if waits {
            self.connections[slot].phase = Phase::AwaitingAnswer;
            self.serve_own_mid_input(post);
            let connection = &mut self.connections[slot];
            // A home on this shard has mostly answered by now.
            if connection.phase == Phase::AwaitingAnswer {
                connection.flags.set_paused(true);
            }
        } else {
            self.answer_call(slot, Ok(None));
        }
        self.metrics.calls.add(1);
        Some(used)
    }

    fn answer_call(&mut self, slot: u32, outcome: Result<Option<Position>, Error>) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        match outcome {
            Ok(position) => json::write_published(position, &mut body),
            Err(Error { code, message, .. }) => {
                let refused =
                    format!("{{\"error\":{{\"code\":{code},\"message\":\"{message}\"}}}}");
                body.extend_from_slice(refused.as_bytes());
            }
        }
        let last = self.is_last(slot);
        let connection = &mut self.connections[slot];
        self.turn
            .write_head(&mut connection.turn, slot, |out| http::write_answer(&body, last, out));
        keep_buffer(&mut self.body, body);
        self.keep_alive(slot, last, self.settings.idle_timeout);
    }

    /// A home has answered a call: the caller is answered, if its socket has not broken meanwhile.
    pub(super) fn publish_answered(&mut self, published: Published) {
        if let Some(publication) = &published.publication {
            self.locals.append(publication);
        }
        let ReplyTo::Caller(Address { slot, generation, .. }) = published.reply_to else { return };
        let caller = self.connection(slot, generation);
        if caller.is_some_and(|caller| caller.phase == Phase::AwaitingAnswer) {
            self.answer_call(slot, published.outcome);
            self.resume_later(slot);
        }
    }
}

/// What a call publishes, and the options of the channel, if nothing is to be said against it.
fn plain_publish<'a, 's>(
    settings: &'s HubSettings,
    call: &PublishCall<'a>,
) -> Option<(PlainPublish<'a>, &'s Options)> {
    if !settings.api.opens_for(call.key) {
        return None;
    }
    // An array of the fields would be read as well.
    if !call.body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let request: PlainPublish<'a> = reading::read_object(call.body).ok()?;
    let data = request.data.get().as_bytes();
    let fits = data.len() <= settings.outbox_bytes;
    let options = settings.namespaces.of(&request.channel).ok()?;
    (fits && publication_kind(options.format, data, true).is_ok()).then_some((request, options))
}
