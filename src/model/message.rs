//! Messages between shards and the control plane. Each message has a rank.
//!
//! Owns the message types and no state. The invariant: handling a message of one rank sends only
//! messages of higher ranks, so full inboxes cannot wait for each other in a circle.

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::metrics::FrameType;
use crate::model::ids::Address;
use crate::model::namespaces::RecoveryMode;
use crate::model::publication::{Encoding, Publication, PublicationExtra, PublicationKind};
use crate::model::retention::Retention;
use crate::model::revocation::Revocations;
use crate::model::snapshot::{SnapshotAnswer, SnapshotRequest};
use crate::model::storage::{StoreAnswer, StoreDue, StoreRead, StoreWrite, StoreWritten};
use crate::wire::filter::Filter;
use crate::wire::protocol::reply::ClientInfo;
use crate::wire::protocol::{Error, Position};

pub use crate::model::channel_query::{ChannelAnswer, ChannelQuery, HistoryRange};
pub use crate::model::duplicate_guard::DuplicateGuard;
pub use crate::model::endpoint::{Endpoint, endpoints};
pub use crate::model::grant::{Grant, Overrides};
pub use crate::model::hand_over::{Adopt, HandOver};
pub use crate::model::lookup::{
    HookEvent, Lookup, LookupOutcome, LookupReply, LookupRequest, TokenPurpose,
};
pub use crate::model::orders::{Action, Order, OrderRequest, Target};
pub use crate::model::watch::{Scope, Watch, Watched};

/// Number of ranks. Every endpoint has one inbox per rank.
pub const RANKS: usize = 4;

/// Rank of a message: handling a message sends only messages of higher ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Rank {
    /// Work that enters the shards: sockets handed over, control commands, lookups.
    Ingress,
    /// Requests to the home of a channel or user, or to a shard with free slots.
    Request,
    /// Messages between a home and the store. A home that handles one sends only deliveries, so the
    /// store finds room sooner or later.
    Store,
    /// Results of requests: publications and answers. Handling one sends no message.
    Delivery,
}

impl Rank {
    /// All ranks, highest first: the order in which an endpoint serves its inboxes.
    pub const SERVED: [Rank; RANKS] = [Rank::Delivery, Rank::Store, Rank::Request, Rank::Ingress];
}

/// A message between endpoints.
#[derive(Debug)]
pub enum Message {
    /// The control plane hands a socket over to a shard.
    Adopt(Box<Adopt>),
    /// A shard hands a socket over to the control plane, which answers its request.
    HandOver(Box<HandOver>),
    /// A shard asks the control plane to verify a token or to call the backend.
    LookupRequest(Box<LookupRequest>),
    /// A shard passes a disconnect or unsubscribe on to the control plane for a backend hook.
    HookEvent(Box<HookEvent>),
    /// The control plane passes commands from an /emulation request to the connection's shard.
    EmulationFrame(Box<EmulationFrame>),
    /// The control plane asks a shard for its channels and their subscriber counts.
    Survey(Box<Survey>),
    /// The control plane asks a shard for its load.
    Watch(Watch),
    /// The backend disconnects, subscribes, unsubscribes or refreshes connections of a user.
    Order(OrderRequest),
    /// The settings of the shard have changed: it takes the new ones and answers with this tag.
    Reconfigure(u64),
    /// The list of revoked tokens has changed.
    Revoke(Arc<Revocations>),
    /// Shutdown: answer newcomers with 503 and close every other connection within this many
    /// milliseconds.
    Drain(u64),
    /// End of the shutdown: stop accepting, and end when every connection is closed.
    Stop,
    /// A shard subscribes one of its connections to a channel.
    Subscribe(Box<Subscribe>),
    /// A publication for the home of its channel.
    Publish(Box<Publish>),
    /// A connection has left a channel with presence or with join and leave pushes.
    Leave(Box<Leave>),
    /// New information about a subscriber of a channel with presence or with join and leave pushes.
    MemberUpdate(Box<MemberUpdate>),
    /// A shard asks the home of a user to admit one more connection of the user.
    Admit(Admit),
    /// An admitted connection of a user has closed.
    Depart(Depart),
    /// A query about a channel to its home: history, presence or position.
    HomeQuery(Box<HomeQuery>),
    /// A shard has lost its last subscriber of a channel.
    Release(Release),
    /// The control plane asks a home for a part of the snapshot.
    SnapshotRequest(Box<SnapshotRequest>),
    /// A shard without free slots asks another shard for one.
    SlotRequest(SlotRequest),
    /// A shard gives an offered slot back, because its socket could not be moved.
    SlotRelease(SlotRelease),
    /// A home changes a durable stream.
    StoreWrite(Box<StoreWrite>),
    /// A home asks the store about a durable stream.
    StoreRead(Box<StoreRead>),
    /// The answer to writes.
    StoreWritten(StoreWritten),
    /// The answer to `StoreRead`.
    StoreAnswer(Box<StoreAnswer>),
    /// The store asks a home to remove what has expired.
    StoreDue(Box<StoreDue>),
    /// The answer to `HomeQuery`.
    HomeAnswer(Box<HomeAnswer>),
    /// A publication for the subscribers of its channel on a shard.
    Publication(Publication),
    /// The answer to `LookupRequest`.
    LookupReply(Box<LookupReply>),
    /// The answer to `Admit`. The shard of a replaced connection receives one, too.
    Admitted(Admitted),
    /// The answer to `Subscribe`.
    Subscribed(Box<Subscribed>),
    /// The answer to a `Publish` whose sender waits for the result.
    Published(Box<Published>),
    /// The answer to `SlotRequest`.
    SlotOffer(SlotOffer),
    /// The answer to `Survey`.
    Surveyed(Box<Surveyed>),
    /// The answer to `Watch`.
    Watched(Box<Watched>),
    /// The answer to `SnapshotRequest`.
    SnapshotAnswer(Box<SnapshotAnswer>),
    /// The answer to `Order` or `Reconfigure`, by its tag: it is carried out.
    Ordered(u64),
}

