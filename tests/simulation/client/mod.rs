//! A model client: its end of a socket, an independent reader of frames, and its view of channels.
//!
//! The client does not see the server's state. It checks each message at once against what it sent
//! and received before.

mod reading;
mod replies;
mod sending;
mod socket;
mod tls;

use std::collections::{BTreeMap, VecDeque};

use rustls::ClientConnection;

use crate::ledger::{Known, Ledger};

pub use socket::{Socket, Taken};
pub use tls::Trust;

/// Code of the error of a request that can be sent again later.
const UNAVAILABLE: u64 = 100;

/// A command that waits for its reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Connect(String),
    Subscribe(Option<Since>),
    Unsubscribe,
    Publish(u64),
    Stats,
    /// An emulation request.
    Speak,
}

/// A position to recover from: epoch and offset.
pub type Since = (String, u64);

struct Outstanding {
    id: u64,
    channel: usize,
    asked: Asked,
    /// What was known of the channel then.
    known: Known,
}

/// A client's view of a channel.
#[derive(Clone, Default)]
pub struct View {
    pub subscribed: bool,
    /// The step in which it read the subscribe reply.
    pub since: usize,
    /// The number that replaces the channel's name in pushes; 0: none.
    pub number: u64,
    pub epoch: String,
    /// Last offset seen.
    pub offset: u64,
    /// Last number of each publisher in this subscription.
    pub seen: BTreeMap<usize, u64>,
}

/// The behaviour of a client that decides which close codes it may get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manners {
    pub said_close: bool,
    pub rude: bool,
    /// It sent a TLS record that cannot be opened.
    pub broken: bool,
    /// It ended its direction by an alert that says so.
    pub announced: bool,
    /// The server may close it as a slow consumer.
    pub may_be_slow: bool,
    /// The server may close it because its user has too many connections.
    pub may_be_refused: bool,
    /// The server may close it because the store cannot be asked.
    pub may_fail: bool,
}

pub struct Client {
    pub number: usize,
    pub uni: bool,
    /// Calls the API, or speaks for a stream, instead of switching to WebSocket.
    pub backend: bool,
    /// The client that sends emulation requests for this one, whose replies are a stream of lines.
    pub voice: Option<usize>,
    /// Session and node of its connect reply, for emulation requests.
    pub session: Option<(String, String)>,
    /// Index of its user.
    pub user: usize,
    pub shard: usize,
    pub slot: u32,
    pub generation: u32,
    pub socket: Socket,
    /// TLS over the socket; `None`: plain.
    pub tls: Option<Box<ClientConnection>>,
    pub stalled: bool,
    pub views: Vec<View>,
    /// Channels of a unidirectional client's connect, each with the position to recover from, and
    /// what was known then.
    pub wanted: Vec<(usize, Option<Since>, Known)>,
    pub manners: Manners,
    /// Code of the close frame (0: without a code), or status of the refusal.
    pub closed: Option<u16>,
    pub connected: bool,
    pub sent_connect: bool,
    /// Clients in the channel of its last presence_stats.
    pub counted: Option<u64>,
    /// It read the end of the stream, or vanished.
    pub done: bool,
    head_seen: bool,
    received: Vec<u8>,
    outstanding: VecDeque<Outstanding>,
    next_id: u64,
    next_number: Vec<u64>,
}

impl Client {
    pub fn new(number: usize, uni: bool, channels: usize, capacity: usize) -> Self {
        Client {
            number,
            uni,
            backend: false,
            voice: None,
            session: None,
            user: 0,
            shard: 0,
            slot: 0,
            generation: 0,
            socket: Socket { capacity, ..Socket::default() },
            tls: None,
            stalled: false,
            views: vec![View::default(); channels],
            wanted: Vec::new(),
            manners: Manners::default(),
            closed: None,
            connected: false,
            sent_connect: false,
            counted: None,
            done: false,
            head_seen: false,
            received: Vec::new(),
            outstanding: VecDeque::new(),
            next_id: 0,
            next_number: vec![0; channels],
        }
    }

    /// Whether it is connected and not closing.
    pub fn is_there(&self) -> bool {
        self.connected && !self.done && self.closed.is_none() && !self.manners.said_close
    }

    /// Whether the server must deliver all replies and publications to it.
    pub fn is_owed(&self) -> bool {
        !self.done
            && self.manners
                == Manners {
                    may_be_slow: self.manners.may_be_slow,
                    may_be_refused: self.manners.may_be_refused,
                    may_fail: self.manners.may_fail,
                    ..Manners::default()
                }
            && self.closed.is_none()
            && !self.socket.vanished
    }

    /// Checks at rest that no reply, push or publication is missing.
    pub fn check_settled(&self, ledger: &Ledger) -> Result<(), String> {
        if self.socket.cut && !self.done {
            return Err("bytes are missing, and it was not closed".into());
        }
        if !self.received.is_empty() && !self.done {
            return Err(format!("a frame was only begun: {:?}", self.received));
        }
        if !self.is_owed() {
            return Ok(());
        }
        if let Some(asked) = self.outstanding.front() {
            return Err(format!(
                "no reply to {} {:?} on c{}",
                asked.id, asked.asked, asked.channel
            ));
        }
        if self.uni && self.sent_connect && !self.connected {
            return Err("no connect push".into());
        }
        for (channel, view) in self.views.iter().enumerate().filter(|(_, view)| view.subscribed) {
            ledger.check_complete(channel, view)?;
        }
        Ok(())
    }
}
