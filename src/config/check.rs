//! Checks of a loaded configuration: ranges of single keys and rules between keys.
//!
//! Owns the rules. Never changes a value. The invariant: an error names the key, the cause and what
//! to do; only the first error is reported.

use http::{HeaderName, HeaderValue, Uri};
use regex::Regex;

use crate::base::address_limits;
use crate::base::limits::{RING_SLOTS_MAX, SHARDS_MAX};
use crate::base::secret::Address;
use crate::base::sys;
use crate::hub::COMMAND_RATE_MAX;
use crate::wire::http::HEADERS_MOST;

use super::duration::ConfigDuration;
use super::error::{Error, error};
use super::proxies::{OWN_PROXY, is_own_header, is_own_proxy};
use super::sections::{ChannelOptions, Client, Config, Engine, HttpServer, Proxy, Token};
use super::tls;

/// Maximum number of messages in one inbox: the server allocates the slots at startup.
const INBOX_MAX: usize = 1 << 20;
/// Maximum number of control plane threads.
const CONTROL_THREADS_MAX: usize = 256;
/// Maximum size of a socket buffer in bytes: the kernel stores it in an int and doubles it.
const SOCKET_BUFFER_MAX: usize = 1 << 30;

/// Returns an error unless the condition holds.
fn must(holds: bool, cause: impl Into<String>, cure: impl Into<String>) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(error(cause, cure)) }
}

/// Checks that a namespace of metrics is the begin of a name that Prometheus reads.
fn check_metrics_namespace(namespace: &str) -> Result<(), Error> {
    let is_name =
        namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
            && !namespace.starts_with(|first: char| first.is_ascii_digit());
    must(
        is_name,
        format!("prometheus.namespace: {namespace:?} cannot begin the name of a metric"),
        "use letters, digits and underscores, and no digit at the begin",
    )
}

fn check_rings(engine: &Engine) -> Result<(), Error> {
    must(
        (1..=32_768).contains(&engine.ring_submissions),
        format!("engine.ring_submissions is {}", engine.ring_submissions),
        "use a number from 1 to 32768 (default 1024)",
    )?;
    must(
        (1..=65_536).contains(&engine.ring_completions),
        format!("engine.ring_completions is {}", engine.ring_completions),
        "use a number from 1 to 65536 (default 65536)",
    )?;
    must(
        engine.ring_buffers.is_power_of_two() && engine.ring_buffers <= 32_768,
        format!("engine.ring_buffers is {}", engine.ring_buffers),
        "use a power of two from 1 to 32768 (default 128)",
    )
}

impl Config {
    /// Checks the whole configuration. Returns the first error.
    pub(super) fn check(&self) -> Result<(), Error> {
        let (client, server) = (&self.client, &self.http_server);
        must(
            client.ping_interval > client.pong_timeout,
            "client.ping_interval must be longer than client.pong_timeout",
            "lengthen ping_interval or shorten pong_timeout",
        )?;
        must(
            server.port == 0 || server.port != server.internal_port,
            "http_server.port and http_server.internal_port are the same, but their addresses are not",
            "set internal_port to another port, or remove internal_address",
        )?;
        must(
            self.shards <= SHARDS_MAX,
            format!("shards is {}, but the maximum is {SHARDS_MAX}", self.shards),
            format!("use at most {SHARDS_MAX}, or 0 for one shard per processor"),
        )?;
        self.check_bounds()?;
        check_metrics_namespace(&self.prometheus.namespace)?;
        check_rings(&self.engine)?;
        let addresses =
            [("address", &server.address), ("internal_address", &server.internal_address)];
        for (name, address) in addresses {
            sys::listen_address(address, server.port).map_err(|refused| {
                error(format!("http_server.{name}: {}", refused.cause), refused.cure)
            })?;
        }
        check_http_server(server)?;
        let listeners: Vec<&str> = server.listeners.iter().map(|one| &*one.name).collect();
        check_names("http_server.listeners", &listeners)?;
        self.check_listeners()?;
        tls::check_ports(server)?;
        for (list, tls) in [("tls", &server.tls), ("internal_tls", &server.internal_tls)] {
            let names: Vec<&str> = tls.certificates.iter().map(|one| &*one.name).collect();
            check_names(&format!("http_server.{list}.certificates"), &names)?;
        }
        check_word("http_api", "error_mode", &self.http_api.error_mode, &["transport"])?;
        self.check_paths()?;
        self.check_admin()?;
        self.check_log()?;
        let levels = [
            ("websocket", self.websocket.compression_level),
            ("uni_websocket", self.uni_websocket.compression_level),
        ];
        for (section, level) in levels {
            must(
                (1..=9).contains(&level),
                format!("{section}.compression_level is {level}"),
                "use a level from 1 (fastest) to 9 (smallest)",
            )?;
        }
        check_token("client.token", &client.token)?;
        check_token("client.subscription_token", &client.subscription_token.token)?;
        self.verifiers().map_err(|cause| error(cause, "correct the key, or leave it empty"))?;
        self.check_proxies()?;
        let consumers: Vec<&str> = self.consumers.iter().map(|one| &*one.name).collect();
        check_names("consumers", &consumers)?;
        self.check_consumers()?;
        self.check_channels()
    }