impl Message {
    /// The rank of the message.
    pub fn rank(&self) -> Rank {
        match self {
            Message::Adopt(_)
            | Message::HandOver(_)
            | Message::LookupRequest(_)
            | Message::HookEvent(_)
            | Message::EmulationFrame(_)
            | Message::Survey(_)
            | Message::Watch(_)
            | Message::Revoke(_)
            | Message::Drain(_)
            | Message::Stop => Rank::Ingress,
            Message::Subscribe(_)
            | Message::Publish(_)
            | Message::Leave(_)
            | Message::MemberUpdate(_)
            | Message::Admit(_)
            | Message::Depart(_)
            | Message::HomeQuery(_)
            | Message::Release(_)
            | Message::SnapshotRequest(_)
            | Message::SlotRequest(_)
            | Message::SlotRelease(_) => Rank::Request,
            Message::StoreWrite(_)
            | Message::StoreRead(_)
            | Message::StoreWritten(_)
            | Message::StoreAnswer(_)
            | Message::StoreDue(_) => Rank::Store,
            Message::Publication(_)
            | Message::HomeAnswer(_)
            | Message::LookupReply(_)
            | Message::Admitted(_)
            | Message::Subscribed(_)
            | Message::Published(_)
            | Message::SlotOffer(_)
            | Message::Surveyed(_)
            | Message::Watched(_)
            | Message::SnapshotAnswer(_)
            // An order comes after the publications that were sent before it.
            | Message::Order(_)
            | Message::Reconfigure(_)
            | Message::Ordered(_) => Rank::Delivery,
        }
    }
}

/// Commands from an /emulation request, for the connection of an HTTP transport.
#[derive(Debug)]
pub struct EmulationFrame {
    /// Address of the connection.
    pub address: Address,
    /// A frame that contains commands.
    pub frame: Box<[u8]>,
}

/// A query for the channels of a shard.
#[derive(Debug)]
pub struct Survey {
    /// Identifies the query; echoed in the answer.
    pub tag: u64,
    /// The channels that the query is about.
    pub scope: Scope,
}

/// The channels of a shard: the answer to `Survey`.
#[derive(Debug)]
pub struct Surveyed {
    /// Tag of the query.
    pub tag: u64,
    /// Channels with subscribers on the shard, and the number of those subscribers.
    pub channels: Vec<(Arc<str>, u32)>,
}

/// The subscription that a subscribe request and its answer are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The shard of the connection.
    pub shard: Endpoint,
    /// Slot of the connection.
    pub slot: u32,
    /// Generation of that slot.
    pub generation: u32,
    /// Index of the subscription in its shard.
    pub subscription: u32,
    /// Serial of that index.
    pub serial: u32,
    /// Id of the command, echoed in the reply.
    pub command: u32,
    /// When the command began: the low bits of the monotonic clock's microseconds.
    pub began: u32,
}

impl Subscriber {
    /// Address of the connection.
    pub fn address(&self) -> Address {
        Address { shard: self.shard, slot: self.slot, generation: self.generation }
    }
}

/// Access of a subscriber to the stream (the history) of its channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamAccess {
    /// The subscriber receives its position, and the shard checks it regularly.
    pub positioned: bool,
    /// The subscriber may recover missed publications.
    pub recoverable: bool,
}

