//! The configuration: every key once, with its meaning and default, and where values come from.
//!
//! Owns the table of keys; flags, environment, files, what is printed and the settings of the data
//! plane follow from it. Never reads the configuration again once the process runs. The invariant:
//! a configuration that was loaded is one that works, and what stands in a source unknown to the
//! table was warned of.

mod check;
mod engine;
mod file;
mod key;
mod load;
mod print;
mod proxies;
mod span;
mod table;
mod tables;

use std::fmt;

pub use self::file::{FILES, Format};
pub use self::key::{CENTRIFUGO_PREFIX, Key, Kind, PREFIX, keys};
pub use self::load::{Loaded, Sources, load};
pub use self::print::{default_json, document, template};
pub use self::span::Span;
pub use self::table::*;

/// Why a configuration cannot be used: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// One sentence.
    pub cause: String,
    /// One line.
    pub cure: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.cure)
    }
}

impl std::error::Error for Error {}

fn error(cause: impl Into<String>, cure: impl Into<String>) -> Error {
    Error { cause: cause.into(), cure: cure.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of that name with that text, loaded with variables and flags.
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
        assert_eq!(config.client.ping_interval, Span::seconds(60));
        assert_eq!(config.client.allowed_origins, ["http://a", "http://b"]);
        assert_eq!(config.http_api.key, "12345");
        assert!(config.client.insecure && loaded.warnings.is_empty());
        let flag = load_text(file, &both, &[("http_server.port", "4")]).unwrap();
        assert_eq!(flag.config.http_server.port, 4);
    }

    #[test]
    fn a_file_closes_what_is_open_without_one() {
        let closed = load_text("", &[], &[]).unwrap();
        assert_eq!(closed.config, Config::default());
        assert_eq!(closed.warnings.len(), 1, "no API key");
        let open = load(&Sources::default()).unwrap();
        assert!(open.source.is_none());
        let namespaces = open.config.namespaces();
        let options = namespaces.of("a").unwrap();
        assert!(open.config.rules().anonymous);
        assert!(options.subscribe.allows("", false) && options.publish.allows("", false));
        assert_eq!(open.config.http_api.key.len(), 32);
    }

    #[test]
    fn whoever_says_who_may_come_in_is_not_left_open() {
        let check = |name: &str, value: &str, open: bool| {
            let environment = vec![(name.to_owned(), value.to_owned())];
            let loaded = load(&Sources { environment, ..Sources::default() }).unwrap();
            assert_eq!(loaded.source.is_none(), open, "{name}");
            assert_eq!(loaded.config.rules().anonymous, open, "{name}");
        };
        check("DRUMLINE_HTTP_SERVER_PORT", "8001", true);
        check("DRUMLINE_CLIENT_TOKEN_HMAC_SECRET_KEY", "secret", false);
        check("DRUMLINE_CLIENT_PROXY_CONNECT_ENDPOINT", "http://a", false);
        check("CENTRIFUGO_HTTP_SERVER_PORT", "8001", false);
        check("CENTRIFUGO_CHANNEL_NAMESPACES", "chat", false);
        check("CENTRIFUGO_SERVICE_HOST", "10.0.0.1", true);
        let flags = vec![("client.token.jwks_public_endpoint".to_owned(), "https://a".to_owned())];
        let flagged = load(&Sources { flags, ..Sources::default() }).unwrap();
        assert!(!flagged.config.rules().anonymous);
    }

    /// One configuration in three languages.
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
    fn one_configuration_in_three_languages() {
        let mut expected = Config::default();
        expected.http_server.internal_port = 9000;
        expected.http_api.key = "k".into();
        let client = &mut expected.client;
        client.allowed_origins = vec!["https://a.example".into()];
        client.expired_close_delay = Span::seconds(10);
        client.token.hmac_secret_key = "secret".into();
        client.token.user_id_claim = "uid".into();
        client.subscription_token.enabled = true;
        client.subscription_token.token.hmac_secret_key = "other".into();
        let chat = namespace("chat", |options| {
            options.presence = true;
            (options.history_size, options.history_ttl) = (10, Span::seconds(300));
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
    fn namespaces_from_the_environment_and_flags() {
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
    fn variables_of_one_namespace() {
        let file = "[http_api]\nkey = \"k\"\n[[channel.namespaces]]\nname = \"a-b.c\"";
        let environment = [
            ("CENTRIFUGO_CHANNEL_NAMESPACES_A_B_C_HISTORY_SIZE", "10"),
            ("CENTRIFUGO_CHANNEL_NAMESPACES_A_B_C_HISTORY_TTL", "60s"),
            ("DRUMLINE_CHANNEL_NAMESPACES_A_B_C_HISTORY_TTL", "2m"),
        ];
        let loaded = load_text(file, &environment, &[]).unwrap();
        let expected = namespace("a-b.c", |options| {
            (options.history_size, options.history_ttl) = (10, Span::seconds(120));
        });
        assert_eq!(loaded.config.channel.namespaces, [expected]);
        let wrong = [("DRUMLINE_CHANNEL_NAMESPACES_A_B_C_PRESENCE", "yes")];
        let refused = load_text(file, &wrong, &[]).unwrap_err();
        assert!(refused.cause.contains("_PRESENCE: `yes` is not true or false"), "{refused}");
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest() {
        let file = "api_key = \"x\"\n[admin]\npassword = \"p\"\n[http_server]\nprot = 1\n\
                    [client]\npresence_update_interval = \"27s\"\n[http_api]\nkey = \"k\"\n\
                    [[channel.namespaces]]\nname = \"chat\"\nhistroy_size = 3\n\
                    subscription_type = \"map\"";
        let environment = [
            ("DRUMLINE_CLIENT_INSECUR", "true"),
            ("DRUMLINE_CHANNEL_NAMESPACES_CHAT_PRESENSE", "true"),
            ("CENTRIFUGO_ADMIN_ENABLED", "true"),
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
            " admin,",
            "http_server.prot (did you mean http_server.port?)",
            " client.presence_update_interval,",
            "channel.namespaces.chat.histroy_size (did you mean history_size?)",
            " channel.namespaces.chat.subscription_type,",
            "DRUMLINE_CLIENT_INSECUR (did you mean DRUMLINE_CLIENT_INSECURE?)",
            "_CHAT_PRESENSE (did you mean DRUMLINE_CHANNEL_NAMESPACES_CHAT_PRESENCE?)",
            " CENTRIFUGO_ADMIN_ENABLED",
        ] {
            assert!(told(part), "{part}: {}", warnings[0]);
        }
        for part in ["OTHER", "SERVICE", "TCP", "CENTRIFUGO_PORT", "CENTRIFUGO_ADMIN_ENABLED ("] {
            assert!(!told(part), "{part}: {}", warnings[0]);
        }
    }

    #[test]
    fn the_latest_alone_goes_with_nothing_that_counts() {
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
            assert!(refused.cause.ends_with(&format!("batch_flush_latest with {name}")));
            assert!(refused.cure.starts_with("leave one of them out"), "{refused}");
        }
    }

    #[test]
    fn wrong_values_name_key_cause_and_cure() {
        let check = |text: &str, environment: &[(&str, &str)], cause: &str, cure: &str| {
            let refused = load_text(text, environment, &[]).unwrap_err();
            assert!(refused.cause.contains(cause), "{refused:?}");
            assert!(refused.cure.contains(cure), "{refused:?}");
        };
        for (text, cause, cure) in [
            ("[http_server]\nport = \"x\"", "http_server.port in ", "port = 8000"),
            ("[http_server]\nport = 70000", "http_server.port in ", "port = 8000"),
            ("[client]\nping_interval = \"25\"", "client.ping_interval", "\"25s\""),
            ("[client.subscription_token]\nenabled = 1", "token.enabled in ", "true or false"),
            ("client = 3", "client in ", "[client]"),
            ("client = ", "is not TOML", "mend"),
            ("[client]\npong_timeout = \"25s\"", "client.ping_interval", "shorten"),
            ("[channel.without_namespace]\nhistory_size = 1", "history_ttl", "both"),
            ("[http_server]\ninternal_port = 8000", "internal_port", "another"),
            ("[websocket]\ncompression_level = 0", "compression_level is 0", "1, the quickest"),
            ("[channel.without_namespace]\nbatch_max_size = 9", "batch_max_size without", "200ms"),
            (
                "[[channel.namespaces]]\nname = \"chat\"\nbatch_flush_latest = true",
                "channel.namespaces[0] \"chat\": batch_flush_latest without",
                "batch_max_delay",
            ),
            ("[http_server]\naddress = \"x\"", "http_server.address", "use one"),
            ("[health]\nhandler_prefix = \"/api\"", "the same", "of its own"),
            ("[http_api]\nerror_mode = \"http\"", "error_mode \"http\"", "use transport"),
            ("[client.token]\nissuer_regex = \"(\"", "client.token: issuer_regex `(`", "mend"),
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
            ("DRUMLINE_HTTP_SERVER_PORT", "70000", "http_server.port in DRUMLINE", "8000"),
            ("DRUMLINE_CHANNEL_NAMESPACES", "[{", "_NAMESPACES: `[{`", "\"name\""),
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
        assert!(not("config.json", "[]").contains("a list stands where the sections should"));
    }

    #[test]
    fn wrong_options_name_their_namespace() {
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
            ("channel_regex = []", ": channel_regex: a list is not text"),
            ("history_size = 10", ": of history_size and history_ttl only one"),
            ("history_ttl = \"1s\"", ": of history_size and history_ttl only one"),
            ("history_size = 1\nhistory_ttl = \"721h\"", ": history_ttl 721h is over"),
            (
                "history_size = 1\nhistory_ttl = \"2m\"\nhistory_meta_ttl = \"1m\"",
                "history_meta_ttl 1m",
            ),
            ("force_recovery = true", ": force_recovery without history"),
            ("force_recovery_mode = \"all\"", ": force_recovery_mode \"all\" is unknown"),
            ("allowed_delta_types = [\"x\"]", ": allowed_delta_types: \"x\" is unknown"),
            ("channel_regex = \"^(?=a)\"", ": channel_regex `^(?=a)` is no regular expression: "),
            ("publication_data_format = \"xml\"", ": publication_data_format \"xml\""),
        ] {
            check(options, cause);
        }
        let whole = |list: &str| {
            load_text("", &[("DRUMLINE_CHANNEL_NAMESPACES", list)], &[]).unwrap_err().cause
        };
        for (list, cause) in [
            (r#"[{"name":"ab"},{"name":"c d"}]"#, "[1] \"c d\": that is no name"),
            (r#"[{"name":"a"}]"#, "[0] \"a\": that is no name"),
            (r#"[{"name":"ab"},{"name":"cd"},{"name":"ab"}]"#, "[2] \"ab\": channel.namespaces[0]"),
            (r#"[{"presence":true}]"#, "[0] in DRUMLINE_CHANNEL_NAMESPACES has no name"),
            (r#"[{"name":true}]"#, "[0] in DRUMLINE_CHANNEL_NAMESPACES: name: true is not text"),
            (r#"["chat"]"#, "[0] in DRUMLINE_CHANNEL_NAMESPACES: \"chat\" is no table"),
        ] {
            let found = whole(list);
            assert!(found.starts_with(&format!("channel.namespaces{cause}")), "{found}");
        }
    }

    #[test]
    fn proxies_have_numbers_and_names() {
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
        let endpoint =
            |upstream: crate::proxy::Upstream| all[usize::from(upstream.0)].1.endpoint.as_str();
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
        assert_eq!(config.proxies[1].proxy.http.static_headers["X-Key"], "secret");
        assert_eq!(config.client.proxy.connect.proxy.http.static_headers["X-Other"], "1");
    }

    #[test]
    fn wrong_proxies_are_refused() {
        let check = |text: &str, cause: &str| {
            let refused = load_text(text, &[], &[]).unwrap_err();
            assert!(refused.cause.contains(cause), "{refused:?}");
        };
        let connect = |rest: &str| format!("[client.proxy.connect]\nenabled = true\n{rest}");
        check(&connect(""), "client.proxy.connect: it is used, and endpoint is empty");
        check(&connect("endpoint = \"grpc://a\""), "endpoint \"grpc://a\" is no address");
        let there = connect("endpoint = \"http://a\"\n");
        check(&format!("{there}timeout = \"0s\""), "timeout is 0s");
        check(&format!("{there}http_headers = [\"Host\"]"), "\"Host\" is no header");
        check(&format!("{there}http_headers = [\"a b\"]"), "\"a b\" is no header");
        check(&format!("{there}http.static_headers = {{ X = [] }}"), "a table is not a table of");
        let options = "[channel.without_namespace]\npublish_proxy_enabled = true\n";
        check(options, "channel.proxy.publish: it is used");
        check(&format!("{options}publish_proxy_name = \"x1\""), "there is no proxy \"x1\"");
        check("[[proxies]]\nname = \"x\"", "proxies[0] \"x\": that is no name");
        check("[client.hook.disconnect]\nenabled = true", "client.hook.disconnect: it is used");
    }

    #[test]
    fn durations() {
        use super::span::parse_duration;
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
            let shown = Span(parse_duration(text).unwrap()).to_string();
            assert_eq!(parse_duration(&shown), parse_duration(text), "{shown}");
        }
    }
}