    /// Checks numbers whose range is narrower than that of their type.
    fn check_bounds(&self) -> Result<(), Error> {
        let engine = &self.engine;
        for (name, value, least, most) in [
            ("engine.inbox", engine.inbox, 1, INBOX_MAX),
            ("engine.control_threads", engine.control_threads, 1, CONTROL_THREADS_MAX),
            ("engine.slots_per_shard", engine.slots_per_shard, 0, RING_SLOTS_MAX),
            (
                "client.address_connection_limit",
                self.client.address_connection_limit,
                0,
                address_limits::CONNECTIONS_MAX as usize,
            ),
            (
                "client.address_connection_rate_limit",
                self.client.address_connection_rate_limit,
                0,
                address_limits::RATE_MAX as usize,
            ),
            ("client.command_rate_limit", self.client.command_rate_limit, 0, COMMAND_RATE_MAX),
            ("client.command_rate_burst", self.client.command_rate_burst, 0, COMMAND_RATE_MAX),
            ("engine.send_buffer", engine.send_buffer, 1, SOCKET_BUFFER_MAX),
            ("engine.receive_buffer", engine.receive_buffer, 1, SOCKET_BUFFER_MAX),
        ] {
            must(
                (least..=most).contains(&value),
                format!("{name} is {value}"),
                format!("set it to at least {least} and at most {most}"),
            )?;
        }
        Ok(())
    }

    fn check_channels(&self) -> Result<(), Error> {
        let channel = &self.channel;
        let format = &channel.publication_data_format;
        check_word("channel", "publication_data_format", format, FORMATS)?;
        let check = |place: &str, options: &ChannelOptions| {
            must(
                !options.history_durable || !self.store.path.is_empty(),
                format!("{place}: history_durable is set, but there is no store"),
                "set store.path to a folder, for example \"/var/lib/drumline/store\"",
            )?;
            check_options(place, options, channel.meta_ttl(options))
        };
        check("channel.without_namespace", &channel.without_namespace)?;
        let names = channel.namespaces.iter().map(|namespace| &*namespace.name);
        check_names("channel.namespaces", &names.collect::<Vec<_>>())?;
        for (at, namespace) in channel.namespaces.iter().enumerate() {
            let place = format!("channel.namespaces[{at}] {:?}", namespace.name);
            check(&place, &namespace.options)?;
        }
        self.check_personal_channel(&self.client)
    }

    fn check_proxies(&self) -> Result<(), Error> {
        let (channel, rpc) = (&self.channel, &self.rpc);
        let names: Vec<&str> = self.proxies.iter().map(|proxy| &*proxy.name).collect();
        check_names("proxies", &names)?;
        must(
            !names.contains(&OWN_PROXY),
            format!("proxies: the name {OWN_PROXY:?} is reserved"),
            "rename it: as a proxy name, it selects the proxy of the section, as an empty name does",
        )?;
        let methods = rpc.namespaces.iter().map(|namespace| &*namespace.name);
        check_names("rpc.namespaces", &methods.collect::<Vec<_>>())?;
        let of_channels = |place: String, options: &ChannelOptions| {
            let ChannelOptions {
                subscribe_proxy_name,
                publish_proxy_name,
                sub_refresh_proxy_name,
                ..
            } = options.clone();
            [
                (format!("{place}: subscribe_proxy_name"), subscribe_proxy_name),
                (format!("{place}: publish_proxy_name"), publish_proxy_name),
                (format!("{place}: sub_refresh_proxy_name"), sub_refresh_proxy_name),
            ]
        };
        let without = of_channels("channel.without_namespace".into(), &channel.without_namespace);
        let namespaces = channel.namespaces.iter().enumerate();
        let named = namespaces.flat_map(|(at, one)| {
            of_channels(format!("channel.namespaces[{at}] {:?}", one.name), &one.options)
        });
        let methods = rpc.namespaces.iter().enumerate();
        let methods =
            methods.map(|(at, one)| (format!("rpc.namespaces[{at}] {:?}", one.name), &one.options));
        let methods = methods.chain([("rpc.without_namespace".to_owned(), &rpc.without_namespace)]);
        let methods = methods
            .map(|(place, options)| (format!("{place}: proxy_name"), options.proxy_name.clone()));
        for (place, name) in without.into_iter().chain(named).chain(methods) {
            must(
                is_own_proxy(&name) || names.contains(&&*name),
                format!("{place}: there is no proxy {name:?}"),
                "add it to proxies, or leave the key empty",
            )?;
        }
        let used = self.used_proxies();
        for (at, (place, proxy)) in self.all_proxies().into_iter().enumerate() {
            check_proxy(&place, proxy, used.iter().any(|upstream| usize::from(upstream.0) == at))?;
        }
        Ok(())
    }

