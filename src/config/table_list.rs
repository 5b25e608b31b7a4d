//! Lists of named tables, such as namespaces, while the sources are read.
//!
//! Owns the tables until the configuration is built. Never checks rules between options. The
//! invariant: each table has a name, and every option in it has a value of the option's kind.

use figment::value::{Dict, Value};

use super::consumers::is_foreign_section;
use super::error::{Error, error};
use super::foreign;
use super::key::{Key, join, variable};
use super::keys::{nearest, table_keys, unknown};
use super::value_kind::kind_of;

/// The tables of one list, as the last source that sets the list gives them.
#[derive(Debug)]
pub(super) struct TableList {
    /// Path of the list.
    list: &'static str,
    tables: Vec<Dict>,
}

impl TableList {
    /// An empty list at this path.
    pub(super) fn new(list: &'static str) -> Self {
        TableList { list, tables: Vec::new() }
    }

    /// Path of the list.
    pub(super) fn list(&self) -> &'static str {
        self.list
    }

    /// Replaces the tables by those of `value`. Returns the unknown keys in them.
    pub(super) fn read(&mut self, value: &Value, origin: &str) -> Result<Vec<String>, Error> {
        let mut unknown_keys = Vec::new();
        self.tables.clear();
        for (at, value) in value.as_array().unwrap_or_default().iter().enumerate() {
            self.tables.push(read_table(self.list, at, value, origin, &mut unknown_keys)?);
        }
        Ok(unknown_keys)
    }

    /// Sets one option of one table from the environment variable `name`, for example
    /// `DRUMLINE_CHANNEL_NAMESPACES_CHAT_PRESENCE` if `list` is `DRUMLINE_CHANNEL_NAMESPACES`.
    /// Returns false if the variable names no option of a table in this list.
    pub(super) fn set(&mut self, list: &str, name: &str, text: &str) -> Result<bool, Error> {
        let option = self.variables(list).find(|(_, _, variable)| variable == name);
        let Some((at, key, _)) = option else { return Ok(false) };
        // An empty variable counts as unset.
        if text.is_empty() {
            return Ok(true);
        }
        let value = key.kind.read(text).ok_or_else(|| key.refuse_text(name, text))?;
        insert(&mut self.tables[at], &key.path, value);
        Ok(true)
    }

    /// The known variable that the unknown variable `name` resembles most, if any does.
    pub(super) fn suggest(&self, list: &str, name: &str) -> Option<String> {
        let known = self.variables(list).map(|(_, _, variable)| (variable.clone(), variable));
        nearest(name, known, 0.85)
    }

    /// Every option of every table: the table's index, the option, and its environment variable.
    fn variables(&self, list: &str) -> impl Iterator<Item = (usize, &'static Key, String)> {
        self.tables.iter().enumerate().flat_map(move |(at, table)| {
            let name = variable(table.get("name").and_then(Value::as_str).unwrap_or_default());
            let options = table_keys(self.list).iter().filter(|key| key.path != "name");
            options.map(move |key| (at, key, format!("{list}_{name}_{}", variable(&key.path))))
        })
    }

    /// The tables as values of the configuration.
    pub(super) fn into_values(self) -> Vec<Value> {
        self.tables.into_iter().map(Value::from).collect()
    }
}

/// The section whose options the tables of this list have.
fn template(list: &'static str) -> &'static str {
    match list {
        "channel.namespaces" => "channel.without_namespace",
        "rpc.namespaces" => "rpc.without_namespace",
        "consumers" => "consumers",
        "http_server.listeners" => "http_server.listeners",
        "http_server.tls.certificates" | "http_server.internal_tls.certificates" => list,
        _ => "rpc.proxy",
    }
}

/// Sets the value at `path` within a table.
fn insert(table: &mut Dict, path: &str, value: Value) {
    let Some((section, rest)) = path.split_once('.') else {
        table.insert(path.to_owned(), value);
        return;
    };
    let mut below = match table.remove(section) {
        Some(Value::Dict(_, below)) => below,
        _ => Dict::new(),
    };
    insert(&mut below, rest, value);
    table.insert(section.to_owned(), below.into());
}

/// Reads the table with index `at`. Its unknown keys are added to `unknown_keys`.
fn read_table(
    list: &'static str,
    at: usize,
    value: &Value,
    origin: &str,
    unknown_keys: &mut Vec<String>,
) -> Result<Dict, Error> {
    let place = format!("{list}[{at}]");
    let cure = format!("give each table a name, in TOML name = \"chat\" below [[{list}]]");
    let Some(table) = value.as_dict() else {
        let cause = format!("{place} in {origin}: expected a table, found {}", kind_of(value));
        return Err(error(cause, cure));
    };
    let key = table_keys(list).iter().find(|key| key.path == "name");
    let given = table.iter().find(|(option, _)| option.eq_ignore_ascii_case("name"));
    let name = match (key, given.map(|(_, name)| name)) {
        (Some(key), Some(name)) => key.take(&format!("{place} in {origin}: name"), name)?,
        _ => return Err(error(format!("{place} in {origin} has no name"), cure)),
    };
    let name = name.as_str().unwrap_or_default();
    let place = format!("{place} {name:?} in {origin}");
    let mut options = Dict::from([("name".to_owned(), name.into())]);
    let keys = table_keys(list);
    let mut left: Vec<(String, &Value)> = entries("", table).collect();
    while let Some((path, value)) = left.pop() {
        let is_section = keys.iter().any(|key| key.path.starts_with(&format!("{path}.")));
        match (keys.iter().find(|key| key.path == path), value) {
            _ if path == "name" => {}
            // A key without a value counts as unset.
            (Some(_), Value::Empty(..)) => {}
            (Some(key), value) => {
                insert(&mut options, &path, key.take(&format!("{place}: {path}"), value)?);
            }
            (None, Value::Dict(_, below)) if is_section => left.extend(entries(&path, below)),
            (None, Value::Empty(..)) => {}
            // The section of another type: whether the table asks for that type, its type says.
            (None, _) if list == "consumers" && is_foreign_section(&path) => {}
            (None, value) if foreign::option_asks(template(list), &path, value) == Some(false) => {}
            (None, _) => {
                let known = keys.iter().map(|key| (key.path.clone(), &key.path));
                let suggestion = nearest(&path, known, 0.6).cloned();
                unknown_keys.push(unknown(&format!("{list}.{name}.{path}"), suggestion));
            }
        }
    }
    Ok(options)
}

/// The keys of a section with their paths within the table, last key first.
fn entries<'a>(section: &str, table: &'a Dict) -> impl Iterator<Item = (String, &'a Value)> {
    let path = move |option: &str| join(section, &option.to_ascii_lowercase());
    table.iter().rev().map(move |(option, value)| (path(option), value))
}
