//! Queries of clients to the homes of channels, and the answers.

use crate::hub::command_failure::{CommandFailure, InboxFull, StopReason};
use crate::hub::settings::HubSettings;
use crate::hub::shard_state::Hub;
use crate::model::message::{
    ChannelAnswer, ChannelQuery, HistoryRange, HomeAnswer, HomeQuery, Message, Post, Rank, ReplyTo,
};
use crate::model::namespaces::{Options, Permit};
use crate::wire::protocol::command::HistoryRequest;
use crate::wire::protocol::reply::{HistoryResult, Reply};
use crate::wire::protocol::{Disconnect, Epoch, Error, Position};

/// Bytes of output of a connection per turn from which no more queries of it are answered in the
/// turn.
const ANSWERS_BYTES: usize = 64 * 1024;

impl Hub {
    pub(super) fn presence(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        channel: &str,
    ) -> Result<(), CommandFailure> {
        let query = ChannelQuery::Presence(self.connections[slot].wire);
        self.ask_presence(post, (slot, command), channel, query)
    }

    pub(super) fn stats(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        channel: &str,
    ) -> Result<(), CommandFailure> {
        self.ask_presence(post, (slot, command), channel, ChannelQuery::Stats)
    }

    fn ask_presence(
        &mut self,
        post: &mut impl Post,
        (slot, command): (u32, u32),
        channel: &str,
        query: ChannelQuery,
    ) -> Result<(), CommandFailure> {
        let offers = |options: &Options| options.presence;
        let settings = self.settings.clone();
        self.permit(&settings, (slot, channel), |options| options.see_presence, offers)?;
        self.send_leave_first(post, slot, (channel, self.names.hash(channel)))?;
        self.ask(post, (slot, command), (channel, false), query)
    }

    pub(super) fn history(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        request: &HistoryRequest<'_>,
    ) -> Result<(), CommandFailure> {
        let channel = &*request.channel;
        let offers = |options: &Options| options.retention.is_some();
        let settings = self.settings.clone();
        let permit = |options: &Options| options.read_history;
        let options = self.permit(&settings, (slot, channel), permit, offers)?;
        self.check_readable(slot, options)?;
        let durable = options.is_durable();
        let since = request
            .since
            .as_ref()
            .map(|since| Position { offset: since.offset, epoch: Epoch::parse(&since.epoch) });
        if request.reverse && since.is_some_and(|since| since.offset == 0) {
            return Err(Error::BAD_REQUEST.into());
        }
        let most = self.settings.history_limit;
        let limit = usize::try_from(request.limit).map_or(most, |limit| limit.min(most));
        let excerpt = HistoryRange { limit, since, reverse: request.reverse };
        self.ask(post, (slot, command), (channel, durable), ChannelQuery::History(excerpt))
    }

    /// The options of a channel, if it offers what a client queries and the client may query it.
    pub(super) fn permit<'a>(
        &self,
        settings: &'a HubSettings,
        (slot, channel): (u32, &str),
        permit: impl FnOnce(&Options) -> Permit,
        offers: impl FnOnce(&Options) -> bool,
    ) -> Result<&'a Options, CommandFailure> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let options = settings.namespaces.of_client(channel)?;
        if !offers(options) {
            return Err(Error::NOT_AVAILABLE.into());
        }
        let hash = self.names.hash(channel);
        let subscribed = self.find_subscription(slot, hash, channel)?.is_some();
        let user = self.connections[slot].user();
        if !settings.rules.insecure && !permit(options).allows(user, subscribed) {
            return Err(Error::PERMISSION_DENIED.into());
        }
        Ok(options)
    }

    /// Sends a query about a channel, which is durable or not, to a home. A connection has one
    /// query at a time, and none while the turn holds much output for it.
    fn ask(
        &mut self,
        post: &mut impl Post,
        (slot, command): (u32, u32),
        (channel, durable): (&str, bool),
        query: ChannelQuery,
    ) -> Result<(), CommandFailure> {
        let connection = &self.connections[slot];
        if connection.flags.query_pending() {
            return Err(CommandFailure::Stop(StopReason::Wait));
        }
        if self.turn.bytes_of(connection.turn, &self.locals) > ANSWERS_BYTES {
            return Err(CommandFailure::Stop(StopReason::Turn));
        }
        let hash = self.names.hash(channel);
        let home = self.names.home(hash);
        let reply_to =
            ReplyTo::Client { address: self.address(slot), command, asked: self.answering };
        if !post.reserve(home, Rank::Request) {
            return Err(InboxFull.into());
        }
        let channel = self.shared_name(hash, channel);
        let question = HomeQuery { channel, hash, reply_to, durable, query };
        self.connections[slot].flags.set_query_pending(true);
        post.send(home, Message::HomeQuery(Box::new(question)));
        Ok(())
    }

    /// Whether the requester of an answer is still there.
    pub(super) fn is_listening(&mut self, reply_to: ReplyTo) -> bool {
        match reply_to {
            ReplyTo::Client { address, .. } => self
                .connection(address.slot, address.generation)
                .is_some_and(|connection| connection.takes_output()),
            _ => true,
        }
    }

    /// Handles the answer of a home; the client may be gone.
    pub(super) fn home_answered(&mut self, answer: HomeAnswer) {
        let (address, command, asked) = match (answer.reply_to, &answer.result) {
            (ReplyTo::Client { address, command, asked }, _) => (address, command, asked),
            (ReplyTo::PositionCheck { channel, serial, .. }, Ok(ChannelAnswer::Position(top))) => {
                return self.position_answered((channel, serial), *top);
            }
            (ReplyTo::ApiCaller(caller), _) => return self.poll_answered(caller, answer.result),
            // No other requester is served here.
            _ => return,
        };
        let found = self.connection(address.slot, address.generation);
        if !found.is_some_and(|connection| connection.takes_output()) {
            return;
        }
        let slot = address.slot;
        self.connections[slot].flags.set_query_pending(false);
        self.answering = asked;
        self.resume_later(slot);
        match answer.result {
            Err(error) => self.reply_error(slot, command, error),
            // Not written at all: that would cost as much as an answer.
            Ok(presence) if presence.least() > self.room_for_answer(slot) => {
                self.reply_error(slot, command, Error::LIMIT_EXCEEDED);
            }
            Ok(ChannelAnswer::Presence(roll)) => {
                self.reply_if_it_fits(slot, command, &Reply::Presence(&roll));
            }
            Ok(ChannelAnswer::Stats(stats)) => {
                self.reply(slot, command, &Reply::PresenceStats(stats))
            }
            // Clients cannot query these.
            Ok(
                ChannelAnswer::HistoryRemoved
                | ChannelAnswer::Position(_)
                | ChannelAnswer::Latest(..),
            ) => {}
            Ok(ChannelAnswer::History(publications, position)) => {
                let encoding = self.encoding(slot);
                let objects = publications.iter().map(|one| one.object(encoding));
                match objects.collect() {
                    Some(publications) => {
                        let history = HistoryResult { publications, position };
                        self.reply_if_it_fits(slot, command, &Reply::History(&history));
                    }
                    None => self.reply_error(slot, command, Error::BINARY_CHANNEL),
                }
            }
        }
    }
}
