//! Sections about channels: names, namespaces and the options of a namespace.
//!
//! Owns the keys of `channel`. Never finds the namespace of a channel.

use super::backend::Proxy;
use super::section::{section, tables};
use crate::config::duration::ConfigDuration;

section! {
    /// Channels and their namespaces.
    Channel {
        /// Maximum length of a channel name in bytes.
        max_length: usize = 255,
        /// Time for which a channel keeps its stream position (epoch and offset) after the last
        /// publication, when the namespace does not set its own. It must be at least as long as
        /// every `history_ttl`.
        history_meta_ttl: ConfigDuration = ConfigDuration::seconds(720 * 3600),
        /// Prefix of private channels, which clients can subscribe to only with a token. Empty: no
        /// channel is private.
        private_prefix: String = "$".to_owned(),
        /// Separator between the namespace and the rest of a channel name. Empty: channel names
        /// have no namespaces.
        namespace_boundary: String = ":".to_owned(),
        /// Separator between the rest of a channel name and the users who may subscribe, for
        /// example `#` in `dialog#42,43`. Empty: channel names list no users.
        user_boundary: String = "#".to_owned(),
        /// Separator between the users that a channel name lists. Empty: a channel name lists one
        /// user.
        user_separator: String = ",".to_owned(),
        /// Format of publications in channels whose namespace does not set one: `json` (any JSON
        /// text), `json_object`, or `binary` (any bytes; only protobuf clients can subscribe).
        /// Empty: `json`.
        publication_data_format: String = String::new(),
        /// Channel namespaces. A list of tables, each with a `name` and the keys of
        /// `channel.without_namespace`. As a flag or variable: the same as JSON, or names separated
        /// by spaces.
        namespaces: Vec<Namespace> = Vec::new(),
        /// Options of channels whose name has no namespace.
        without_namespace: ChannelOptions = ChannelOptions::default(),
        /// Proxies: questions to the backend about channels. Namespaces enable them.
        proxy: ChannelProxies = ChannelProxies::default(),
        /// Hooks: events about channels for the backend. Namespaces enable them.
        hook: ChannelHooks = ChannelHooks::default(),
    }
}

section! {
    /// Proxies: questions to the backend about channels. Namespaces enable them.
    ChannelProxies {
        /// Subscribe proxy: the backend decides on subscriptions without a token.
        subscribe: Proxy = Proxy::default(),
        /// Publish proxy: the backend decides on publications of clients and can change them.
        publish: Proxy = Proxy::default(),
        /// Subscription refresh proxy: the backend extends subscriptions that expire.
        sub_refresh: Proxy = Proxy::default(),
    }
}

section! {
    /// Hooks: events about channels for the backend. Namespaces enable them.
    ChannelHooks {
        /// Unsubscribe hook: the backend is notified when a subscription ends.
        unsubscribe: Proxy = Proxy::default(),
    }
}

section! {
    /// A channel namespace: the channels whose name starts with its name and the separator.
    Namespace {
        /// Name of the namespace.
        name: String = String::new(),
        ..
        /// Options of its channels.
        options: ChannelOptions
    }
}

