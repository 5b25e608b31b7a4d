//! What clients ask channels' homes, and what they are told.

use crate::hub::Hub;
use crate::hub::commands::{Failed, NoRoom};
use crate::message::{About, Answer, Asker, Excerpt, Message, Post, Question, Rank, Told};
use crate::namespaces::{Options, Permit};
use crate::protocol::command::HistoryRequest;
use crate::protocol::reply::{History, Reply};
use crate::protocol::{Disconnect, Epoch, Error, Position};

impl Hub {
    pub(super) fn presence(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        channel: &str,
    ) -> Result<(), Failed> {
        self.ask_presence(post, (slot, command), channel, About::Presence)
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
        let user = self.connections[slot as usize].user();
        if !self.settings.rules.insecure && !permit(options).allows(user, subscribed) {
            return Err(Error::PERMISSION_DENIED.into());
        }
        Ok(())
    }

    fn ask(
        &mut self,
        post: &mut impl Post,
        (slot, command): (u32, u32),
        channel: &str,
        about: About,
    ) -> Result<(), Failed> {
        let hash = self.names.hash(channel);
        let home = self.names.home(hash);
        let asker = Asker::Client { address: self.address(slot), command };
        if home != self.shard && !post.reserve(home, Rank::Request) {
            return Err(NoRoom.into());
        }
        let question = Question { channel: self.named(hash, channel), hash, asker, about };
        if home == self.shard {
            let told = self.homes.tell(&question, self.now);
            self.answered(Answer { asker, told });
        } else {
            post.send(home, Message::Question(Box::new(question)));
        }
        Ok(())
    }

    /// A home has answered a client's question; the client may be gone.
    pub(super) fn answered(&mut self, answer: Answer) {
        let (address, command) = match (answer.asker, &answer.told) {
            (Asker::Client { address, command }, _) => (address, command),
            (Asker::Watcher { channel, serial, .. }, Ok(Told::Position(top))) => {
                return self.checked((channel, serial), *top);
            }
            _ => unreachable!("nobody else is told here: {answer:?}"),
        };
        let found = self.connection(address.slot, address.generation);
        if !found.is_some_and(|connection| connection.takes_output()) {
            return;
        }
        let slot = address.slot;
        match answer.told {
            Err(error) => self.reply_error(slot, command, error),
            Ok(Told::Presence(members)) => {
                self.reply_if_it_fits(slot, command, &Reply::Presence(&members));
            }
            Ok(Told::Stats(stats)) => self.reply(slot, command, &Reply::PresenceStats(stats)),
            Ok(Told::Oblivion | Told::Position(_)) => unreachable!("no client may ask that"),
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
