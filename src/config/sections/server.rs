//! Sections about the HTTP server, its endpoints for operators and backends, and the shutdown.
//!
//! Owns the keys of each endpoint that does not push. Never listens.

use crate::base::secret::Secret;

use super::section::section;
use crate::config::span::Span;

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
