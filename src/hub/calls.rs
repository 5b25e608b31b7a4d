//! Calls of the API that a shard answers itself: a plain publish, with no thread between the
//! backend's socket and the channel's home.
//!
//! Whatever is not plain and right goes to the control plane with its bytes, which knows every
//! other method and every refusal. A connection has one call at a time: the next request is read
//! when the answer before it has been sent.

use crate::base::faults::{Planted, planted};
use crate::hub::Hub;
use crate::hub::commands::NoRoom;
use crate::hub::connections::{NONE, Phase};
use crate::hub::inbound::Pause;
use crate::hub::messages::{Brought, Terms};
use crate::hub::subscriptions::checked;
use crate::model::ids::Address;
use crate::model::message::{Asker, Post, Published};
use crate::model::namespaces::Options;
use crate::model::publication::Event;
use crate::wire::http::{self, Call};
use crate::wire::protocol::Position;
use crate::wire::protocol::json::{self, PlainPublish};
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
            self.pause(slot, Pause::Ready);
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
    pub(super) fn call(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        (call, used): (&Call<'_>, usize),
        input: &[u8],
    ) -> Option<usize> {
        let Some(request) = self.plain_publish(call) else { return self.hand_over(slot, input) };
        // A place is waited for only where there is one: without history the answer says no more
        // than that the publication is on its way.
        let PlainPublish { channel, data, skip_history } = &request;
        let keeps = |options: &Options| options.retention.is_some();
        let waits = !skip_history && self.settings.namespaces.of(channel).is_ok_and(keeps);
        let asker = if waits { Asker::Caller(self.address(slot)) } else { Asker::Nobody };
        let named = (&**channel, self.names.hash(channel));
        let draft = (data.get().as_bytes(), Event::Data, None);
        let terms = Terms { skip_history: *skip_history, ..Terms::default() };
        match self.bring_home(post, named, draft, terms, asker) {
            Ok(Brought::Published(position)) => self.answer_call(slot, position),
            Ok(Brought::Sent) if waits => {
                let connection = &mut self.connections[slot];
                connection.phase = Phase::Asking;
                connection.flags.set_paused(true);
            }
            Ok(Brought::Sent) => self.answer_call(slot, None),
            Err(NoRoom) => {
                self.pause(slot, Pause::Blocked);
                return None;
            }
        }
        self.metrics.calls.add(1);
        Some(used)
    }

    /// What a call publishes, if nothing is to be said against it.
    fn plain_publish<'a>(&self, call: &Call<'a>) -> Option<PlainPublish<'a>> {
        if !self.settings.api.opens_for(call.key) {
            return None;
        }
        // An array of the fields would be read as well.
        if !call.body.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        let request: PlainPublish<'a> = reading::read_object(call.body).ok()?;
        let data = request.data.get().as_bytes();
        let fits = data.len() <= self.settings.outbox_bytes;
        let options = self.settings.namespaces.of(&request.channel).ok()?;
        (fits && checked(options.format, data, true).is_ok()).then_some(request)
    }

    fn answer_call(&mut self, slot: u32, position: Option<Position>) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        json::write_published(position, &mut body);
        let last = self.is_last(slot);
        let connection = &mut self.connections[slot];
        self.turn.preface(&mut connection.turn, slot, |out| http::write_answer(&body, last, out));
        self.body = body;
        self.keep_alive(slot, last, self.settings.idle_timeout);
    }

    /// A home has answered a call: the caller is answered, if its socket has not broken meanwhile.
    pub(super) fn published(&mut self, published: Published) {
        if let Some(publication) = &published.publication {
            self.locals.append(publication);
        }
        let Asker::Caller(Address { slot, generation, .. }) = published.asker else { return };
        let caller = self.connection(slot, generation);
        if caller.is_some_and(|caller| caller.phase == Phase::Asking) {
            self.answer_call(slot, published.position);
            self.go_on_later(slot);
        }
    }

    /// What a connection waited for has come: its input is looked at again.
    pub(super) fn go_on_later(&mut self, slot: u32) {
        let flags = &mut self.connections[slot].flags;
        if flags.paused() && !flags.queued() {
            flags.set_queued(true);
            self.ready.push_back(slot);
        }
    }
}
