//! Every key of the configuration: name, type, default and description. Owns the sections, from
//! which flags, environment variables, files and all printed texts are derived. Never applies a
//! value to the engine. The invariants: only keys of these sections can be configured, and in each
//! section plain keys come before subsections, as TOML requires.

mod backend;
mod channel;
mod client;
mod consumers;
mod engine;
mod log;
mod opentelemetry;
mod root;
mod section;
mod server;
mod store;
mod tls;
mod transports;

pub use self::backend::{
    NamedProxy, OptionalProxy, Proxy, ProxyHttp, Rpc, RpcNamespace, RpcOptions,
};
pub use self::channel::{Channel, ChannelHooks, ChannelOptions, ChannelProxies, Namespace};
pub use self::client::{
    Client, ClientHooks, ClientProxies, PersonalChannel, SubscriptionToken, Token,
};
pub use self::consumers::{Consumer, DeadLetter, FeedTls, PublicationDataMode, RabbitMq};
pub use self::engine::Engine;
pub use self::log::Log;
pub use self::opentelemetry::OpenTelemetry;
pub use self::root::Config;
pub(super) use self::section::{describe, differences};
pub use self::server::{
    Admin, Health, HttpApi, HttpServer, Listener, Page, Prometheus, Shutdown, Swagger,
};
pub use self::store::Store;
pub use self::tls::{Certificate, ClientTls, ServerTls, TlsAutocert};
pub use self::transports::{
    ConnectCodeToHttpResponse, Emulation, HttpStream, LongPolling, Polling, Sse, UniHttpStream,
    UniSse, UniWebSocket, WebSocket,
};
