//! What shards and the control plane say to each other: a closed set, in ranks.
//!
//! Owns nothing. The invariant: handling a message of one rank sends only messages of higher
//! ranks, so a circle of full inboxes cannot arise.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::base::connection_limits::ControlPermit;
use crate::model::ids::Address;
use crate::model::namespaces::RecoveryMode;
use crate::model::publication::{Encoding, Publication, PublicationExtra, PublicationKind};
use crate::model::retention::Retention;
use crate::model::revocation::Revocations;
use crate::wire::filter::Filter;
use crate::wire::http::Upgrade;
use crate::wire::protocol::reply::ClientInfo;
use crate::wire::protocol::{Error, Position};

pub use crate::model::channel_query::{ChannelAnswer, ChannelQuery, HistoryRange};
pub use crate::model::grant::{Grant, Overrides};
pub use crate::model::lookup::{
    HookEvent, Lookup, LookupOutcome, LookupReply, LookupRequest, TokenPurpose,
};
pub use crate::model::orders::{Action, Order, Target};

/// Number of ranks, and of inboxes an endpoint has.
pub const RANKS: usize = 4;

/// The order in which messages may cause each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Rank {
    /// From outside: sockets handed over, control commands.
    Ingress,
    /// To a channel's home, or to a shard with room.
    Request,
    /// From a home to what is behind it (a store, a cluster) and back.
    Store,
    /// What a request led to: publications, answers. Handling one sends nothing.
    Delivery,
}

impl Rank {
    /// All ranks, highest first: the order in which inboxes are served.
    pub const SERVED: [Rank; RANKS] = [Rank::Delivery, Rank::Store, Rank::Request, Rank::Ingress];
}

/// A place on the bus: a shard, or behind the last shard the control plane.
pub type Endpoint = u8;

/// The endpoints of a mask, lowest first.
pub fn endpoints(mut mask: u64) -> impl Iterator<Item = Endpoint> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let endpoint = mask.trailing_zeros() as Endpoint;
            mask &= mask - 1;
            endpoint
        })
    })
}

/// One message.
#[derive(Debug)]
pub enum Message {
    /// The control plane hands a socket over.
    Adopt(Box<Adopt>),
    /// A shard hands a socket over whose request is not for a shard.
    HandOver(Box<HandOver>),
    /// A shard wants to know what it cannot find out itself.
    LookupRequest(Box<LookupRequest>),
    /// A shard has news of a client for the backend.
    HookEvent(Box<HookEvent>),
    /// Somebody speaks for the client of a stream.
    EmulationFrame(Box<EmulationFrame>),
    /// The control plane asks what a shard holds.
    Survey(Box<Survey>),
    /// The backend wants something of a user's connections.
    Order(Arc<Order>),
    /// The tokens that count no more have changed.
    Revoke(Arc<Revocations>),
    /// Stop accepting and close every connection within so many milliseconds.
    Drain(u64),
    /// A shard wants into a channel for one of its connections.
    Subscribe(Box<Subscribe>),
    /// Publish into a channel that is at home here.
    Publish(Box<Publish>),
    /// A connection has left a channel whose home knows who is there.
    Leave(Box<Leave>),
    /// A shard asks a user's home whether there is room for one more connection of the user.
    Admit(Admit),
    /// A connection of a user is gone.
    Depart(Depart),
    /// Somebody asks a channel's home about it.
    HomeQuery(Box<HomeQuery>),
    /// A shard has no subscribers of a channel any more.
    Release(Release),
    /// A full shard asks for a slot.
    SlotRequest(SlotRequest),
    /// The slot that was given is not needed: its socket could not be moved.
    SlotRelease(SlotRelease),
    /// The answer to `HomeQuery`.
    HomeAnswer(Box<HomeAnswer>),
    /// To every subscriber of its channel.
    Publication(Publication),
    /// The answer to `LookupRequest`.
    LookupReply(Box<LookupReply>),
    /// The answer to `Admit`, and the news of it to the shard of who is replaced.
    Admitted(Admitted),
    /// The answer to `Subscribe`.
    Subscribed(Box<Subscribed>),
    /// The answer to `Publish`, for who waits for one.
    Published(Box<Published>),
    /// The answer to `SlotRequest`.
    SlotOffer(SlotOffer),
    /// The answer to `Survey`.
    Surveyed(Box<Surveyed>),
}

