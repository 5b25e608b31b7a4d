//! Every key of the configuration: its name, its type, its default and what it is for.
//!
//! Owns the table, from which flags, variables, files and whatever is printed of them are read off.
//! Never says what a value does to the engine. The invariant: what is not here cannot be
//! configured. In a section plain keys stand before sections, as TOML wants them.

use std::any::TypeId;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::secret::{Address, Secret};

use super::Span;
use super::key::{Key, Kind, join};

/// A section of the configuration, or a value in one: what it holds and what it is for.
pub(super) trait Node {
    fn describe(&self, path: &str, doc: &'static str, keys: &mut Vec<Key>);
}

/// A section with its keys. What stands behind `..` is a section whose keys are its own too.
macro_rules! section {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr,)*
            $(.. $(#[doc = $part_doc:literal])+ $part:ident: $part_type:ty)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)*
            $($(#[doc = $part_doc])+ #[serde(flatten)] pub $part: $part_type,)?
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* $($part: <$part_type>::default(),)? }
            }
        }

        impl Node for $name {
            fn describe(&self, path: &str, _doc: &'static str, keys: &mut Vec<Key>) {
                $(self.$field.describe(
                    &join(path, stringify!($field)),
                    concat!($($doc),+).trim_ascii(),
                    keys,
                );)*
                $(self.$part.describe(path, "", keys);)?
            }
        }
    };
}

macro_rules! values {
    ($($type:ty: $kind:ident,)*) => {
        $(impl Node for $type {
            fn describe(&self, path: &str, doc: &'static str, keys: &mut Vec<Key>) {
                let default = toml::Value::try_from(self).expect("a value of TOML's kinds");
                let most = most::<$type>();
                keys.push(Key { path: path.to_owned(), doc, kind: Kind::$kind, default, most });
            }
        })*
    };
}

/// The largest number that a type of the table holds; no type takes more than TOML writes.
fn most<T: 'static>() -> u64 {
    let small = TypeId::of::<T>() == TypeId::of::<u16>();
    if small { u16::MAX.into() } else { i64::MAX as u64 }
}

values! {
    bool: Switch,
    u16: Number,
    u64: Number,
    usize: Number,
    String: Text,
    Vec<String>: List,
    Secret: Secret,
    Address: Address,
    BTreeMap<String, Secret>: Map,
    Span: Duration,
    Vec<Namespace>: Tables,
    Vec<RpcNamespace>: Tables,
    Vec<NamedProxy>: Tables,
}

section! {
    /// Everything that can be configured.
    Config {
        /// Rings that connections live on, each with its part of the channels, turned by at most as
        /// many threads as there are processors; 0: one a processor.
        shards: usize = 0,
        /// Proxies that namespaces name instead of channel.proxy's and rpc.proxy: tables, each with
        /// a `name` and the keys of such a proxy. As a flag or in the environment: as JSON.
        proxies: Vec<NamedProxy> = Vec::new(),
        /// Where the server listens.
        http_server: HttpServer = HttpServer::default(),
        /// What clients may do and how long they may take.
        client: Client = Client::default(),
        /// Channels.
        channel: Channel = Channel::default(),
        /// Calls of the application's own.
        rpc: Rpc = Rpc::default(),
        /// The HTTP API for backends.
        http_api: HttpApi = HttpApi::default(),
        /// The bidirectional WebSocket.
        websocket: WebSocket = WebSocket::default(),
        /// The unidirectional WebSocket.
        uni_websocket: UniWebSocket = UniWebSocket::default(),
        /// Replies as an answer that does not end.
        http_stream: HttpStream = HttpStream::default(),
        /// Replies as server-sent events.
        sse: Sse = Sse::default(),
        /// Pushes alone as an answer that does not end.
        uni_http_stream: UniHttpStream = UniHttpStream::default(),
        /// Pushes alone as server-sent events.
        uni_sse: UniSse = UniSse::default(),
        /// Pushes alone, an answer for each batch.
        long_polling: LongPolling = LongPolling::default(),
        /// What clients of http_stream and sse say.
        emulation: Emulation = Emulation::default(),
        /// Metrics.
        prometheus: Prometheus = Prometheus::default(),
        /// Health.
        health: Health = Health::default(),
        /// The description of the HTTP API.
        swagger: Swagger = Swagger::default(),
        /// The page at `/`.
        page: Page = Page::default(),
        /// The way out.
        shutdown: Shutdown = Shutdown::default(),
        /// The engine.
        engine: Engine = Engine::default(),
    }
}

