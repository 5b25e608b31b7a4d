//! Metrics that shards write and the control plane reads.
//!
//! Owns one block of counters per shard, each on its own cache lines. Never blocks: every counter
//! has one writer, and a reader may see a slightly older value.

use crate::base::counter::{CodeCounters, Counter};
use crate::base::histogram::Histogram;

/// Transports that are told apart, by their index in `wire::http::Transport`.
pub const TRANSPORTS: usize = 8;

macro_rules! frame_types {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)*) => {
        /// Type of a message of the protocol. Commands come first; a reply has the type of its
        /// command.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum FrameType {
            $($(#[doc = $doc])+ $name,)*
        }

        impl FrameType {
            /// Every type, in the order of the numbers.
            pub const ALL: &[FrameType] = &[$(FrameType::$name),*];

            /// The label of the type in metrics, which is Centrifugo's.
            pub fn label(self) -> &'static str {
                match self {
                    $(FrameType::$name => $label,)*
                }
            }
        }
    };
}

frame_types! {
    /// A connect command or its reply.
    Connect = "connect",
    /// A subscribe command or its reply.
    Subscribe = "subscribe",
    /// An unsubscribe command or its reply.
    Unsubscribe = "unsubscribe",
    /// A publish command or its reply.
    Publish = "publish",
    /// A presence command or its reply.
    Presence = "presence",
    /// A presence_stats command or its reply.
    PresenceStats = "presence_stats",
    /// A history command or its reply.
    History = "history",
    /// A command of an asynchronous message, which has no reply.
    Send = "send",
    /// An rpc command or its reply.
    Rpc = "rpc",
    /// A refresh command or its reply.
    Refresh = "refresh",
    /// A sub_refresh command or its reply.
    SubRefresh = "sub_refresh",
    /// A command of no known type.
    Unknown = "unknown",
    /// A ping of the server.
    ServerPing = "server_ping",
    /// The answer to a ping.
    ClientPong = "client_pong",
    /// The result of a connect, as a push.
    PushConnect = "push_connect",
    /// A subscription that the server made.
    PushSubscribe = "push_subscribe",
    /// A publication.
    PushPublication = "push_publication",
    /// A client joined a channel.
    PushJoin = "push_join",
    /// A client left a channel.
    PushLeave = "push_leave",
    /// A subscription that the server ended.
    PushUnsubscribe = "push_unsubscribe",
    /// A new expiry of the connection.
    PushRefresh = "push_refresh",
    /// The reason of a disconnect.
    PushDisconnect = "push_disconnect",
}

/// Number of types of messages.
pub const FRAME_TYPES: usize = FrameType::ALL.len();
/// Number of types that are commands.
pub const COMMANDS: usize = FrameType::Unknown as usize + 1;

macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)*) => {
        /// An action of a node that Centrifugo counts too.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Action {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Action {
            /// The labels of all actions, which are Centrifugo's.
            pub const LABELS: &[&str] = &[$($label),*];
        }
    };
}

actions! {
    /// A client connected.
    AddClient = "add_client",
    /// A client left.
    RemoveClient = "remove_client",
    /// A client subscribed.
    AddSubscription = "add_subscription",
    /// A subscription ended.
    RemoveSubscription = "remove_subscription",
    /// A client was added to the presence of a channel.
    AddPresence = "add_presence",
    /// A client was removed from the presence of a channel.
    RemovePresence = "remove_presence",
    /// The presence of a channel was asked for.
    Presence = "presence",
    /// The numbers of a presence were asked for.
    PresenceStats = "presence_stats",
    /// The history of a channel was asked for.
    History = "history",
    /// A subscriber asked for what it missed.
    HistoryRecover = "history_recover",
    /// The history of a channel was removed.
    HistoryRemove = "history_remove",
}

/// Messages and their bytes.
#[derive(Debug, Default)]
pub struct MessageCounter {
    /// Number of messages.
    pub messages: Counter,
    /// Bytes of messages without their framing.
    pub bytes: Counter,
}