    fn check_personal_channel(&self, client: &Client) -> Result<(), Error> {
        let personal = &client.subscribe_to_user_personal_channel;
        let namespace = &personal.personal_channel_namespace;
        let mut namespaces = self.channel.namespaces.iter();
        must(
            !personal.enabled
                || namespace.is_empty()
                || namespaces.any(|other| other.name == *namespace),
            format!(
                "client.subscribe_to_user_personal_channel.personal_channel_namespace: \
                 there is no namespace {namespace:?}"
            ),
            "add it to channel.namespaces, or leave the key empty",
        )
    }

    /// Checks that every path starts with a slash and that no two paths are the same.
    fn check_paths(&self) -> Result<(), Error> {
        let paths = [
            ("http_api", &self.http_api.handler_prefix),
            ("websocket", &self.websocket.handler_prefix),
            ("uni_websocket", &self.uni_websocket.handler_prefix),
            ("http_stream", &self.http_stream.handler_prefix),
            ("sse", &self.sse.handler_prefix),
            ("uni_http_stream", &self.uni_http_stream.handler_prefix),
            ("uni_sse", &self.uni_sse.handler_prefix),
            ("long_polling", &self.long_polling.handler_prefix),
            ("polling", &self.polling.handler_prefix),
            ("emulation", &self.emulation.handler_prefix),
            ("prometheus", &self.prometheus.handler_prefix),
            ("health", &self.health.handler_prefix),
            ("swagger", &self.swagger.handler_prefix),
        ];
        for (at, (section, path)) in paths.iter().enumerate() {
            let plain = path.starts_with('/')
                && path
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"?#{}*%\"<>'\\".contains(&byte));
            if !plain {
                return Err(error(
                    format!("{section}.handler_prefix: `{path}` is not a valid path"),
                    "start it with a slash, and use no `?#{}*%<>\\`, quotes or spaces",
                ));
            }
            if let Some((other, _)) = paths[..at].iter().find(|(_, before)| before == path) {
                return Err(error(
                    format!("{other}.handler_prefix and {section}.handler_prefix are the same"),
                    "give each endpoint its own path",
                ));
            }
        }
        let ready = self.health.ready_path();
        if let Some((section, _)) = paths.iter().find(|(_, path)| **path == ready) {
            return Err(error(
                format!("{section}.handler_prefix is `{ready}`, the path of the readiness check"),
                "choose another path",
            ));
        }
        self.check_admin_paths(&paths)?;
        // The API only takes POST at its own path, so it can share `/` with the page.
        let at_root = paths.iter().skip(1).find(|(_, path)| *path == "/");
        match at_root.filter(|_| self.page.enabled) {
            Some((section, _)) => Err(error(
                format!("{section}.handler_prefix is `/`, where the page is"),
                "choose another path, or set page.enabled to false",
            )),
            None => Ok(()),
        }
    }

    /// The warnings about settings that are valid but probably unintended.
    pub(super) fn warnings(&self) -> Vec<String> {
        let api = &self.http_api;
        let without_key = (api.key.is_empty() && !api.insecure && !api.disabled).then(|| {
            "http_api.key is not set, so the server rejects every API request; set it, or set \
             http_api.disabled"
                .to_owned()
        });
        let tls = tls::warnings(&self.http_server);
        without_key.into_iter().chain(self.own_headers()).chain(tls).collect()
    }

    /// The warning about headers that are not passed to the backend.
    fn own_headers(&self) -> Option<String> {
        let proxies = self.all_proxies();
        let named = |(place, proxy): &(String, &Proxy)| {
            let given = [&proxy.http_headers, &proxy.emulated_headers].into_iter().flatten();
            let given = given.chain(proxy.http.static_headers.keys());
            let own = given.filter(|name| is_own_header(name));
            own.map(|name| format!("{name} in {place}")).collect::<Vec<_>>()
        };
        let names = proxies.iter().flat_map(named).collect::<Vec<_>>();
        (!names.is_empty()).then(|| {
            format!(
                "headers that the server sets itself are not passed to the backend: {}; remove them",
                names.join(", ")
            )
        })
    }
}

