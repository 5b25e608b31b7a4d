//! Sections about the HTTP server, its endpoints for operators and backends, and the shutdown.
//!
//! Owns the keys of every endpoint other than the client transports. Never opens a socket.

use crate::base::secret::Secret;

use super::section::{section, tables};
use super::tls::{ServerTls, TlsAutocert};
use crate::config::duration::ConfigDuration;

section! {
    /// Addresses, ports and limits of the HTTP server.
    HttpServer {
        /// IP address to listen on. Empty: all IPv4 addresses; when nothing is configured,
        /// 127.0.0.1 only, because the server is then open.
        address: String = String::new(),
        /// Public port. It serves clients and, unless `internal_port` is set, also the API,
        /// metrics, health and the page. 0: a free port, which the startup banner shows.
        port: u16 = 8000,
        /// IP address of the internal port. Empty: the same as `address`.
        internal_address: String = String::new(),
        /// Internal port. When set, the API, metrics, health and the page are served on this port
        /// and no longer on the public port. 0, or the public port: no internal port.
        internal_port: u16 = 0,
        /// Time within which a client must send a request head. A TLS handshake and a PROXY header
        /// have the same time. After it, the server answers 408 or closes the connection.
        head_timeout: ConfigDuration = ConfigDuration::seconds(10),
        /// Idle timeout of an HTTP connection between two requests, for clients that sent a valid
        /// API key and for the internal port. Behind a load balancer, set it above the load
        /// balancer's own idle timeout (620s for Google Cloud).
        idle_timeout: ConfigDuration = ConfigDuration::seconds(75),
        /// Idle timeout of an HTTP connection between two requests, for all other clients. Behind a
        /// load balancer, set it above the load balancer's own idle timeout (60s for AWS and nginx,
        /// 620s for Google Cloud); otherwise some requests fail with 502.
        anonymous_idle_timeout: ConfigDuration = ConfigDuration::seconds(30),
        /// Maximum number of HTTP connections on the public port, without push connections. At the
        /// maximum, the server closes the connection that has been idle longest; if none is idle,
        /// it answers the new connection with 503. A low RLIMIT_NOFILE lowers this maximum.
        connections_max: usize = 4096,
        /// Maximum number of connections on the internal port. At the maximum, the server closes
        /// the connection that has been idle longest; if none is idle, it answers the new
        /// connection with 503.
        internal_connections_max: usize = 1024,
        /// Maximum size of a request head (request line and headers) in bytes. The server answers a
        /// longer head with 431.
        head_size_limit: usize = 32_768,
        /// Maximum number of headers in a request, up to 256. The server answers a request with
        /// more headers with 431.
        headers_limit: usize = 128,
        /// Serve the internal port without TLS, even if `tls` is enabled. The section
        /// `internal_tls` still applies.
        tls_external: bool = false,
        /// Require a PROXY protocol header (version 1 or 2) at the start of every connection to
        /// `address` and `port`. Set it if a load balancer that sends such headers is the only
        /// client of the port. Connections without a header are closed.
        proxy_protocol: bool = false,
        /// Addresses and networks (`10.0.0.0/8`) of the proxies in front of the server. Only of
        /// them the server believes which client a PROXY header or `X-Forwarded-For` names. Used by
        /// `client.address_connection_limit` and `client.address_connection_rate_limit`. A proxy on
        /// a Unix socket is always believed.
        trusted_proxies: Vec<String> = Vec::new(),
        /// Further listeners of the public port: a list of tables, each with a `name`.
        listeners: Vec<Listener> = Vec::new(),
        /// TLS of the public port. Without `tls_external` and `internal_tls`, the internal port is
        /// served with the same certificates.
        tls: ServerTls = ServerTls::default(),
        /// Certificates from an ACME authority, for the public port.
        tls_autocert: TlsAutocert = TlsAutocert::default(),
        /// TLS of the internal port, if it differs from that of the public port.
        internal_tls: ServerTls = ServerTls::default(),
    }
}

section! {
    /// A further listener of the public port.
    Listener {
        /// Name of the listener, which the banner and errors show.
        name: String = String::new(),
        /// IP address to listen on. Empty: all IPv4 addresses. `::`: all IPv6 and IPv4 addresses.
        address: String = String::new(),
        /// TCP port. Required unless `unix_socket` is set.
        port: u16 = 0,
        /// Path of a Unix socket to listen on, instead of an address and a port. A file that an
        /// ended process has left is replaced.
        unix_socket: String = String::new(),
        /// Permissions of the Unix socket's file, in octal. Clients need the permission to write.
        unix_socket_mode: String = "0660".to_owned(),
        /// Serve TLS on this listener, with the certificates of `http_server.tls`. Requires
        /// `http_server.tls.enabled`. False: the listener serves without TLS.
        tls: bool = false,
        /// Require a PROXY protocol header (version 1 or 2) at the start of every connection to
        /// this listener. Connections without one are closed.
        proxy_protocol: bool = false,
    }
}

