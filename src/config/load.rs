//! Loading: merges defaults, a file, environment variables and flags into one configuration.
//!
//! Owns the builder of the configuration. Never reads a source twice. The invariant: a later source
//! overrides an earlier one, and a value that cannot be used is an error or is named in a warning.

use std::collections::{BTreeMap, HashMap};

use figment::Figment;
use figment::providers::Serialized;
use figment::value::{Dict, Value};
use serde::Serialize;

use crate::base::sys;

use super::access::{Access, OPEN_ADDRESS, OPEN_SWITCHES};
use super::durable_namespaces::durable_namespaces;
use super::environment::{is_of_kubernetes, is_of_scripts};
use super::error::{Error, error};
use super::file::{self, FileChoice};
use super::foreign::{self, ForeignValues};
use super::header_variables::is_for_headers;
use super::key::{CENTRIFUGO_PREFIX, Key, PREFIX, join};
use super::keys::{self, keys, nearest};
use super::sections::Config;
use super::sources::Sources;
use super::table_list::TableList;
use super::value_kind::{ValueKind, kind_of};

/// A loaded configuration, its file, its access mode and its warnings.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The merged configuration.
    pub config: Config,
    /// Path of the file that was read; `None`: no file.
    pub file: Option<String>,
    /// Whether the server is open to everyone on this machine.
    pub access: Access,
    /// Warnings for the operator, one sentence each.
    pub warnings: Vec<String>,
    /// Whether a key, variable or flag has no effect.
    pub has_unknown: bool,
    /// Whether the channels of a namespace are durable, by its name, for every namespace that the
    /// process has had: it holds until a restart.
    pub durable: BTreeMap<String, bool>,
}

/// Prefix of the names of metrics if the configuration is Centrifugo's.
const CENTRIFUGO_NAMESPACE: &str = "centrifugo";

/// Merges defaults, file, environment and flags.
pub fn load(sources: &Sources) -> Result<Loaded, Error> {
    let mut builder = ConfigBuilder::new();
    let found = sources.file.clone().map_or_else(file::find, FileChoice::File);
    let path = if let FileChoice::File(path) = &found { Some(path) } else { None };
    let file = path.map(|path| path.display().to_string());
    if let (Some(path), Some(origin)) = (path, &file) {
        builder.add_table("", &file::read(path)?, origin)?;
    }
    let access = match found {
        FileChoice::Unknown => Access::Closed("a working folder that cannot be read".to_owned()),
        _ => sources.access(file.as_deref()),
    };
    if access.is_open() {
        builder.add_open_defaults()?;
    }
    for prefix in [CENTRIFUGO_PREFIX, PREFIX] {
        builder.add_environment(prefix, &sources.environment)?;
    }
    for (path, text) in &sources.flags {
        builder.add_flag(path, text)?;
    }
    builder.foreign.check()?;
    let (unknown, has_unknown) = (builder.warning(), builder.has_unknown());
    let is_of_centrifugo = builder.is_of_centrifugo;
    let mut config = builder.finish()?;
    config.normalize();
    if access.is_open() {
        config.give_admin_the_start_page(&sources.flags);
    }
    if is_of_centrifugo && config.prometheus.namespace.is_empty() {
        CENTRIFUGO_NAMESPACE.clone_into(&mut config.prometheus.namespace);
    }
    config.fill_in_headers(&sources.environment)?;
    config.check()?;
    let warnings = unknown.into_iter().chain(config.warnings()).collect();
    let durable = durable_namespaces(&config.channel);
    Ok(Loaded { config, file, access, warnings, has_unknown, durable })
}

/// The configuration while the sources are read.
struct ConfigBuilder {
    figment: Figment,
    /// The source that set a key last, by the key's path.
    origins: HashMap<String, String>,
    /// Every list of tables.
    tables: Vec<TableList>,
    /// Unknown keys and variables, each with a suggestion if there is one.
    unknown: Vec<String>,
    /// Variables of Kubernetes that have no effect.
    of_kubernetes: Vec<String>,
    /// Values of Centrifugo's keys that this server does not carry.
    foreign: ForeignValues,
    /// Whether a variable of Centrifugo, or a key that only Centrifugo has, is set.
    is_of_centrifugo: bool,
}

