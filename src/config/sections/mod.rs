//! Every key of the configuration: name, type, default and description. Owns the sections, from
//! which flags, variables, files and everything printed about them are derived. Never says what a
//! value does to the engine. A key that is not here cannot be configured. In a section plain keys
//! come before subsections, as TOML requires.

mod backend;
mod channel;
mod client;
mod engine;
mod root;
mod section;
mod server;
mod transports;

pub use self::backend::{
    NamedProxy, OptionalProxy, Proxy, ProxyHttp, Rpc, RpcNamespace, RpcOptions,
};
pub use self::channel::{Channel, ChannelHooks, ChannelOptions, ChannelProxies, Namespace};
pub use self::client::{
    Client, ClientHooks, ClientProxies, PersonalChannel, SubscriptionToken, Token,
};
pub use self::engine::Engine;
pub use self::root::Config;
pub(super) use self::section::describe;
pub use self::server::{Health, HttpApi, HttpServer, Page, Prometheus, Shutdown, Swagger};
pub use self::transports::{
    Emulation, HttpStream, LongPolling, Sse, UniHttpStream, UniSse, UniWebSocket, WebSocket,
};
