//! Loading: defaults, a file, the environment and flags become one configuration.
//!
//! Owns what is gathered on the way. Never reads anything twice. The invariant: a later source
//! wins, and whatever cannot be used was either refused or is told of.

use std::collections::HashMap;
use std::path::PathBuf;

use figment::Figment;
use figment::providers::Serialized;
use figment::value::{Dict, Value};
use serde::Serialize;

use crate::sys;

use super::key::{self, CENTRIFUGO_PREFIX, Key, Kind, PREFIX, join, keys, nearest, shown};
use super::table::Config;
use super::tables::Tables;
use super::{Error, error, file};

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

impl Sources {
    /// Whether somebody who wrote no file has said who may come in: with a key of tokens, with a
    /// connect proxy, or in Centrifugo's words, which let nobody in that they do not name.
    fn close(&self) -> bool {
        keys().iter().any(|key| {
            let lets_in = ["client.token.", "client.subscription_token.", "client.proxy.connect."]
                .iter()
                .any(|section| key.path.starts_with(section));
            let told = |prefix: &str| {
                let variable = key.variable_of(prefix);
                self.environment.iter().any(|(name, _)| *name == variable)
            };
            let flagged = || self.flags.iter().any(|(path, _)| *path == key.path);
            told(CENTRIFUGO_PREFIX) || (lets_in && (told(PREFIX) || flagged()))
        })
    }
}

/// A configuration and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// What configured it, such as the name of a file; `None`: nothing, and the open defaults hold.
    pub source: Option<String>,
    /// What should be told: a sentence each.
    pub warnings: Vec<String>,
}

/// Merges defaults, file, environment and flags.
pub fn load(sources: &Sources) -> Result<Loaded, Error> {
    let mut gathered = Gathered::new();
    let source = match sources.file.clone().or_else(file::present) {
        Some(file) => {
            let origin = file.display().to_string();
            gathered.add_table("", &file::read(&file)?, &origin)?;
            Some(origin)
        }
        None if sources.close() => Some("the environment and flags".to_owned()),
        None => {
            gathered.add_open_defaults()?;
            None
        }
    };
    for prefix in [CENTRIFUGO_PREFIX, PREFIX] {
        gathered.add_environment(prefix, &sources.environment)?;
    }
    for (path, text) in &sources.flags {
        let key = keys().iter().find(|key| key.path == *path);
        let key = key.ok_or_else(|| error(format!("no flag --{path}"), "see --help"))?;
        gathered.add_text(key, text, &format!("--{path}"))?;
    }
    let unknown = gathered.warning();
    let config = gathered.finish()?;
    config.check()?;
    let warnings = unknown.into_iter().chain(config.warnings()).collect();
    Ok(Loaded { config, source, warnings })
}

/// What is gathered on the way.
struct Gathered {
    figment: Figment,
    /// Where a key was last set.
    origins: HashMap<String, String>,
    /// Every list of tables.
    tables: Vec<Tables>,
    /// Unknown keys, as they were written, and what they may have been meant for.
    unknown: Vec<String>,
}

impl Gathered {
    fn new() -> Self {
        Gathered {
            figment: Figment::from(Serialized::defaults(Config::default())),
            origins: HashMap::new(),
            tables: lists().map(|key| Tables::new(&key.path)).collect(),
            unknown: Vec::new(),
        }
    }

    fn add(&mut self, path: &str, value: impl Serialize, origin: &str) {
        self.figment = std::mem::take(&mut self.figment).merge(Serialized::default(path, value));
        self.origins.insert(path.to_owned(), origin.to_owned());
    }

    fn add_value(&mut self, key: &Key, value: Value, origin: &str) -> Result<(), Error> {
        match self.tables.iter_mut().find(|tables| tables.list() == key.path) {
            Some(tables) => self.unknown.extend(tables.read(&value, origin)?),
            None => self.add(&key.path, value, origin),
        }
        Ok(())
    }

    fn add_text(&mut self, key: &Key, text: &str, origin: &str) -> Result<(), Error> {
        let value = key.kind.read(text).ok_or_else(|| key.refuse_text(origin, text))?;
        self.add_value(key, value, origin)
    }

