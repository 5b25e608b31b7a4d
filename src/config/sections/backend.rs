//! Sections about the application's backend: proxies, hooks and RPC.
//!
//! Owns the keys of a proxy and of `rpc`. Never sends a request.

use std::collections::BTreeMap;

use crate::base::secret::{Address, Secret};

use super::section::{section, tables};
use crate::config::span::Span;

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

tables!(NamedProxy, RpcNamespace);