section! {
    /// Where the server listens.
    HttpServer {
        /// IP address to listen on; empty: every IPv4 address, but 127.0.0.1 where nothing is
        /// configured and the server is therefore open.
        address: String = String::new(),
        /// Public port: client connections, and everything else unless internal_port is set; 0: a
        /// free one, which the first screen shows.
        port: u16 = 8000,
        /// IP address of the internal port; empty: as the public one.
        internal_address: String = String::new(),
        /// Port for API, metrics, health and page alone, which then leave the public port; 0: none.
        internal_port: u16 = 0,
        /// Time that an HTTP connection may idle between two requests of a client that has given
        /// the API key, and on the internal port. Behind a load balancer use more than the time
        /// for which it keeps idle connections (620s for Google Cloud).
        idle_timeout: Span = Span::seconds(75),
        /// Time that an HTTP connection of any other client may idle between two requests. Behind
        /// a load balancer use more than the time for which it keeps idle connections (60s for
        /// AWS and nginx, 620s for Google Cloud), or it answers some requests with 502.
        anonymous_idle_timeout: Span = Span::seconds(30),
        /// Maximum number of HTTP connections on the public port, push connections left out. At
        /// the maximum the connection that has been idle longest is closed; without an idle one
        /// a new connection is answered 503. RLIMIT_NOFILE may lower it.
        connections_max: usize = 4096,
        /// Maximum number of connections on the internal port, with the same policy.
        internal_connections_max: usize = 1024,
        /// Maximum size of a request head in bytes; a longer one is answered 431.
        head_size_limit: usize = 32_768,
        /// Maximum number of headers in a request, at most 256; a request with more of them is
        /// answered 431.
        headers_limit: usize = 128,
    }
}

section! {
    /// What clients may do and how long they may take.
    Client {
        /// Origins that browser pages may come from, `*` as wildcard; the server's own host
        /// always may.
        allowed_origins: Vec<String> = Vec::new(),
        /// Let clients connect without a token and do everything: for development only. Tokens
        /// that are given must still be valid, and channels with the private prefix still need
        /// one; the expiration of connection tokens is ignored.
        insecure: bool = false,
        /// Nobody looks at the signatures of tokens: for development only.
        insecure_skip_token_signature_verify: bool = false,
        /// Clients may connect without a token.
        allow_anonymous_connect_without_token: bool = false,
        /// Connection tokens must name a user.
        disallow_anonymous_connection_tokens: bool = false,
        /// The answer to a connect says the server's time.
        connect_include_server_time: bool = false,
        /// Time between pings.
        ping_interval: Span = Span::seconds(25),
        /// Time in which a pong must follow a ping; shorter than ping_interval.
        pong_timeout: Span = Span::seconds(8),
        /// Time between two checks that a channel's subscribers, where they are positioned, stand
        /// where its stream does; 0s: never.
        channel_position_check_delay: Span = Span::seconds(40),
        /// Time for a client to connect before its socket is closed.
        stale_close_delay: Span = Span::seconds(10),
        /// Time to refresh a connection after its token has expired.
        expired_close_delay: Span = Span::seconds(25),
        /// Time to refresh a subscription after its token has expired.
        expired_sub_close_delay: Span = Span::seconds(25),
        /// Connections of this node; 0: as many as it has room for.
        connection_limit: usize = 0,
        /// New connections in a second; 0: no limit.
        connection_rate_limit: usize = 0,
        /// Connections of one user on this node; 0: no limit.
        user_connection_limit: usize = 0,
        /// Subscriptions of one client.
        channel_limit: u16 = 128,
        /// Bytes that one client may be behind before it is closed as slow.
        queue_max_size: usize = 1_048_576,
        /// Publications that one call of a client for history may bring.
        history_max_publication_limit: usize = 300,
        /// Publications that one recovery may bring.
        recovery_max_publication_limit: usize = 300,
        /// What tokens are checked by.
        token: Token = Token::default(),
        /// What subscription tokens are checked by, where it is not what all are.
        subscription_token: SubscriptionToken = SubscriptionToken::default(),
        /// A channel of one's own.
        subscribe_to_user_personal_channel: PersonalChannel = PersonalChannel::default(),
        /// What the backend is asked about clients.
        proxy: ClientProxies = ClientProxies::default(),
        /// What the backend is told about clients.
        hook: ClientHooks = ClientHooks::default(),
    }
}

