//! The answer of a channel's home to a subscribe: the subscriber joins the channel and gets its
//! reply.

use crate::base::work_budget::cost;
use crate::hub::connections::Connection;
use crate::hub::hook_events::CLIENT_UNSUBSCRIBED;
use crate::hub::output::keep_buffer;
use crate::hub::shard_state::Hub;
use crate::model::message::Subscribed;
use crate::wire::protocol::reply::{Push, Reply};
use crate::wire::protocol::{self, Error, Position};

impl Hub {
    /// Handles the answer of a home: the subscriber joins if it still waits for the answer.
    pub(super) fn subscribed(&mut self, mut answer: Subscribed) {
        let news = answer.news.take();
        let subscriber = answer.subscriber;
        let (hash, channel) = (answer.hash, answer.channel.clone());
        let still_wanted = self
            .connections
            .get(subscriber.slot)
            .is_some_and(|found| found.generation == subscriber.generation)
            && self.locals.is_awaiting(subscriber.subscription, subscriber.serial);
        let refused = answer.is_refused();
        if still_wanted && refused {
            self.leave(subscriber.slot, subscriber.subscription, CLIENT_UNSUBSCRIBED);
        } else if still_wanted {
            let Subscribed { encoding, filter, .. } = &answer;
            let (key, slot) = (subscriber.subscription, subscriber.slot);
            if let Some(top) = top(&answer)
                && self.settings.position_check_delay > 0
            {
                let times = (self.now, self.settings.position_check_delay);
                self.locals.check_position(key, top, times);
            }
            self.locals.join(key, slot, *encoding, filter.as_ref());
        }
        self.locals.subscribe_answered(hash, &channel);
        if still_wanted && refused {
            self.reply_error(subscriber.slot, subscriber.command, Error::UNRECOVERABLE_POSITION);
            self.resume_later(subscriber.slot);
        } else if still_wanted {
            self.reply_subscribed(answer);
        } else if self.connection(subscriber.slot, subscriber.generation).is_some() {
            self.subscribe_abandoned(subscriber.slot, subscriber.command);
        }
        if let Some(news) = news {
            self.locals.append(&news);
        }
    }

    /// Handles the answer to a subscription that the server has ended: its command or connect
    /// continues.
    fn subscribe_abandoned(&mut self, slot: u32, command: u32) {
        if let Some(hold) = self.connections.hold_mut(slot) {
            hold.pending -= 1;
            if hold.to_request.is_empty() {
                self.finish_hold(slot);
            }
        } else if self.connections[slot].takes_output() {
            if command > 0 {
                self.reply_error(slot, command, Error::PERMISSION_DENIED);
            }
            self.resume_later(slot);
        }
    }

    fn reply_subscribed(&mut self, mut answer: Subscribed) {
        let slot = answer.subscriber.slot;
        self.note_event_position(&answer);
        if let Some(hold) = self.connections.hold_mut(slot) {
            hold.pending -= 1;
            hold.answers.push(answer);
            if hold.to_request.is_empty() {
                self.finish_hold(slot);
            }
            return;
        }
        let Connection { wire, transport, .. } = self.connections[slot];
        let mut body = std::mem::take(&mut self.body);
        loop {
            body.clear();
            let command = answer.subscriber.command;
            let result = self.subscribe_result(&answer);
            if command == 0 {
                let push = Push::Subscribe { channel: &answer.channel, subscribed: &result };
                protocol::write_push(wire, transport.is_unidirectional(), &push, &mut body);
            } else {
                protocol::write_reply(wire, command, &Reply::Subscribe(&result), &mut body);
            }
            if answer.publications.is_empty() || body.len() <= self.room_for_answer(slot) {
                break;
            }
            self.budget.charge(body.len() * cost::BYTES);
            answer.give_up_recovery();
            if answer.is_refused() {
                keep_buffer(&mut self.body, body);
                self.leave(slot, answer.subscriber.subscription, CLIENT_UNSUBSCRIBED);
                self.reply_error(slot, answer.subscriber.command, Error::UNRECOVERABLE_POSITION);
                return self.resume_later(slot);
            }
        }
        self.write_body(slot, &body);
        keep_buffer(&mut self.body, body);
        // The next command of the connection may have waited for this answer.
        self.resume_later(slot);
    }
}

/// The position after the answer, if the position of the subscriber is checked.
fn top(answer: &Subscribed) -> Option<Position> {
    answer.top.filter(|_| answer.stream_access.positioned)
}