impl MessageCounter {
    /// Counts one message.
    pub fn add(&self, bytes: usize) {
        self.messages.add(1);
        self.bytes.add(bytes as u64);
    }
}

/// Clients of one transport: each counter by encoding, by whether the client named itself, and by
/// whether it named its version.
pub type ClientCounters = [[[Counter; 2]; 2]; 2];

/// Counters with labels.
#[derive(Debug, Default)]
pub struct Labelled {
    /// Connects that were answered with success, by transport.
    pub connections_accepted: [ClientCounters; TRANSPORTS],
    /// Connected clients, by transport.
    pub connections_inflight: [ClientCounters; TRANSPORTS],
    /// Answered subscribes, by whether the client named itself.
    pub subscriptions_accepted: [Counter; 2],
    /// Answered subscriptions that have not ended, by whether the client named itself.
    pub subscriptions_inflight: [Counter; 2],
    /// Messages to clients, by transport and type.
    pub sent: [[MessageCounter; FRAME_TYPES]; TRANSPORTS],
    /// Messages of clients, by transport and type.
    pub received: [[MessageCounter; FRAME_TYPES]; TRANSPORTS],
    /// Error replies, by command (times 65,536) and code.
    pub reply_errors: CodeCounters,
    /// Disconnects by the server, by code.
    pub disconnects: CodeCounters,
    /// Unsubscribes by the server, by code.
    pub unsubscribes: CodeCounters,
    /// Close frames, by transport (times 65,536) and code.
    pub closes: CodeCounters,
    /// Recoveries, by whether they succeeded, and by whether there were missed publications.
    pub recoveries: [[Counter; 2]; 2],
    /// Actions.
    pub actions: [Counter; Action::LABELS.len()],
    /// Joins and leaves that homes sent to subscribers.
    pub joins_and_leaves: [Counter; 2],
    /// Publications that successful recoveries sent.
    pub recovered_publications: Histogram,
    /// Time between a ping and its pong, by transport.
    pub pings: [Histogram; TRANSPORTS],
    /// Time from the pass that read a command to the end of the pass that wrote its reply.
    pub commands: [Histogram; COMMANDS],
    /// Time in which a lap gave its publications to the members of a group.
    pub laps: Histogram,
    /// Time from the acceptance of a publish request to the end of the pass that wrote the
    /// publication to a subscriber.
    pub publish_to_write: Histogram,
    /// Duration of the passes of a worker, counted on its first shard.
    pub passes: Histogram,
    /// API calls that the shard answered, by whether the answer is an error.
    pub api_publish: Histogram,
    /// Errors of API calls that the shard answered, by code.
    pub api_publish_errors: CodeCounters,
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident,)*) => {
        /// The counters of one shard.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $name: Counter,)*
            /// Counters with labels.
            pub by: Labelled,
        }

        /// Kind of a metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum MetricKind {
            /// The value only grows.
            Total,
            /// The value goes up and down.
            Gauge,
            /// The largest value of all shards counts.
            Largest,
        }

        // Two shards never share a cache line: the processor fetches lines in pairs.
        const _: () = assert!(align_of::<Metrics>() >= 128);

        impl Metrics {
            /// Name, help text, kind and value of every counter.
            pub fn list(&self) -> Vec<(&'static str, &'static str, MetricKind, u64)> {
                vec![$((
                    stringify!($name),
                    concat!($($doc),+).trim_ascii(),
                    MetricKind::$kind,
                    self.$name.get(),
                ),)*]
            }
        }
    };
}

