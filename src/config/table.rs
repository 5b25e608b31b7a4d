//! Every key of the configuration: its name, its type, its default and what it is for.
//!
//! Owns the table, from which flags, variables, the file and its template are read off. The
//! invariant: what is not here cannot be configured.

use serde::{Deserialize, Serialize};

use super::{Key, Kind, Span, join};

/// A section of the configuration, or a value in one: what it holds and what it is for.
pub(super) trait Node {
    fn describe(&self, path: &str, doc: &'static str, keys: &mut Vec<Key>);
}

macro_rules! section {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* }
            }
        }

        impl Node for $name {
            fn describe(&self, path: &str, _doc: &'static str, keys: &mut Vec<Key>) {
                $(self.$field.describe(
                    &join(path, stringify!($field)),
                    concat!($($doc),+).trim_ascii(),
                    keys,
                );)*
            }
        }
    };
}

macro_rules! values {
    ($($type:ty: $kind:ident,)*) => {
        $(impl Node for $type {
            fn describe(&self, path: &str, doc: &'static str, keys: &mut Vec<Key>) {
                let default = toml::Value::try_from(self).expect("a value of TOML's kinds");
                keys.push(Key { path: path.to_owned(), doc, kind: Kind::$kind, default });
            }
        })*
    };
}

values! {
    bool: Switch,
    u16: Number,
    u64: Number,
    usize: Number,
    String: Text,
    Vec<String>: List,
    Span: Duration,
}

section! {
    /// Everything that can be configured.
    Config {
        /// Rings that connections live on, each with its part of the channels, turned by at most as
        /// many threads as there are processors; 0: one a processor.
        shards: usize = 0,
        /// Where the server listens.
        http_server: HttpServer = HttpServer::default(),
        /// What clients may do and how long they may take.
        client: Client = Client::default(),
        /// Channels.
        channel: Channel = Channel::default(),
        /// The HTTP API for backends.
        http_api: HttpApi = HttpApi::default(),
        /// The bidirectional WebSocket.
        websocket: WebSocket = WebSocket::default(),
        /// The unidirectional WebSocket.
        uni_websocket: UniWebSocket = UniWebSocket::default(),
        /// Metrics.
        prometheus: Prometheus = Prometheus::default(),
        /// Health.
        health: Health = Health::default(),
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
        /// IP address to listen on; empty: every IPv4 address.
        address: String = String::new(),
        /// Public port: client connections, and everything else unless internal_port is set.
        port: u16 = 8000,
        /// IP address of the internal port; empty: as the public one.
        internal_address: String = String::new(),
        /// Port for API, metrics, health and page alone, which then leave the public port; 0: none.
        internal_port: u16 = 0,
    }
}

section! {
    /// What clients may do and how long they may take.
    Client {
        /// Origins that browser pages may come from, `*` as wildcard; the server's own host
        /// always may.
        allowed_origins: Vec<String> = Vec::new(),
        /// Everybody may do everything: for development only.
        insecure: bool = false,
        /// Clients may connect without a token.
        allow_anonymous_connect_without_token: bool = false,
        /// Time between pings.
        ping_interval: Span = Span::seconds(25),
        /// Time in which a pong must follow a ping; shorter than ping_interval.
        pong_timeout: Span = Span::seconds(8),
        /// Time for a client to connect before its socket is closed.
        stale_close_delay: Span = Span::seconds(10),
        /// Subscriptions of one client.
        channel_limit: u16 = 128,
        /// Bytes that one client may be behind before it is closed as slow.
        queue_max_size: usize = 1_048_576,
        /// Publications that one recovery may bring.
        recovery_max_publication_limit: usize = 300,
    }
}

section! {
    /// Channels.
    Channel {
        /// Bytes of a channel's name.
        max_length: usize = 255,
        /// How long a channel's position outlives its last publication.
        history_meta_ttl: Span = Span::seconds(720 * 3600),
        /// Channels whose name has no namespace.
        without_namespace: ChannelOptions = ChannelOptions::default(),
    }
}

section! {
    /// Options of a group of channels.
    ChannelOptions {
        /// Publications that a channel keeps; with history_ttl, or not at all.
        history_size: usize = 0,
        /// How long a publication is kept; with history_size, or not at all.
        history_ttl: Span = Span::seconds(0),
        /// Clients may subscribe.
        allow_subscribe_for_client: bool = false,
        /// Clients without a user may subscribe too.
        allow_subscribe_for_anonymous: bool = false,
        /// Clients may publish.
        allow_publish_for_client: bool = false,
        /// Clients without a user may publish too.
        allow_publish_for_anonymous: bool = false,
        /// Subscribers may publish into their channel.
        allow_publish_for_subscriber: bool = false,
    }
}

section! {
    /// The HTTP API for backends.
    HttpApi {
        /// Key that requests carry as `X-API-Key`; without one every request is refused.
        key: String = String::new(),
        /// No key is asked for.
        insecure: bool = false,
        /// No API at all.
        disabled: bool = false,
        /// Path under which the methods are.
        handler_prefix: String = "/api".to_owned(),
    }
}

section! {
    /// The bidirectional WebSocket.
    WebSocket {
        /// Its path.
        handler_prefix: String = "/connection/websocket".to_owned(),
        /// Bytes of one message of a client.
        message_size_limit: usize = 65_536,
    }
}

section! {
    /// The unidirectional WebSocket.
    UniWebSocket {
        /// Whether it is served.
        enabled: bool = true,
        /// Its path.
        handler_prefix: String = "/connection/uni_websocket".to_owned(),
    }
}

section! {
    /// Metrics.
    Prometheus {
        /// Whether they are served.
        enabled: bool = true,
        /// Their path.
        handler_prefix: String = "/metrics".to_owned(),
    }
}

section! {
    /// Health.
    Health {
        /// Whether it is served.
        enabled: bool = true,
        /// Its path.
        handler_prefix: String = "/health".to_owned(),
    }
}

section! {
    /// The page at `/`.
    Page {
        /// Whether it is served.
        enabled: bool = true,
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
        /// Bytes that all clients of a shard may be behind together.
        outbox_budget: usize = 64 << 20,
        /// Bytes waiting to be sent past which a shard takes no more publications in.
        backlog: usize = 16 << 20,
        /// Channels with history that one shard keeps.
        streams_max: usize = 100_000,
        /// Messages that one inbox between shards holds.
        inbox: usize = 4096,
        /// Test mode: a WebSocket at /echo that sends back what it gets.
        echo: bool = false,
        /// Whether processors are held out of deep idle while serving: quicker wake-ups for more
        /// power.
        force_latency: bool = false,
        /// Threads of the HTTP side.
        control_threads: usize = 1,
    }
}
