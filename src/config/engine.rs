//! Settings of the data plane, derived from the configuration.
//!
//! Owns no state. Never checks a value: `load` has checked it. The invariant: every setting of the
//! data plane is a constant here or is derived from keys.

use std::sync::Arc;

use regex::Regex;

use crate::base::memory::{MemoryKind, MemoryLimits};
use crate::base::sys;
use crate::engine::node::RingSettings;
use crate::home;
use crate::home::users::UserLimit;
use crate::hub::{
    self, CommandLimit, ConnectRefusalResponse, ConnectRefusalResponses, TokenVerifiers,
};
use crate::model::auth::{ApiKey, Rules};
use crate::model::message::TokenPurpose;
use crate::model::namespaces::{
    Namespaces, Options, Pace, Permit, PublicationFormat, RecoveryMode,
};
use crate::model::retention::Retention;
use crate::model::token::{self, Verifier};
use crate::wire::deflate::Compression;
use crate::wire::http::{HeadLimits, Route, Routes, Service, Transport};

use super::duration::ConfigDuration;
use super::proxies::ChannelUpstreams;
use super::response_transforms::ResponseTransform;
use super::sections::{
    Channel, ChannelOptions, Client, Config, ConnectCodeToHttpResponse, Emulation, Health, HttpApi,
    HttpStream, LongPolling, NamedProxy, Sse, Token, UniHttpStream, UniSse,
};

/// Milliseconds that the server waits for the client's close frame.
const CLOSE_TIMEOUT: u64 = 5_000;

impl Client {
    /// The limit of the connections of a user.
    fn user_limit(&self) -> UserLimit {
        let personal = &self.subscribe_to_user_personal_channel;
        UserLimit {
            most: self.user_connection_limit,
            single: personal.enabled && personal.single_connection,
        }
    }

    /// The limit of the commands of a client.
    fn command_limit(&self) -> CommandLimit {
        CommandLimit { rate: self.command_rate_limit as u64, burst: self.command_rate_burst as u64 }
    }
}

impl Channel {
    /// How long a channel with these options keeps its stream position after its last publication.
    pub fn meta_ttl(&self, options: &ChannelOptions) -> ConfigDuration {
        let own = options.history_meta_ttl;
        if own == ConfigDuration::seconds(0) { self.history_meta_ttl } else { own }
    }

    /// Format of publications in channels with these options.
    fn format(&self, options: &ChannelOptions) -> PublicationFormat {
        let own = options.publication_data_format.as_str();
        match if own.is_empty() { self.publication_data_format.as_str() } else { own } {
            "json" => PublicationFormat::Json,
            "json_object" => PublicationFormat::Object,
            "binary" => PublicationFormat::Binary,
            _ => PublicationFormat::NotEmpty,
        }
    }