impl ConfigBuilder {
    fn new() -> Self {
        ConfigBuilder {
            figment: Figment::from(Serialized::defaults(Config::default())),
            origins: HashMap::new(),
            tables: lists().map(|key| TableList::new(&key.path)).collect(),
            unknown: Vec::new(),
            of_kubernetes: Vec::new(),
            foreign: ForeignValues::default(),
            is_of_centrifugo: false,
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

    fn add_flag(&mut self, path: &str, text: &str) -> Result<(), Error> {
        let origin = format!("--{path}");
        if let Some(key) = keys().iter().find(|key| key.path == path) {
            return self.add_text(key, text, &origin);
        }
        let key = foreign::find(path)
            .ok_or_else(|| error(format!("unknown flag {origin}"), "see drumline serve --help"))?;
        self.foreign.set(key, text, &origin, &origin);
        Ok(())
    }

    /// Adds a value of a file whose path is neither a key nor a section of this server.
    fn add_foreign(&mut self, path: &str, value: &Value, origin: &str) {
        let mut unknown = Vec::new();
        for (key, text) in foreign::read(path, value, &mut unknown) {
            self.is_of_centrifugo = true;
            self.foreign.set(key, &text, path, &format!("{} in {origin}", key.path));
        }
        self.unknown.extend(unknown.iter().map(|path| keys::unknown(path, keys::suggest(path))));
    }

    /// Adds a table of a file: the section at `path`, or the whole file if `path` is empty.
    fn add_table(&mut self, path: &str, table: &Dict, origin: &str) -> Result<(), Error> {
        for (name, value) in table {
            // A name may contain dots: `client.insecure` is the path of a key. The case of a name
            // does not matter, as in Centrifugo.
            let path = join(path, &name.to_ascii_lowercase());
            let key = keys().iter().find(|key| key.path == path);
            let known = key.is_some() || keys::is_section(&path);
            match (key, value) {
                _ if !known => self.add_foreign(&path, value, origin),
                // A key without a value counts as unset.
                (_, Value::Empty(..)) => {}
                (Some(key), value) => {
                    let value = key.take(&format!("{path} in {origin}"), value)?;
                    self.add_value(key, value, origin)?;
                }
                (None, Value::Dict(_, table)) => self.add_table(&path, table, origin)?,
                (None, other) => {
                    return Err(error(
                        format!("{path} in {origin}: expected a section, found {}", kind_of(other)),
                        format!("write it as a section with its keys, in TOML below [{path}]"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Adds the defaults of an open server: everyone on this machine can use every feature, and the
    /// API gets a random key.
    fn add_open_defaults(&mut self) -> Result<(), Error> {
        let origin = "the defaults without a file";
        for path in OPEN_SWITCHES {
            self.add(path, true, origin);
        }
        self.add("http_server.address", OPEN_ADDRESS, origin);
        let random = sys::random::<16>().map_err(|refused| {
            error(format!("cannot generate an API key: {refused}"), "set http_api.key")
        })?;
        self.add("http_api.key", format!("{:032x}", u128::from_ne_bytes(random)), origin);
        Ok(())
    }

    /// Adds the environment variables that start with `prefix`.
    fn add_environment(
        &mut self,
        prefix: &str,
        environment: &[(String, String)],
    ) -> Result<(), Error> {
        // An empty variable counts as unset, as in Centrifugo.
        let ours = || environment.iter().filter(|(name, _)| name.starts_with(prefix));
        let key = |name: &str| keys().iter().find(|key| key.variable_of(prefix) == name);
        let needs_lookup = |name: &str, text: &str| {
            let is_ours = key(name).is_none() && !is_of_scripts(name) && !is_for_headers(name);
            is_of_kubernetes(name, text) || is_ours
        };
        for (name, text) in ours() {
            match key(name) {
                Some(key) if !text.is_empty() && !is_of_kubernetes(name, text) => {
                    self.is_of_centrifugo |= prefix == CENTRIFUGO_PREFIX;
                    self.add_text(key, text, name)?;
                }
                _ => {}
            }
        }
        // Variables that set one option of a table apply after the variables that set whole lists.
        let lists: Vec<String> = lists().map(|key| key.variable_of(prefix)).collect();
        for (name, text) in ours().filter(|(name, text)| needs_lookup(name, text)) {
            self.add_option_or_unknown(prefix, &lists, (name, text))?;
        }
        Ok(())
    }

    /// Adds a variable that does not name a key: it sets one option of a table, or is unknown.
    fn add_option_or_unknown(
        &mut self,
        prefix: &str,
        lists: &[String],
        (name, text): (&str, &str),
    ) -> Result<(), Error> {
        if is_of_kubernetes(name, text) {
            self.of_kubernetes.push(name.to_owned());
            return Ok(());
        }
        for (tables, list) in self.tables.iter_mut().zip(lists) {
            if tables.set(list, name, text)? {
                return Ok(());
            }
        }
        let rest = &name[prefix.len()..];
        if prefix == CENTRIFUGO_PREFIX
            && let Some(key) = foreign::find_variable(rest)
        {
            // An empty variable counts as unset.
            if !text.is_empty() {
                self.is_of_centrifugo = true;
                self.foreign.set(key, text, name, name);
            }
            return Ok(());
        }
        let known = keys().iter().map(|key| (variable_rest(key), key.variable_of(prefix)));
        let suggestion = nearest(rest, known, 0.8);
        let mut tables = self.tables.iter().zip(lists);
        let suggestion =
            suggestion.or_else(|| tables.find_map(|(tables, list)| tables.suggest(list, name)));
        let described = keys::unknown(name, suggestion);
        if prefix == PREFIX {
            return Err(error(
                format!("unknown environment variable {described}"),
                "correct its name or unset it; `drumline configdoc` lists every variable",
            ));
        }
        self.unknown.push(described);
        Ok(())
    }

    fn finish(self) -> Result<Config, Error> {
        let ConfigBuilder { mut figment, origins, tables, .. } = self;
        for tables in tables {
            let path = tables.list();
            figment = figment.merge(Serialized::default(path, tables.into_values()));
        }
        figment.extract().map_err(|refused| refuse(&refused, &origins))
    }

    /// Whether a key, variable or flag has no effect, besides variables that Kubernetes adds.
    fn has_unknown(&self) -> bool {
        !self.unknown.is_empty() || !self.foreign.without_effect().is_empty()
    }

    /// The warning about unknown keys and variables: one sentence for all of them.
    fn warning(&self) -> Option<String> {
        let foreign = self.foreign.without_effect();
        let names = [self.unknown.clone(), self.of_kubernetes.clone(), foreign].concat();
        (!names.is_empty()).then(|| {
            format!(
                "unknown keys and variables have no effect: {}; `drumline genconfig` lists all keys",
                names.join(", ")
            )
        })
    }
}

/// The keys whose value is a list of tables.
fn lists() -> impl Iterator<Item = &'static Key> {
    keys().iter().filter(|key| key.kind == ValueKind::Tables)
}

/// The name of a key's variable without the prefix.
fn variable_rest(key: &Key) -> String {
    key.variable_of("")
}

/// The error for a value that has the right kind but cannot be converted, such as a number out of
/// range. It names the key, the source that set it, and a valid value.
fn refuse(refused: &figment::Error, origins: &HashMap<String, String>) -> Error {
    let path = refused.path.join(".");
    let origin = origins.get(&path).map_or("the configuration", String::as_str);
    let place = format!("{path} in {origin}");
    match keys().iter().find(|key| key.path == path) {
        Some(key) => key.refuse(&place, &refused.kind.to_string()),
        None => error(format!("{place}: {}", refused.kind), "see `drumline configdoc`"),
    }
}
