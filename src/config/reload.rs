//! Reload: which keys of a new configuration take effect while the server runs.
//!
//! Owns the rule. Never reads a source. The invariant: every key either takes effect or is named as
//! one that needs a restart, and the configuration in force has passed all checks.

use std::collections::BTreeMap;

use super::durable_namespaces::{durable_namespaces, keep_durable};
use super::error::{Error, error};
use super::load::Loaded;
use super::sections::{Config, HttpServer, NamedProxy, ServerTls, differences};

/// The configuration after a reload.
#[derive(Clone, Debug)]
pub struct Reload {
    /// The configuration to apply: new values where they can change, the earlier ones elsewhere.
    pub config: Config,
    /// Paths of the keys that change.
    pub changed: Vec<String>,
    /// Paths of the keys that differ and need a restart.
    pub restart: Vec<String>,
    /// Which namespaces are durable, as in [`Loaded`].
    pub durable: BTreeMap<String, bool>,
}

impl Loaded {
    /// What a reload of `new` changes.
    ///
    /// # Errors
    /// The server was open and the new sources close it, or the reverse, or keys that need a
    /// restart contradict those that do not.
    pub fn reload(&self, new: &Loaded) -> Result<Reload, Error> {
        if self.access.is_open() != new.access.is_open() {
            let (was, is) = match self.access.is_open() {
                true => ("nothing was configured at the start", "there is a configuration now"),
                false => ("it has a configuration", "nothing is configured now"),
            };
            return Err(error(
                format!("who may use the server cannot change while it runs: {was}, and {is}"),
                "restart the server",
            ));
        }
        let mut wanted = new.config.clone();
        if new.access.is_open() {
            // Each load makes a new key.
            wanted.http_api.key = self.config.http_api.key.clone();
        }
        let mut config = in_force(&self.config, &wanted);
        keep_durable(&self.durable, &mut config.channel);
        let mut durable = durable_namespaces(&config.channel);
        durable.extend(self.durable.clone());
        let restart = differences(&config, &wanted);
        config.check().map_err(|refused| {
            let cause = format!("{} (until a restart, {} stay)", refused.cause, restart.join(", "));
            error(cause, refused.cure)
        })?;
        let changed = differences(&self.config, &config);
        Ok(Reload { config, changed, restart, durable })
    }

    /// Notes that the configuration of a reload is in force.
    pub fn apply(&mut self, reload: Reload) {
        (self.config, self.durable) = (reload.config, reload.durable);
    }
}

/// The configuration in force after a reload. Sections that are not listed here need a restart.
fn in_force(running: &Config, new: &Config) -> Config {
    let Config { client, channel, rpc, http_api, shutdown, .. } = new.clone();
    let mut config = Config { client, channel, rpc, http_api, shutdown, ..running.clone() };
    config.log.level = new.log.level.clone();
    config.log.levels = new.log.levels.clone();
    config.log.rate = new.log.rate;
    config.log.access = new.log.access;
    // Certificates. Whether a port has TLS is settled at the start, as are the keys of its tickets.
    let tls = |running: &ServerTls, new: &ServerTls| ServerTls {
        enabled: running.enabled,
        session_ticket_key_file: running.session_ticket_key_file.clone(),
        ..new.clone()
    };
    let (server, wanted) = (&running.http_server, &new.http_server);
    config.http_server = HttpServer {
        tls: tls(&server.tls, &wanted.tls),
        internal_tls: tls(&server.internal_tls, &wanted.internal_tls),
        ..server.with_limits_of(wanted)
    };
    if !running.store.path.is_empty() {
        // A channel that moves to another namespace may become durable, or not durable any more.
        config.channel.namespace_boundary = running.channel.namespace_boundary.clone();
        config.channel.private_prefix = running.channel.private_prefix.clone();
    }
    // Requests in progress name a proxy by its number.
    let same = |(old, new): (&NamedProxy, &NamedProxy)| old.name == new.name;
    let is_longer = running.proxies.len() <= new.proxies.len();
    if is_longer && running.proxies.iter().zip(&new.proxies).all(same) {
        config.proxies = new.proxies.clone();
    }
    // Bodies and messages of clients. The paths and the compressors exist since the start.
    config.websocket.message_size_limit = new.websocket.message_size_limit;
    config.websocket.decompressed_message_size_limit =
        new.websocket.decompressed_message_size_limit;
    config.uni_websocket.disable_disconnect_push = new.uni_websocket.disable_disconnect_push;
    config.uni_sse.connect_code_to_http_response =
        new.uni_sse.connect_code_to_http_response.clone();
    config.uni_http_stream.connect_code_to_http_response =
        new.uni_http_stream.connect_code_to_http_response.clone();
    config.http_stream.max_request_body_size = new.http_stream.max_request_body_size;
    config.sse.max_request_body_size = new.sse.max_request_body_size;
    config.emulation.max_request_body_size = new.emulation.max_request_body_size;
    config
}

