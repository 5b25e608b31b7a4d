//! Keys of Centrifugo that the server does not carry, with Centrifugo's defaults.
//!
//! Owns the names and the defaults. Never says what a value does. The invariant: together with the
//! keys of `sections`, every key that `centrifugo defaultconfig` writes is known.

/// Groups of keys. A word is a key, a key with its default (`name=default`; without one the default
/// is false, 0 or empty), or `section.@group`. The group `all` contains the other groups.
pub(super) const GROUPS: [(&str, &str); 16] = [
    (
        "all",
        "enable_unreleased_features http_server.@http_server engine.type=memory \
         engine.redis.@redis engine.redis.@redis_presence \
         broker.enabled broker.type=memory broker.redis.@redis broker.nats.@nats \
         broker.postgres.@postgres broker.redisnats.nats.@nats broker.redisnats.redis.@redis \
         presence_manager.enabled presence_manager.type=memory presence_manager.redis.@redis \
         presence_manager.redis.@redis_presence map_broker.@map_broker controller.enabled \
         controller.type controller.postgres.pool_size=8 controller.postgres.num_shards=1 \
         controller.postgres.partition_retention_days=1 controller.postgres.@postgres \
         shared_poll.hmac_secret_key \
         shared_poll.hmac_previous_secret_key shared_poll.hmac_previous_secret_key_valid_until \
         shared_poll.concurrency_limit client.@client channel.@channel \
         rpc.proxy.@carried_proxy rpc.ping.enabled rpc.ping.method=ping \
         grpc_api.enabled grpc_api.error_mode grpc_api.address grpc_api.port=10000 grpc_api.key \
         grpc_api.reflection grpc_api.max_receive_message_size grpc_api.tls.@tls \
         websocket.@buffers uni_websocket.@buffers uni_websocket.message_size_limit=65536 \
         uni_websocket.decompressed_message_size_limit uni_websocket.disable_closing_handshake \
         webtransport.enabled webtransport.handler_prefix=/connection/webtransport \
         webtransport.message_size_limit=65536 uni_grpc.enabled uni_grpc.address \
         uni_grpc.port=11000 uni_grpc.max_receive_message_size uni_grpc.tls.@tls \
         admin.secret admin.insecure admin.web_path admin.web_proxy_address admin.external \
         prometheus.instrument_http_handlers debug.enabled debug.handler_prefix=/debug/pprof \
         init.enabled init.handler_prefix=/connection/init opentelemetry.consuming \
         opentelemetry.google_cloud_adc_auth graphite.enabled graphite.host=localhost \
         graphite.port=2003 graphite.prefix=centrifugo graphite.interval=10s graphite.tags \
         usage_stats.disabled node.name node.info_metrics_aggregate_interval=1m",
    ),
    ("http_server", "h2c_external http3.enabled tls.@server_tls internal_tls.@server_tls"),
    (
        "tls",
        "enabled cert_pem key_pem server_ca_pem client_ca_pem insecure_skip_verify server_name",
    ),
    ("client_tls", "enabled cert_pem key_pem server_ca_pem insecure_skip_verify server_name"),
    ("server_tls", "server_ca_pem insecure_skip_verify server_name"),
    (
        "redis",
        "prefix=centrifugo address=redis://127.0.0.1:6379 connect_timeout=1s io_timeout=4s db user \
         password client_name force_resp2 cluster_address tls.@tls sentinel_address sentinel_user \
         sentinel_password sentinel_master_name sentinel_client_name sentinel_tls.@tls \
         replica_client.enabled history_use_lists",
    ),
    ("redis_presence", "presence_ttl=1m presence_hash_field_ttl presence_user_mapping"),
    (
        "nats",
        "prefix=centrifugo url=nats://localhost:4222 dial_timeout=1s write_timeout=1s tls.@tls \
         allow_wildcards raw_mode.enabled raw_mode.channel_replacements raw_mode.prefix",
    ),
    (
        "postgres",
        "dsn tls.@tls pool_size=16 num_shards=8 cleanup_interval=1m ttl_check_interval=1s \
         idempotent_result_ttl=5m binary_data stream_retention=24h use_notify notify_dsn \
         table_prefix=cf skip_schema_init outbox.poll_interval=100ms outbox.batch_size=1000 \
         partition_lookahead_days=2 partition_retention_days=7 poll_interval=50ms \
         partition_cleanup_interval=1m batch_size=1000",
    ),
    (
        "map_broker",
        "type=memory redis.@redis redis.cleanup_interval=1s redis.cleanup_batch_size=100 \
         redis.idempotent_result_ttl=5m redis.skip_pub_sub postgres.@postgres",
    ),
    (
        "client",
        "presence_update_interval=27s concurrency channel_position_max_time_lag \
         connect_code_to_unidirectional_disconnect.enabled \
         connect_code_to_unidirectional_disconnect.transforms \
         proxy.connect.@carried_proxy proxy.refresh.@carried_proxy",
    ),
    (
        "channel",
        "proxy.subscribe.@carried_proxy proxy.publish.@carried_proxy \
         proxy.sub_refresh.@carried_proxy proxy.subscribe_stream.@proxy proxy.map_publish.@proxy \
         proxy.map_remove.@proxy proxy.shared_poll_refresh.@proxy \
         without_namespace.@channel_options",
    ),
    (
        "channel_options",
        "map_clients_presence_channel_prefix map_users_presence_channel_prefix \
         subscribe_stream_proxy_enabled subscribe_stream_proxy_name=default \
         subscribe_stream_proxy_bidirectional subscription_type map.mode map.key_ttl \
         map.stream_size map.stream_ttl map.meta_ttl map.remove_client_on_unsubscribe \
         map.client_key map.allow_publish_for_client map.allow_publish_for_subscriber \
         map.allow_publish_for_anonymous map.allow_remove_for_client \
         map.allow_remove_for_subscriber map.allow_remove_for_anonymous \
         map.publish_proxy_enabled map.publish_proxy_name=default map.remove_proxy_enabled \
         map.remove_proxy_name=default map.default_page_size map.min_page_size map.max_page_size \
         map.live_transition_max_publication_limit map.subscribe_catch_up_timeout \
         shared_poll.proxy_name shared_poll.refresh_interval shared_poll.refresh_batch_size \
         shared_poll.max_keys_per_connection shared_poll.mode shared_poll.channel_shutdown_delay \
         shared_poll.track_expired_extra_delay shared_poll.publish_enabled",
    ),
    (
        "carried_proxy",
        "grpc_metadata http.tls.client_ca_pem grpc.tls.@tls \
         grpc.credentials_key grpc.credentials_value grpc.compression grpc.static_metadata",
    ),
    (
        "proxy",
        "endpoint timeout=1s http_headers emulated_headers binary_encoding \
         include_connection_meta http.static_headers http.status_to_code_transforms \
         http.tls.@client_tls .@carried_proxy",
    ),
    ("buffers", "read_buffer_size use_write_buffer_pool write_buffer_size write_timeout=1s"),
];

/// Keys of Centrifugo that are also flags of its command line.
pub(super) const FLAGS: [&str; 14] = [
    "admin.external",
    "admin.insecure",
    "broker.enabled",
    "broker.type",
    "debug.enabled",
    "engine.type",
    "grpc_api.enabled",
    "grpc_api.port",
    "init.enabled",
    "map_broker.type",
    "presence_manager.enabled",
    "presence_manager.type",
    "uni_grpc.enabled",
    "uni_grpc.port",
];
