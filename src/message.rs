//! What shards and the control plane say to each other: a closed set, in ranks.
//!
//! Owns nothing. The invariant: handling a message of one rank sends only messages of higher
//! ranks, so a circle of full inboxes cannot arise.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::http::Upgrade;
use crate::protocol::Position;
use crate::publication::{Encoding, Publication};

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
    /// The control plane hands a socket over, already switched to WebSocket.
    Adopt(Box<Adopt>),
    /// A shard hands a socket over whose request is not for a shard.
    HandOver(Box<HandOver>),
    /// The control plane asks what a shard holds.
    Survey(Box<Survey>),
    /// Stop accepting and close every connection within so many milliseconds.
    Drain(u64),
    /// A shard wants into a channel for one of its connections.
    Subscribe(Box<Subscribe>),
    /// Publish into a channel that is at home here.
    Publish(Box<Publish>),
    /// A shard has no subscribers of a channel any more.
    Release(Release),
    /// A full shard asks for a slot.
    Room(Room),
    /// The slot that was given is not needed: its socket could not be moved.
    Vacate(Vacate),
    /// To every subscriber of its channel.
    Publication(Publication),
    /// The answer to `Subscribe`.
    Subscribed(Box<Subscribed>),
    /// The answer to `Publish`, for who waits for one.
    Published(Box<Published>),
    /// The answer to `Room`.
    Place(Place),
    /// The answer to `Survey`.
    Surveyed(Box<Surveyed>),
}

impl Message {
    /// The rank at which it travels.
    pub fn rank(&self) -> Rank {
        match self {
            Message::Adopt(_) | Message::HandOver(_) | Message::Survey(_) | Message::Drain(_) => {
                Rank::Ingress
            }
            Message::Subscribe(_)
            | Message::Publish(_)
            | Message::Release(_)
            | Message::Room(_)
            | Message::Vacate(_) => Rank::Request,
            Message::Publication(_)
            | Message::Subscribed(_)
            | Message::Published(_)
            | Message::Place(_)
            | Message::Surveyed(_) => Rank::Delivery,
        }
    }
}

/// A socket from the control plane.
#[derive(Debug)]
pub struct Adopt {
    /// The socket.
    pub socket: OwnedFd,
    /// The request that was answered with 101.
    pub upgrade: Upgrade,
    /// Bytes that came behind the request.
    pub bytes: Vec<u8>,
}

/// A socket for the control plane.
#[derive(Debug)]
pub struct HandOver {
    /// The socket.
    pub socket: OwnedFd,
    /// What was read from it: at least a whole request head.
    pub bytes: Vec<u8>,
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
    /// Whether it asked for what it missed.
    pub was_recovering: bool,
    /// Whether `publications` is all of that.
    pub recovered: bool,
    /// Where the stream stands; `None` where the channel keeps no history.
    pub position: Option<Position>,
    /// What was missed.
    pub publications: Vec<Publication>,
}

/// A publication on its way to its home.
#[derive(Debug)]
pub struct Publish {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// JSON text.
    pub data: Box<[u8]>,
    /// Whether it stays out of the history.
    pub skip_history: bool,
    /// Who waits for the answer.
    pub asker: Asker,
}

/// Who waits for a home's answer to a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Nobody.
    Nobody,
    /// The control plane, under this tag; it has kept room for the answer.
    Control(u64),
    /// A connection whose call of the API is to be answered.
    Caller {
        /// The shard of the connection.
        shard: Endpoint,
        /// The connection.
        slot: u32,
        /// The connection's life.
        generation: u32,
    },
}

impl Asker {
    /// The shard that gets the answer, if one does.
    pub fn shard(&self) -> Option<Endpoint> {
        match self {
            Asker::Caller { shard, .. } => Some(*shard),
            Asker::Nobody | Asker::Control(_) => None,
        }
    }
}

/// A home's answer to a publish.
#[derive(Debug)]
pub struct Published {
    /// Of the request.
    pub asker: Asker,
    /// The publication's place; `None` where the channel keeps no history.
    pub position: Option<Position>,
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
pub struct Room {
    /// Who asks.
    pub shard: Endpoint,
    /// Where the socket is.
    pub slot: u32,
    /// That slot's life.
    pub generation: u32,
}

/// The answer to `Room`.
#[derive(Clone, Copy, Debug)]
pub struct Place {
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
pub struct Vacate {
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
    /// Sends into a reservation made before.
    fn send(&mut self, to: Endpoint, message: Message);
}