fn check_http_server(server: &HttpServer) -> Result<(), Error> {
    let times = [
        ("head_timeout", server.head_timeout),
        ("idle_timeout", server.idle_timeout),
        ("anonymous_idle_timeout", server.anonymous_idle_timeout),
    ];
    for (key, time) in times {
        must(
            (100..=86_400_000).contains(&time.millis()),
            format!("http_server.{key} is {time}"),
            "use a duration from 100ms to 24h",
        )?;
    }
    let numbers = [
        ("connections_max", server.connections_max, 1, 1_000_000),
        ("internal_connections_max", server.internal_connections_max, 1, 1_000_000),
        ("head_size_limit", server.head_size_limit, 1024, 1 << 20),
        ("headers_limit", server.headers_limit, 16, HEADERS_MOST),
    ];
    for (key, number, least, most) in numbers {
        must(
            (least..=most).contains(&number),
            format!("http_server.{key} is {number}"),
            format!("use a number from {least} to {most}"),
        )?;
    }
    Ok(())
}

/// Checks the names in a list of tables: each is valid, and no two are the same.
fn check_names(list: &str, names: &[&str]) -> Result<(), Error> {
    for (at, name) in names.iter().enumerate() {
        let place = format!("{list}[{at}] {name:?}");
        let is_plain = |letter: u8| letter.is_ascii_alphanumeric() || b"-_.".contains(&letter);
        must(
            name.len() >= 2 && name.bytes().all(is_plain),
            format!("{place}: not a valid name"),
            "use two or more letters, digits, `-`, `_` or `.`",
        )?;
        if let Some(before) = names[..at].iter().position(|other| other == name) {
            return Err(error(
                format!("{place}: {list}[{before}] has the same name"),
                "give each table a different name",
            ));
        }
    }
    Ok(())
}

/// Checks a key that is empty or one of a few words.
fn check_word(place: &str, name: &str, word: &str, words: &[&str]) -> Result<(), Error> {
    must(
        word.is_empty() || words.contains(&word),
        format!("{place}: {name} {word:?} is unknown"),
        format!("use {}, or leave it empty", words.join(" or ")),
    )
}

/// Checks a key that is empty or a regular expression.
fn check_regex(place: &str, name: &str, pattern: &str) -> Result<(), Error> {
    Regex::new(pattern).map(drop).map_err(|refused| {
        let refused = refused.to_string();
        let reason = refused.lines().last().unwrap_or_default().trim_start_matches("error: ");
        error(
            format!("{place}: {name} `{pattern}` is not a valid regular expression: {reason}"),
            "correct it; look-around and backreferences are not supported, as in Go",
        )
    })
}

fn check_token(place: &str, token: &Token) -> Result<(), Error> {
    check_regex(place, "audience_regex", &token.audience_regex)?;
    check_regex(place, "issuer_regex", &token.issuer_regex)?;
    let claim = &token.user_id_claim;
    must(
        claim.bytes().all(|letter| letter.is_ascii_alphabetic() || letter == b'_'),
        format!("{place}: user_id_claim {claim:?} is not a valid claim name"),
        "use only letters and `_`",
    )?;
    let endpoint = &token.jwks_public_endpoint;
    must(
        endpoint.is_empty() || is_http_url(endpoint),
        format!("{place}: jwks_public_endpoint {endpoint:?} is not an http or https URL"),
        "start it with https:// or http://",
    )
}