tables!(Listener);

section! {
    /// HTTP API for backends.
    HttpApi {
        /// Key that API requests must carry in the `X-API-Key` header. Empty: every API request is
        /// rejected.
        key: Secret = Secret::default(),
        /// Second API key that is valid too. To change the key without a refused request, move the
        /// old key here, set the new one as `key`, reload, and remove this key when every backend
        /// uses the new one. Empty: only `key` is valid.
        previous_key: Secret = Secret::default(),
        /// Accept API requests without a key. Use it for development, or if the API is reachable
        /// only on a private internal port.
        insecure: bool = false,
        /// Disable the HTTP API.
        disabled: bool = false,
        /// Serve the HTTP API on the public port although `http_server.internal_port` is set. The
        /// internal port then does not serve it.
        external: bool = false,
        /// Path prefix of the HTTP API: `/api` serves `/api/publish` and so on. Empty or `/`: the
        /// methods are at `/publish` and so on.
        handler_prefix: String = "/api".to_owned(),
        /// How the HTTP API reports errors: `transport` uses HTTP status codes. Empty: HTTP status
        /// 200 with an `error` object in the body.
        error_mode: String = String::new(),
    }
}

section! {
    /// Metrics endpoint.
    Prometheus {
        /// Enable the metrics endpoint. It serves the text format of Prometheus, and the protobuf
        /// format with native histograms to scrapers that accept it.
        enabled: bool = false,
        /// Path of the metrics endpoint.
        handler_prefix: String = "/metrics".to_owned(),
        /// Prefix of the names of metrics. Empty: `centrifugo` if a variable beginning with
        /// `CENTRIFUGO_` or a key that only Centrifugo has is set, otherwise `drumline`.
        namespace: String = String::new(),
        /// Export a histogram of the number of publications that each recovery sent.
        recovered_publications_histogram: bool = false,
        /// Export histograms without classic buckets, and no summaries. The buckets are then only
        /// in the protobuf format.
        native_histograms: bool = false,
    }
}

section! {
    /// Health endpoint.
    Health {
        /// Enable the health endpoint.
        enabled: bool = true,
        /// Path of the health endpoint. It answers 200 while the server is alive, and 503 with the
        /// cause while a shard is stuck. The path with `/ready` behind it answers 200 while the
        /// server is ready for new clients, and 503 from the beginning of a shutdown.
        handler_prefix: String = "/health".to_owned(),
    }
}

section! {
    /// OpenAPI description of the HTTP API.
    Swagger {
        /// Enable the API page and the OpenAPI description.
        enabled: bool = false,
        /// Path of the API page. The OpenAPI document is at `openapi.json` below it.
        handler_prefix: String = "/swagger".to_owned(),
    }
}

section! {
    /// Built-in page at `/`.
    Page {
        /// Enable the built-in page at `/`, which connects, subscribes and shows messages.
        enabled: bool = false,
    }
}

section! {
    /// Admin page for operators.
    Admin {
        /// Enable the admin page, which shows the load of the node, searches channels, publishes
        /// and disconnects users. It is served on the internal port only; without an internal port,
        /// `http_server.address` must be a loopback address.
        enabled: bool = false,
        /// Path prefix of the admin page: `/ops` serves the page at `/ops/`. Empty: the page is at
        /// `/`.
        handler_prefix: String = String::new(),
        /// Password of the admin page, as the argon2 hash that `drumline hash-password` prints.
        password: Secret = Secret::default(),
        /// Time after a login until the password must be entered again.
        session_ttl: ConfigDuration = ConfigDuration::seconds(12 * 3600),
        /// Host names by which browsers reach the admin page, without ports. IP addresses and
        /// `localhost` are always accepted; other names are refused, so that no foreign page can
        /// reach the admin page by a name of its own (DNS rebinding).
        allowed_hosts: Vec<String> = Vec::new(),
    }
}

section! {
    /// Graceful shutdown.
    Shutdown {
        /// Time after a stop signal during which the server serves as before, except that
        /// `/health/ready` answers 503. Set it to the time that load balancers need to notice that.
        /// 0: the server refuses newcomers and closes its connections at once.
        delay: ConfigDuration = ConfigDuration::seconds(0),
        /// Maximum duration of a graceful shutdown, without `delay`. After it, the server closes
        /// the remaining connections without a close frame.
        timeout: ConfigDuration = ConfigDuration::seconds(30),
        /// Time over which the server spreads the disconnects at shutdown, so that clients do not
        /// all reconnect at once. Newcomers get 503 with `Retry-After` meanwhile.
        spread: ConfigDuration = ConfigDuration::seconds(5),
    }
}