impl Message {
    /// The rank at which it travels.
    pub fn rank(&self) -> Rank {
        match self {
            Message::Adopt(_)
            | Message::HandOver(_)
            | Message::LookupRequest(_)
            | Message::HookEvent(_)
            | Message::EmulationFrame(_)
            | Message::Survey(_)
            | Message::Order(_)
            | Message::Revoke(_)
            | Message::Drain(_) => Rank::Ingress,
            Message::Subscribe(_)
            | Message::Publish(_)
            | Message::Leave(_)
            | Message::Admit(_)
            | Message::Depart(_)
            | Message::HomeQuery(_)
            | Message::Release(_)
            | Message::SlotRequest(_)
            | Message::SlotRelease(_) => Rank::Request,
            Message::Publication(_)
            | Message::HomeAnswer(_)
            | Message::LookupReply(_)
            | Message::Admitted(_)
            | Message::Subscribed(_)
            | Message::Published(_)
            | Message::SlotOffer(_)
            | Message::Surveyed(_) => Rank::Delivery,
        }
    }
}

/// A socket from the control plane.
#[derive(Debug)]
pub struct Adopt {
    /// The socket.
    pub socket: OwnedFd,
    /// The request that was answered with 101; `None`: its first request is still to come.
    pub upgrade: Option<Upgrade>,
    /// Bytes that came behind that request, or from the start.
    pub bytes: Vec<u8>,
    /// Its place on the control plane, which it has until a shard has it.
    pub permit: Option<ControlPermit>,
}

/// A socket for the control plane.
#[derive(Debug)]
pub struct HandOver {
    /// The socket.
    pub socket: OwnedFd,
    /// What was read from it: at least a whole request head.
    pub bytes: Vec<u8>,
    /// Its place on the control plane.
    pub permit: ControlPermit,
}

/// What somebody says for the client of a stream.
#[derive(Debug)]
pub struct EmulationFrame {
    /// Where the stream lives.
    pub address: Address,
    /// A frame of commands.
    pub frame: Box<[u8]>,
}

/// A question to a shard.
#[derive(Debug)]
pub struct Survey {
    /// Echoed in the answer.
    pub tag: u64,
    /// Only channels that match this glob; `None` for all.
    pub pattern: Option<String>,
}

/// What a shard holds.
#[derive(Debug)]
pub struct Surveyed {
    /// Of the question.
    pub tag: u64,
    /// Channels with subscribers here, and their number.
    pub channels: Vec<(Arc<str>, u32)>,
}

/// Who a subscribe answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The shard of the connection.
    pub shard: Endpoint,
    /// The connection.
    pub slot: u32,
    /// The connection's life.
    pub generation: u32,
    /// The subscription's place in its shard.
    pub subscription: u32,
    /// The subscription's life.
    pub serial: u32,
    /// Id of the command, echoed in the reply.
    pub command: u32,
}

impl Subscriber {
    /// Where the connection lives.
    pub fn address(&self) -> Address {
        Address { shard: self.shard, slot: self.slot, generation: self.generation }
    }
}

/// What a subscriber is granted of its channel's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamAccess {
    /// Its position is told and checked.
    pub positioned: bool,
    /// It may recover.
    pub recoverable: bool,
}

impl StreamAccess {
    /// Whether the stream must be there for it.
    pub fn needs_stream(self) -> bool {
        self.positioned || self.recoverable
    }
}

/// A request to a channel's home.
#[derive(Debug)]
pub struct Subscribe {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// Who asks.
    pub subscriber: Subscriber,
    /// How the subscriber wants publications.
    pub encoding: Encoding,
    /// Where the client left off, if it asks for what it missed.
    pub since: Option<Position>,
    /// Whether it wants no subscription where that cannot be recovered.
    pub strict: bool,
    /// What it is granted of the stream.
    pub stream_access: StreamAccess,
    /// Which publications it wants; `None`: all.
    pub filter: Option<Filter>,
    /// What the channel's options say about recovery and presence.
    pub terms: SubscribeTerms,
    /// What others in the channel may see of it.
    pub visibility: Visibility,
    /// Who it is to others, where they may see something of it.
    pub info: Option<Box<ClientInfo>>,
}