/// Checks the batch options: the others require a delay, and `batch_flush_latest`, which drops
/// publications, excludes all options that count publications.
fn check_batch(place: &str, options: &ChannelOptions) -> Result<(), Error> {
    let waits = options.batch_max_delay > ConfigDuration::seconds(0);
    let latest = options.batch_flush_latest;
    for (set, name) in
        [(options.batch_max_size > 0, "batch_max_size"), (latest, "batch_flush_latest")]
    {
        must(
            waits || !set,
            format!("{place}: {name} requires batch_max_delay"),
            "set batch_max_delay too, for example to \"200ms\"",
        )?;
    }
    must(
        !latest || options.batch_max_size == 0,
        format!("{place}: batch_flush_latest cannot be combined with batch_max_size"),
        "remove one of them: with batch_flush_latest the number of publications has no effect",
    )?;
    let counted = [
        (options.history_size > 0, "history_size"),
        (options.force_positioning, "force_positioning"),
        (options.allow_positioning, "allow_positioning"),
        (options.force_recovery, "force_recovery"),
        (options.allow_recovery, "allow_recovery"),
        (!options.allowed_delta_types.is_empty(), "allowed_delta_types"),
        (options.delta_publish, "delta_publish"),
    ];
    match counted.into_iter().find(|(set, _)| latest && *set) {
        Some((_, name)) => Err(error(
            format!("{place}: batch_flush_latest cannot be combined with {name}"),
            "remove one of them: a client that gets only the latest publication would appear to \
             have missed the others",
        )),
        None => Ok(()),
    }
}

fn is_http_url(address: &Address) -> bool {
    ["http://", "https://"].iter().any(|scheme| address.reveal().starts_with(scheme))
}

fn check_proxy(place: &str, proxy: &Proxy, used: bool) -> Result<(), Error> {
    let endpoint = &proxy.endpoint;
    must(
        !used || !endpoint.is_empty(),
        format!("{place}: it is enabled, but endpoint is empty"),
        "set endpoint, for example to \"http://localhost:3000/centrifugo\"",
    )?;
    must(
        endpoint.is_empty() || (is_http_url(endpoint) && endpoint.reveal().parse::<Uri>().is_ok()),
        format!("{place}: endpoint {endpoint:?} is not an http or https URL"),
        "use a URL that starts with http:// or https://; other protocols are not supported",
    )?;
    must(
        proxy.timeout > ConfigDuration::seconds(0),
        format!("{place}: timeout is 0s"),
        "set a timeout above 0s, for example \"1s\"",
    )?;
    tls::check_client(&format!("{place}.http.tls"), &proxy.http.tls)?;
    let given = [&proxy.http_headers, &proxy.emulated_headers].into_iter().flatten();
    for name in given.chain(proxy.http.static_headers.keys()) {
        must(
            HeaderName::try_from(name).is_ok(),
            // Text after the name may be a secret.
            format!(
                "{place}: header {:?} cannot be set",
                name.split([':', ' ']).next().unwrap_or_default()
            ),
            "remove it, or correct its name",
        )?;
    }
    for (name, value) in &proxy.http.static_headers {
        must(
            HeaderValue::try_from(value.reveal()).is_ok(),
            format!(
                "{place}: http.static_headers: the value of {name} is not a valid header value"
            ),
            "use only visible ASCII characters",
        )?;
    }
    Ok(())
}

/// Values of `publication_data_format`.
const FORMATS: &[&str] = &["json", "json_object", "binary"];

/// Checks the options of a group of channels, which keep their positions for `meta_ttl`.
fn check_options(
    place: &str,
    options: &ChannelOptions,
    meta_ttl: ConfigDuration,
) -> Result<(), Error> {
    let sized = options.history_size > 0;
    must(
        sized == (options.history_ttl > ConfigDuration::seconds(0)),
        format!("{place}: only one of history_size and history_ttl is set"),
        "set both, for example history_size = 100 and history_ttl = \"300s\", or neither",
    )?;
    must(
        options.history_ttl <= meta_ttl,
        format!(
            "{place}: history_ttl {} is longer than history_meta_ttl {meta_ttl}",
            options.history_ttl
        ),
        "shorten history_ttl or lengthen history_meta_ttl (here or in channel.history_meta_ttl)",
    )?;
    must(
        sized || !options.history_durable,
        format!("{place}: history_durable requires history"),
        "set history_size and history_ttl too, for example 100 and \"300s\"",
    )?;
    must(
        sized || !options.force_recovery,
        format!("{place}: force_recovery requires history"),
        "set history_size and history_ttl too, for example 100 and \"300s\"",
    )?;
    check_batch(place, options)?;
    check_word(place, "force_recovery_mode", &options.force_recovery_mode, &["stream", "cache"])?;
    for kind in &options.allowed_delta_types {
        must(
            kind == "fossil",
            format!("{place}: allowed_delta_types: {kind:?} is unknown"),
            "use \"fossil\", or leave the list empty",
        )?;
    }
    check_regex(place, "channel_regex", &options.channel_regex)?;
    check_word(place, "publication_data_format", &options.publication_data_format, FORMATS)
}