    /// Converts the options of a group of channels to those of the data plane.
    fn options(&self, options: &ChannelOptions, proxies: &[NamedProxy]) -> Options {
        let keeps = options.history_size > 0 && options.history_ttl > ConfigDuration::seconds(0);
        let upstreams = ChannelUpstreams::of(options, proxies);
        let permit = |client, anonymous, subscriber| Permit { client, anonymous, subscriber };
        Options {
            retention: keeps.then(|| Retention {
                size: options.history_size,
                ttl: options.history_ttl.millis(),
                meta_ttl: self.meta_ttl(options).millis(),
                durable: options.history_durable,
            }),
            presence: options.presence,
            join_leave: options.join_leave,
            force_push_join_leave: options.force_push_join_leave,
            force_positioning: options.force_positioning,
            allow_positioning: options.allow_positioning,
            force_recovery: options.force_recovery,
            allow_recovery: options.allow_recovery,
            recovery_mode: match options.force_recovery_mode.as_str() {
                "cache" => RecoveryMode::Cache,
                _ => RecoveryMode::Stream,
            },
            auto_cache_recover: options.auto_cache_recover,
            allow_delta: options.allowed_delta_types.iter().any(|kind| kind == "fossil"),
            delta_publish: options.delta_publish,
            allow_compaction: options.allow_channel_compaction,
            pace: options.pace(),
            allow_filter: options.allow_tags_filter,
            user_limited: options.allow_user_limited_channels,
            subscribe: permit(
                options.allow_subscribe_for_client,
                options.allow_subscribe_for_anonymous,
                false,
            ),
            publish: permit(
                options.allow_publish_for_client,
                options.allow_publish_for_anonymous,
                options.allow_publish_for_subscriber,
            ),
            see_presence: permit(
                options.allow_presence_for_client,
                options.allow_presence_for_anonymous,
                options.allow_presence_for_subscriber,
            ),
            read_history: permit(
                options.allow_history_for_client,
                options.allow_history_for_anonymous,
                options.allow_history_for_subscriber,
            ),
            regex: Regex::new(&options.channel_regex)
                .ok()
                .filter(|_| !options.channel_regex.is_empty()),
            format: self.format(options),
            subscribe_proxy: upstreams.subscribe,
            publish_proxy: upstreams.publish,
            sub_refresh_proxy: upstreams.sub_refresh,
            unsubscribe_hook: upstreams.unsubscribe_hook,
        }
    }
}

impl ChannelOptions {
    /// How publications wait for one another; `None`: they do not wait.
    fn pace(&self) -> Option<Pace> {
        let time = self.batch_max_delay.millis();
        let publications = match self.batch_max_size {
            0 => u32::MAX,
            size => size.try_into().unwrap_or(u32::MAX),
        };
        (time > 0).then_some(match self.batch_flush_latest {
            true => Pace::Latest { interval: time },
            false => Pace::Together { window: time, publications },
        })
    }
}

/// Compression settings with a level from 1 to 9.
fn compression(level: u16, min_bytes: usize) -> Compression {
    Compression { level: level.clamp(1, 9) as u8, min_bytes }
}

impl Health {
    /// Path of the readiness check.
    pub fn ready_path(&self) -> String {
        format!("{}/ready", self.handler_prefix.trim_end_matches('/'))
    }
}

impl Token {
    /// Settings of the token verifier.
    fn settings(&self, skips_signature: bool) -> token::TokenSettings {
        token::TokenSettings {
            hmac_secret_key: self.hmac_secret_key.reveal().to_owned(),
            hmac_previous_secret_key: self.hmac_previous_secret_key.reveal().to_owned(),
            hmac_previous_secret_key_valid_until: self.hmac_previous_secret_key_valid_until,
            rsa_public_key: self.rsa_public_key.clone(),
            ecdsa_public_key: self.ecdsa_public_key.clone(),
            jwks_public_endpoint: self.jwks_public_endpoint.reveal().to_owned(),
            audience: self.audience.clone(),
            audience_regex: self.audience_regex.clone(),
            issuer: self.issuer.clone(),
            issuer_regex: self.issuer_regex.clone(),
            user_id_claim: self.user_id_claim.clone(),
            insecure_skip_jwks_endpoint_safety_check: self.insecure_skip_jwks_endpoint_safety_check,
            insecure_skip_signature_verify: skips_signature,
        }
    }
}

impl Config {
    /// Rules about which clients may connect.
    pub fn rules(&self) -> Rules {
        Rules {
            allowed_origins: self.client.allowed_origins.clone(),
            anonymous: self.client.allow_anonymous_connect_without_token,
            no_anonymous_tokens: self.client.disallow_anonymous_connection_tokens,
            insecure: self.client.insecure,
            local: false,
        }
    }

