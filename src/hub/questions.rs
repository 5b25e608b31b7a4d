//! What clients ask channels' homes, and what they are told.

use crate::base::budget::cost;
use crate::hub::Hub;
use crate::hub::commands::{Failed, NoRoom, Stop};
use crate::model::message::{About, Answer, Asker, Excerpt, Message, Post, Question, Rank, Told};
use crate::model::namespaces::{Options, Permit};
use crate::model::publication::Publication;
use crate::wire::protocol::command::HistoryRequest;
use crate::wire::protocol::reply::{History, Reply};
use crate::wire::protocol::{Disconnect, Epoch, Error, Position};

/// Bytes for a connection in one turn past which no more questions of it are answered in the turn.
const ANSWERS_BYTES: usize = 64 * 1024;

impl Hub {
    pub(super) fn presence(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        channel: &str,
    ) -> Result<(), Failed> {
        let about = About::Presence(self.connections[slot].wire);
        self.ask_presence(post, (slot, command), channel, about)
    }

    pub(super) fn stats(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        channel: &str,
    ) -> Result<(), Failed> {
        self.ask_presence(post, (slot, command), channel, About::Stats)
    }

    fn ask_presence(
        &mut self,
        post: &mut impl Post,
        (slot, command): (u32, u32),
        channel: &str,
        about: About,
    ) -> Result<(), Failed> {
        let offers = |options: &Options| options.presence;
        self.permit(slot, channel, |options| options.see_presence, offers)?;
        self.ask(post, (slot, command), channel, about)
    }

    pub(super) fn history(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        request: &HistoryRequest<'_>,
    ) -> Result<(), Failed> {
        let channel = &*request.channel;
        let offers = |options: &Options| options.retention.is_some();
        self.permit(slot, channel, |options| options.read_history, offers)?;
        self.reads(slot, self.settings.namespaces.of(channel)?)?;
        let since = request
            .since
            .as_ref()
            .map(|since| Position { offset: since.offset, epoch: Epoch::parse(&since.epoch) });
        if request.reverse && since.is_some_and(|since| since.offset == 0) {
            return Err(Error::BAD_REQUEST.into());
        }
        let most = self.settings.history_limit;
        let limit = usize::try_from(request.limit).map_or(most, |limit| limit.min(most));
        let excerpt = Excerpt { limit, since, reverse: request.reverse };
        self.ask(post, (slot, command), channel, About::History(excerpt))
    }

