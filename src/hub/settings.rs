//! Settings of a shard.
//!
//! Owns the values of the configuration that the data plane needs.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;

use crate::base::memory::MemoryLimits;
use crate::home;
use crate::home::users::UserLimit;
use crate::hub::connections::CommandLimit;
use crate::hub::ping_plans::PingTimes;
use crate::model::auth::{ApiKey, Rules};
use crate::model::backend::Upstreams;
use crate::model::entrance::Entrance;
use crate::model::namespaces::Namespaces;
use crate::model::revocation::Revocations;
use crate::model::token::Verifier;
use crate::wire::client_address::TrustedNetworks;
use crate::wire::deflate::Compression;
use crate::wire::http::{HeadLimits, Routes, Transport};

/// Settings of a shard.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Revoked tokens at the start. A reload does not change the list.
    pub revocations: Arc<Revocations>,
    /// Rules for connections.
    pub rules: Rules,
    /// Options of channels by namespace.
    pub namespaces: Arc<Namespaces>,
    /// Verifiers of tokens.
    pub tokens: TokenVerifiers,
    /// Namespace of the personal channels of users, if they are enabled.
    pub personal_namespace: Option<String>,
    /// Send a disconnect push to unidirectional WebSocket clients before the close frame.
    pub uni_websocket_disconnect_push: bool,
    /// Join the messages of unidirectional WebSocket clients into frames.
    pub joins_uni_messages: bool,
    /// Proxies and hooks.
    pub proxies: Upstreams,
    /// Header of the request that contains the user's id, in lower case; `None`: there is none.
    pub user_header: Option<String>,
    /// Key of the API.
    pub api: ApiKey,
    /// What connections through each listener begin with; the first is that of the main address.
    pub entrances: Arc<[Entrance]>,
    /// TLS of the public port; `None`: plain.
    pub tls: Option<Arc<ServerConfig>>,
    /// Paths that are served.
    pub routes: Routes,
    /// Limits of the home.
    pub homes: home::HomeSettings,
    /// Maximum connections of the shard.
    pub slots: usize,
    /// HTTP responses to refused connects.
    pub connect_refusals: ConnectRefusalResponses,
    /// Maximum bytes of a message from a client.
    pub message_bytes: usize,
    /// Maximum bytes of a message from a client after decompression.
    pub inflated_bytes: usize,
    /// Compression for bidirectional clients.
    pub compression: Compression,
    /// Compression for unidirectional clients.
    pub uni_compression: Compression,
    /// Maximum bytes of an outbox.
    pub outbox_bytes: usize,
    /// Memory budgets of the node.
    pub budgets: MemoryLimits,
    /// Backlog in bytes from which the shard accepts no publication.
    pub backlog_bytes: usize,
    /// Maximum subscriptions per connection.
    pub channel_limit: u16,
    /// Limit of the commands of a connection.
    pub command_limit: CommandLimit,
    /// Maximum publications per history answer.
    pub history_limit: usize,
    /// Maximum clients of the node; 0: no limit.
    pub connection_limit: u64,
    /// Maximum new connections of the node per second; 0: no limit.
    pub connection_rate: u64,
    /// Maximum sockets that the control plane takes from the public port.
    pub places: u64,
    /// Maximum connections of a client address on the node; 0: no limit.
    pub address_limit: u64,
    /// Maximum new connections of a client address per second; 0: no limit.
    pub address_rate: u64,
    /// Proxies whose reports about the address of their client are believed.
    pub trusted_proxies: TrustedNetworks,
    /// Limit of connections per user on the node.
    pub user_limit: UserLimit,
    /// Hand every call of the API over to the control plane, which traces it.
    pub hands_over_calls: bool,
    /// Errors of API calls have an HTTP status of their own (`http_api.error_mode: transport`).
    pub errors_by_status: bool,
    /// Log connects and disconnects of clients.
    pub logs_access: bool,
    /// Send the time in the connect result.
    pub tells_time: bool,
    /// Milliseconds between two position checks of a channel; 0: no checks.
    pub position_check_delay: u64,
    /// Seconds that a client has for a new connection token after the old one has expired.
    pub expired_close_delay: u64,
    /// Seconds that a client has for a new subscription token after the old one has expired.
    pub expired_sub_close_delay: u64,
    /// Milliseconds between pings of a new connection.
    pub ping_interval: u64,
    /// Milliseconds within which a pong must follow; `None`: no pong is required.
    pub pong_timeout: Option<u64>,
    /// Milliseconds for the request head.
    pub head_timeout: u64,
    /// Limits of a request head.
    pub head_limits: HeadLimits,
    /// Idle milliseconds between two requests of a connection that sent the API key.
    pub idle_timeout: u64,
    /// Idle milliseconds of a connection after any other request.
    pub anonymous_idle_timeout: u64,
    /// Milliseconds for the connect command.
    pub stale_close_delay: u64,
    /// Milliseconds for the peer's close frame.
    pub close_timeout: u64,
}