    /// Namespaces with their options and permissions.
    pub fn namespaces(&self) -> Arc<Namespaces> {
        let channel = &self.channel;
        let named = channel
            .namespaces
            .iter()
            .map(|one| (one.name.as_str().into(), channel.options(&one.options, &self.proxies)));
        Arc::new(Namespaces {
            without: channel.options(&channel.without_namespace, &self.proxies),
            named: named.collect(),
            private_prefix: channel.private_prefix.clone(),
            boundary: channel.namespace_boundary.clone(),
            user_boundary: channel.user_boundary.clone(),
            user_separator: channel.user_separator.clone(),
            max_length: channel.max_length,
        })
    }

    /// Settings to create and verify tokens for this purpose.
    pub fn token_settings(&self, purpose: TokenPurpose) -> token::TokenSettings {
        let client = &self.client;
        let own = &client.subscription_token;
        let token = match purpose {
            TokenPurpose::Subscription if own.enabled => &own.token,
            TokenPurpose::Subscription | TokenPurpose::Connection => &client.token,
        };
        token.settings(client.insecure_skip_token_signature_verify)
    }

    /// Makes the token verifiers. The error names the key that is invalid.
    pub(super) fn verifiers(&self) -> Result<TokenVerifiers, String> {
        let verifier = |section: &str, purpose| {
            let verifier = Verifier::new(&self.token_settings(purpose));
            verifier.map(Arc::new).map_err(|cause| format!("{section}: {cause}"))
        };
        let connection = verifier("client.token", TokenPurpose::Connection)?;
        let subscription = verifier("client.subscription_token", TokenPurpose::Subscription)?;
        Ok(TokenVerifiers { connection, subscription })
    }

    /// The token verifiers of a checked configuration.
    pub fn tokens(&self) -> TokenVerifiers {
        self.verifiers().expect("a loaded configuration has been checked")
    }

    /// Endpoints that the shards serve.
    pub fn routes(&self) -> Routes {
        let mut routes = Routes::new();
        let mut serve = |enabled: bool, path: &str, service, body_max| {
            if enabled {
                let compresses = self.compresses(service);
                routes.push(Route { path: path.to_owned(), service, body_max, compresses });
            }
        };
        let mut transport = |enabled, path: &str, transport, body_max| {
            serve(enabled, path, Service::Transport(transport), body_max);
        };
        let (websocket, uni) = (&self.websocket, &self.uni_websocket);
        transport(!websocket.disabled, &websocket.handler_prefix, Transport::WebSocket, 0);
        transport(uni.enabled, &uni.handler_prefix, Transport::UniWebSocket, 0);
        transport(self.engine.echo, "/echo", Transport::Echo, 0);
        let HttpStream { enabled, handler_prefix, max_request_body_size } = &self.http_stream;
        transport(*enabled, handler_prefix, Transport::HttpStream, *max_request_body_size);
        let Sse { enabled, handler_prefix, max_request_body_size } = &self.sse;
        transport(*enabled, handler_prefix, Transport::Sse, *max_request_body_size);
        let UniHttpStream { enabled, handler_prefix, max_request_body_size, .. } =
            &self.uni_http_stream;
        transport(*enabled, handler_prefix, Transport::UniHttpStream, *max_request_body_size);
        let UniSse { enabled, handler_prefix, max_request_body_size, .. } = &self.uni_sse;
        transport(*enabled, handler_prefix, Transport::UniSse, *max_request_body_size);
        let LongPolling { enabled, handler_prefix, max_request_body_size } = &self.long_polling;
        transport(*enabled, handler_prefix, Transport::LongPolling, *max_request_body_size);
        serve(self.polling.enabled, &self.polling.handler_prefix, Service::Polling, 0);
        let emulated = self.http_stream.enabled || self.sse.enabled;
        let Emulation { handler_prefix, max_request_body_size } = &self.emulation;
        serve(emulated, handler_prefix, Service::Emulation, *max_request_body_size);
        if let Some(prefix) = self.public_api() {
            let path = format!("{}/publish", prefix.trim_end_matches('/'));
            serve(true, &path, Service::Publish, websocket.message_size_limit);
        }
        if self.health.enabled && self.http_server.internal_port == 0 {
            serve(true, &self.health.handler_prefix, Service::Health, 0);
            serve(true, &self.health.ready_path(), Service::Readiness, 0);
        }
        routes
    }