    /// Adds a table of a file: the section at `path`, or all of it.
    fn add_table(&mut self, path: &str, table: &Dict, origin: &str) -> Result<(), Error> {
        for (name, value) in table {
            // A name with dots is the path that it looks like.
            let path = join(path, name);
            let key = keys().iter().find(|key| key.path == path);
            let known = key.is_some() || key::is_section(&path);
            match (key, value) {
                _ if !known => self.unknown.push(key::unknown(&path, key::meant(&path))),
                // Nothing is as good as not there.
                (_, Value::Empty(..)) => {}
                (Some(key), value) => {
                    let value = key.take(&format!("{path} in {origin}"), value)?;
                    self.add_value(key, value, origin)?;
                }
                (None, Value::Dict(_, table)) => self.add_table(&path, table, origin)?,
                (None, other) => {
                    return Err(error(
                        format!("{path} in {origin}: {} is no section", shown(other)),
                        format!("write it as a section with its keys, in TOML below [{path}]"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// What holds where nobody has configured anything: everybody may try everything out, and a
    /// key is made for the API.
    fn add_open_defaults(&mut self) -> Result<(), Error> {
        let origin = "the defaults without a file";
        for path in [
            "client.allow_anonymous_connect_without_token",
            "channel.without_namespace.allow_subscribe_for_client",
            "channel.without_namespace.allow_subscribe_for_anonymous",
            "channel.without_namespace.allow_publish_for_client",
            "channel.without_namespace.allow_publish_for_anonymous",
        ] {
            self.add(path, true, origin);
        }
        let random = sys::random::<16>().map_err(|refused| {
            error(format!("no randomness for a key: {refused}"), "set http_api.key")
        })?;
        self.add("http_api.key", format!("{:032x}", u128::from_ne_bytes(random)), origin);
        Ok(())
    }

    /// Adds the variables that begin with `prefix`.
    fn add_environment(
        &mut self,
        prefix: &str,
        environment: &[(String, String)],
    ) -> Result<(), Error> {
        let ours = || environment.iter().filter(|(name, _)| name.starts_with(prefix));
        let key = |name: &str| keys().iter().find(|key| key.variable_of(prefix) == name);
        for (name, text) in ours() {
            if let Some(key) = key(name) {
                self.add_text(key, text, name)?;
            }
        }
        // What is said of single tables comes on top of their list.
        let lists: Vec<String> = lists().map(|key| key.variable_of(prefix)).collect();
        for (name, text) in ours().filter(|(name, _)| key(name).is_none()) {
            let mut set = is_of_kubernetes(name, text);
            for (tables, list) in self.tables.iter_mut().zip(&lists) {
                set = set || tables.set(list, name, text)?;
            }
            if set {
                continue;
            }
            let known = keys().iter().map(|key| (variable_rest(key), key.variable_of(prefix)));
            let meant = nearest(&name[prefix.len()..], known, 0.8);
            let mut tables = self.tables.iter().zip(&lists);
            let meant =
                meant.or_else(|| tables.find_map(|(tables, list)| tables.meant(list, name)));
            self.unknown.push(key::unknown(name, meant));
        }
        Ok(())
    }

    fn finish(self) -> Result<Config, Error> {
        let Gathered { mut figment, origins, tables, .. } = self;
        for tables in tables {
            let path = tables.list();
            figment = figment.merge(Serialized::default(path, tables.into_values()));
        }
        figment.extract().map_err(|refused| refuse(&refused, &origins))
    }

    /// What is told of unknown keys: one sentence for all of them.
    fn warning(&self) -> Option<String> {
        (!self.unknown.is_empty()).then(|| {
            format!(
                "unknown configuration keys have no effect: {}; `drumline genconfig` lists all keys",
                self.unknown.join(", ")
            )
        })
    }
}

/// The keys that hold tables.
fn lists() -> impl Iterator<Item = &'static Key> {
    keys().iter().filter(|key| key.kind == Kind::Tables)
}

/// A variable without what all begin with.
fn variable_rest(key: &Key) -> String {
    key.variable_of("")
}

/// Whether Kubernetes has made a variable of a service's name: `..._SERVICE_HOST`, `..._PORT` with
/// an address, `..._PORT_8000_TCP_ADDR`.
fn is_of_kubernetes(name: &str, text: &str) -> bool {
    let made = ["_SERVICE_HOST", "_SERVICE_PORT", "_TCP_", "_UDP_"];
    made.iter().any(|part| name.contains(part)) || (name.contains("PORT") && text.contains("://"))
}

/// A value that is of the right kind, and yet cannot be: names the key, where it was set, and what
/// it should be.
fn refuse(refused: &figment::Error, origins: &HashMap<String, String>) -> Error {
    let path = refused.path.join(".");
    let origin = origins.get(&path).map_or("the configuration", String::as_str);
    let place = format!("{path} in {origin}");
    match keys().iter().find(|key| key.path == path) {
        Some(key) => key.refuse(&place, &refused.kind.to_string()),
        None => error(format!("{place}: {}", refused.kind), "see `drumline configdoc`"),
    }
}
