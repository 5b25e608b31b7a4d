//! HTTP responses that a shard gives itself: health, refusals, and what follows a response.

use crate::hub::connections::Phase;
use crate::hub::output::keep_buffer;
use crate::hub::shard_state::Hub;
use crate::model::ids::Address;
use crate::model::message::{ChannelAnswer, Published, ReplyTo};
use crate::model::publication::{Publication, PublicationKind};
use crate::wire::http::{self, Cors, Health, Requester, Status};
use crate::wire::protocol::reply::Reply;
use crate::wire::protocol::{Error, Position, json};

/// Milliseconds that a refused connection has to send its request head and to take the answer.
pub(super) const REFUSAL_TIME: u64 = 1000;

impl Hub {
    /// Answers a request of an unknown origin with a status, and ends the connection.
    pub fn refuse(&mut self, slot: u32, status: Status) {
        self.refuse_to(slot, status, Requester::default());
    }

    /// Answers a request with a status, and ends the connection. A page of a permitted origin may
    /// read the response.
    pub(super) fn refuse_to(&mut self, slot: u32, status: Status, requester: Requester<'_>) {
        let Requester { origin, host, bodiless } = requester;
        let origin = origin.filter(|_| self.settings.rules.allows_origin(origin, host));
        if matches!(status, Status::Unavailable | Status::ShuttingDown) {
            self.metrics.refused.add(1);
        }
        let connection = &mut self.connections[slot];
        self.turn.write_head(&mut connection.turn, slot, |out| {
            out.extend_from_slice(&status.response(Cors { origin }, bodiless));
        });
        // Closing at once, with unread input, would reset the connection before the peer has the
        // response.
        connection.flags.set_lingering(true);
        self.begin_closing(slot);
        self.set_deadline(slot, REFUSAL_TIME);
    }

    /// Answers a health request.
    pub(super) fn answer_health(&mut self, slot: u32, health: Health) {
        let last = health.last || self.is_last(slot) || self.is_crowded();
        let checked = match health.ready {
            true => self.vitals.check_ready(self.now),
            false => self.vitals.check_alive(self.now),
        };
        let fault = checked.err().map(|fault| fault.to_string());
        let connection = &mut self.connections[slot];
        self.turn.write_head(&mut connection.turn, slot, |out| {
            http::write_health(fault.as_deref(), health.bodiless, last, out);
        });
        self.keep_alive(slot, last, self.settings.anonymous_idle_timeout);
    }

    /// Whether the next response ends the connection whatever the peer requests: the node shuts
    /// down or has no room.
    pub(super) fn is_last(&self, slot: u32) -> bool {
        let flags = self.connections[slot].flags;
        self.draining || flags.shutting_down() || flags.refusing()
    }

    /// Whether too few slots are free to keep idle HTTP connections.
    pub(super) fn is_crowded(&self) -> bool {
        self.room() <= self.settings.slots / 16
    }

    /// Ends a request: the next one may arrive within `idle` milliseconds, unless the response was
    /// the `last` one.
    pub(super) fn keep_alive(&mut self, slot: u32, last: bool, idle: u64) {
        let connection = &mut self.connections[slot];
        connection.phase = Phase::KeptAlive;
        connection.flags.set_end_when_flushed(last);
        self.set_deadline(slot, if last { self.settings.close_timeout } else { idle });
    }

    pub(super) fn answer_call(&mut self, slot: u32, outcome: Result<Option<Position>, Error>) {
        let failed = outcome.err().map(|error| error.code);
        self.count_call(slot, failed);
        let by_status = self.settings.errors_by_status;
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        match outcome {
            Ok(position) => json::write_published(position, &mut body),
            Err(Error { code, message, .. }) => {
                let error = format!("{{\"code\":{code},\"message\":\"{message}\"}}");
                let refused = if by_status { error } else { format!("{{\"error\":{error}}}") };
                body.extend_from_slice(refused.as_bytes());
            }
        }
        let last = self.is_last(slot);
        let status = failed.filter(|_| by_status);
        let connection = &mut self.connections[slot];
        self.turn.write_head(&mut connection.turn, slot, |out| {
            http::write_answer(status, &body, last, out);
        });
        keep_buffer(&mut self.body, body);
        self.keep_alive(slot, last, self.settings.idle_timeout);
    }

    /// Handles the answer of a home to a poll.
    pub(super) fn poll_answered(&mut self, caller: Address, result: Result<ChannelAnswer, Error>) {
        let Address { slot, generation, .. } = caller;
        let poller = self.connection(slot, generation);
        if poller.is_none_or(|poller| poller.phase != Phase::AwaitingAnswer) {
            return;
        }
        let heads = &mut self.connections.pending_heads;
        let origin = if heads.is_empty() { None } else { heads.remove(&slot).flatten() };
        let Ok(ChannelAnswer::Latest(latest, cell)) = result else {
            return self.refuse_to(slot, Status::Unreadable, Requester::default());
        };
        if let Some((latest, cell)) = latest.as_ref().zip(cell) {
            self.polled.keep(latest.hash(), latest.channel(), cell);
        }
        let last = self.connections[slot].flags.last_request();
        self.answer_poll(slot, latest.as_ref(), Cors { origin: origin.as_deref() }, last);
        self.resume_later(slot);
    }

    /// Answers a poll with the latest publication of a channel, if it has one.
    pub(super) fn answer_poll(
        &mut self,
        slot: u32,
        latest: Option<&Publication>,
        cors: Cors<'_>,
        last: bool,
    ) {
        let last = last || self.is_last(slot) || self.is_crowded();
        let connection = &mut self.connections[slot];
        self.turn.write_head(&mut connection.turn, slot, |out| match latest {
            Some(latest) => {
                let binary = latest.kind() == PublicationKind::Binary;
                http::write_latest(latest.data(), binary, cors, last, out);
            }
            None => http::write_no_content(cors, None, last, out),
        });
        self.keep_alive(slot, last, self.settings.anonymous_idle_timeout);
    }

    /// Handles the answer to a publish: the caller gets its response if its socket is still open.
    pub(super) fn publish_answered(&mut self, published: Published) {
        if let Some(publication) = &published.publication {
            self.locals.append(publication);
        }
        let (slot, generation) = match published.reply_to {
            ReplyTo::ApiCaller(Address { slot, generation, .. }) => (slot, generation),
            ReplyTo::Client { address, command, asked } => {
                self.answering = asked;
                return self.client_publish_answered(address, command, published.outcome);
            }
            _ => return,
        };
        let caller = self.connection(slot, generation);
        if caller.is_some_and(|caller| caller.phase == Phase::AwaitingAnswer) {
            self.answer_call(slot, published.outcome);
            self.resume_later(slot);
        }
    }

    /// Handles the answer to the publish command of a client, which may be gone.
    fn client_publish_answered(
        &mut self,
        address: Address,
        command: u32,
        outcome: Result<Option<Position>, Error>,
    ) {
        let client = self.connection(address.slot, address.generation);
        if client.is_some_and(|client| client.takes_output()) {
            match outcome {
                Ok(_) => self.reply(address.slot, command, &Reply::Publish),
                Err(error) => self.reply_error(address.slot, command, error),
            }
        }
    }
}