section! {
    /// What the backend is asked about clients.
    ClientProxies {
        /// Who a client without a token is.
        connect: OptionalProxy = OptionalProxy::default(),
        /// How much longer a connection holds whose time is over.
        refresh: OptionalProxy = OptionalProxy::default(),
    }
}

section! {
    /// What the backend is told about clients.
    ClientHooks {
        /// Whose connection has ended.
        disconnect: OptionalProxy = OptionalProxy::default(),
    }
}

section! {
    /// A place where the backend is asked or told, if that is switched on.
    OptionalProxy {
        /// Whether it is.
        enabled: bool = false,
        ..
        /// The place.
        proxy: Proxy
    }
}

section! {
    /// A place where the backend is asked or told, by an HTTP POST of JSON.
    Proxy {
        /// URL of the backend, which begins with http:// or https://.
        endpoint: Address = Address::default(),
        /// How long an answer may take.
        timeout: Span = Span::seconds(1),
        /// Headers of the client's HTTP request that go along.
        http_headers: Vec<String> = Vec::new(),
        /// Headers that the client itself gave with its connect that go along; nobody vouches for
        /// them.
        emulated_headers: Vec<String> = Vec::new(),
        /// Payloads go as base64, so that they need not be JSON.
        binary_encoding: bool = false,
        /// The meta of the connection goes along.
        include_connection_meta: bool = false,
        /// What is special about HTTP.
        http: ProxyHttp = ProxyHttp::default(),
    }
}

section! {
    /// A proxy that namespaces may name.
    NamedProxy {
        /// Its name.
        name: String = String::new(),
        ..
        /// The place.
        proxy: Proxy
    }
}

section! {
    /// What is special about HTTP.
    ProxyHttp {
        /// Headers of every request by their names; those of clients win over them.
        static_headers: BTreeMap<String, Secret> = BTreeMap::new(),
    }
}

section! {
    /// Calls of the application's own.
    Rpc {
        /// What ends the namespace in a method's name; empty: there are no namespaces.
        namespace_boundary: String = ":".to_owned(),
        /// Namespaces of methods: tables, each with a `name` and the keys of rpc.without_namespace.
        /// As a flag or in the environment: the same as JSON, or names separated by spaces.
        namespaces: Vec<RpcNamespace> = Vec::new(),
        /// Who carries them out.
        proxy: Proxy = Proxy::default(),
        /// Calls of methods whose name has no namespace.
        without_namespace: RpcOptions = RpcOptions::default(),
    }
}

section! {
    /// A namespace of methods: those whose name begins with its name and the boundary.
    RpcNamespace {
        /// Its name.
        name: String = String::new(),
        ..
        /// What holds for its methods.
        options: RpcOptions
    }
}

section! {
    /// Options of a group of methods.
    RpcOptions {
        /// Calls go to the backend.
        proxy_enabled: bool = false,
        /// Which of `proxies` they go to; empty: rpc.proxy.
        proxy_name: String = String::new(),
    }
}

section! {
    /// What tokens are checked by.
    Token {
        /// Secret of HS256, HS384 and HS512; empty: such tokens are refused.
        hmac_secret_key: Secret = Secret::default(),
        /// Secret that hmac_secret_key came after; tokens signed with it are still taken.
        hmac_previous_secret_key: Secret = Secret::default(),
        /// Unix time in seconds until which hmac_previous_secret_key is taken; 0: for ever.
        hmac_previous_secret_key_valid_until: u64 = 0,
        /// Public key of RS256, RS384 and RS512 in PEM; empty: such tokens are refused.
        rsa_public_key: String = String::new(),
        /// Public key of ES256, ES384 and ES512 in PEM; empty: such tokens are refused.
        ecdsa_public_key: String = String::new(),
        /// Address of a key set (JWKS), which then alone counts; `{{name}}` in it stands for a
        /// named group of issuer_regex or audience_regex.
        jwks_public_endpoint: Address = Address::default(),
        /// Audience (`aud`) that a token must be for; empty: any.
        audience: String = String::new(),
        /// Regular expression that the audience must contain a match of; empty: any. As in
        /// Centrifugo it is not anchored: write `^...$` to match the whole audience.
        audience_regex: String = String::new(),
        /// Issuer (`iss`) that a token must come from; empty: any.
        issuer: String = String::new(),
        /// Regular expression that the issuer must contain a match of; empty: any. As in
        /// Centrifugo it is not anchored: write `^...$` to match the whole issuer.
        issuer_regex: String = String::new(),
        /// Claim that names the user; empty: `sub`.
        user_id_claim: String = String::new(),
    }
}