section! {
    /// Options of a group of channels.
    ChannelOptions {
        /// Keep presence: the list of the clients subscribed to a channel, which the API and
        /// permitted clients can query.
        presence: bool = false,
        /// Send join and leave messages to the subscribers that ask for them.
        join_leave: bool = false,
        /// Send join and leave messages to every subscriber. It requires `join_leave`.
        force_push_join_leave: bool = false,
        /// Maximum number of publications in a channel's history. 0: no history. It must be set
        /// together with `history_ttl`.
        history_size: usize = 0,
        /// Time for which a channel's history keeps a publication. 0s: no history. It must be set
        /// together with `history_size`.
        history_ttl: ConfigDuration = ConfigDuration::seconds(0),
        /// Keep the history on disk: the server acknowledges and delivers a publication when it is
        /// on disk, and history and positions survive a restart. It requires history and
        /// `store.path`.
        history_durable: bool = false,
        /// Time for which a channel keeps its stream position (epoch and offset) after the last
        /// publication. 0s: the same as `channel.history_meta_ttl`.
        history_meta_ttl: ConfigDuration = ConfigDuration::seconds(0),
        /// Track the stream position of every subscriber: the server ends the subscription of a
        /// client that missed a publication, and the client subscribes again.
        force_positioning: bool = false,
        /// Allow clients to request positioning when they subscribe: the server ends the
        /// subscription of a client that missed a publication, and the client subscribes again.
        allow_positioning: bool = false,
        /// Enable recovery for every subscriber: a client that reconnects gets the publications
        /// that it missed. It requires history.
        force_recovery: bool = false,
        /// Allow clients to request recovery when they subscribe. It requires history.
        allow_recovery: bool = false,
        /// Recovery mode: `stream` sends all missed publications, `cache` only the latest. Empty:
        /// `stream`.
        force_recovery_mode: String = String::new(),
        /// Send the latest publication to every new subscriber. It requires `force_recovery_mode =
        /// "cache"`.
        auto_cache_recover: bool = false,
        /// Types of delta compression that subscribers may request: `fossil`. Empty: no deltas. Use
        /// it for large publications that differ little from one another.
        allowed_delta_types: Vec<String> = Vec::new(),
        /// Send every publication as a delta to the subscribers that requested deltas. Without it,
        /// only publications that request `delta` in the API are sent as deltas.
        delta_publish: bool = false,
        /// Allow JSON clients to request channel compaction: the server sends a number instead of
        /// the channel name.
        allow_channel_compaction: bool = false,
        /// Time for which publications of a channel wait to be sent together. 0s: each is sent at
        /// once. Set it for channels with many small publications per second.
        batch_max_delay: ConfigDuration = ConfigDuration::seconds(0),
        /// Number of waiting publications at which a batch is sent before `batch_max_delay` has
        /// passed. 0: a batch waits for the whole delay.
        batch_max_size: usize = 0,
        /// Send only the latest publication of each `batch_max_delay`. It cannot be combined with
        /// history, positioning or deltas.
        batch_flush_latest: bool = false,
        /// Allow subscribers to filter publications by tags.
        allow_tags_filter: bool = false,
        /// Allow clients that have a user to subscribe without a token. Channels with the private
        /// prefix still need a token; channels that list users admit only those users.
        allow_subscribe_for_client: bool = false,
        /// Allow anonymous clients to subscribe without a token. It requires
        /// `allow_subscribe_for_client`.
        allow_subscribe_for_anonymous: bool = false,
        /// Allow clients that have a user to publish to every channel of this group, even to
        /// channels that they cannot subscribe to (private and user-limited ones included, as in
        /// Centrifugo).
        allow_publish_for_client: bool = false,
        /// Allow anonymous clients to publish. It requires `allow_publish_for_client`.
        allow_publish_for_anonymous: bool = false,
        /// Allow clients to publish to channels they are subscribed to.
        allow_publish_for_subscriber: bool = false,
        /// Allow clients that have a user to query the presence of every channel of this group,
        /// even of channels that they cannot subscribe to (private and user-limited ones included,
        /// as in Centrifugo).
        allow_presence_for_client: bool = false,
        /// Allow anonymous clients to query presence. It requires `allow_presence_for_client`.
        allow_presence_for_anonymous: bool = false,
        /// Allow clients to query the presence of channels they are subscribed to.
        allow_presence_for_subscriber: bool = false,
        /// Allow clients that have a user to read the history of every channel of this group, even
        /// of channels that they cannot subscribe to (private and user-limited ones included, as in
        /// Centrifugo).
        allow_history_for_client: bool = false,
        /// Allow anonymous clients to read history. It requires `allow_history_for_client`.
        allow_history_for_anonymous: bool = false,
        /// Allow clients to read the history of channels they are subscribed to.
        allow_history_for_subscriber: bool = false,
        /// Allow users to subscribe without a token to channels that list them, for example user 42
        /// to `dialog#42,43` (see `channel.user_boundary`).
        allow_user_limited_channels: bool = false,
        /// Regular expression that the channel name (without its namespace) must match. Empty: the
        /// name must be ASCII.
        channel_regex: String = String::new(),
        /// Format of publications: `json` (any JSON text), `json_object`, or `binary` (any bytes;
        /// only protobuf clients can subscribe). Empty: the same as
        /// `channel.publication_data_format`.
        publication_data_format: String = String::new(),
        /// Ask the backend whether a client may subscribe, for subscriptions without a token.
        subscribe_proxy_enabled: bool = false,
        /// Name of the proxy (in `proxies`) that decides on subscriptions. Empty:
        /// `channel.proxy.subscribe`.
        subscribe_proxy_name: String = String::new(),
        /// Ask the backend whether a client may publish.
        publish_proxy_enabled: bool = false,
        /// Name of the proxy (in `proxies`) that decides on publications. Empty:
        /// `channel.proxy.publish`.
        publish_proxy_name: String = String::new(),
        /// Ask the backend to extend subscriptions that expire.
        sub_refresh_proxy_enabled: bool = false,
        /// Name of the proxy (in `proxies`) that extends subscriptions. Empty:
        /// `channel.proxy.sub_refresh`.
        sub_refresh_proxy_name: String = String::new(),
        /// Notify the backend (`channel.hook.unsubscribe`) when a subscription ends.
        unsubscribe_hook_enabled: bool = false,
    }
}

tables!(Namespace);
