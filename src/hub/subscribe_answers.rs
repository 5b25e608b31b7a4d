//! The answer of a channel's home to a subscribe: the subscriber joins the channel and gets its
//! reply.

use crate::base::metrics::{Action, FrameType};
use crate::base::work_budget::cost;
use crate::hub::connections::Connection;
use crate::hub::hook_events::CLIENT_UNSUBSCRIBED;
use crate::hub::shard_state::Hub;
use crate::model::message::Subscribed;
use crate::wire::framing::Framing;
use crate::wire::protocol::reply::{Push, Reply};
use crate::wire::protocol::{self, Disconnect, Error, Position};

impl Hub {
    /// Handles the answer of a home: the subscriber joins if it still waits for the answer.
    pub(super) fn subscribed(&mut self, mut answer: Subscribed) {
        let news = answer.news.take();
        let subscriber = answer.subscriber;
        self.answering = (FrameType::Subscribe, subscriber.began);
        self.orders.answered((subscriber.subscription, subscriber.serial));
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
            self.count_subscription(slot);
        }
        self.locals.subscribe_answered(hash, &channel);
        if still_wanted && refused {
            let error = answer.error.unwrap_or(Error::UNRECOVERABLE_POSITION);
            self.subscribe_refused(subscriber.slot, subscriber.command, error);
        } else if still_wanted {
            self.reply_subscribed(answer);
        } else if self.connection(subscriber.slot, subscriber.generation).is_some() {
            self.subscribe_abandoned(subscriber.slot, subscriber.command);
        }
        if let Some(news) = news {
            self.locals.append(&news);
        }
    }

    /// Answers a subscribe with an error. A connect that waits for the subscription fails: the
    /// client connects again.
    fn subscribe_refused(&mut self, slot: u32, command: u32, error: Error) {
        if self.connections.hold_mut(slot).is_some() {
            return self.disconnect(slot, Disconnect::INTERNAL);
        }
        if command > 0 {
            self.reply_error(slot, command, error);
        }
        self.resume_later(slot);
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

    /// Counts a subscription that begins.
    fn count_subscription(&self, slot: u32) {
        let by = &self.metrics.by;
        let named = usize::from(self.connections[slot].flags.named());
        by.actions[Action::AddSubscription as usize].add(1);
        by.subscriptions_accepted[named].add(1);
        by.subscriptions_inflight[named].add(1);
    }

    /// Counts the answer to a subscribe.
    fn count_subscribed(&mut self, answer: &Subscribed, bytes: usize) {
        let (slot, (frame_type, began)) = (answer.subscriber.slot, self.answering);
        if answer.subscriber.command > 0 {
            self.count_sent(slot, frame_type, bytes);
            self.command_answered(frame_type, began);
        } else {
            self.count_sent(slot, FrameType::PushSubscribe, bytes);
        }
        if answer.tried_recovery() {
            self.count_recovery(answer.recovered, answer.publications.len());
        }
    }

    fn reply_subscribed(&mut self, answer: Subscribed) {
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
        self.write_subscribed(slot, answer);
        // The next command of the connection may have waited for this answer.
        self.resume_later(slot);
    }

    /// Writes the reply, or the push of a subscription without a command. Recovered publications
    /// are large, so they are written where they are sent from, without a buffer in between.
    fn write_subscribed(&mut self, slot: u32, mut answer: Subscribed) {
        let Connection { wire, transport, .. } = self.connections[slot];
        let (room, command) = (self.room_for_answer(slot), answer.subscriber.command);
        let (mut out, start) = self.begin_output(slot);
        loop {
            let result = self.subscribe_result(&answer);
            Framing::of(transport).write_with(wire, &mut out, |out| {
                if command == 0 {
                    let push = Push::Subscribe { channel: &answer.channel, subscribed: &result };
                    protocol::write_push(wire, transport.is_unidirectional(), &push, out);
                } else {
                    protocol::write_reply(wire, command, &Reply::Subscribe(&result), out);
                }
            });
            let bytes = out.len() - start;
            self.budget.charge(bytes * cost::BYTES);
            if answer.publications.is_empty() || bytes <= room {
                self.end_output(slot, out, start);
                return self.count_subscribed(&answer, bytes);
            }
            out.truncate(start);
            answer.give_up_recovery();
            if answer.is_refused() {
                self.end_output(slot, out, start);
                self.leave(slot, answer.subscriber.subscription, CLIENT_UNSUBSCRIBED);
                return self.reply_error(slot, command, Error::UNRECOVERABLE_POSITION);
            }
        }
    }
}

/// The position after the answer, if the position of the subscriber is checked.
fn top(answer: &Subscribed) -> Option<Position> {
    answer.top.filter(|_| answer.stream_access.positioned)
}
