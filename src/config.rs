//! The configuration: every key once, with its meaning and default, and where values come from.
//!
//! Owns the table of keys; flags, environment, `genconfig` and the settings of the data plane
//! follow from it. Never reads the configuration again once the process runs. The invariant: a
//! configuration that was loaded is one that works, and what stands in a source unknown to the
//! table was warned of.

mod span;
mod table;

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};
use serde::Serialize;

use crate::auth::{ApiKey, Rules};
use crate::channels::home;
use crate::history::Retention;
use crate::http::Paths;
use crate::hub;
use crate::preflight::MAX_SHARDS;
use crate::sys;

pub use self::span::Span;
pub use self::table::*;

use self::span::parse_duration;

/// The file that is read where no other is named, if it is there.
pub const FILE: &str = "drumline.toml";
/// What environment variables begin with.
pub const PREFIX: &str = "DRUMLINE_";
/// Milliseconds for a request head.
const HEAD_TIMEOUT: u64 = 10_000;
/// Milliseconds for the peer's close frame.
const CLOSE_TIMEOUT: u64 = 5_000;
/// No request's path is this one: a path has no space.
const NO_PATH: &str = " ";

/// What a key's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Number,
    /// Text.
    Text,
    /// Texts; in a flag or the environment separated by spaces or commas.
    List,
    /// A duration such as `25s`.
    Duration,
}

impl Kind {
    /// What to write.
    pub fn expected(self) -> &'static str {
        match self {
            Kind::Switch => "true or false",
            Kind::Number => "a whole number",
            Kind::Text => "text in quotes",
            Kind::List => "a list of texts",
            Kind::Duration => "a duration such as \"25s\", \"300ms\" or \"720h\"",
        }
    }
}

/// One key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its path, such as `http_server.port`.
    pub path: String,
    /// What it means.
    pub doc: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// Its value where nobody gives one.
    pub default: toml::Value,
}

impl Key {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.replace('.', "_").to_ascii_uppercase())
    }

    /// Its path without the section, and the section.
    fn split(&self) -> (&str, &str) {
        self.path
            .rsplit_once('.')
            .map_or(("", self.path.as_str()), |(section, name)| (section, name))
    }

    /// Reads a value that came as text.
    fn read(&self, text: &str) -> Option<Value> {
        let text = text.trim();
        Some(match self.kind {
            Kind::Switch => match text {
                "true" | "1" => true.into(),
                "false" | "0" => false.into(),
                _ => return None,
            },
            Kind::Number => text.parse::<u64>().ok()?.into(),
            Kind::Text => text.into(),
            Kind::Duration => {
                parse_duration(text)?;
                text.into()
            }
            Kind::List => text
                .split(|at: char| at == ',' || at.is_whitespace())
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .into(),
        })
    }
}

/// All keys, in the order of their sections.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
        let mut keys = Vec::new();
        Config::default().describe("", "", &mut keys);
        keys
    });
    &KEYS
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

// ---- loading ---------------------------------------------------------------------------------

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

/// Where values come from, besides the defaults; later ones win.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that `--config` names.
    pub file: Option<PathBuf>,
    /// The environment, names and values.
    pub environment: Vec<(String, String)>,
    /// Flags: the key's path and its value.
    pub flags: Vec<(String, String)>,
}

/// A configuration and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// The file that was read; `None`: there is none, and the open defaults hold.
    pub file: Option<PathBuf>,
    /// What should be told: a sentence each.
    pub warnings: Vec<String>,
}

/// What is gathered on the way.
#[derive(Default)]
struct Gathered {
    figment: Figment,
    /// Where a key was last set.
    origins: HashMap<String, String>,
    /// Unknown keys, as they were written, and the known one they resemble.
    unknown: Vec<(String, Option<&'static Key>)>,
}

/// Merges defaults, file, environment and flags.
pub fn load(sources: &Sources) -> Result<Loaded, Error> {
    let defaults = Figment::from(Serialized::defaults(Config::default()));
    let mut gathered = Gathered { figment: defaults, ..Gathered::default() };
    let named = sources.file.clone();
    let file = named.or_else(|| Some(PathBuf::from(FILE)).filter(|file| file.exists()));
    match &file {
        Some(file) => gathered.add_file(file)?,
        None => gathered.add_open_defaults()?,
    }
    gathered.add_environment(&sources.environment)?;
    for (path, text) in &sources.flags {
        let key = keys().iter().find(|key| key.path == *path);
        let key = key.ok_or_else(|| error(format!("no flag --{path}"), "see --help"))?;
        gathered.add_text(key, text, format!("--{path}"))?;
    }
    let config: Config = match gathered.figment.extract() {
        Ok(config) => config,
        Err(refused) => return Err(gathered.refuse(refused)),
    };
    config.check()?;
    let warnings = gathered.warnings().into_iter().chain(config.warnings()).collect();
    Ok(Loaded { config, file, warnings })
}

impl Gathered {
    fn add(&mut self, path: &str, value: impl Serialize, origin: String) {
        self.figment = std::mem::take(&mut self.figment).merge(Serialized::default(path, value));
        self.origins.insert(path.to_owned(), origin);
    }

