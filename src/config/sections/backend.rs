//! Sections about the application's backend: proxies, hooks and RPC.
//!
//! Owns the keys of a proxy and of `rpc`. Never sends a request.

use std::collections::BTreeMap;

use crate::base::secret::{Address, Secret};

use super::section::{section, tables};
use super::tls::ClientTls;
use crate::config::duration::ConfigDuration;
use crate::config::status_transforms::StatusTransform;

section! {
    /// A proxy or hook that can be enabled.
    OptionalProxy {
        /// Enable this proxy or hook.
        enabled: bool = false,
        ..
        /// The endpoint and its options.
        proxy: Proxy
    }
}

section! {
    /// A backend endpoint, which receives HTTP POST requests with a JSON body.
    Proxy {
        /// URL of the backend endpoint (http or https). Empty: not configured.
        endpoint: Address = Address::default(),
        /// Timeout of one request to the backend.
        timeout: ConfigDuration = ConfigDuration::seconds(1),
        /// Headers of the client's HTTP request to forward to the backend, for example `Cookie`.
        http_headers: Vec<String> = Vec::new(),
        /// Headers to forward from the `headers` field of the client's connect command. A client
        /// can put any value there, so the backend must verify them.
        emulated_headers: Vec<String> = Vec::new(),
        /// Send payloads to the backend as base64 (`b64data`), which allows payloads that are not
        /// JSON.
        binary_encoding: bool = false,
        /// Include the connection's `meta` in requests to the backend.
        include_connection_meta: bool = false,
        /// HTTP options of the endpoint.
        http: ProxyHttp = ProxyHttp::default(),
    }
}

section! {
    /// A named proxy, which namespaces select.
    NamedProxy {
        /// Name of the proxy. Namespaces select the proxy by this name.
        name: String = String::new(),
        ..
        /// The endpoint and its options.
        proxy: Proxy
    }
}

section! {
    /// HTTP options of a backend endpoint.
    ProxyHttp {
        /// Headers to add to every request to the backend, as a map of names to values. A forwarded
        /// client header of the same name replaces the static one.
        static_headers: BTreeMap<String, Secret> = BTreeMap::new(),
        /// HTTP statuses of the backend that become an error or a disconnect for the client, as a
        /// list of `{status_code, to_error: {code, message, temporary}}` and `{status_code,
        /// to_disconnect: {code, reason}}`. Other statuses except 2xx are error 100.
        status_to_code_transforms: Vec<StatusTransform> = Vec::new(),
        /// TLS options of an https endpoint.
        tls: ClientTls = ClientTls::default(),
    }
}

section! {
    /// RPC methods, which the backend implements.
    Rpc {
        /// Separator between namespace and the rest of a method name. Empty: method names have no
        /// namespaces.
        namespace_boundary: String = ":".to_owned(),
        /// Namespaces of RPC methods. A list of tables, each with a `name` and the keys of
        /// `rpc.without_namespace`. As a flag or variable: the same as JSON, or names separated by
        /// spaces.
        namespaces: Vec<RpcNamespace> = Vec::new(),
        /// RPC proxy: the backend that implements the methods.
        proxy: Proxy = Proxy::default(),
        /// Options of methods whose name has no namespace.
        without_namespace: RpcOptions = RpcOptions::default(),
    }
}

section! {
    /// A namespace of RPC methods: the methods whose name starts with its name and the separator.
    RpcNamespace {
        /// Name of the namespace.
        name: String = String::new(),
        ..
        /// Options of its methods.
        options: RpcOptions
    }
}

section! {
    /// Options of a group of RPC methods.
    RpcOptions {
        /// Send the calls of these RPC methods to the backend. Without it, clients get error 108
        /// (method not found).
        proxy_enabled: bool = false,
        /// Name of the proxy (in `proxies`) that these RPC calls use. Empty: `rpc.proxy`.
        proxy_name: String = String::new(),
    }
}

tables!(NamedProxy, RpcNamespace);
