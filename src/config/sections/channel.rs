//! Sections about channels: names, namespaces and the options of a namespace.
//!
//! Owns the keys of `channel`. Never finds the namespace of a channel.

use super::backend::Proxy;
use super::section::{section, tables};
use crate::config::span::Span;

section! {
    /// Channels.
    Channel {
        /// Bytes of a channel's name.
        max_length: usize = 255,
        /// How long a channel's position outlives its last publication.
        history_meta_ttl: Span = Span::seconds(720 * 3600),
        /// Beginning of channels that need a token; empty: none do.
        private_prefix: String = "$".to_owned(),
        /// What ends the namespace in a channel's name; empty: there are no namespaces.
        namespace_boundary: String = ":".to_owned(),
        /// What users who alone may subscribe stand behind in a channel's name; empty: none do.
        user_boundary: String = "#".to_owned(),
        /// What stands between such users; empty: there is only one.
        user_separator: String = ",".to_owned(),
        /// Format that publications must have in every channel whose namespace does not say so
        /// itself: json, json_object or binary. Empty: JSON text.
        publication_data_format: String = String::new(),
        /// Namespaces: tables, each with a `name` and the keys of channel.without_namespace. As a
        /// flag or in the environment: the same as JSON, or names separated by spaces.
        namespaces: Vec<Namespace> = Vec::new(),
        /// Channels whose name has no namespace.
        without_namespace: ChannelOptions = ChannelOptions::default(),
        /// What the backend is asked about channels, where their options say so.
        proxy: ChannelProxies = ChannelProxies::default(),
        /// What the backend is told about channels, where their options say so.
        hook: ChannelHooks = ChannelHooks::default(),
    }
}

section! {
    /// What the backend is asked about channels, where their options say so.
    ChannelProxies {
        /// Whether a client may subscribe without a token.
        subscribe: Proxy = Proxy::default(),
        /// Whether a client may publish, and what.
        publish: Proxy = Proxy::default(),
        /// How much longer a subscription holds whose time is over.
        sub_refresh: Proxy = Proxy::default(),
    }
}

section! {
    /// What the backend is told about channels, where their options say so.
    ChannelHooks {
        /// Whose subscription has ended.
        unsubscribe: Proxy = Proxy::default(),
    }
}

section! {
    /// A namespace: the channels whose name begins with its name and the boundary.
    Namespace {
        /// Its name.
        name: String = String::new(),
        ..
        /// What holds for its channels.
        options: ChannelOptions
    }
}

section! {
    /// Options of a group of channels.
    ChannelOptions {
        /// Who is subscribed can be asked for.
        presence: bool = false,
        /// Joining and leaving are told to those subscribers who ask for it.
        join_leave: bool = false,
        /// Joining and leaving are told to every subscriber; with join_leave.
        force_push_join_leave: bool = false,
        /// Publications that a channel keeps; with history_ttl, or not at all.
        history_size: usize = 0,
        /// How long a publication is kept; with history_size, or not at all.
        history_ttl: Span = Span::seconds(0),
        /// How long a channel's position outlives its last publication; 0s: as
        /// channel.history_meta_ttl.
        history_meta_ttl: Span = Span::seconds(0),
        /// Every subscriber learns its position, and is told when it has missed something.
        force_positioning: bool = false,
        /// Subscribers may ask for that.
        allow_positioning: bool = false,
        /// Every subscriber that comes back gets what it has missed; with history.
        force_recovery: bool = false,
        /// Subscribers may ask for that.
        allow_recovery: bool = false,
        /// What a recovery brings: stream (what was missed) or cache (the latest publication);
        /// empty: stream.
        force_recovery_mode: String = String::new(),
        /// Whoever subscribes gets the latest publication; with cache as force_recovery_mode.
        auto_cache_recover: bool = false,
        /// Kinds of deltas that subscribers may ask for: fossil.
        allowed_delta_types: Vec<String> = Vec::new(),
        /// Every publication may go out as a delta, not only those that ask for it.
        delta_publish: bool = false,
        /// A number stands for the channel's name in what is sent to clients that know of it, in
        /// JSON.
        allow_channel_compaction: bool = false,
        /// Publications wait for this long to go out together; 0s: they go at once.
        batch_max_delay: Span = Span::seconds(0),
        /// As soon as there are so many, they wait no longer; 0: any number waits.
        batch_max_size: usize = 0,
        /// At most one publication goes out in batch_max_delay, the latest; without history,
        /// positioning and deltas.
        batch_flush_latest: bool = false,
        /// Subscribers may filter publications by their tags.
        allow_tags_filter: bool = false,
        /// Allow clients with a user to subscribe without a token. Channels with `$` still need a
        /// token, and channels with `#` a user that they name.
        allow_subscribe_for_client: bool = false,
        /// Allow clients without a user to subscribe too; with allow_subscribe_for_client.
        allow_subscribe_for_anonymous: bool = false,
        /// Allow clients with a user to publish to every channel, whether or not they may subscribe
        /// to it: to channels with `$` or `#` too, as in Centrifugo.
        allow_publish_for_client: bool = false,
        /// Allow clients without a user to publish too; with allow_publish_for_client.
        allow_publish_for_anonymous: bool = false,
        /// Allow clients to publish to channels that they are subscribed to.
        allow_publish_for_subscriber: bool = false,
        /// Allow clients with a user to ask for the presence of every channel, whether or not they
        /// may subscribe to it: of channels with `$` or `#` too, as in Centrifugo.
        allow_presence_for_client: bool = false,
        /// Allow clients without a user to ask for presence too; with allow_presence_for_client.
        allow_presence_for_anonymous: bool = false,
        /// Allow clients to ask for the presence of channels that they are subscribed to.
        allow_presence_for_subscriber: bool = false,
        /// Allow clients with a user to ask for the history of every channel, whether or not they
        /// may subscribe to it: of channels with `$` or `#` too, as in Centrifugo.
        allow_history_for_client: bool = false,
        /// Allow clients without a user to ask for history too; with allow_history_for_client.
        allow_history_for_anonymous: bool = false,
        /// Allow clients to ask for the history of channels that they are subscribed to.
        allow_history_for_subscriber: bool = false,
        /// Users may subscribe to channels that name them behind channel.user_boundary.
        allow_user_limited_channels: bool = false,
        /// Regular expression that a channel's name behind its namespace must match; empty: it
        /// must be ASCII.
        channel_regex: String = String::new(),
        /// Format that publications must have: json (any JSON text), json_object, or binary (any
        /// bytes, even none; only protobuf clients may subscribe). Empty: as
        /// channel.publication_data_format.
        publication_data_format: String = String::new(),
        /// The backend is asked who may subscribe without a token.
        subscribe_proxy_enabled: bool = false,
        /// Which of `proxies` it is asked by; empty: channel.proxy.subscribe.
        subscribe_proxy_name: String = String::new(),
        /// The backend is asked who may publish.
        publish_proxy_enabled: bool = false,
        /// Which of `proxies` it is asked by; empty: channel.proxy.publish.
        publish_proxy_name: String = String::new(),
        /// The backend is asked how much longer a subscription holds whose time is over.
        sub_refresh_proxy_enabled: bool = false,
        /// Which of `proxies` it is asked by; empty: channel.proxy.sub_refresh.
        sub_refresh_proxy_name: String = String::new(),
        /// The backend is told of subscriptions that have ended.
        unsubscribe_hook_enabled: bool = false,
    }
}

tables!(Namespace);