    /// Whether this service may compress messages.
    fn compresses(&self, service: Service) -> bool {
        match service {
            Service::Transport(Transport::WebSocket | Transport::Echo) => {
                self.websocket.compression
            }
            Service::Transport(Transport::UniWebSocket) => self.uni_websocket.compression,
            _ => false,
        }
    }

    /// API keys, and whether the API accepts requests without one.
    pub fn api_key(&self) -> ApiKey {
        let HttpApi { key, previous_key, insecure, .. } = &self.http_api;
        ApiKey { key: key.clone(), previous: previous_key.clone(), insecure: *insecure }
    }

    /// Path prefix of the API if the public port serves it.
    fn public_api(&self) -> Option<&str> {
        let api = &self.http_api;
        let is_public = !api.disabled && (self.http_server.internal_port == 0 || api.external);
        is_public.then_some(&self.http_api.handler_prefix)
    }

    /// Maximum size of a request head and maximum number of its headers.
    pub fn head_limits(&self) -> HeadLimits {
        let server = &self.http_server;
        HeadLimits { bytes: server.head_size_limit, headers: server.headers_limit }
    }

    fn connect_refusals(&self) -> ConnectRefusalResponses {
        ConnectRefusalResponses {
            uni_sse: responses(&self.uni_sse.connect_code_to_http_response),
            uni_http_stream: responses(&self.uni_http_stream.connect_code_to_http_response),
        }
    }

    /// The settings of a shard with `slots` connections.
    pub fn hub_settings(&self, slots: usize) -> hub::HubSettings {
        let (client, engine) = (&self.client, &self.engine);
        let (websocket, uni) = (&self.websocket, &self.uni_websocket);
        let personal = &client.subscribe_to_user_personal_channel;
        let namespaces = self.namespaces();
        hub::HubSettings {
            revocations: Arc::default(),
            rules: self.rules(),
            namespaces: namespaces.clone(),
            tokens: self.tokens(),
            personal_namespace: personal
                .enabled
                .then(|| personal.personal_channel_namespace.clone()),
            uni_websocket_disconnect_push: !uni.disable_disconnect_push,
            joins_uni_messages: uni.join_push_messages,
            connect_refusals: self.connect_refusals(),
            proxies: self.upstreams(),
            user_header: self.user_header(),
            api: self.api_key(),
            // Read from files, so the start adds it.
            routes: self.routes(),
            entrances: self.entrances(),
            homes: home::HomeSettings {
                recovery_limit: client.recovery_max_publication_limit,
                // An answer larger than a client's outbox could not be delivered.
                answer_bytes: client.queue_max_size,
                streams_max: engine.streams_max,
                namespaces: namespaces.clone(),
            },
            tls: None,
            slots,
            message_bytes: websocket.message_size_limit,
            inflated_bytes: match websocket.decompressed_message_size_limit {
                0 => websocket.message_size_limit,
                limit => limit,
            },
            compression: compression(websocket.compression_level, websocket.compression_min_size),
            uni_compression: compression(uni.compression_level, uni.compression_min_size),
            outbox_bytes: client.queue_max_size,
            budgets: self.budgets(),
            backlog_bytes: engine.backlog,
            channel_limit: client.channel_limit,
            command_limit: client.command_limit(),
            history_limit: client.history_max_publication_limit,
            connection_limit: client.connection_limit as u64,
            connection_rate: client.connection_rate_limit as u64,
            places: self.http_server.connections_max as u64,
            address_limit: client.address_connection_limit as u64,
            address_rate: client.address_connection_rate_limit as u64,
            trusted_proxies: self.trusted_proxies(),
            user_limit: client.user_limit(),
            hands_over_calls: self.traces_api(),
            errors_by_status: self.http_api.error_mode == "transport",
            logs_access: self.log.access,
            tells_time: client.connect_include_server_time,
            position_check_delay: client.channel_position_check_delay.millis(),
            expired_close_delay: client.expired_close_delay.millis() / 1000,
            expired_sub_close_delay: client.expired_sub_close_delay.millis() / 1000,
            // The data plane divides by the interval. Its smallest unit is a millisecond.
            ping_interval: client.ping_interval.millis().max(1),
            pong_timeout: engine.pong.then(|| client.pong_timeout.millis()),
            head_timeout: self.http_server.head_timeout.millis(),
            head_limits: self.head_limits(),
            idle_timeout: self.http_server.idle_timeout.millis(),
            anonymous_idle_timeout: self.http_server.anonymous_idle_timeout.millis(),
            stale_close_delay: client.stale_close_delay.millis(),
            close_timeout: CLOSE_TIMEOUT,
        }
    }

