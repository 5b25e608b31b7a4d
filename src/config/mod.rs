//! The configuration: every key with its description and default, and the sources of values. Owns
//! the list of keys, from which flags, environment variables, files, all printed texts and the
//! settings of the data plane are derived. Never reads a source again after the start. The
//! invariant: a loaded configuration has passed all checks, and unknown names in its sources are
//! errors or warnings.

mod access;
mod admin;
mod broker_url;
mod check;
mod consumers;
mod durable_namespaces;
mod engine;
mod entrance;
mod environment;
mod error;
mod file;
mod foreign;
mod foreign_keys;
mod header_variables;
mod key;
mod keys;
mod listeners;
mod log;
mod response_transforms;
mod status_transforms;
mod value_kind;
mod table_list;
mod load;
mod reload;
mod normalize;
mod print;
mod proxies;
mod sections;
mod sources;
mod dot_env;
mod duration;
mod tls;

pub use self::access::Access;
pub use self::broker_url::BrokerUrl;
pub use self::consumers::STREAM_CURE;
pub use self::dot_env::{DOT_ENV, environment_with_file};
pub use self::duration::ConfigDuration;
pub use self::error::Error;
pub use self::file::{FILES, FileFormat};
pub use self::foreign::foreign_flags;
pub use self::key::{CENTRIFUGO_PREFIX, Key, PREFIX};
pub use self::keys::keys;
pub use self::load::{Loaded, load};
pub use self::print::{default_environment, default_file, document, generated, template};
pub use self::proxies::is_own_header;
pub use self::reload::Reload;
pub use self::response_transforms::ResponseTransform;
pub use self::sections::*;
pub use self::sources::Sources;
pub use self::status_transforms::StatusTransform;
pub use self::value_kind::ValueKind;

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads a file that has this name and text, together with variables and flags.
    fn load_file(
        name: &str,
        text: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Loaded, Error> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        load(&Sources { file: Some(file), environment: own(environment), flags: own(flags) })
    }

    fn load_text(
        text: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Loaded, Error> {
        load_file("drumline.toml", text, environment, flags)
    }

    fn namespace(name: &str, change: impl FnOnce(&mut ChannelOptions)) -> Namespace {
        let mut namespace = Namespace { name: name.to_owned(), ..Namespace::default() };
        change(&mut namespace.options);
        namespace
    }

    #[test]
    fn metrics_have_the_prefix_of_centrifugo_if_the_configuration_is_its() {
        let namespace = |variables: &[(&str, &str)], flags: &[(&str, &str)]| {
            let text = |pairs: &[(&str, &str)]| {
                let pairs = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
                pairs.collect::<Vec<(String, String)>>()
            };
            let (environment, flags) = (text(variables), text(flags));
            let file = Some("/dev/null".into());
            let sources = Sources { file, environment, flags };
            load(&sources).unwrap().config.prometheus.namespace
        };
        let theirs = [("CENTRIFUGO_HTTP_API_KEY", "k")];
        assert_eq!(namespace(&[("DRUMLINE_HTTP_API_KEY", "k")], &[]), "");
        assert_eq!(namespace(&theirs, &[]), "centrifugo");
        assert_eq!(namespace(&[("CENTRIFUGO_NODE_NAME", "n")], &[]), "centrifugo");
        assert_eq!(namespace(&theirs, &[("prometheus.namespace", "edge")]), "edge");
    }

    #[test]
    fn later_sources_win() {
        let file = "shards = 3\n[http_server]\nport = 1\n[client]\nping_interval = \"1m\"\n";
        let both = [
            ("DRUMLINE_HTTP_SERVER_PORT", "2"),
            ("DRUMLINE_CLIENT_ALLOWED_ORIGINS", "http://a http://b"),
            ("DRUMLINE_HTTP_API_KEY", "12345"),
            ("CENTRIFUGO_HTTP_API_KEY", "theirs"),
            ("CENTRIFUGO_SHARDS", "4"),
        ];
        let loaded = load_text(file, &both, &[("client.insecure", "true")]).unwrap();
        let config = loaded.config;
        assert_eq!((config.shards, config.http_server.port), (4, 2));
        assert_eq!(config.client.ping_interval, ConfigDuration::seconds(60));
        assert_eq!(config.client.allowed_origins, ["http://a", "http://b"]);
        assert_eq!(config.http_api.key.reveal(), "12345");
        assert!(config.client.insecure && loaded.warnings.is_empty());
        let flag = load_text(file, &both, &[("http_server.port", "4")]).unwrap();
        assert_eq!(flag.config.http_server.port, 4);
    }

    fn load_without_file(
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Loaded, Error> {
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        load(&Sources { file: None, environment: own(environment), flags: own(flags) })
    }

    /// The features that are enabled by default only on an open server.
    fn shown(config: &Config) -> [bool; 7] {
        [
            config.uni_websocket.enabled,
            config.uni_http_stream.enabled,
            config.uni_sse.enabled,
            config.long_polling.enabled,
            config.prometheus.enabled,
            config.swagger.enabled,
            config.page.enabled,
        ]
    }

    #[test]
    fn a_server_without_configuration_is_open_on_loopback() {
        let open = load_without_file(&[], &[]).unwrap();
        assert_eq!((&open.access, &open.file), (&Access::Open, &None));
        let config = &open.config;
        let namespaces = config.namespaces();
        let options = namespaces.of("a").unwrap();
        assert!(config.rules().anonymous);
        assert!(options.subscribe.allows("", false) && options.publish.allows("", false));
        assert_eq!(config.http_api.key.reveal().len(), 32);
        assert_eq!(config.http_server.address, "127.0.0.1");
        assert_eq!(shown(config), [true; 7]);
        let again = load_without_file(&[], &[]).unwrap();
        assert_ne!(again.config.http_api.key, config.http_api.key, "a key for each run");
        for (flag, value) in [
            ("http_server.port", "9000"),
            ("http_server.address", "localhost"),
            ("http_server.address", "::1"),
            ("http_server.internal_port", "9000"),
            ("http_server.internal_address", ""),
            ("shards", "2"),
            ("engine.echo", "true"),
            ("websocket.compression", "true"),
            ("http_api.handler_prefix", "/other"),
        ] {
            let loaded = load_without_file(&[], &[(flag, value)]).unwrap();
            assert!(loaded.access.is_open(), "{flag}");
        }
        for (name, value) in [
            ("DRUMLINE_CLIENT_TOKEN_HMAC_SECRET_KEY", ""),
            ("CENTRIFUGO_HTTP_SERVER_PORT", ""),
            ("DRUMLINE_PORT", "tcp://10.0.0.1:8000"),
            ("DRUMLINE_SERVICE_HOST", "10.0.0.1"),
            ("CENTRIFUGO_SERVICE_HOST", "10.0.0.1"),
        ] {
            let loaded = load_without_file(&[(name, value)], &[]).unwrap();
            assert!(loaded.access.is_open(), "{name}");
        }
        let off = load_without_file(&[], &[("page.enabled", "false")]).unwrap();
        assert!(off.access.is_open() && !off.config.page.enabled, "flags win");
    }

    #[test]
    fn a_file_closes_the_server_and_disables_optional_endpoints() {
        let closed = load_text("", &[], &[]).unwrap();
        assert_eq!(closed.config, Config::default());
        assert_eq!(closed.warnings.len(), 1, "no API key");
        let Access::Closed(setting) = closed.access else { panic!("open with a file") };
        assert!(setting.ends_with("drumline.toml"), "{setting}");
        let config = closed.config;
        assert_eq!(shown(&config), [false; 7]);
        assert!(config.health.enabled && config.http_stream.enabled && config.sse.enabled);
        assert!(config.entrance().starts_with("no client can connect: set client.token."));
    }

    #[test]
    fn variables_and_flags_about_access_close_the_server() {
        let check = |environment: &[(&str, &str)], flags: &[(&str, &str)], setting: &str| {
            let loaded = load_without_file(environment, flags).unwrap();
            assert_eq!(loaded.access, Access::Closed(setting.to_owned()));
            let config = loaded.config;
            assert_eq!(shown(&config), [false; 7], "{setting}");
            assert!(!config.rules().anonymous || setting.contains("anonymous"), "{setting}");
            let namespaces = config.namespaces();
            let options = namespaces.of("a").unwrap();
            assert!(!options.subscribe.allows("", false) && !options.publish.allows("", false));
        };
        for (name, value) in [
            ("DRUMLINE_HTTP_SERVER_PORT", "8001"),
            ("DRUMLINE_CLIENT_TOKEN_HMAC_SECRET_KEY", "secret"),
            ("CENTRIFUGO_HTTP_SERVER_PORT", "8001"),
            ("CENTRIFUGO_TOKEN_HMAC_SECRET_KEY", "secret"),
            ("DRUMLINE_TUNE_STATE", "/tmp/saved"),
        ] {
            check(&[(name, value)], &[], &format!("{name} in the environment"));
        }
        for (flag, value) in [
            ("client.token.jwks_public_endpoint", "https://a"),
            ("client.channel_limit", "3"),
            ("client.allow_anonymous_connect_without_token", "true"),
            ("channel.without_namespace.presence", "true"),
            ("channel.namespaces", ""),
            ("rpc.without_namespace.proxy_enabled", "false"),
            ("http_api.key", "k"),
            ("http_api.insecure", "true"),
            ("proxies", ""),
        ] {
            check(&[], &[(flag, value)], &format!("--{flag}"));
        }
        for (flag, value) in [
            ("http_server.address", ""),
            ("http_server.address", "0.0.0.0"),
            ("http_server.address", "::"),
            ("http_server.internal_address", "10.0.0.1"),
        ] {
            check(&[], &[(flag, value)], &format!("--{flag} {value}"));
        }
        check(
            &[("DRUMLINE_SHARDS", "1")],
            &[("client.insecure", "false")],
            "DRUMLINE_SHARDS in the environment",
        );
    }

    #[test]
    fn an_unknown_variable_with_our_prefix_is_an_error() {
        let check = |name: &str, meant: &str| {
            let refused = load_without_file(&[(name, "x")], &[]).unwrap_err();
            assert!(refused.cause.contains(name) && refused.cause.contains(meant), "{refused}");
        };
        check("DRUMLINE_CLIENT_TOKEN_HMAC_SECRET", "DRUMLINE_CLIENT_TOKEN_HMAC_SECRET_KEY?");
        check("DRUMLINE_CLIENT_INSECUR", "DRUMLINE_CLIENT_INSECURE?");
        check("DRUMLINE_X", "unknown environment variable");
        check("DRUMLINE_PORT", "");
        let named = [
            ("DRUMLINE_CHANNEL_NAMESPACES", "chat"),
            ("DRUMLINE_CHANNEL_NAMESPACES_CHAT_PRESENSE", "true"),
        ];
        let refused = load_without_file(&named, &[]).unwrap_err();
        assert!(refused.cause.contains("_NAMESPACES_CHAT_PRESENCE?"), "{refused}");
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let file = "[http_api]\nkey = \"k\"\n[http_server]\nport = 8001\n\
                    [[channel.namespaces]]\nname = \"chat\"\npresence = true";
        for prefix in ["DRUMLINE", "CENTRIFUGO"] {
            let names = [
                "HTTP_API_KEY",
                "HTTP_SERVER_PORT",
                "CLIENT_PING_INTERVAL",
                "CLIENT_INSECURE",
                "CLIENT_ALLOWED_ORIGINS",
                "CHANNEL_NAMESPACES",
                "CHANNEL_NAMESPACES_CHAT_PRESENCE",
                "CHANNEL_NAMESPACES_CHAT_HISTORY_SIZE",
            ];
            let names = names.map(|name| format!("{prefix}_{name}"));
            let empty: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
            let loaded = load_text(file, &empty, &[]).unwrap();
            assert_eq!(loaded.config, load_text(file, &[], &[]).unwrap().config, "{prefix}");
            assert_eq!(loaded.warnings, [""; 0]);
        }
    }

    #[test]
    fn the_startup_banner_says_how_clients_can_connect_and_subscribe() {
        let check = |text: &str, expected: &str| {
            let told = load_text(text, &[], &[]).unwrap().config.entrance();
            assert!(told.contains(expected), "{text}: {told}");
        };
        let subscribe = "[channel.without_namespace]\nallow_subscribe_for_client = true\n";
        let token = "[client.token]\nhmac_secret_key = \"k\"\n";
        let anonymous = "[client]\nallow_anonymous_connect_without_token = true\n";
        check("", "no client can connect");
        check(subscribe, "no client can connect");
        check("[client]\ninsecure = true", "any client can connect and use any channel");
        check(&format!("{token}{subscribe}"), "clients connect with a token");
        check(token, "subscribe only with a token: set channel.without_namespace.allow_sub");
        check(anonymous, "but cannot subscribe: set channel.without_namespace.allow_subscribe");
        check(&format!("{anonymous}{subscribe}"), "clients connect with no token");
    }

    /// The same configuration in three formats.
    const TOML: &str = r#"
    [http_server]
    internal_port = "9000"
    [client]
    allowed_origins = ["https://a.example"]
    expired_close_delay = "10s"
    [client.token]
    hmac_secret_key = "secret"
    user_id_claim = "uid"
    [client.subscription_token]
    enabled = true
    hmac_secret_key = "other"
    [[channel.namespaces]]
    name = "chat"
    presence = true
    history_size = 10
    history_ttl = "300s"
    allowed_delta_types = ["fossil"]
    [[channel.namespaces]]
    name = "news"
    [http_api]
    key = "k""#;
    const JSON: &str = r#"{
    "http_server": {"internal_port": "9000"},
    "client": {
        "allowed_origins": ["https://a.example"],
        "expired_close_delay": "10s",
        "token": {"hmac_secret_key": "secret", "user_id_claim": "uid"},
        "subscription_token": {"enabled": true, "hmac_secret_key": "other"},
        "channel_limit": null
    },
    "channel": {"namespaces": [
        {"name": "chat", "presence": true, "history_size": 10, "history_ttl": "300s",
         "allowed_delta_types": ["fossil"]},
        {"name": "news", "channel_regex": null}
    ]},
    "http_api.key": "k"
}"#;
    const YAML: &str = "
http_server:
  internal_port: \"9000\"
client:
  allowed_origins: [https://a.example]
  expired_close_delay: 10s
  token: {hmac_secret_key: secret, user_id_claim: uid}
  subscription_token:
    enabled: true
    hmac_secret_key: other
channel:
  without_namespace:
  namespaces:
    - name: chat
      presence: true
      history_size: 10
      history_ttl: 300s
      allowed_delta_types: [fossil]
    - name: news
http_api:
  key: k
";

    #[test]
    fn the_same_configuration_loads_from_toml_json_and_yaml() {
        let mut expected = Config::default();
        expected.http_server.internal_port = 9000;
        expected.http_api.key = "k".into();
        let client = &mut expected.client;
        client.allowed_origins = vec!["https://a.example".into()];
        client.expired_close_delay = ConfigDuration::seconds(10);
        client.token.hmac_secret_key = "secret".into();
        client.token.user_id_claim = "uid".into();
        client.subscription_token.enabled = true;
        client.subscription_token.token.hmac_secret_key = "other".into();
        let chat = namespace("chat", |options| {
            options.presence = true;
            (options.history_size, options.history_ttl) = (10, ConfigDuration::seconds(300));
            options.allowed_delta_types = vec!["fossil".into()];
        });
        expected.channel.namespaces = vec![chat, namespace("news", |_| {})];
        for (name, text) in [
            ("drumline.toml", TOML),
            ("config.json", JSON),
            ("config.yaml", YAML),
            ("config.YML", YAML),
            ("marked.json", &format!("\u{feff}{JSON}")),
            ("without-extension", TOML),
        ] {
            let loaded = load_file(name, text, &[], &[]).unwrap();
            assert_eq!(loaded.config, expected, "{name}");
            assert_eq!(loaded.warnings, [""; 0], "{name}");
        }
    }

    #[test]
    fn variables_and_flags_replace_the_namespaces_of_the_file() {
        let file = "[http_api]\nkey = \"k\"\n[[channel.namespaces]]\nname = \"old\"";
        let check = |environment: &[(&str, &str)], flag: Option<&str>, expected: &[Namespace]| {
            let flags: Vec<_> = flag.map(|flag| ("channel.namespaces", flag)).into_iter().collect();
            let loaded = load_text(file, environment, &flags).unwrap();
            assert_eq!(loaded.config.channel.namespaces, expected);
            assert_eq!(loaded.warnings, [""; 0]);
        };
        let plain = |name: &str| namespace(name, |_| {});
        let present = |name: &str| namespace(name, |options| options.presence = true);
        check(&[], None, &[plain("old")]);
        check(&[], Some(""), &[]);
        let json = r#"[{"name":"chat","presence":true}]"#;
        let ours = ("DRUMLINE_CHANNEL_NAMESPACES", json);
        let theirs = ("CENTRIFUGO_CHANNEL_NAMESPACES", "ab cd");
        check(&[ours], None, &[present("chat")]);
        check(&[theirs], None, &[plain("ab"), plain("cd")]);
        check(&[theirs, ours], None, &[present("chat")]);
        check(&[ours], Some("xx y-z"), &[plain("xx"), plain("y-z")]);
    }

    #[test]
    fn a_variable_sets_one_option_of_one_namespace() {
        let file = "[http_api]\nkey = \"k\"\n[[channel.namespaces]]\nname = \"a-b.c\"";
        let environment = [
            ("CENTRIFUGO_CHANNEL_NAMESPACES_A_B_C_HISTORY_SIZE", "10"),
            ("CENTRIFUGO_CHANNEL_NAMESPACES_A_B_C_HISTORY_TTL", "60s"),
            ("DRUMLINE_CHANNEL_NAMESPACES_A_B_C_HISTORY_TTL", "2m"),
        ];
        let loaded = load_text(file, &environment, &[]).unwrap();
        let expected = namespace("a-b.c", |options| {
            (options.history_size, options.history_ttl) = (10, ConfigDuration::seconds(120));
        });
        assert_eq!(loaded.config.channel.namespaces, [expected]);
        let wrong = [("DRUMLINE_CHANNEL_NAMESPACES_A_B_C_PRESENCE", "yes")];
        let refused = load_text(file, &wrong, &[]).unwrap_err();
        assert!(refused.cause.contains("_PRESENCE: `yes` is not true or false"), "{refused}");
    }

    #[test]
    fn the_warning_about_unknown_keys_suggests_similar_names() {
        let file = "api_key = \"x\"\n[admin]\nsecret = \"p\"\n[http_server]\nprot = 1\n\
                    [client]\npresence_update_interval = \"30s\"\n[http_api]\nkey = \"k\"\n\
                    [[channel.namespaces]]\nname = \"chat\"\nhistroy_size = 3\n\
                    subscription_type = \"map\"";
        let environment = [
            ("CENTRIFUGO_CLIENT_INSECUR", "true"),
            ("CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_PRESENSE", "true"),
            ("DRUMLINE_TUNE_STATE", "/tmp/saved"),
            ("CENTRIFUGO_ADMIN_WEB_PATH", "/a"),
            ("OTHER", "x"),
            ("DRUMLINE_SERVICE_PORT_HTTP", "8000"),
            ("DRUMLINE_PORT_8000_TCP_ADDR", "10.0.0.1"),
            ("CENTRIFUGO_PORT", "tcp://10.0.0.1:8000"),
        ];
        let warnings = load_text(file, &environment, &[]).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let told = |part: &str| warnings[0].contains(part);
        for part in [
            "api_key",
            " admin.secret,",
            "http_server.prot (did you mean http_server.port?)",
            " client.presence_update_interval,",
            "channel.namespaces.chat.histroy_size (did you mean history_size?)",
            " channel.namespaces.chat.subscription_type,",
            "CENTRIFUGO_CLIENT_INSECUR (did you mean CENTRIFUGO_CLIENT_INSECURE?)",
            "_CHAT_PRESENSE (did you mean CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_PRESENCE?)",
            " CENTRIFUGO_ADMIN_WEB_PATH",
            " DRUMLINE_SERVICE_PORT_HTTP,",
            " DRUMLINE_PORT_8000_TCP_ADDR",
            " CENTRIFUGO_PORT",
        ] {
            assert!(told(part), "{part}: {}", warnings[0]);
        }
        for part in ["OTHER", "TUNE", "CENTRIFUGO_ADMIN_WEB_PATH ("] {
            assert!(!told(part), "{part}: {}", warnings[0]);
        }
    }

    #[test]
    fn batch_flush_latest_excludes_options_that_count_publications() {
        for option in [
            "history_size = 1\nhistory_ttl = \"1s\"",
            "force_positioning = true",
            "allow_positioning = true",
            "allow_recovery = true",
            "allowed_delta_types = [\"fossil\"]",
            "delta_publish = true",
            "batch_max_size = 2",
        ] {
            let batch = "batch_max_delay = \"200ms\"\nbatch_flush_latest = ";
            let text = |latest| format!("[channel.without_namespace]\n{batch}{latest}\n{option}");
            assert!(load_text(&text(false), &[], &[]).is_ok(), "{option}");
            let refused = load_text(&text(true), &[], &[]).unwrap_err();
            let name = option.split(' ').next().unwrap();
            assert!(
                refused
                    .cause
                    .ends_with(&format!("batch_flush_latest cannot be combined with {name}"))
            );
            assert!(refused.cure.starts_with("remove one of them"), "{refused}");
        }
    }

    #[test]
    fn no_error_shows_a_secret() {
        const SECRET: &str = "hunter2";
        let refused = |name: &str, text: &str, environment: &[(&str, &str)]| {
            let told = load_file(name, text, environment, &[]).unwrap_err().to_string();
            assert!(!told.contains(SECRET), "{text} {environment:?}: {told}");
        };
        let connect = "[client.proxy.connect]\nenabled = true\nendpoint = ";
        for text in [
            "[http_api]\nkey = hunter2",
            "[http_api]\nkey = [\"hunter2\"]",
            "http_api = \"hunter2\"",
            "[client.token]\nhmac_secret_key = {a = \"hunter2\"}",
            "[client.token]\njwks_public_endpoint = \"user:hunter2@a\"",
            &format!("{connect}\"user:hunter2@a/b\""),
            &format!("{connect}\"ftp://user:hunter2@a/b\""),
            &format!("{connect}\"http://user:hunter2@a b/\""),
            &format!("{connect}\"ftp://a/b?token=hunter2\""),
            &format!("{connect}\"http://a\"\nhttp_headers = [\"Authorization: hunter2\"]"),
            &format!("{connect}\"http://a\"\nhttp.static_headers = {{ \"X: hunter2\" = \"a\" }}"),
            &format!("{connect}\"http://a\"\nhttp.static_headers = {{ X = \"hunter2\\n\" }}"),
            &format!("{connect}\"http://a\"\nhttp.static_headers = {{ X = [\"hunter2\"] }}"),
            &format!("{connect}\"http://a\"\nhttp.static_headers = \"hunter2\""),
            "proxies = [\"http://user:hunter2@a\"]",
            "proxies = \"[{hunter2\"",
        ] {
            refused("drumline.toml", text, &[]);
        }
        refused("config.json", r#"{"http_api": {"key": hunter2}}"#, &[]);
        refused("config.json", r#"["hunter2"]"#, &[]);
        refused("config.json", r#""hunter2""#, &[]);
        refused("config.yaml", "http_api: {key: *hunter2}", &[]);
        refused("config.yaml", "hunter2", &[]);
        for variable in [
            "DRUMLINE_PROXIES",
            "DRUMLINE_CHANNEL_NAMESPACES",
            "DRUMLINE_CLIENT_PROXY_CONNECT_HTTP_STATIC_HEADERS",
        ] {
            refused("drumline.toml", "", &[(variable, r#"[{"hunter2": "#)]);
        }
    }

    #[test]
    fn a_loaded_configuration_shows_no_secret() {
        let token = "hmac_secret_key = \"hunter2\"\nhmac_previous_secret_key = \"hunter2\"";
        let text = format!(
            "[http_api]\nkey = \"hunter2\"\n[client.token]\n{token}\n\
             [client.subscription_token]\n{token}\n[rpc.proxy]\n\
             endpoint = \"https://user:hunter2@a/b?token=hunter2\"\n\
             http.static_headers = {{ X = \"hunter2\" }}"
        );
        let sources = Sources {
            environment: vec![("DRUMLINE_HTTP_API_KEY".into(), "hunter2".into())],
            flags: vec![("http_api.key".into(), "hunter2".into())],
            ..Sources::default()
        };
        let loaded = load_text(&text, &[], &[]).unwrap();
        let settings = loaded.config.hub_settings(1);
        for shown in [
            format!("{loaded:?}"),
            serde_json::to_string(&loaded.config).unwrap(),
            format!("{sources:?}"),
            format!("{:?} {:?}", settings.api, settings.tokens),
            loaded.config.entrance(),
        ] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(loaded.config.rpc.proxy.endpoint.to_string(), "https://***@a/b?***");
        // Every key whose name suggests a secret must be of a kind that is never shown.
        for key in keys() {
            let name = key.path.rsplit('.').next().unwrap();
            let hidden =
                matches!(key.kind, ValueKind::Secret | ValueKind::Address | ValueKind::Map);
            let named_secret =
                ["secret", "endpoint", "headers"].iter().any(|part| name.ends_with(part));
            let named_secret =
                named_secret || name.ends_with("_secret_key") || key.path == "http_api.key";
            let lists = ["http_headers", "emulated_headers"].contains(&name);
            assert!(hidden || !named_secret || lists, "{}", key.path);
        }
    }

    #[test]
    fn errors_about_values_name_key_cause_and_cure() {
        let check = |text: &str, environment: &[(&str, &str)], cause: &str, cure: &str| {
            let refused = load_text(text, environment, &[]).unwrap_err();
            assert!(refused.cause.contains(cause), "{refused:?}");
            assert!(refused.cure.contains(cure), "{refused:?}");
        };
        for (text, cause, cure) in [
            ("[http_server]\nport = \"x\"", "http_server.port in ", "port = 8000"),
            ("[http_server]\nport = 70000", "http_server.port in ", "at most 65535"),
            ("[http_server]\nport = -1", "http_server.port in ", "at most 65535"),
            ("[engine]\ninbox = 0", "engine.inbox is 0", "at least 1 and at most 1048576"),
            ("[engine]\ninbox = 9999999", "engine.inbox is 9999999", "at most 1048576"),
            ("[engine]\ncontrol_threads = 1000000", "control_threads", "at most 256"),
            ("[engine]\nsend_buffer = 9999999999", "send_buffer", "at most 1073741824"),
            ("[client]\nping_interval = \"876001h\"", "ping_interval", "at most 876000h"),
            ("[client]\nping_interval = \"25\"", "client.ping_interval", "\"25s\""),
            ("[client.subscription_token]\nenabled = 2", "token.enabled in ", "true or false"),
            ("client = 3", "client in ", "[client]"),
            ("client = ", "is not TOML: line 1, column 10: ", "correct that line"),
            ("[client]\npong_timeout = \"25s\"", "client.ping_interval", "shorten"),
            ("[channel.without_namespace]\nhistory_size = 1", "history_ttl", "both"),
            (
                "[http_server]\ninternal_port = 8000\ninternal_address = \"10.0.0.1\"",
                "internal_port",
                "another",
            ),
            ("[websocket]\ncompression_level = 0", "compression_level is 0", "1 (fastest)"),
            ("[channel.without_namespace]\nbatch_max_size = 9", "batch_max_size requires", "200ms"),
            (
                "[[channel.namespaces]]\nname = \"chat\"\nbatch_flush_latest = true",
                "channel.namespaces[0] \"chat\": batch_flush_latest requires",
                "batch_max_delay",
            ),
            ("[http_server]\naddress = \"x\"", "http_server.address: `x`", "use an IP address"),
            ("[health]\nhandler_prefix = \"/api\"", "the same", "its own path"),
            ("[sse]\nhandler_prefix = \"/health/ready\"", "readiness check", "another path"),
            ("[http_api]\nerror_mode = \"http\"", "error_mode \"http\"", "use transport"),
            ("[client.token]\nissuer_regex = \"(\"", "client.token: issuer_regex `(`", "correct"),
            ("[client.token]\njwks_public_endpoint = \"a\"", "jwks_public_endpoint", "https://"),
            (
                "[client.subscribe_to_user_personal_channel]\nenabled = true\n\
                 personal_channel_namespace = \"me\"",
                "there is no namespace \"me\"",
                "channel.namespaces",
            ),
        ] {
            check(text, &[], cause, cure);
        }
        for (name, value, cause, cure) in [
            ("DRUMLINE_CLIENT_INSECURE", "yes", "DRUMLINE_CLIENT_INSECURE: `yes`", "false"),
            ("DRUMLINE_HTTP_SERVER_PORT", "70000", "http_server.port in DRUMLINE", "at most 65535"),
            ("DRUMLINE_HTTP_SERVER_PORT", "x", "DRUMLINE_HTTP_SERVER_PORT: `x`", "at most 65535"),
            ("DRUMLINE_CHANNEL_NAMESPACES", "[{", "_NAMESPACES: the value is not", "\"name\""),
            ("CENTRIFUGO_CHANNEL_NAMESPACES", "[{}]", "[0] in CENTRIFUGO", "a name"),
        ] {
            check("", &[(name, value)], cause, cure);
        }
        let yaml = "channel: {namespaces: [{name: on, presence: yes}]}";
        let refused = load_file("config.yaml", yaml, &[], &[]).unwrap_err();
        assert!(refused.cause.contains("\"on\"") && refused.cause.contains("\"yes\" is not"));
        let not = |name: &str, text: &str| load_file(name, text, &[], &[]).unwrap_err().cause;
        assert!(not("config.json", "{").contains("config.json is not JSON: "));
        assert!(not("config.yaml", "a: [").contains("config.yaml is not YAML: "));
        assert!(not("config.json", "[]").contains("expected a table of sections, found a list"));
    }

    #[test]
    fn an_error_about_a_number_names_its_maximum() {
        for key in keys().iter().filter(|key| key.kind == ValueKind::Number) {
            for value in ["-1", "99999999999999999999999", "x"] {
                let refused = load_text("", &[(&key.variable(), value)], &[]).unwrap_err();
                let bound = format!("at most {}", key.most);
                assert!(refused.cure.contains(&bound), "{}: {refused}", key.path);
            }
            if key.most == u64::from(u16::MAX) {
                let refused = load_text("", &[(&key.variable(), "65536")], &[]).unwrap_err();
                assert!(refused.cure.contains("at most 65535"), "{}: {refused}", key.path);
            }
        }
    }

    #[test]
    fn errors_about_options_name_their_namespace() {
        let check = |options: &str, cause: &str| {
            let text = format!(
                "[[channel.namespaces]]\nname = \"news\"\n[[channel.namespaces]]\n\
                 name = \"chat\"\n{options}"
            );
            let refused = load_text(&text, &[], &[]).unwrap_err();
            let place = "channel.namespaces[1] \"chat\"";
            assert!(refused.cause.starts_with(place), "{refused:?}");
            assert!(refused.cause.contains(cause), "{refused:?}");
        };
        for (options, cause) in [
            ("presence = \"yes\"", ": presence: \"yes\" is not true or false"),
            ("history_size = true", ": history_size: true is not a whole number"),
            ("history_ttl = 300", ": history_ttl: 300 is not a duration"),
            ("channel_regex = []", ": channel_regex: a list is not a string"),
            ("history_size = 10", ": only one of history_size and history_ttl"),
            ("history_ttl = \"1s\"", ": only one of history_size and history_ttl"),
            ("history_size = 1\nhistory_ttl = \"721h\"", ": history_ttl 721h is longer"),
            (
                "history_size = 1\nhistory_ttl = \"2m\"\nhistory_meta_ttl = \"1m\"",
                "history_meta_ttl 1m",
            ),
            ("force_recovery = true", ": force_recovery requires history"),
            ("force_recovery_mode = \"all\"", ": force_recovery_mode \"all\" is unknown"),
            ("allowed_delta_types = [\"x\"]", ": allowed_delta_types: \"x\" is unknown"),
            (
                "channel_regex = \"^(?=a)\"",
                ": channel_regex `^(?=a)` is not a valid regular expression: ",
            ),
            ("publication_data_format = \"xml\"", ": publication_data_format \"xml\""),
        ] {
            check(options, cause);
        }
        let whole = |list: &str| {
            load_text("", &[("DRUMLINE_CHANNEL_NAMESPACES", list)], &[]).unwrap_err().cause
        };
        for (list, cause) in [
            (r#"[{"name":"ab"},{"name":"c d"}]"#, "[1] \"c d\": not a valid name"),
            (r#"[{"name":"a"}]"#, "[0] \"a\": not a valid name"),
            (r#"[{"name":"ab"},{"name":"cd"},{"name":"ab"}]"#, "[2] \"ab\": channel.namespaces[0]"),
            (r#"[{"presence":true}]"#, "[0] in DRUMLINE_CHANNEL_NAMESPACES has no name"),
            (
                r#"[{"name":true}]"#,
                "[0] in DRUMLINE_CHANNEL_NAMESPACES: name: true is not a string",
            ),
            (r#"["chat"]"#, "[0] in DRUMLINE_CHANNEL_NAMESPACES: expected a table, found a string"),
        ] {
            let found = whole(list);
            assert!(found.starts_with(&format!("channel.namespaces{cause}")), "{found}");
        }
    }

    #[test]
    fn proxies_are_selected_by_section_and_by_name() {
        let file = r#"
        [http_api]
        key = "k"
        [[proxies]]
        name = "spare"
        endpoint = "http://a/spare"
        [[proxies]]
        name = "chat-subscribe"
        http_headers = ["Cookie"]
        [proxies.http.static_headers]
        X-Key = "secret"
        [client.proxy.connect]
        enabled = true
        endpoint = "https://a/connect"
        http_headers = ["X-Real-Ip", "cookie"]
        emulated_headers = ["Authorization"]
        [[channel.namespaces]]
        name = "chat"
        subscribe_proxy_enabled = true
        subscribe_proxy_name = "chat-subscribe"
        [rpc.proxy]
        endpoint = "http://a/rpc"
        [[rpc.namespaces]]
        name = "math"
        proxy_enabled = true
        "#;
        let environment = [
            ("CENTRIFUGO_PROXIES_CHAT_SUBSCRIBE_ENDPOINT", "http://a/chat"),
            ("DRUMLINE_CLIENT_PROXY_CONNECT_HTTP_STATIC_HEADERS", r#"{"X-Other": "1"}"#),
        ];
        let loaded = load_text(file, &environment, &[]).unwrap();
        assert_eq!(loaded.warnings, [""; 0]);
        let config = loaded.config;
        let all = config.all_proxies();
        let endpoint = |upstream: crate::model::backend::Upstream| {
            all[usize::from(upstream.0)].1.endpoint.reveal()
        };
        let used: Vec<&str> = config.used_proxies().into_iter().map(endpoint).collect();
        assert_eq!(used, ["https://a/connect", "http://a/rpc", "http://a/chat"]);
        let settings = config.hub_settings(1);
        let options = settings.namespaces.of("chat:1").unwrap();
        assert_eq!(options.subscribe_proxy.map(endpoint), Some("http://a/chat"));
        assert_eq!(settings.proxies.connect.map(endpoint), Some("https://a/connect"));
        assert_eq!(settings.proxies.calls.upstream("math:add").map(endpoint), Ok("http://a/rpc"));
        assert!(settings.proxies.calls.upstream("add").is_err());
        assert_eq!(settings.proxies.wants.emulated, ["authorization"]);
        assert_eq!(settings.proxies.wants.headers, ["cookie", "x-real-ip"]);
        assert_eq!(config.proxies[1].proxy.http.static_headers["X-Key"].reveal(), "secret");
        let headers = &config.client.proxy.connect.proxy.http.static_headers;
        assert_eq!(headers["X-Other"].reveal(), "1");
    }

    #[test]
    fn invalid_proxies_are_errors() {
        let check = |text: &str, cause: &str| {
            let refused = load_text(text, &[], &[]).unwrap_err();
            assert!(refused.cause.contains(cause), "{refused:?}");
        };
        let connect = |rest: &str| format!("[client.proxy.connect]\nenabled = true\n{rest}");
        check(&connect(""), "client.proxy.connect: it is enabled, but endpoint is empty");
        check(
            &connect("endpoint = \"grpc://a\""),
            "endpoint \"grpc://a\" is not an http or https URL",
        );
        let there = connect("endpoint = \"http://a\"\n");
        check(&format!("{there}timeout = \"0s\""), "timeout is 0s");
        let own = "http_headers = [\"Host\", \"Cookie\"]\nemulated_headers = [\"content-type\"]";
        let warnings = load_text(&format!("{there}{own}"), &[], &[]).unwrap().warnings;
        let told =
            "not passed to the backend: Host in client.proxy.connect, content-type in client";
        assert!(warnings.iter().any(|warning| warning.contains(told)), "{warnings:?}");
        assert!(!warnings.iter().any(|warning| warning.contains("Cookie")), "{warnings:?}");
        check(&format!("{there}http_headers = [\"a b\"]"), "header \"a\" cannot be set");
        check(&format!("{there}http.static_headers = {{ X = [] }}"), "a table is not a table of");
        let options = "[channel.without_namespace]\npublish_proxy_enabled = true\n";
        check(options, "channel.proxy.publish: it is enabled");
        check(&format!("{options}publish_proxy_name = \"x1\""), "there is no proxy \"x1\"");
        check("[[proxies]]\nname = \"x\"", "proxies[0] \"x\": not a valid name");
        check("[client.hook.disconnect]\nenabled = true", "client.hook.disconnect: it is enabled");
    }

    #[test]
    fn durations_parse_and_print() {
        use super::duration::parse_duration;
        let check = |text: &str, expected: Option<u64>| {
            let millis = parse_duration(text).map(|found| found.as_millis() as u64);
            assert_eq!(millis, expected, "{text}");
        };
        check("25s", Some(25_000));
        check("300ms", Some(300));
        check("720h", Some(720 * 3_600_000));
        check("1h30m", Some(5_400_000));
        check("1.5s", Some(1500));
        check("0", Some(0));
        check("0s", Some(0));
        for bad in ["", "25", "s", "1d", "1s2", "-1s", "1..s", "s5"] {
            check(bad, None);
        }
        for text in ["25s", "300ms", "720h", "90s", "0s"] {
            let shown = ConfigDuration(parse_duration(text).unwrap()).to_string();
            assert_eq!(parse_duration(&shown), parse_duration(text), "{shown}");
        }
    }
}