/// What the options of a channel say to a subscribe at its home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeTerms {
    /// How a subscriber gets what it missed.
    pub recovery_mode: RecoveryMode,
    /// Whether the members of the channel can be asked for.
    pub presence: bool,
}

/// What others in a channel may see of a subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visibility {
    /// It is listed among those who are present.
    pub listed: bool,
    /// Its joining and leaving are announced.
    pub announced: bool,
}

impl Visibility {
    /// Whether the home must know the subscriber.
    pub fn is_any(self) -> bool {
        self.listed || self.announced
    }
}

/// A home's answer to a subscribe.
#[derive(Debug)]
pub struct Subscribed {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// Who asked.
    pub subscriber: Subscriber,
    /// How it wants publications.
    pub encoding: Encoding,
    /// Which of them; `None`: all.
    pub filter: Option<Filter>,
    /// What it is granted of the stream.
    pub stream_access: StreamAccess,
    /// Whether it asked for what it missed.
    pub was_recovering: bool,
    /// Whether `publications` is all of that.
    pub recovered: bool,
    /// Whether it wants no subscription unless it is.
    pub strict: bool,
    /// Where the stream stands; `None` where the channel keeps no history.
    pub position: Option<Position>,
    /// What was missed.
    pub publications: Vec<Publication>,
    /// The news of its coming, where that is told: both fit one place in the inbox.
    pub news: Option<Publication>,
}

impl Subscribed {
    /// Whether there is to be no subscription: not everything that was missed is there.
    pub fn is_refused(&self) -> bool {
        self.strict && self.was_recovering && !self.recovered
    }
}

/// A publication on its way to its home.
#[derive(Debug)]
pub struct Publish {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// What is published.
    pub data: Box<[u8]>,
    /// Whether that is JSON text.
    pub kind: PublicationKind,
    /// Whether it may go out as a difference.
    pub delta: bool,
    /// Who publishes it, and its tags.
    pub extra: Option<Arc<PublicationExtra>>,
    /// How much history the channel keeps; `None`: the publication stays out of the history.
    pub retention: Option<Retention>,
    /// What tells it from an earlier one.
    pub guard: Option<Box<DuplicateGuard>>,
    /// Who waits for the answer.
    pub reply_to: ReplyTo,
}

/// What tells a publication from an earlier one, so that it is published once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DuplicateGuard {
    /// One of these is published once; empty: none.
    pub key: Box<str>,
    /// Only what is newer than the stream's last is published; 0: none.
    pub version: u64,
    /// In which life of the versions.
    pub version_epoch: Box<str>,
}

/// A connection leaves a channel.
#[derive(Debug)]
pub struct Leave {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// The connection.
    pub address: Address,
    /// Whether its leaving is announced.
    pub announced: bool,
}

/// A connection whose user's connections are limited wants in.
#[derive(Clone, Debug)]
pub struct Admit {
    /// Hash of the user's name.
    pub user: u64,
    /// The connection.
    pub address: Address,
}

/// What a user's home says to that.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Who wants in, and whether it may, where that is a connection of this shard.
    pub newcomer: Option<(Address, bool)>,
    /// A connection of this shard that has to make room.
    pub replaced: Option<Address>,
}

/// A connection that was admitted is gone.
#[derive(Clone, Debug)]
pub struct Depart {
    /// Hash of the user's name.
    pub user: u64,
    /// The connection.
    pub address: Address,
}

/// A question about a channel.
#[derive(Debug)]
pub struct HomeQuery {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// Who asks.
    pub reply_to: ReplyTo,
    /// What is asked.
    pub query: ChannelQuery,
}

/// A home's answer to a question.
#[derive(Debug)]
pub struct HomeAnswer {
    /// Who asked.
    pub reply_to: ReplyTo,
    /// What it is told.
    pub result: Result<ChannelAnswer, Error>,
}

/// Where a home sends its answer to a query or a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// Nowhere: the home sends no answer.
    None,
    /// The control plane, under this tag. It has reserved room for the answer.
    Control(u64),
    /// A connection of a shard that waits for the result of an API request.
    ApiCaller(Address),
    /// A shard that compares the positions of its subscribers with the answer.
    PositionCheck {
        /// The shard.
        shard: Endpoint,
        /// Index of the channel on that shard.
        channel: u32,
        /// Serial of that index: the shard ignores answers for an earlier channel.
        serial: u32,
    },
    /// A client whose command is to be answered.
    Client {
        /// Where it lives.
        address: Address,
        /// Id of the command.
        command: u32,
    },
}