section! {
    /// What subscription tokens are checked by, where it is not what all are.
    SubscriptionToken {
        /// Subscription tokens are checked by the keys of this section, not by client.token's.
        enabled: bool = false,
        ..
        /// What they are checked by.
        token: Token
    }
}

section! {
    /// A channel of one's own, to which the server subscribes every client that has a user.
    PersonalChannel {
        /// Whether there is one.
        enabled: bool = false,
        /// Namespace of such channels; empty: none.
        personal_channel_namespace: String = String::new(),
        /// A user's new connection closes the one before it.
        single_connection: bool = false,
    }
}

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

section! {
    /// The HTTP API for backends.
    HttpApi {
        /// Key that requests carry as `X-API-Key`; without one every request is refused.
        key: Secret = Secret::default(),
        /// No key is asked for.
        insecure: bool = false,
        /// No API at all.
        disabled: bool = false,
        /// Path under which the methods are.
        handler_prefix: String = "/api".to_owned(),
        /// How errors are answered: transport (by HTTP status); empty: in a body of status 200.
        error_mode: String = String::new(),
    }
}

section! {
    /// The bidirectional WebSocket.
    WebSocket {
        /// Turn the WebSocket endpoint off.
        disabled: bool = false,
        /// Path of the WebSocket endpoint.
        handler_prefix: String = "/connection/websocket".to_owned(),
        /// Bytes of one message of a client.
        message_size_limit: usize = 65_536,
        /// Messages may be compressed (permessage-deflate, without context takeover).
        compression: bool = false,
        /// How well publications are compressed: from 1, the quickest, to 9.
        compression_level: u16 = 1,
        /// Bytes below which a publication is not compressed.
        compression_min_size: usize = 0,
        /// Bytes that one compressed message of a client may be when it is read; 0: as
        /// message_size_limit. The same holds for the unidirectional WebSocket.
        decompressed_message_size_limit: usize = 0,
    }
}

section! {
    /// The unidirectional WebSocket.
    UniWebSocket {
        /// Serve the unidirectional WebSocket.
        enabled: bool = false,
        /// Path of the unidirectional WebSocket endpoint.
        handler_prefix: String = "/connection/uni_websocket".to_owned(),
        /// Messages may be compressed (permessage-deflate, without context takeover).
        compression: bool = false,
        /// How well publications are compressed: from 1, the quickest, to 9.
        compression_level: u16 = 1,
        /// Bytes below which a publication is not compressed.
        compression_min_size: usize = 0,
    }
}

