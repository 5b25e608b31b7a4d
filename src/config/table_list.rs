//! Lists of tables with names, such as namespaces, as sources give them.
//!
//! Owns them until the configuration is made. Never judges what options say together. The
//! invariant: each has a name, and every option that is kept is of its kind.

use figment::value::{Dict, Value};

use super::error::{Error, error};
use super::key::{Key, join, variable};
use super::keys::{nearest, table_keys, unknown};
use super::value_kind::kind_of;

/// The tables of one list that the last source gave.
#[derive(Debug)]
pub(super) struct TableList {
    /// Path of the list.
    list: &'static str,
    given: Vec<Dict>,
}

impl TableList {
    /// An empty list at a path.
    pub(super) fn new(list: &'static str) -> Self {
        TableList { list, given: Vec::new() }
    }

    /// Path of the list.
    pub(super) fn list(&self) -> &'static str {
        self.list
    }

    /// Reads a list of tables instead. Says what is unknown in them.
    pub(super) fn read(&mut self, value: &Value, origin: &str) -> Result<Vec<String>, Error> {
        let mut strange = Vec::new();
        self.given.clear();
        for (at, value) in value.as_array().unwrap_or_default().iter().enumerate() {
            self.given.push(read(self.list, at, value, origin, &mut strange)?);
        }
        Ok(strange)
    }

    /// Sets the option that a variable names, such as `DRUMLINE_CHANNEL_NAMESPACES_CHAT_PRESENCE`
    /// where `list` is `DRUMLINE_CHANNEL_NAMESPACES`. Says whether it names one.
    pub(super) fn set(&mut self, list: &str, name: &str, text: &str) -> Result<bool, Error> {
        let named = self.variables(list).find(|(_, _, found)| found == name);
        let Some((at, key, _)) = named else { return Ok(false) };
        // An empty variable counts as unset.
        if text.is_empty() {
            return Ok(true);
        }
        let value = key.kind.read(text).ok_or_else(|| key.refuse_text(name, text))?;
        insert(&mut self.given[at], &key.path, value);
        Ok(true)
    }

    /// The variable that an unknown one may have been meant for.
    pub(super) fn meant(&self, list: &str, name: &str) -> Option<String> {
        let known = self.variables(list).map(|(_, _, found)| (found.clone(), found));
        nearest(name, known, 0.85)
    }

    /// Each option of each table, and the variable that sets it.
    fn variables(&self, list: &str) -> impl Iterator<Item = (usize, &'static Key, String)> {
        self.given.iter().enumerate().flat_map(move |(at, given)| {
            let name = variable(given.get("name").and_then(Value::as_str).unwrap_or_default());
            let options = table_keys(self.list).iter().filter(|key| key.path != "name");
            options.map(move |key| (at, key, format!("{list}_{name}_{}", variable(&key.path))))
        })
    }

    /// All of them, for the configuration.
    pub(super) fn into_values(self) -> Vec<Value> {
        self.given.into_iter().map(Value::from).collect()
    }
}

/// Sets what stands at a path below a table.
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

/// Reads one table. What is unknown in it goes to `strange`.
fn read(
    list: &'static str,
    at: usize,
    value: &Value,
    origin: &str,
    strange: &mut Vec<String>,
) -> Result<Dict, Error> {
    let place = format!("{list}[{at}]");
    let cure = format!("write a table with a name, in TOML name = \"chat\" below [[{list}]]");
    let Some(table) = value.as_dict() else {
        return Err(error(format!("{place} in {origin}: {} is no table", kind_of(value)), cure));
    };
    let key = table_keys(list).iter().find(|key| key.path == "name");
    let name = match (key, table.get("name")) {
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
            // Nothing is as good as not there.
            (Some(_), Value::Empty(..)) => {}
            (Some(key), value) => {
                insert(&mut options, &path, key.take(&format!("{place}: {path}"), value)?);
            }
            (None, Value::Dict(_, below)) if is_section => left.extend(entries(&path, below)),
            (None, _) => {
                let known = keys.iter().map(|key| (key.path.clone(), &key.path));
                let meant = nearest(&path, known, 0.6).cloned();
                strange.push(unknown(&format!("{list}.{name}.{path}"), meant));
            }
        }
    }
    Ok(options)
}

/// What stands in a section, by its path below the table.
fn entries<'a>(section: &str, table: &'a Dict) -> impl Iterator<Item = (String, &'a Value)> {
    table.iter().rev().map(move |(option, value)| (join(section, option), value))
}