impl StreamAccess {
    /// Whether the subscriber needs the channel to have a stream.
    pub fn needs_stream(self) -> bool {
        self.positioned || self.recoverable
    }
}

/// A request to the home of a channel to add a subscriber.
#[derive(Debug)]
pub struct Subscribe {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// The subscriber.
    pub subscriber: Subscriber,
    /// Encoding of the publications for the subscriber.
    pub encoding: Encoding,
    /// Last position that the client has seen, if the client requests recovery.
    pub since: Option<Position>,
    /// Whether the client requests recovery, granted or not.
    pub was_recovering: bool,
    /// Refuse the subscription if recovery fails.
    pub strict: bool,
    /// Access to the stream of the channel.
    pub stream_access: StreamAccess,
    /// Filter of publications by tags; `None`: all publications.
    pub filter: Option<Filter>,
    /// Options of the channel that concern recovery and presence.
    pub terms: SubscribeTerms,
    /// What other subscribers may see of the subscriber.
    pub visibility: Visibility,
    /// Client information for other subscribers, if the subscriber is visible.
    pub info: Option<Box<ClientInfo>>,
}

/// Options of a channel that its home needs to handle a subscribe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeTerms {
    /// How a subscriber recovers missed publications.
    pub recovery_mode: RecoveryMode,
    /// Whether the channel has presence.
    pub presence: bool,
    /// Whether the store keeps the history of the channel.
    pub durable: bool,
}

/// What other subscribers of a channel may see of a subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visibility {
    /// The subscriber is part of the channel's presence.
    pub listed: bool,
    /// The home publishes a join and a leave push for the subscriber.
    pub announced: bool,
}

impl Visibility {
    /// Whether the home must keep a record of the subscriber.
    pub fn is_any(self) -> bool {
        self.listed || self.announced
    }
}

/// The answer of a home to `Subscribe`.
#[derive(Debug)]
pub struct Subscribed {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// The subscriber.
    pub subscriber: Subscriber,
    /// Encoding of the publications for the subscriber.
    pub encoding: Encoding,
    /// Filter of publications by tags; `None`: all publications.
    pub filter: Option<Filter>,
    /// Access to the stream of the channel.
    pub stream_access: StreamAccess,
    /// Whether the client requested recovery.
    pub was_recovering: bool,
    /// Whether `publications` contains everything that the client missed.
    pub recovered: bool,
    /// Refuse the subscription if recovery fails.
    pub strict: bool,
    /// Why the home refuses the subscription; `None`: it does not.
    pub error: Option<Error>,
    /// Position of the stream; `None`: the channel keeps no history.
    pub position: Option<Position>,
    /// Position of the stream after the missed publications; `None`: the channel keeps no history.
    pub top: Option<Position>,
    /// Missed publications.
    pub publications: Vec<Publication>,
    /// The join push of this subscriber, if one is due. It travels here so that both take one
    /// place in the inbox.
    pub news: Option<Publication>,
}

impl Subscribed {
    /// Whether the subscription is refused: the home has an error, or recovery was required and
    /// failed.
    pub fn is_refused(&self) -> bool {
        self.error.is_some() || self.strict && self.tried_recovery() && !self.recovered
    }

    /// Whether the home tried to recover: the client requested it, and it was granted.
    pub fn tried_recovery(&self) -> bool {
        self.was_recovering && self.stream_access.recoverable
    }
}

/// A publication on its way to the home of its channel.
#[derive(Debug)]
pub struct Publish {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// Data of the publication.
    pub data: Box<[u8]>,
    /// Whether the data is JSON text or binary.
    pub kind: PublicationKind,
    /// Whether subscribers may receive the publication as a delta.
    pub delta: bool,
    /// Publisher and tags.
    pub extra: Option<Arc<PublicationExtra>>,
    /// Retention of the channel's history; `None`: do not add the publication to the history.
    pub retention: Option<Retention>,
    /// Detects a publication that was already published.
    pub guard: Option<Box<DuplicateGuard>>,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    /// When the node accepted the request: the low bits of the monotonic clock's microseconds.
    pub accepted: u32,
}

impl Publish {
    /// Bytes of the texts and the data.
    pub fn size(&self) -> usize {
        let extra = self.extra.as_ref().map_or(0, |extra| extra.size());
        let guard = self.guard.as_ref().map_or(0, |guard| guard.size());
        self.channel.len() + self.data.len() + extra + guard
    }
}

/// A connection has left a channel.
#[derive(Debug)]
pub struct Leave {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// The connection.
    pub address: Address,
    /// Whether the home publishes a leave push.
    pub announced: bool,
}