    /// Sizes of each shard's ring.
    pub fn ring_sizes(&self) -> RingSettings {
        RingSettings {
            // Both are at most 65536: `check` verified it.
            submissions: self.engine.ring_submissions as u32,
            completions: self.engine.ring_completions as u32,
            buffers: self.engine.ring_buffers,
        }
    }

    /// Maximum number of bytes that the node may use for each kind of memory.
    pub fn budgets(&self) -> MemoryLimits {
        let engine = &self.engine;
        MemoryLimits::all(0)
            .with(MemoryKind::Outboxes, engine.outbox_budget)
            .with(MemoryKind::Unread, engine.unread_budget)
            .with(MemoryKind::History, engine.history_bytes)
            .with(MemoryKind::Backlog, engine.backlog)
            .with(MemoryKind::Filters, engine.filter_budget)
            .with(MemoryKind::Keys, engine.idempotency_budget)
            .with(MemoryKind::Hooks, engine.hook_budget)
            .with(MemoryKind::Questions, engine.question_budget)
            .with(MemoryKind::Stored, engine.store_budget)
    }

    /// Options of accepted sockets.
    pub fn listener_options(&self) -> sys::ListenerOptions {
        sys::ListenerOptions {
            send_buffer: self.engine.send_buffer,
            receive_buffer: self.engine.receive_buffer,
            user_timeout: self.engine.user_timeout.0,
            backlog: i32::MAX,
        }
    }
}

/// The HTTP responses to refused connects of a transport, if they are enabled.
fn responses(key: &ConnectCodeToHttpResponse) -> Option<Arc<[ConnectRefusalResponse]>> {
    key.enabled.then(|| key.transforms.iter().map(ResponseTransform::response).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_data_plane_follow_the_configuration() {
        let mut config = Config::default();
        assert!(!config.namespaces().keep_history());
        config.engine.pong = false;
        config.websocket.disabled = true;
        let options = &mut config.channel.without_namespace;
        (options.history_size, options.history_ttl) = (5, ConfigDuration::seconds(60));
        let settings = config.hub_settings(7);
        assert_eq!(settings.slots, 7);
        assert_eq!(settings.pong_timeout, None);
        assert_eq!(settings.ping_interval, 25_000);
        let retention = settings.namespaces.without.retention.unwrap();
        assert_eq!((retention.size, retention.ttl), (5, 60_000));
        assert_eq!(retention.meta_ttl, 720 * 3_600_000);
        let served: Vec<_> = settings.routes.iter().map(|route| route.service).collect();
        let streams = [Transport::HttpStream, Transport::Sse].map(Service::Transport);
        let checks = [Service::Health, Service::Readiness];
        let expected = [&streams[..], &[Service::Emulation, Service::Publish], &checks].concat();
        assert_eq!(served, expected, "neither the WebSocket nor unidirectional transports");
        config.channel.without_namespace.history_meta_ttl = ConfigDuration::seconds(120);
        let retention = config.namespaces().without.retention.unwrap();
        assert_eq!(retention.meta_ttl, 120_000);
    }
}