    fn add_text(&mut self, key: &Key, text: &str, origin: String) -> Result<(), Error> {
        let Some(value) = key.read(text) else {
            let expected = key.kind.expected();
            return Err(error(
                format!("{origin}: `{text}` is not {expected}"),
                format!("write for example {}", bare(&key.default)),
            ));
        };
        self.add(&key.path, value, origin);
        Ok(())
    }

    fn add_file(&mut self, file: &Path) -> Result<(), Error> {
        let name = file.display();
        let text = std::fs::read_to_string(file).map_err(|refused| {
            error(
                format!("{name} cannot be read: {refused}"),
                format!("name a file that is there, or write one with `drumline genconfig --config {name}`"),
            )
        })?;
        let dict: Dict = Toml::from_str(&text).map_err(|refused| {
            let cause = refused.to_string();
            error(
                format!("{name} is not TOML: {}", cause.trim_end().replace('\n', "\n  ")),
                "mend that line; `drumline genconfig` shows how every key is written",
            )
        })?;
        self.note_keys("", &dict, &name.to_string());
        self.figment = std::mem::take(&mut self.figment).merge(Serialized::defaults(dict));
        Ok(())
    }

    /// Notes where keys were set, and which of them nobody knows.
    fn note_keys(&mut self, path: &str, dict: &Dict, origin: &str) {
        for (name, value) in dict {
            let path = join(path, name);
            let section = format!("{path}.");
            if keys().iter().any(|key| key.path == path) {
                self.origins.insert(path, origin.to_owned());
            } else if keys().iter().any(|key| key.path.starts_with(&section)) {
                match value.as_dict() {
                    Some(dict) => self.note_keys(&path, dict, origin),
                    None => _ = self.origins.insert(path, origin.to_owned()),
                }
            } else {
                let nearest = nearest(&path, |key| key.path.clone());
                self.unknown.push((path, nearest));
            }
        }
    }

    /// What holds where nobody has configured anything: everybody may try everything out, and a
    /// key is made for the API.
    fn add_open_defaults(&mut self) -> Result<(), Error> {
        let origin = || "the defaults without a file".to_owned();
        let mut config = Config::default();
        config.client.allow_anonymous_connect_without_token = true;
        let open = &mut config.channel.without_namespace;
        open.allow_subscribe_for_client = true;
        open.allow_subscribe_for_anonymous = true;
        open.allow_publish_for_client = true;
        open.allow_publish_for_anonymous = true;
        let random = sys::random::<16>().map_err(|refused| {
            error(format!("no randomness for a key: {refused}"), "set http_api.key")
        })?;
        config.http_api.key = format!("{:032x}", u128::from_ne_bytes(random));
        let (client, channel, key) = (config.client, config.channel, config.http_api.key);
        self.add("client", client, origin());
        self.add("channel", channel, origin());
        self.add("http_api", HttpApi { key, ..HttpApi::default() }, origin());
        Ok(())
    }

    fn add_environment(&mut self, environment: &[(String, String)]) -> Result<(), Error> {
        let ours = environment.iter().filter(|(name, _)| name.starts_with(PREFIX));
        for (name, text) in ours {
            match keys().iter().find(|key| key.variable() == *name) {
                Some(key) => self.add_text(key, text, name.clone())?,
                None => self.unknown.push((name.clone(), nearest(name, Key::variable))),
            }
        }
        Ok(())
    }

