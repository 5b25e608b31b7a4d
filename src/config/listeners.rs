//! Listeners of the public port, from `http_server` and `http_server.listeners`.
//!
//! Owns the rules for them. Never opens a socket. The invariant: the listener of
//! `http_server.address` is the first, and addresses and entrances have the same order.

use std::sync::Arc;

use crate::base::failure::Failure;
use crate::base::listeners::ListenAddress;
use crate::base::sys;
use crate::model::entrance::{ENTRANCES_MAX, Entrance};
use crate::wire::client_address::TrustedNetworks;

use super::error::{Error, error};
use super::sections::{Config, Listener};

/// Maximum length of the path of a Unix socket.
const UNIX_PATH_MAX: usize = 107;

impl Config {
    /// The addresses that the public port listens on.
    pub fn listen_addresses(&self) -> Result<Vec<ListenAddress>, Failure> {
        let server = &self.http_server;
        let first = sys::listen_address(&server.address, server.port).map(ListenAddress::Tcp);
        std::iter::once(first)
            .chain(server.listeners.iter().map(Listener::listen_address))
            .collect()
    }

    /// What connections through each of these addresses begin with.
    pub(super) fn entrances(&self) -> Arc<[Entrance]> {
        let server = &self.http_server;
        let (proxy_protocol, tls) = (server.proxy_protocol, server.has_tls());
        let first = Entrance { proxy_protocol, tls, ..Entrance::default() };
        let further = server.listeners.iter().map(|listener| Entrance {
            name: listener.name.clone(),
            unix: !listener.unix_socket.is_empty(),
            proxy_protocol: listener.proxy_protocol,
            tls: listener.tls,
        });
        std::iter::once(first).chain(further).collect()
    }

    /// Networks of the proxies whose reports are believed.
    pub fn trusted_proxies(&self) -> TrustedNetworks {
        let texts = self.http_server.trusted_proxies.iter().map(String::as_str);
        // The check of the configuration refuses what is no network.
        TrustedNetworks::read(texts).unwrap_or_default()
    }

    pub(super) fn check_listeners(&self) -> Result<(), Error> {
        let listeners = &self.http_server.listeners;
        if listeners.len() >= ENTRANCES_MAX {
            return Err(error(
                format!("http_server.listeners has {} tables", listeners.len()),
                format!("use at most {}", ENTRANCES_MAX - 1),
            ));
        }
        let trusted = self.http_server.trusted_proxies.iter().map(String::as_str);
        TrustedNetworks::read(trusted).map_err(|text| {
            error(
                format!("http_server.trusted_proxies: {text:?} is not an address or a network"),
                "use IP addresses and networks, for example 10.0.0.0/8",
            )
        })?;
        for (at, listener) in listeners.iter().enumerate() {
            let place = format!("http_server.listeners[{at}] {:?}", listener.name);
            listener.check(&place, self.http_server.has_tls())?;
        }
        let addresses = self
            .listen_addresses()
            .map_err(|refused| error(format!("http_server: {}", refused.cause), refused.cure))?;
        for (at, address) in addresses.iter().enumerate() {
            let is_random = matches!(address, ListenAddress::Tcp(tcp) if tcp.port() == 0);
            if !is_random && addresses[..at].contains(address) {
                return Err(error(
                    format!("http_server.listeners: {address} is listened on twice"),
                    "give each listener an address of its own",
                ));
            }
        }
        Ok(())
    }
}

impl Listener {
    fn mode(&self) -> Option<u32> {
        u32::from_str_radix(&self.unix_socket_mode, 8).ok().filter(|mode| *mode <= 0o777)
    }

    fn listen_address(&self) -> Result<ListenAddress, Failure> {
        if self.unix_socket.is_empty() {
            return sys::listen_address(&self.address, self.port).map(ListenAddress::Tcp);
        }
        let path = self.unix_socket.clone().into();
        Ok(ListenAddress::Unix { path, mode: self.mode().unwrap_or(0) })
    }

    fn check(&self, place: &str, has_tls: bool) -> Result<(), Error> {
        let (path, is_tcp) = (&self.unix_socket, self.unix_socket.is_empty());
        let must = |holds: bool, cause: String, cure: &str| {
            if holds { Ok(()) } else { Err(error(format!("{place}: {cause}"), cure)) }
        };
        must(
            is_tcp || (self.port == 0 && self.address.is_empty()),
            "both unix_socket and address or port are set".to_owned(),
            "make two listeners of it",
        )?;
        must(
            !is_tcp || self.port != 0,
            "port is 0".to_owned(),
            "set port, or unix_socket for a Unix socket",
        )?;
        must(
            path.len() <= UNIX_PATH_MAX && !path.contains('\0'),
            format!("unix_socket is a path of {} bytes", path.len()),
            "use a path of at most 107 bytes",
        )?;
        must(
            self.mode().is_some(),
            format!("unix_socket_mode is {:?}", self.unix_socket_mode),
            "use octal permissions, for example 0660",
        )?;
        sys::listen_address(&self.address, self.port)
            .map_err(|refused| error(format!("{place}: {}", refused.cause), refused.cure))?;
        must(
            has_tls || !self.tls,
            "tls is set, but neither http_server.tls nor tls_autocert is enabled".to_owned(),
            "set tls to false, or configure http_server.tls",
        )
    }
}
