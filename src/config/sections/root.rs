//! The whole configuration: all sections in the order in which they are printed.
//!
//! Owns the list of sections. Never checks rules between keys.

use super::backend::{NamedProxy, Rpc};
use super::channel::Channel;
use super::client::Client;
use super::consumers::Consumer;
use super::engine::Engine;
use super::log::Log;
use super::opentelemetry::OpenTelemetry;
use super::section::section;
use super::server::{Admin, Health, HttpApi, HttpServer, Page, Prometheus, Shutdown, Swagger};
use super::store::Store;
use super::transports::{
    Emulation, HttpStream, LongPolling, Polling, Sse, UniHttpStream, UniSse, UniWebSocket,
    WebSocket,
};

section! {
    /// All configuration keys.
    Config {
        /// Number of shards: event loops with an io_uring ring each, which hold the connections and
        /// the channels. 0: one per processor. At most one thread per processor runs shards. Raise
        /// it when RLIMIT_NOFILE cannot be raised: each shard has an open-file limit of its own.
        shards: usize = 0,
        /// File to write the process ID to. The server removes it when it ends. Empty: no file.
        pid_file: String = String::new(),
        /// Named proxies, which namespaces select by `proxy_name`, `subscribe_proxy_name` and
        /// similar keys. A list of tables, each with a `name` and the keys of `rpc.proxy`. As a
        /// flag or variable: the same as JSON.
        proxies: Vec<NamedProxy> = Vec::new(),
        /// Consumers: queues of brokers whose messages the server publishes. A list of tables, each
        /// with a `name`, `enabled`, `type` and a section of the name of the type. As a flag or
        /// variable: the same as JSON, or names separated by spaces.
        consumers: Vec<Consumer> = Vec::new(),
        /// Log lines: levels, format and file.
        log: Log = Log::default(),
        /// Addresses, ports and limits of the HTTP server.
        http_server: HttpServer = HttpServer::default(),
        /// Client connections: authentication, timeouts and limits.
        client: Client = Client::default(),
        /// Channels and their namespaces.
        channel: Channel = Channel::default(),
        /// The store: publications of durable channels on disk.
        store: Store = Store::default(),
        /// RPC methods, which the backend implements.
        rpc: Rpc = Rpc::default(),
        /// HTTP API for backends.
        http_api: HttpApi = HttpApi::default(),
        /// Bidirectional WebSocket transport.
        websocket: WebSocket = WebSocket::default(),
        /// Unidirectional WebSocket transport.
        uni_websocket: UniWebSocket = UniWebSocket::default(),
        /// Bidirectional HTTP streaming transport.
        http_stream: HttpStream = HttpStream::default(),
        /// Bidirectional transport over server-sent events.
        sse: Sse = Sse::default(),
        /// Unidirectional HTTP streaming transport.
        uni_http_stream: UniHttpStream = UniHttpStream::default(),
        /// Unidirectional transport over server-sent events.
        uni_sse: UniSse = UniSse::default(),
        /// Unidirectional long-polling transport.
        long_polling: LongPolling = LongPolling::default(),
        /// Endpoint that answers with the latest publication of a channel.
        polling: Polling = Polling::default(),
        /// Endpoint that takes the commands of http_stream and sse clients.
        emulation: Emulation = Emulation::default(),
        /// Metrics endpoint.
        prometheus: Prometheus = Prometheus::default(),
        /// OpenTelemetry traces.
        opentelemetry: OpenTelemetry = OpenTelemetry::default(),
        /// Health endpoint.
        health: Health = Health::default(),
        /// OpenAPI description of the HTTP API.
        swagger: Swagger = Swagger::default(),
        /// Built-in page at `/`.
        page: Page = Page::default(),
        /// Admin page for operators.
        admin: Admin = Admin::default(),
        /// Graceful shutdown.
        shutdown: Shutdown = Shutdown::default(),
        /// Engine: memory budgets, buffers and io_uring.
        engine: Engine = Engine::default(),
    }
}