counters! {
    /// Open sockets of the shard.
    sockets: Gauge,
    /// Clients that have connected and are not closed.
    clients: Gauge,
    /// Distinct users with a connection on the shard.
    users: Gauge,
    /// Subscriptions, including pending ones.
    subscriptions: Gauge,
    /// Channels whose home is the shard.
    channels: Gauge,
    /// Channels with history whose home is the shard.
    streams: Gauge,
    /// Bytes of history of the channels whose home is the shard.
    history_bytes: Gauge,
    /// Connections with unsent output.
    outboxes: Gauge,
    /// Bytes of unsent output.
    outbox_bytes: Gauge,
    /// Connections with unprocessed input.
    unread: Gauge,
    /// Bytes of unprocessed input.
    unread_bytes: Gauge,
    /// Bytes of publications that are not yet written to all subscribers.
    backlog_bytes: Gauge,
    /// Accepted sockets.
    accepted: Total,
    /// Connections refused with HTTP status 503.
    refused: Total,
    /// Sockets moved to another shard because this one had no free slot.
    relayed: Total,
    /// Sockets handed to the control plane.
    handed_over: Total,
    /// Connect commands answered with success.
    connects: Total,
    /// Commands of clients handled.
    commands: Total,
    /// Times that a client's commands waited because of `client.command_rate_limit`.
    rate_pauses: Total,
    /// HTTP API calls that the shard answered without the control plane.
    calls: Total,
    /// Error replies to clients.
    errors: Total,
    /// Publications accepted by the home of their channel.
    publications: Total,
    /// Streams removed to make room for new ones.
    streams_evicted: Total,
    /// Publish requests to durable channels that were refused, because the store did not keep them.
    durable_refused: Total,
    /// Publications removed from the history because its memory budget was exceeded.
    history_shed: Total,
    /// Publications sent to subscribers, counted once per subscriber.
    deliveries: Total,
    /// Publications not sent because a later one replaced them (batch_flush_latest).
    replaced: Total,
    /// Bytes received from sockets.
    received_bytes: Total,
    /// Sends that the socket took only in part or refused.
    short_sends: Total,
    /// Pings sent to clients.
    pings: Total,
    /// Slow consumers closed with code 3008.
    slow: Total,
    /// Connections closed because unprocessed input exceeded its memory budget (code 3008, or HTTP
    /// status 503).
    unread_closed: Total,
    /// Connections closed by the server with any code.
    disconnects: Total,
    /// Connections closed by the peer or the network.
    lost: Total,
    /// Disconnect and unsubscribe events created for the backend.
    hook_events: Total,
    /// Hook events dropped because the shard had no room for them.
    hook_events_dropped: Total,
    /// Calls of io_uring_enter.
    enters: Total,
    /// Sends submitted to io_uring.
    sends: Total,
    /// Turns of the event loop, counted on the worker's first shard.
    turns: Total,
    /// Turns that took longer than a millisecond. The time of a turn is that of its pass.
    long_turns: Total,
    /// Duration of the longest turn since the start, in microseconds, as that of its pass.
    longest_turn_micros: Largest,
    /// Passes of a worker over its shards, counted on the worker's first shard.
    passes: Total,
    /// Wall-clock time of the passes, in microseconds, counted on the worker's first shard.
    pass_micros: Total,
    /// Passes that used more than 1 millisecond of CPU time.
    slow_passes: Total,
    /// Passes that used more than 5 milliseconds of CPU time.
    long_passes: Total,
    /// CPU time of the longest pass since the start, in microseconds.
    longest_pass_cpu_micros: Largest,
    /// Times that a turn waited for an event.
    sleeps: Total,
    /// Times that the kernel kept completions aside because the completion queue was full.
    completion_overflows: Total,
    /// Completions that arrived after their slot was freed or reused.
    stale_completions: Total,
    /// TLS handshakes that were completed.
    tls_handshakes: Total,
    /// TLS handshakes that resumed an earlier session.
    tls_resumptions: Total,
    /// TLS handshakes that failed: by an alert, a timeout or the end of the connection.
    tls_handshakes_failed: Total,
    /// TLS handshakes in progress.
    tls_handshakes_open: Gauge,
    /// TLS key updates, sent and received.
    tls_key_updates: Total,
    /// TLS connections that ended because of a faulty record.
    tls_faults: Total,
    /// Connections refused because of a limit per IP address.
    accepts_refused_by_address: Total,
    /// Connections refused because the node was overloaded.
    accepts_shed: Total,
    /// Connections closed because of a missing or invalid PROXY protocol header.
    proxy_protocol_errors: Total,
    /// Publications that tags filters kept from subscribers, counted once per group.
    filtered: Total,
}
