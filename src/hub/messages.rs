//! Messages of the bus: their cost and their dispatch, whether another endpoint or the shard itself
//! sent them.

use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::work_budget::cost;
use crate::hub::shard_state::Hub;
use crate::model::message::{ChannelAnswer, ChannelQuery, Message, Post, RANKS, Rank};
use crate::model::publication::Publication;

impl Hub {
    /// Whether the budget affords a message in this turn. If so, charges its cost, without the cost
    /// of the bytes it writes, which is charged when they are written.
    pub fn affords(&mut self, message: &Message) -> bool {
        let (own, written) = self.cost_of(message);
        self.affords_message(cost::MESSAGE + own, written)
    }

    fn affords_message(&mut self, charged: usize, written: usize) -> bool {
        let affords = self.budget.affords(charged + written);
        match affords {
            // The bytes that it writes belong to the same piece of work.
            true => self.budget.charge(charged),
            false => self.unfinished = true,
        }
        affords
    }

    /// Cost of a message beside its receipt, and cost of the bytes that it writes.
    fn cost_of(&mut self, message: &Message) -> (usize, usize) {
        let bytes = |all: &[Publication]| -> usize {
            all.len() * cost::PUBLICATION + Publication::total_size(all) * cost::BYTES
        };
        match message {
            Message::Publication(publication) => (publication.size(), 0),
            Message::Publish(request) => (request.data.len(), 0),
            Message::Subscribed(answer) => (cost::JOIN, bytes(&answer.publications)),
            Message::Subscribe(_) | Message::Leave(_) | Message::MemberUpdate(_) => (cost::JOIN, 0),
            Message::HomeAnswer(answer) if !self.is_listening(answer.reply_to) => (0, 0),
            Message::HomeAnswer(answer) => match &answer.result {
                Ok(ChannelAnswer::History(publications, _)) => (0, bytes(publications)),
                Ok(ChannelAnswer::Presence(roll)) => (0, roll.bytes() * cost::BYTES),
                _ => (0, 0),
            },
            Message::HomeQuery(question) => match question.query {
                ChannelQuery::History(excerpt) => (excerpt.limit.min(1000) * cost::PUBLICATION, 0),
                _ => (0, 0),
            },
            Message::Adopt(_) | Message::EmulationFrame(_) => (cost::CONNECTION, 0),
            _ => (0, 0),
        }
    }

    /// Cost of a message of this shard to itself. Its receipt is nearly free and its content was
    /// charged to its cause; only a query makes the home work.
    fn cost_of_own(&mut self, message: &Message) -> (usize, usize) {
        let (own, written) = self.cost_of(message);
        let looks = if matches!(message, Message::HomeQuery(_)) { own } else { 0 };
        (cost::LOOK + looks, written)
    }

    /// Handles a message, and the messages of this shard to itself that it causes. `Err` returns
    /// the message: an inbox for its results is full, so it waits, and so does everything after it
    /// in its inbox.
    pub fn handle(&mut self, post: &mut impl Post, message: Message) -> Result<(), Message> {
        let handled = self.handle_one(post, message);
        self.serve_own(post);
        handled
    }

    /// Handles messages of this shard to itself, while the budget and the inboxes of others allow.
    /// The rest is handled in a later turn.
    pub fn serve_own(&mut self, post: &mut impl Post) {
        self.serve_ranks(post, &Rank::SERVED);
    }

    /// Like [`Hub::serve_own`] in the middle of the input of a connection: messages of rank
    /// ingress, which carry input for other connections, wait.
    pub(super) fn serve_own_mid_input(&mut self, post: &mut impl Post) {
        self.serve_ranks(post, &[Rank::Delivery, Rank::Store, Rank::Request]);
    }

    fn serve_ranks(&mut self, post: &mut impl Post, ranks: &[Rank]) {
        let mut stalled = [false; RANKS];
        let mut served = false;
        // The cost of the first message is computed once: a long answer is expensive to measure.
        let waits = self.own_cost.is_some_and(|cost| !self.budget.affords(cost));
        self.unfinished |= waits;
        while !waits
            && let Some(message) = ranks.iter().find_map(|rank| {
                let open = *rank != Rank::Delivery || self.takes_deliveries();
                if stalled[*rank as usize] || !open { None } else { post.take_own(*rank) }
            })
        {
            self.own_cost = None;
            let (charged, written) = self.cost_of_own(&message);
            if !self.affords_message(charged, written) {
                self.own_cost = Some(charged + written);
                post.put_back(message);
                break;
            }
            let rank = message.rank() as usize;
            match self.handle_one(post, message) {
                Ok(()) => served = true,
                Err(message) => {
                    stalled[rank] = true;
                    if !planted(PlantedFault::OwnMessageLost) {
                        post.put_back(message);
                    }
                }
            }
        }
        if !self.takes_deliveries()
            && let Some(message) = post.take_own(Rank::Delivery)
        {
            // No other shard wakes this one when it can continue.
            self.awaits_backlog = true;
            post.put_back(message);
        }
        if served && post.was_full() {
            // Senders that found no room can try again.
            self.unfinished = true;
        }
    }

    fn handle_one(&mut self, post: &mut impl Post, message: Message) -> Result<(), Message> {
        match message {
            Message::Publication(publication) => self.locals.append(&publication),
            Message::Subscribed(answer) => self.subscribed(*answer),
            Message::HomeAnswer(answer) => self.home_answered(*answer),
            Message::Survey(survey) => self.begin_survey(*survey),
            Message::Watch(watch) => self.answer_watch(post, &watch),
            Message::Published(published) => self.publish_answered(*published),
            Message::Order(request) => self.orders.queue(request),
            Message::Reconfigure(tag) => self.reconfigure(tag),
            Message::Revoke(revocations) => self.set_revocations(revocations),
            Message::Publish(_)
            | Message::Subscribe(_)
            | Message::Leave(_)
            | Message::MemberUpdate(_)
            | Message::HomeQuery(_)
            | Message::Release(_)
            | Message::Admit(_)
            | Message::Depart(_)
            | Message::StoreWritten(_)
            | Message::StoreAnswer(_)
            | Message::StoreDue(_)
            | Message::SnapshotRequest(_) => {
                let handled = self.home.handle(message, post);
                // Answers that take many turns begin in this turn.
                self.unfinished |= self.home.is_unfinished();
                return handled;
            }
            Message::LookupReply(reply) => self.lookup_answered(*reply),
            Message::EmulationFrame(emulated) => self.take_emulation_commands(&emulated),
            Message::Admitted(admitted) => self.admission_answered(admitted),
            Message::Adopt(_)
            | Message::HandOver(_)
            | Message::LookupRequest(_)
            | Message::HookEvent(_)
            | Message::Drain(_)
            | Message::Stop
            | Message::SlotRequest(_)
            | Message::SlotOffer(_)
            | Message::SlotRelease(_)
            // The shard, the control plane or the store handles these.
            | Message::StoreWrite(_)
            | Message::StoreRead(_)
            | Message::Surveyed(_)
            | Message::Watched(_)
            | Message::SnapshotAnswer(_)
            | Message::Ordered(_) => {}
        }
        Ok(())
    }
}