    /// A value of the wrong type: names the key, where it was set, and what it should be.
    fn refuse(&self, refused: figment::Error) -> Error {
        let path = refused.path.join(".");
        let origin = self.origins.get(&path).map_or("the configuration", String::as_str);
        let cause = format!("{path} in {origin}: {}", refused.kind);
        match keys().iter().find(|key| key.path == path) {
            Some(key) => error(
                cause,
                format!(
                    "write {}, for example {} = {}",
                    key.kind.expected(),
                    key.split().1,
                    key.default
                ),
            ),
            None => error(cause, format!("write it as a section: [{path}]")),
        }
    }

    fn warnings(&self) -> Option<String> {
        let name = |(unknown, nearest): &(String, Option<&Key>)| match nearest {
            Some(key) if unknown.starts_with(PREFIX) => {
                format!("{unknown} (did you mean {}?)", key.variable())
            }
            Some(key) => format!("{unknown} (did you mean {}?)", key.path),
            None => unknown.clone(),
        };
        let names: Vec<String> = self.unknown.iter().map(name).collect();
        (!names.is_empty()).then(|| {
            format!(
                "unknown configuration keys have no effect: {}; `drumline genconfig` lists all keys",
                names.join(", ")
            )
        })
    }
}

/// A value as it is written in a flag or the environment.
fn bare(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) if text.is_empty() => "some text".to_owned(),
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The known key that an unknown name resembles most, if one does.
fn nearest(unknown: &str, name: impl Fn(&Key) -> String) -> Option<&'static Key> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |key: &Key| {
        let name = name(key);
        let whole = strsim::normalized_damerau_levenshtein(unknown, &name);
        whole.max(strsim::normalized_damerau_levenshtein(&last(unknown), &last(&name)) * 0.99)
    };
    let scored = keys().iter().map(|key| (likeness(key), key));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(likeness, _)| *likeness > 0.6).map(|(_, key)| key)
}

// ---- what follows from it --------------------------------------------------------------------

impl Config {
    /// What cannot work, the first of it.
    fn check(&self) -> Result<(), Error> {
        let must = |holds: bool, cause: &str, cure: &str| {
            if holds { Ok(()) } else { Err(error(cause, cure)) }
        };
        let (client, server, engine) = (&self.client, &self.http_server, &self.engine);
        let options = &self.channel.without_namespace;
        must(
            client.ping_interval > client.pong_timeout,
            "client.ping_interval is not longer than client.pong_timeout",
            "lengthen the first or shorten the second",
        )?;
        must(
            (options.history_size == 0) == (options.history_ttl == Span::seconds(0)),
            "of channel.without_namespace.history_size and .history_ttl only one is set",
            "set both, for example history_size = 100 and history_ttl = \"300s\", or none",
        )?;
        must(
            server.port != server.internal_port,
            "http_server.port and http_server.internal_port are the same",
            "give the internal port another number, or 0 for none",
        )?;
        must(server.port != 0, "http_server.port is 0", "give it a number from 1 to 65535")?;
        must(
            self.shards < MAX_SHARDS,
            "shards is over 63",
            "use at most 63, or 0 for as many as the box needs",
        )?;
        must(engine.inbox > 0, "engine.inbox is 0", "give it at least 1; 4096 is the default")?;
        must(engine.control_threads > 0, "engine.control_threads is 0", "give it at least 1")?;
        let addresses = [&server.address, &server.internal_address];
        for address in addresses {
            sys::listen_address(address, server.port).map_err(|text| {
                match text.split_once("; ") {
                    Some((cause, cure)) => error(cause, cure),
                    None => error(text, "use an IP address"),
                }
            })?;
        }
        self.check_paths()
    }