impl Default for HubSettings {
    /// Serves no path and has no key. Times and sizes are close to the default configuration.
    fn default() -> Self {
        HubSettings {
            revocations: Arc::default(),
            homes: home::HomeSettings {
                recovery_limit: 300,
                answer_bytes: 1 << 20,
                streams_max: 1000,
                namespaces: Arc::default(),
            },
            namespaces: Arc::default(),
            rules: Rules::default(),
            tokens: TokenVerifiers::default(),
            personal_namespace: None,
            uni_websocket_disconnect_push: true,
            joins_uni_messages: false,
            connect_refusals: ConnectRefusalResponses::default(),
            proxies: Upstreams::default(),
            user_header: None,
            api: ApiKey::default(),
            entrances: Arc::new([Entrance::default()]),
            routes: Routes::new(),
            tls: None,
            slots: 1000,
            message_bytes: 1 << 16,
            inflated_bytes: 1 << 16,
            compression: Compression::default(),
            uni_compression: Compression::default(),
            outbox_bytes: 1 << 20,
            budgets: MemoryLimits::all(1 << 30),
            backlog_bytes: 1 << 20,
            channel_limit: 128,
            command_limit: CommandLimit::default(),
            history_limit: 300,
            connection_limit: 0,
            connection_rate: 0,
            places: 1000,
            address_limit: 0,
            address_rate: 0,
            trusted_proxies: TrustedNetworks::default(),
            user_limit: UserLimit::default(),
            hands_over_calls: false,
            errors_by_status: false,
            logs_access: false,
            tells_time: false,
            position_check_delay: 40_000,
            expired_close_delay: 25,
            expired_sub_close_delay: 25,
            ping_interval: 25_000,
            pong_timeout: None,
            head_timeout: 10_000,
            head_limits: HeadLimits::default(),
            idle_timeout: 75_000,
            anonymous_idle_timeout: 30_000,
            stale_close_delay: 10_000,
            close_timeout: 1000,
        }
    }
}

impl HubSettings {
    /// Ping times of new connections.
    pub(super) fn ping_times(&self) -> PingTimes {
        PingTimes { interval: self.ping_interval, pong: self.pong_timeout }
    }

    /// The settings of one of `shards` shards, with `slots` connections. The bounds of streams and
    /// backlog are divided evenly: channels are spread evenly, and a publication with many
    /// subscribers goes to every shard.
    #[must_use]
    pub fn of_shard(&self, slots: usize, shards: usize) -> Self {
        let mut settings = HubSettings { slots, ..self.clone() };
        settings.homes.streams_max = (self.homes.streams_max / shards.max(1)).max(1);
        settings.backlog_bytes = self.backlog_bytes / shards.max(1);
        settings
    }
}

/// Settings that a shard has not taken yet.
#[derive(Debug, Default)]
pub struct NextSettings(Mutex<Option<Arc<HubSettings>>>);

impl NextSettings {
    /// Puts settings here, in place of those that the shard has not taken. The caller then sends
    /// the message `Reconfigure`.
    pub fn put(&self, settings: Arc<HubSettings>) {
        // The value is replaced as a whole, so a panic elsewhere leaves it valid.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
    }

    pub(super) fn take(&self) -> Option<Arc<HubSettings>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Verifiers of tokens. The default refuses every token.
#[derive(Clone, Debug, Default)]
pub struct TokenVerifiers {
    /// For connections.
    pub connection: Arc<Verifier>,
    /// For subscriptions.
    pub subscription: Arc<Verifier>,
}

/// The HTTP response to a connect that is refused with a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRefusalResponse {
    /// Code of the error or of the disconnect.
    pub code: u32,
    /// HTTP status.
    pub status: u16,
    /// Body; empty: the message of the error or the reason of the disconnect.
    pub body: Box<str>,
}

/// The responses to refused connects by transport; `None`: a disconnect push in a stream.
#[derive(Clone, Debug, Default)]
pub struct ConnectRefusalResponses {
    /// For `uni_sse`.
    pub uni_sse: Option<Arc<[ConnectRefusalResponse]>>,
    /// For `uni_http_stream`.
    pub uni_http_stream: Option<Arc<[ConnectRefusalResponse]>>,
}

impl ConnectRefusalResponses {
    /// The responses of a transport.
    pub(super) fn of(&self, transport: Transport) -> Option<&[ConnectRefusalResponse]> {
        match transport {
            Transport::UniSse => self.uni_sse.as_deref(),
            Transport::UniHttpStream => self.uni_http_stream.as_deref(),
            _ => None,
        }
    }
}