/// Sections of streams, which differ in their paths and in whether they are on by default.
macro_rules! streams {
    ($($(#[$meta:meta])* $name:ident $path:literal $enabled:literal;)*) => {
        $(section! {
            $(#[$meta])*
            $name {
                /// Serve this transport.
                enabled: bool = $enabled,
                /// Path of this transport's endpoint.
                handler_prefix: String = $path.to_owned(),
                /// Maximum size of a request body in bytes.
                max_request_body_size: usize = 65_536,
            }
        })*
    };
}

streams! {
    /// Replies as an answer that does not end.
    HttpStream "/connection/http_stream" true;
    /// Replies as server-sent events.
    Sse "/connection/sse" true;
    /// Pushes alone as an answer that does not end.
    UniHttpStream "/connection/uni_http_stream" false;
    /// Pushes alone as server-sent events.
    UniSse "/connection/uni_sse" false;
    /// Pushes alone, an answer for each batch.
    LongPolling "/connection/long_polling" false;
}

section! {
    /// What clients of http_stream and sse say.
    Emulation {
        /// Its path.
        handler_prefix: String = "/emulation".to_owned(),
        /// Bytes of a request's body at most.
        max_request_body_size: usize = 65_536,
    }
}

section! {
    /// Metrics.
    Prometheus {
        /// Serve metrics in Prometheus' format.
        enabled: bool = false,
        /// Path of the metrics.
        handler_prefix: String = "/metrics".to_owned(),
    }
}

section! {
    /// Health.
    Health {
        /// Serve the health check.
        enabled: bool = true,
        /// Path of the health check.
        handler_prefix: String = "/health".to_owned(),
    }
}

section! {
    /// The description of the HTTP API.
    Swagger {
        /// Serve the description of the HTTP API and its page.
        enabled: bool = false,
        /// Path of its page; the document in OpenAPI is at `openapi.json` behind it.
        handler_prefix: String = "/swagger".to_owned(),
    }
}

section! {
    /// The page at `/`.
    Page {
        /// Serve a page at `/` that connects, subscribes and shows messages.
        enabled: bool = false,
    }
}

section! {
    /// The way out.
    Shutdown {
        /// Longest time that closing every connection may take.
        timeout: Span = Span::seconds(30),
        /// Time over which the closes are spread, so that clients do not all come back at once.
        spread: Span = Span::seconds(5),
    }
}

section! {
    /// The engine.
    Engine {
        /// Connections that one shard holds; 0: as many as limits and memory allow.
        slots_per_shard: usize = 0,
        /// Whether clients must answer pings.
        pong: bool = true,
        /// Bytes of a socket's send buffer in the kernel.
        send_buffer: usize = 65_536,
        /// Bytes of a socket's receive buffer in the kernel.
        receive_buffer: usize = 65_536,
        /// How long sent data may stay unacknowledged before the connection counts as lost.
        user_timeout: Span = Span::seconds(45),
        /// Bytes of unsent output that the node keeps for clients that are behind. Past it the
        /// server closes the client with the most (3008).
        outbox_budget: usize = 256 << 20,
        /// Bytes of unread input that the node keeps: parts of requests and messages, and commands
        /// that wait. Past it the server closes the connection with the most (3008, or status 503).
        unread_budget: usize = 128 << 20,
        /// Bytes of publications that the node keeps until they are written to all subscribers,
        /// divided evenly among the shards. Past it a shard takes no more publications in.
        backlog: usize = 32 << 20,
        /// Channels with history that the node keeps, divided evenly among the shards. Past it a
        /// channel without publications, or whose publications expire first, makes room.
        streams_max: usize = 500_000,
        /// Bytes of history that the node keeps. Past it the oldest publications make room.
        history_bytes: usize = 512 << 20,
        /// Bytes of tags filters that the node keeps; equal filters of a shard count once. Past it
        /// a subscribe with a filter is answered with error 106.
        filter_budget: usize = 64 << 20,
        /// Bytes of idempotency keys that the node keeps. Past it the oldest keys make room.
        idempotency_budget: usize = 32 << 20,
        /// Bytes of disconnects and unsubscribes that wait to be sent to the backend. Past it new
        /// ones are dropped and counted.
        hook_budget: usize = 64 << 20,
        /// Bytes of tokens to verify and questions to the backend that wait for an answer. Past it
        /// a client's command is answered with error 100.
        question_budget: usize = 64 << 20,
        /// Revocations of tokens that are kept until they are over; past it none is taken.
        revocations_max: usize = 100_000,
        /// Ends of clients and subscriptions that may wait to be told to the backend.
        hooks_max: usize = 100_000,
        /// How long the backend is tried to be told of one before that is dropped.
        hook_ttl: Span = Span::seconds(3600),
        /// Messages that one inbox between shards holds.
        inbox: usize = 4096,
        /// Submission queue entries of each io_uring ring, from 1 to 32768.
        ring_submissions: usize = 1024,
        /// Maximum number of completion queue entries of each io_uring ring, up to 65536. A ring
        /// gets no more than its connections need. Small values are for tests of a full queue.
        ring_completions: usize = 65_536,
        /// Receive buffers of 4 KiB of each io_uring ring, a power of two up to 32768.
        ring_buffers: u16 = 128,
        /// Test mode: a WebSocket at /echo that sends back what it gets.
        echo: bool = false,
        /// Whether processors are held out of deep idle while serving: quicker wake-ups for more
        /// power.
        force_latency: bool = false,
        /// Threads of the HTTP side.
        control_threads: usize = 1,
    }
}
