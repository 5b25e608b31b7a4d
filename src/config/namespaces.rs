//! Namespaces of channels, as sources give them.
//!
//! Owns them until the configuration is made. Never judges what options say together. The
//! invariant: each has a name, and every option that is kept is of its kind.

use figment::value::{Dict, Value};

use super::key::{Key, namespace_keys, nearest, shown, unknown, variable};
use super::{Error, error};

/// The namespaces that the last source gave.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    given: Vec<Dict>,
}

impl Namespaces {
    /// Reads a list of tables. Says what is unknown in them.
    pub(super) fn read(value: &Value, origin: &str) -> Result<(Self, Vec<String>), Error> {
        let (mut given, mut strange) = (Vec::new(), Vec::new());
        for (at, value) in value.as_array().unwrap_or_default().iter().enumerate() {
            given.push(read(at, value, origin, &mut strange)?);
        }
        Ok((Namespaces { given }, strange))
    }

    /// Sets the option that a variable names, such as `DRUMLINE_CHANNEL_NAMESPACES_CHAT_PRESENCE`
    /// where `list` is `DRUMLINE_CHANNEL_NAMESPACES`. Says whether it names one.
    pub(super) fn set(&mut self, list: &str, name: &str, text: &str) -> Result<bool, Error> {
        let named = self.variables(list).find(|(_, _, found)| found == name);
        let Some((at, key, _)) = named else { return Ok(false) };
        let value = key.kind.read(text).ok_or_else(|| key.refuse_text(name, text))?;
        self.given[at].insert(key.path.clone(), value);
        Ok(true)
    }

    /// The variable that an unknown one may have been meant for.
    pub(super) fn meant(&self, list: &str, name: &str) -> Option<String> {
        let known = self.variables(list).map(|(_, _, found)| (found.clone(), found));
        nearest(name, known, 0.85)
    }

    /// Each option of each namespace, and the variable that sets it.
    fn variables(&self, list: &str) -> impl Iterator<Item = (usize, &'static Key, String)> {
        self.given.iter().enumerate().flat_map(move |(at, given)| {
            let name = variable(given.get("name").and_then(Value::as_str).unwrap_or_default());
            let options = namespace_keys().iter().filter(|key| key.path != "name");
            options.map(move |key| (at, key, format!("{list}_{name}_{}", variable(&key.path))))
        })
    }

    /// All of them, for the configuration.
    pub(super) fn into_values(self) -> Vec<Value> {
        self.given.into_iter().map(Value::from).collect()
    }
}

/// Reads one table. What is unknown in it goes to `strange`.
fn read(at: usize, value: &Value, origin: &str, strange: &mut Vec<String>) -> Result<Dict, Error> {
    let place = format!("channel.namespaces[{at}]");
    let cure = "write a table with a name, in TOML name = \"chat\" below [[channel.namespaces]]";
    let Some(table) = value.as_dict() else {
        return Err(error(format!("{place} in {origin}: {} is no table", shown(value)), cure));
    };
    let key = |option: &str| namespace_keys().iter().find(|key| key.path == option);
    let name = match (key("name"), table.get("name")) {
        (Some(key), Some(name)) => key.take(&format!("{place} in {origin}: name"), name)?,
        _ => return Err(error(format!("{place} in {origin} has no name"), cure)),
    };
    let name = name.as_str().unwrap_or_default();
    let mut options = Dict::from([("name".to_owned(), name.into())]);
    for (option, value) in table.iter().filter(|(option, _)| *option != "name") {
        match key(option) {
            // Nothing is as good as not there.
            Some(_) if matches!(value, Value::Empty(..)) => {}
            Some(key) => {
                let place = format!("{place} {name:?} in {origin}: {option}");
                options.insert(option.clone(), key.take(&place, value)?);
            }
            None => {
                let known = namespace_keys().iter().map(|key| (key.path.clone(), &key.path));
                let meant = nearest(option, known, 0.6).cloned();
                strange.push(unknown(&format!("channel.namespaces.{name}.{option}"), meant));
            }
        }
    }
    Ok(options)
}
