//! The whole configuration: its sections in the order in which they are printed.
//!
//! Owns the list of sections. Never holds a rule between keys.

use super::backend::{NamedProxy, Rpc};
use super::channel::Channel;
use super::client::Client;
use super::engine::Engine;
use super::section::section;
use super::server::{Health, HttpApi, HttpServer, Page, Prometheus, Shutdown, Swagger};
use super::transports::{
    Emulation, HttpStream, LongPolling, Sse, UniHttpStream, UniSse, UniWebSocket, WebSocket,
};

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