impl HttpServer {
    /// This section with the limits of request heads and the idle times of another one.
    pub fn with_limits_of(&self, new: &HttpServer) -> HttpServer {
        HttpServer {
            head_timeout: new.head_timeout,
            head_size_limit: new.head_size_limit,
            headers_limit: new.headers_limit,
            idle_timeout: new.idle_timeout,
            anonymous_idle_timeout: new.anonymous_idle_timeout,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Access, ChannelOptions, ConfigDuration, Namespace};

    fn loaded(config: Config) -> Loaded {
        let access = Access::Closed("a test".to_owned());
        let (warnings, durable) = (Vec::new(), durable_namespaces(&config.channel));
        Loaded { config, file: None, access, warnings, has_unknown: false, durable }
    }

    fn proxy(name: &str) -> NamedProxy {
        NamedProxy { name: name.to_owned(), ..NamedProxy::default() }
    }

    #[test]
    fn each_key_applies_or_is_named_as_one_that_needs_a_restart() {
        let running = loaded(Config::default());
        let mut new = running.clone();
        new.config.http_api.key = "new".into();
        new.config.client.channel_limit += 1;
        new.config.client.ping_interval.0 *= 2;
        new.config.client.address_connection_limit = 7;
        new.config.http_server.head_timeout.0 *= 2;
        new.config.http_server.headers_limit += 1;
        new.config.http_server.connections_max += 1;
        new.config.engine.backlog += 1;
        new.config.websocket.compression = true;
        new.config.log.level = "debug".into();
        new.config.log.levels.insert("tls".into(), "trace".into());
        new.config.log.rate += 1;
        new.config.log.access = true;
        (new.config.log.format, new.config.log.file) = ("json".into(), "new.log".into());
        let reload = running.reload(&new).unwrap();
        let changed = [
            "log.level",
            "log.access",
            "log.rate",
            "log.levels",
            "http_server.head_timeout",
            "http_server.headers_limit",
            "client.ping_interval",
            "client.channel_limit",
            "client.address_connection_limit",
            "http_api.key",
        ];
        let sorted = |mut keys: Vec<String>| {
            keys.sort();
            keys
        };
        assert_eq!(sorted(reload.changed), sorted(changed.map(str::to_owned).to_vec()));
        let restart = [
            "log.file",
            "log.format",
            "http_server.connections_max",
            "websocket.compression",
            "engine.backlog",
        ];
        assert_eq!(reload.restart, restart);
        assert_eq!(reload.config.http_api.key.reveal(), "new");
        assert_eq!(reload.config.engine, running.config.engine);
    }

    #[test]
    fn proxies_are_added_behind_those_that_requests_in_progress_name() {
        let mut running = loaded(Config::default());
        running.config.proxies = vec![proxy("one"), proxy("two")];
        let mut new = running.clone();
        new.config.proxies.push(proxy("three"));
        assert_eq!(running.reload(&new).unwrap().changed, ["proxies"]);
        for names in [&["one"][..], &["two", "one"], &["one", "three", "two"]] {
            new.config.proxies = names.iter().map(|name| proxy(name)).collect();
            let reload = running.reload(&new).unwrap();
            assert_eq!((reload.changed.len(), reload.restart), (0, vec!["proxies".to_owned()]));
        }
        let options = &mut new.config.channel.without_namespace;
        (options.subscribe_proxy_enabled, options.subscribe_proxy_name) = (true, "three".into());
        let refused = running.reload(&new).unwrap_err();
        assert!(refused.cause.contains("(until a restart, proxies stay)"), "{refused}");
    }

    #[test]
    fn an_open_server_keeps_its_key_and_stays_open() {
        let open = |key: &str| {
            let mut open = loaded(Config::default());
            (open.access, open.config.http_api.key) = (Access::Open, key.into());
            open
        };
        let reload = open("first").reload(&open("second")).unwrap();
        assert!(reload.changed.is_empty() && reload.restart.is_empty(), "{reload:?}");
        assert!(open("first").reload(&loaded(Config::default())).is_err());
    }

    #[test]
    fn a_namespace_stays_durable_or_not_also_when_it_was_away() {
        let config = |durable: Option<bool>| {
            let mut config = Config::default();
            config.store.path = "/srv/store".into();
            let options = |history_durable| ChannelOptions {
                history_durable,
                history_size: 10,
                history_ttl: ConfigDuration::seconds(60),
                ..ChannelOptions::default()
            };
            let named = |durable| Namespace { name: "news".into(), options: options(durable) };
            config.channel.namespaces = durable.into_iter().map(named).collect();
            config
        };
        for (first, then) in [(true, false), (false, true)] {
            let mut running = loaded(config(Some(first)));
            running.apply(running.reload(&loaded(config(None))).unwrap());
            assert!(running.config.channel.namespaces.is_empty());
            let reload = running.reload(&loaded(config(Some(then)))).unwrap();
            assert_eq!(reload.config.channel.namespaces[0].options.history_durable, first);
            assert_eq!(reload.restart, ["channel.namespaces"]);
        }
    }

    #[test]
    fn what_tells_the_namespace_of_a_channel_stays_while_there_is_a_store() {
        let mut running = loaded(Config::default());
        let mut new = running.clone();
        new.config.channel.namespace_boundary = "/".into();
        new.config.channel.private_prefix = "!".into();
        assert!(running.reload(&new).unwrap().restart.is_empty());
        for loaded in [&mut running, &mut new] {
            loaded.config.store.path = "/srv/store".into();
        }
        let restart = running.reload(&new).unwrap().restart;
        assert_eq!(restart, ["channel.private_prefix", "channel.namespace_boundary"]);
    }
}