/// New information about a subscriber of a channel.
#[derive(Debug)]
pub struct MemberUpdate {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// The connection.
    pub address: Address,
    /// The information that other clients see.
    pub info: ClientInfo,
}

/// A request to admit a connection of a user whose connections are limited.
#[derive(Clone, Debug)]
pub struct Admit {
    /// Hash of the user's name.
    pub user: u64,
    /// The connection.
    pub address: Address,
}

/// The answer of a user's home to `Admit`.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The connection to admit, and whether it is admitted; `None`: it is on another shard.
    pub newcomer: Option<(Address, bool)>,
    /// A connection of this shard that must close to make room; `None`: no connection.
    pub replaced: Option<Address>,
}

/// An admitted connection has closed.
#[derive(Clone, Debug)]
pub struct Depart {
    /// Hash of the user's name.
    pub user: u64,
    /// The connection.
    pub address: Address,
}

/// A query about a channel, to its home.
#[derive(Debug)]
pub struct HomeQuery {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    /// Whether the store keeps the history of the channel.
    pub durable: bool,
    /// The query.
    pub query: ChannelQuery,
}

/// The answer of a home to a query.
#[derive(Debug)]
pub struct HomeAnswer {
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    /// The answer or the error.
    pub result: Result<ChannelAnswer, Error>,
}

/// Where a home sends its answer to a query or a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// Nowhere: the home sends no answer.
    None,
    /// The control plane, under this tag. It has reserved room for the answer.
    Control(u64),
    /// A connection of a shard that waits for the answer to its HTTP request: an API call or a
    /// poll.
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
    /// A client that waits for the reply to a command.
    Client {
        /// Address of the client's connection.
        address: Address,
        /// Id of the command.
        command: u32,
        /// Type of the command, and when it began.
        asked: (FrameType, u32),
    },
}

impl ReplyTo {
    /// The shard that receives the answer; `None`: no shard does.
    pub fn shard(&self) -> Option<Endpoint> {
        match self {
            ReplyTo::ApiCaller(address) | ReplyTo::Client { address, .. } => Some(address.shard),
            ReplyTo::PositionCheck { shard, .. } => Some(*shard),
            ReplyTo::None | ReplyTo::Control(_) => None,
        }
    }
}

/// The answer of a home to `Publish`.
#[derive(Debug)]
pub struct Published {
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    /// Position of the publication (`None`: the channel keeps no history), or the error with which
    /// the home refused the publication.
    pub outcome: Result<Option<Position>, Error>,
    /// The publication, if the shard of the caller has subscribers. It travels here so that both
    /// take one place in the inbox.
    pub publication: Option<Publication>,
}

/// A shard has lost its last subscriber of a channel.
#[derive(Clone, Debug)]
pub struct Release {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// The shard.
    pub shard: Endpoint,
}

/// A shard without free slots has accepted a socket and asks another shard for a slot.
#[derive(Clone, Copy, Debug)]
pub struct SlotRequest {
    /// The shard that asks.
    pub shard: Endpoint,
    /// Slot of the socket on that shard.
    pub slot: u32,
    /// Generation of that slot.
    pub generation: u32,
    /// The listener that the client connected to.
    pub entrance: u8,
    /// Place of the count of the client's address.
    pub address_place: u32,
    /// Whether a trusted peer is still to name the client.
    pub forwarded: bool,
    /// Address of the client, if the access log keeps it.
    pub client: Option<IpAddr>,
}

/// The answer to `SlotRequest`.
#[derive(Clone, Copy, Debug)]
pub struct SlotOffer {
    /// Slot of the socket on the shard that asked.
    pub slot: u32,
    /// Generation of that slot.
    pub generation: u32,
    /// The shard that answers.
    pub shard: Endpoint,
    /// The offered slot and its generation; `None`: this shard is full, too.
    pub target: Option<(u32, u32)>,
}

/// Frees a slot of the receiver that was reserved for a socket which could not be moved.
#[derive(Clone, Copy, Debug)]
pub struct SlotRelease {
    /// The slot.
    pub slot: u32,
    /// Generation of the slot.
    pub generation: u32,
}

/// The bus as state code sees it. A reservation is room for one message; a send uses one.
pub trait Post {
    /// Reserves room for one message of `rank` to `to`; `false`: the inbox of `to` is full.
    fn reserve(&mut self, to: Endpoint, rank: Rank) -> bool;
    /// Gives a reservation back.
    fn cancel(&mut self, to: Endpoint, rank: Rank);
    /// Wakes a shard for a turn without sending a message.
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

    /// Bus that records sent messages and woken shards. It refuses reservations if `full`.
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
            panic!("put_back without take_own: {message:?}")
        }

        fn was_full(&mut self) -> bool {
            false
        }
    }
}
