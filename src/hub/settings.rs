//! What a shard goes by.
//!
//! Owns nothing but what the configuration says, in the data plane's words.

use std::sync::Arc;

use crate::base::memory::Limits;
use crate::home;
use crate::home::users::UserLimit;
use crate::model::auth::{ApiKey, Rules};
use crate::model::backend::Upstreams;
use crate::model::namespaces::Namespaces;
use crate::model::token::Verifier;
use crate::wire::deflate::Compression;
use crate::wire::http::{HeadLimits, Routes};

/// What a shard goes by.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Who may come.
    pub rules: Rules,
    /// What may be done in which channel.
    pub namespaces: Arc<Namespaces>,
    /// What tokens are good for.
    pub tokens: TokenVerifiers,
    /// The namespace of the channels that each user has for itself, if they have any.
    pub personal_namespace: Option<String>,
    /// Where the backend is asked, and told.
    pub proxies: Upstreams,
    /// Who may use the API.
    pub api: ApiKey,
    /// Paths that are served.
    pub routes: Routes,
    /// What homes keep.
    pub homes: home::HomeSettings,
    /// Connections that the shard holds at most.
    pub slots: usize,
    /// Bytes of one message of a client.
    pub message_bytes: usize,
    /// Bytes that one compressed message of a client may be when it is read.
    pub inflated_bytes: usize,
    /// How publications are compressed for those who take that.
    pub compression: Compression,
    /// The same for unidirectional clients.
    pub uni_compression: Compression,
    /// Bytes that one connection may be behind.
    pub outbox_bytes: usize,
    /// Bytes that the node may use, for each kind of memory.
    pub budgets: Limits,
    /// Bytes waiting for their lap past which the shard takes no publication in.
    pub backlog_bytes: usize,
    /// Subscriptions of one connection.
    pub channel_limit: u16,
    /// Publications that one excerpt of a channel's history has at most.
    pub history_limit: usize,
    /// Clients of the node at most; 0: no limit.
    pub connection_limit: u64,
    /// New connections of the node in a second; 0: no limit.
    pub connection_rate: u64,
    /// Sockets that the control plane takes from the public port at most.
    pub places: u64,
    /// Connections of one user on the node.
    pub user_limit: UserLimit,
    /// Whether clients are told the time.
    pub tells_time: bool,
    /// Milliseconds between two checks of a channel's subscribers' position; 0: there are none.
    pub position_check_delay: u64,
    /// Seconds for a new connection token once the old one is over.
    pub expired_close_delay: u64,
    /// The same for a subscription's.
    pub expired_sub_close_delay: u64,
    /// Milliseconds between pings.
    pub ping_interval: u64,
    /// Milliseconds in which a pong must follow; `None`: no pong is asked for.
    pub pong_timeout: Option<u64>,
    /// Milliseconds for the request head.
    pub head_timeout: u64,
    /// How large a request head may be.
    pub head_limits: HeadLimits,
    /// Milliseconds that a connection may idle between two requests that gave the API key.
    pub idle_timeout: u64,
    /// Milliseconds that one may idle behind any other request.
    pub anonymous_idle_timeout: u64,
    /// Milliseconds for the connect command.
    pub stale_close_delay: u64,
    /// Milliseconds for the peer's close frame.
    pub close_timeout: u64,
}

impl Default for HubSettings {
    /// Serves no path and has no key; times and sizes are about those of the default configuration.
    fn default() -> Self {
        HubSettings {
            homes: home::HomeSettings {
                recovery_limit: 300,
                answer_bytes: 1 << 20,
                streams_max: 1000,
            },
            namespaces: Arc::default(),
            rules: Rules::default(),
            tokens: TokenVerifiers::default(),
            personal_namespace: None,
            proxies: Upstreams::default(),
            api: ApiKey::default(),
            routes: Routes::new(),
            slots: 1000,
            message_bytes: 1 << 16,
            inflated_bytes: 1 << 16,
            compression: Compression::default(),
            uni_compression: Compression::default(),
            outbox_bytes: 1 << 20,
            budgets: Limits::all(1 << 30),
            backlog_bytes: 1 << 20,
            channel_limit: 128,
            history_limit: 300,
            connection_limit: 0,
            connection_rate: 0,
            places: 1000,
            user_limit: UserLimit::default(),
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
    /// What one of so many shards goes by, which holds so many connections. Streams and backlog are
    /// divided evenly: channels are spread evenly, and each shard gets what is published to many.
    #[must_use]
    pub fn of_shard(&self, slots: usize, shards: usize) -> Self {
        let mut settings = HubSettings { slots, ..self.clone() };
        settings.homes.streams_max = (self.homes.streams_max / shards.max(1)).max(1);
        settings.backlog_bytes = self.backlog_bytes / shards.max(1);
        settings
    }
}

/// What tokens are good for. By default every token is refused.
#[derive(Clone, Debug, Default)]
pub struct TokenVerifiers {
    /// For connections.
    pub connection: Arc<Verifier>,
    /// For subscriptions.
    pub subscription: Arc<Verifier>,
}