    /// Every path begins with a slash, and no two are the same.
    fn check_paths(&self) -> Result<(), Error> {
        let paths = [
            ("http_api", &self.http_api.handler_prefix),
            ("websocket", &self.websocket.handler_prefix),
            ("uni_websocket", &self.uni_websocket.handler_prefix),
            ("prometheus", &self.prometheus.handler_prefix),
            ("health", &self.health.handler_prefix),
        ];
        for (at, (section, path)) in paths.iter().enumerate() {
            let plain = path.len() > 1
                && path.starts_with('/')
                && !path.ends_with('/')
                && path
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"?#{}*%\"<>'\\".contains(&byte));
            if !plain {
                return Err(error(
                    format!("{section}.handler_prefix: `{path}` is no plain path"),
                    "begin it with a slash, end it without one, and leave out `?#{}*%<>`, quotes and spaces",
                ));
            }
            if let Some((other, _)) = paths[..at].iter().find(|(_, before)| before == path) {
                return Err(error(
                    format!("{other}.handler_prefix and {section}.handler_prefix are the same"),
                    "give each a path of its own",
                ));
            }
        }
        Ok(())
    }

    /// What works, but perhaps not as meant.
    fn warnings(&self) -> Option<String> {
        let api = &self.http_api;
        (api.key.is_empty() && !api.insecure && !api.disabled).then(|| {
            "http_api.key is not set, so every API request is refused; set it, or http_api.disabled"
                .to_owned()
        })
    }

    /// Who may do what.
    pub fn rules(&self) -> Rules {
        let options = &self.channel.without_namespace;
        Rules {
            allowed_origins: self.client.allowed_origins.clone(),
            anonymous: self.client.allow_anonymous_connect_without_token,
            insecure: self.client.insecure,
            subscribe_for_client: options.allow_subscribe_for_client,
            subscribe_for_anonymous: options.allow_subscribe_for_anonymous,
            publish_for_client: options.allow_publish_for_client,
            publish_for_anonymous: options.allow_publish_for_anonymous,
            publish_for_subscriber: options.allow_publish_for_subscriber,
        }
    }

    /// Paths that the shards serve.
    pub fn paths(&self) -> Paths {
        let uni = &self.uni_websocket;
        Paths {
            websocket: self.websocket.handler_prefix.clone(),
            uni_websocket: if uni.enabled { &uni.handler_prefix } else { NO_PATH }.to_owned(),
            echo: self.engine.echo.then(|| "/echo".to_owned()),
            publish: self.public_api().map(|prefix| format!("{prefix}/publish")),
        }
    }

    /// Who may use the API.
    pub fn api_key(&self) -> ApiKey {
        ApiKey { key: self.http_api.key.clone(), insecure: self.http_api.insecure }
    }

    /// Path of the API where the public port has it.
    fn public_api(&self) -> Option<&str> {
        let here = !self.http_api.disabled && self.http_server.internal_port == 0;
        here.then_some(&self.http_api.handler_prefix)
    }

    /// The settings of a shard with `slots` connections.
    pub fn hub_settings(&self, slots: usize) -> hub::Settings {
        let (client, engine, options) =
            (&self.client, &self.engine, &self.channel.without_namespace);
        let keeps = options.history_size > 0 && options.history_ttl > Span::seconds(0);
        hub::Settings {
            rules: self.rules(),
            api: self.api_key(),
            paths: self.paths(),
            homes: home::Settings {
                retention: keeps.then(|| Retention {
                    size: options.history_size,
                    ttl: options.history_ttl.millis(),
                    meta_ttl: self.channel.history_meta_ttl.millis(),
                }),
                recovery_limit: client.recovery_max_publication_limit,
                // What does not fit an outbox could not be delivered.
                recovery_bytes: client.queue_max_size,
                streams_max: engine.streams_max,
            },
            slots,
            message_bytes: self.websocket.message_size_limit,
            outbox_bytes: client.queue_max_size,
            outbox_budget: engine.outbox_budget,
            backlog_bytes: engine.backlog,
            channel_limit: client.channel_limit,
            channel_bytes: self.channel.max_length,
            ping_interval: client.ping_interval.millis(),
            pong_timeout: engine.pong.then(|| client.pong_timeout.millis()),
            head_timeout: HEAD_TIMEOUT,
            stale_close_delay: client.stale_close_delay.millis(),
            close_timeout: CLOSE_TIMEOUT,
        }
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

/// A commented `drumline.toml` with every key at its default.
pub fn template() -> String {
    let mut text = String::from(
        "# Drumline's configuration: every key, its meaning and its default.\n\
         # The environment (DRUMLINE_HTTP_SERVER_PORT=8000) and flags (--http_server.port 8000)\n\
         # say the same things and win over this file, in that order.\n",
    );
    let mut open = "";
    for key in keys() {
        let (section, name) = key.split();
        if section != open {
            _ = write!(text, "\n[{section}]\n");
            open = section;
        }
        _ = write!(text, "# {}\n#{name} = {}\n", key.doc, key.default);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(
        text: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Loaded, Error> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("drumline.toml");
        std::fs::write(&file, text).unwrap();
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        load(&Sources { file: Some(file), environment: own(environment), flags: own(flags) })
    }

    #[test]
    fn later_sources_win() {
        let file = "shards = 3\n[http_server]\nport = 1\n[client]\nping_interval = \"1m\"\n";
        let both = [
            ("DRUMLINE_HTTP_SERVER_PORT", "2"),
            ("DRUMLINE_CLIENT_ALLOWED_ORIGINS", "http://a http://b"),
            ("DRUMLINE_HTTP_API_KEY", "12345"),
        ];
        let loaded = load_text(file, &both, &[("client.insecure", "true")]).unwrap();
        let config = loaded.config;
        assert_eq!((config.shards, config.http_server.port), (3, 2));
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
        assert!(open.file.is_none());
        let rules = open.config.rules();
        assert!(
            rules.allows_connect() && rules.allows_subscribe("a") && rules.allows_publish(false)
        );
        assert_eq!(open.config.http_api.key.len(), 32);
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest() {
        let file = "api_key = \"x\"\n[http_server]\nprot = 1\n[http_api]\nkey = \"k\"\n";
        let environment = [("DRUMLINE_CLIENT_INSECUR", "true"), ("OTHER", "x")];
        let warnings = load_text(file, &environment, &[]).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let check = |part: &str| assert!(warnings[0].contains(part), "{part}: {}", warnings[0]);
        check("http_server.prot (did you mean http_server.port?)");
        check("DRUMLINE_CLIENT_INSECUR (did you mean DRUMLINE_CLIENT_INSECURE?)");
        check("api_key");
    }

    #[test]
    fn wrong_values_name_key_cause_and_cure() {
        let check = |text: &str, environment: &[(&str, &str)], cause: &str, cure: &str| {
            let refused = load_text(text, environment, &[]).unwrap_err();
            assert!(refused.cause.contains(cause), "{refused:?}");
            assert!(refused.cure.contains(cure), "{refused:?}");
        };
        check("[http_server]\nport = \"x\"", &[], "http_server.port in ", "port = 8000");
        check("[http_server]\nport = 70000", &[], "http_server.port in ", "port = 8000");
        check("[client]\nping_interval = \"25\"", &[], "client.ping_interval", "\"25s\"");
        check("client = 3", &[], "client in ", "[client]");
        check("client = ", &[], "is not TOML", "mend");
        check(
            "",
            &[("DRUMLINE_CLIENT_INSECURE", "yes")],
            "DRUMLINE_CLIENT_INSECURE: `yes`",
            "false",
        );
        check(
            "",
            &[("DRUMLINE_HTTP_SERVER_PORT", "70000")],
            "http_server.port in DRUMLINE",
            "8000",
        );
        check("[client]\npong_timeout = \"25s\"", &[], "client.ping_interval", "shorten");
        check("[channel.without_namespace]\nhistory_size = 1", &[], "history_ttl", "both");
        check("[http_server]\ninternal_port = 8000", &[], "internal_port", "another");
        check("[http_server]\naddress = \"x\"", &[], "http_server.address", "use one");
        check("[health]\nhandler_prefix = \"/api\"", &[], "the same", "of its own");
    }

    #[test]
    fn durations() {
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

    #[test]
    fn the_template_holds_every_default() {
        let text = template();
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let loaded = load_text(&uncommented, &[], &[]).unwrap();
        assert_eq!(loaded.config, Config::default());
        for key in keys() {
            assert!(text.contains(key.doc) && !key.doc.is_empty(), "{}", key.path);
        }
        let mut variables: Vec<_> = keys().iter().map(Key::variable).collect();
        variables.sort_unstable();
        variables.dedup();
        assert_eq!(variables.len(), keys().len(), "no two keys share a variable");
    }

    #[test]
    fn the_data_plane_gets_what_was_configured() {
        let file = "[channel.without_namespace]\nhistory_size = 5\nhistory_ttl = \"1m\"\n\
                    [engine]\npong = false\n[uni_websocket]\nenabled = false\n";
        let settings = load_text(file, &[], &[]).unwrap().config.hub_settings(7);
        assert_eq!(settings.slots, 7);
        assert_eq!(settings.pong_timeout, None);
        assert_eq!(settings.ping_interval, 25_000);
        let retention = settings.homes.retention.unwrap();
        assert_eq!((retention.size, retention.ttl), (5, 60_000));
        assert_eq!(settings.paths.uni_websocket, NO_PATH);
        assert!(Config::default().hub_settings(1).homes.retention.is_none());
    }
}