impl ReplyTo {
    /// The shard that gets the answer, if one does.
    pub fn shard(&self) -> Option<Endpoint> {
        match self {
            ReplyTo::ApiCaller(address) | ReplyTo::Client { address, .. } => Some(address.shard),
            ReplyTo::PositionCheck { shard, .. } => Some(*shard),
            ReplyTo::None | ReplyTo::Control(_) => None,
        }
    }
}

/// A home's answer to a publish.
#[derive(Debug)]
pub struct Published {
    /// Of the request.
    pub reply_to: ReplyTo,
    /// The publication's place, `None` where the channel keeps no history; or why the home refused
    /// the publication.
    pub outcome: Result<Option<Position>, Error>,
    /// The publication itself where the asker's shard has subscribers: both fit one place in its
    /// inbox.
    pub publication: Option<Publication>,
}

/// A shard leaves a channel.
#[derive(Clone, Debug)]
pub struct Release {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// The shard.
    pub shard: Endpoint,
}

/// A full shard has accepted a socket and asks for a place for it.
#[derive(Clone, Copy, Debug)]
pub struct SlotRequest {
    /// Who asks.
    pub shard: Endpoint,
    /// Where the socket is.
    pub slot: u32,
    /// That slot's life.
    pub generation: u32,
}

/// The answer to `SlotRequest`.
#[derive(Clone, Copy, Debug)]
pub struct SlotOffer {
    /// Where the socket is.
    pub slot: u32,
    /// That slot's life.
    pub generation: u32,
    /// Who answers.
    pub shard: Endpoint,
    /// The slot to move to, and its life; `None`: full here too.
    pub target: Option<(u32, u32)>,
}

/// A slot of the receiver's that was reserved for a move which failed.
#[derive(Clone, Copy, Debug)]
pub struct SlotRelease {
    /// The slot.
    pub slot: u32,
    /// Its life.
    pub generation: u32,
}

/// What pure state may ask of the bus. A reservation is room for one message; a send uses one.
pub trait Post {
    /// Reserves room for one message of `rank` to `to`; `false` while its inbox is full.
    fn reserve(&mut self, to: Endpoint, rank: Rank) -> bool;
    /// Gives a reservation back.
    fn cancel(&mut self, to: Endpoint, rank: Rank);
    /// Has a shard take a turn, though nothing is sent to it.
    fn wake(&mut self, to: Endpoint);
    /// Sends into a reservation made before. A message to the shard itself is queued for
    /// [`Post::take_own`].
    fn send(&mut self, to: Endpoint, message: Message);
    /// Takes the oldest message of `rank` that the shard has sent to itself.
    fn take_own(&mut self, rank: Rank) -> Option<Message>;
    /// Puts a message of [`Post::take_own`] that cannot be handled yet back in front of its queue.
    fn put_back(&mut self, message: Message);
    /// Whether the shard found no room for a message to itself since the last call.
    fn was_full(&mut self) -> bool;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A bus that keeps what is sent and which shards are woken; it has room unless it is full.
    #[derive(Default)]
    pub(crate) struct Recorder {
        pub(crate) full: bool,
        pub(crate) sent: Vec<(Endpoint, Message)>,
        pub(crate) nudged: Vec<Endpoint>,
    }

    impl Post for Recorder {
        fn reserve(&mut self, _: Endpoint, _: Rank) -> bool {
            !self.full
        }

        fn cancel(&mut self, _: Endpoint, _: Rank) {}

        fn wake(&mut self, to: Endpoint) {
            self.nudged.push(to);
        }

        fn send(&mut self, to: Endpoint, message: Message) {
            self.sent.push((to, message));
        }

        fn take_own(&mut self, _: Rank) -> Option<Message> {
            None
        }

        fn put_back(&mut self, message: Message) {
            panic!("nothing was taken like {message:?}")
        }

        fn was_full(&mut self) -> bool {
            false
        }
    }
}