    /// Whether a client may ask something about a channel, and the channel has it to offer.
    fn permit(
        &self,
        slot: u32,
        channel: &str,
        permit: impl FnOnce(&Options) -> Permit,
        offers: impl FnOnce(&Options) -> bool,
    ) -> Result<(), Failed> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let options = self.settings.namespaces.of(channel)?;
        if !offers(options) {
            return Err(Error::NOT_AVAILABLE.into());
        }
        let hash = self.names.hash(channel);
        let subscribed = self.find_subscription(slot, hash, channel)?.is_some();
        let user = self.connections[slot].user();
        if !self.settings.rules.insecure && !permit(options).allows(user, subscribed) {
            return Err(Error::PERMISSION_DENIED.into());
        }
        Ok(())
    }

    /// Asks a channel's home. A connection has one question at a time, and none while the turn
    /// holds much for it already.
    fn ask(
        &mut self,
        post: &mut impl Post,
        (slot, command): (u32, u32),
        channel: &str,
        about: About,
    ) -> Result<(), Failed> {
        let connection = &self.connections[slot];
        if connection.flags.asking() {
            return Err(Failed::Stop(Stop::Wait));
        }
        if self.turn.bytes_of(connection.turn, &self.locals) > ANSWERS_BYTES {
            return Err(Failed::Stop(Stop::Turn));
        }
        let hash = self.names.hash(channel);
        let home = self.names.home(hash);
        let asker = Asker::Client { address: self.address(slot), command };
        if home != self.shard && !post.reserve(home, Rank::Request) {
            return Err(NoRoom.into());
        }
        let question = Question { channel: self.named(hash, channel), hash, asker, about };
        if home != self.shard {
            self.connections[slot].flags.set_asking(true);
            post.send(home, Message::Question(Box::new(question)));
        } else if matches!(about, About::Presence(_)) {
            self.await_roll(question).map_err(|_| Error::INTERNAL)?;
            self.connections[slot].flags.set_asking(true);
        } else {
            let told = self.homes.tell(&question, self.now);
            if let Ok(Told::History(publications, _)) = &told {
                let bytes: usize = publications.iter().map(Publication::size).sum();
                let found = publications.len() * cost::PUBLICATION;
                let affords = self.budget.affords(found + bytes * cost::BYTES);
                self.budget.charge(found);
                if !affords {
                    return Err(Failed::Stop(Stop::Turn));
                }
            }
            self.answered(Answer { asker, told });
        }
        Ok(())
    }

    /// Whether an asker still waits for its answer here.
    pub(super) fn is_listening(&mut self, asker: Asker) -> bool {
        match asker {
            Asker::Client { address, .. } => self
                .connection(address.slot, address.generation)
                .is_some_and(|connection| connection.takes_output()),
            _ => true,
        }
    }

    /// A question about who is in a channel at home here waits for its answer.
    pub(super) fn await_roll(&mut self, question: Question) -> Result<(), Question> {
        self.unfinished = true;
        self.homes.await_roll(question)
    }

    /// Goes on with answers about who is in channels at home here.
    pub(super) fn answer_rolls(&mut self, post: &mut impl Post) {
        for _ in 0..self.homes.waiting_rolls() {
            if self.is_spent() {
                return;
            }
            let Some(asker) = self.homes.first_asker() else { return };
            let remote = asker.shard().filter(|shard| *shard != self.shard);
            if remote.is_none() && !self.is_listening(asker) {
                self.budget.charge(cost::MESSAGE);
                self.homes.drop_first();
            } else if remote.is_some_and(|shard| !post.reserve(shard, Rank::Delivery)) {
                self.homes.postpone_first();
            } else if !self.answer_roll(post, asker) {
                remote.into_iter().for_each(|shard| post.cancel(shard, Rank::Delivery));
                self.unfinished = true;
                return;
            }
        }
    }

    /// Answers the first question about who is in a channel, if the answer is complete and may be
    /// given in this turn. For another shard there is room.
    fn answer_roll(&mut self, post: &mut impl Post, asker: Asker) -> bool {
        let Some(told) = self.homes.first_roll(&mut self.budget) else { return false };
        if asker.shard() != Some(self.shard) {
            let to = asker.shard().unwrap_or(self.control);
            self.budget.charge(cost::MESSAGE);
            post.send(to, Message::Answer(Box::new(Answer { asker, told })));
        } else {
            if let Ok(Told::Presence(roll)) = &told
                && !self.budget.affords(roll.bytes() * cost::BYTES)
            {
                return false;
            }
            self.answered(Answer { asker, told });
        }
        self.homes.drop_first();
        true
    }

    /// A home has answered a client's question; the client may be gone.
    pub(super) fn answered(&mut self, answer: Answer) {
        let (address, command) = match (answer.asker, &answer.told) {
            (Asker::Client { address, command }, _) => (address, command),
            (Asker::Watcher { channel, serial, .. }, Ok(Told::Position(top))) => {
                return self.checked((channel, serial), *top);
            }
            // Nobody else is told here.
            _ => return,
        };
        let found = self.connection(address.slot, address.generation);
        if !found.is_some_and(|connection| connection.takes_output()) {
            return;
        }
        let slot = address.slot;
        self.connections[slot].flags.set_asking(false);
        self.go_on_later(slot);
        match answer.told {
            Err(error) => self.reply_error(slot, command, error),
            // Not even written: that would cost as much as an answer.
            Ok(told) if told.least() > self.room_for_answer(slot) => {
                self.reply_error(slot, command, Error::LIMIT_EXCEEDED);
            }
            Ok(Told::Presence(roll)) => {
                self.reply_if_it_fits(slot, command, &Reply::Presence(&roll));
            }
            Ok(Told::Stats(stats)) => self.reply(slot, command, &Reply::PresenceStats(stats)),
            // No client may ask for these.
            Ok(Told::Oblivion | Told::Position(_)) => {}
            Ok(Told::History(publications, position)) => {
                let encoding = self.encoding(slot);
                let objects = publications.iter().map(|one| one.object(encoding));
                match objects.collect() {
                    Some(publications) => {
                        let history = History { publications, position };
                        self.reply_if_it_fits(slot, command, &Reply::History(&history));
                    }
                    None => self.reply_error(slot, command, Error::BINARY_CHANNEL),
                }
            }
        }
    }
}
