//! Configuration files: which there are, and how they are written.
//!
//! Owns nothing. Never knows a key. The invariant: whatever a file is written in, what comes out of
//! it is a table.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use figment::providers::{Format as _, Json, Toml};
use figment::value::{Dict, Value};

use super::key::shown;
use super::{Error, error};

/// The files of which the first that is there is read where none is named.
pub const FILES: [&str; 4] = ["drumline.toml", "config.json", "config.yaml", "config.toml"];

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Format {
    /// What a file of that name is written in; TOML where the name does not say.
    pub fn of(file: &Path) -> Self {
        let extension = file.extension().and_then(|found| found.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "json" => Format::Json,
            "yaml" | "yml" => Format::Yaml,
            _ => Format::Toml,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Format::Toml => "TOML",
            Format::Json => "JSON",
            Format::Yaml => "YAML",
        }
    }

    fn parse(self, text: &str) -> Result<Value, String> {
        fn said(refused: impl Display) -> String {
            refused.to_string()
        }
        match self {
            Format::Toml => Toml::from_str(text).map_err(said),
            Format::Json => Json::from_str(text).map_err(said),
            Format::Yaml => {
                // Only true and false are switches: a namespace may be named `on`.
                let options = serde_saphyr::options! { strict_booleans: true };
                serde_saphyr::from_str_with_options(text, options).map_err(said)
            }
        }
    }
}

/// The file that is read where none is named. One that may be there, but cannot be looked at,
/// counts as present: to pass over it could open the server.
pub(super) fn present() -> Option<PathBuf> {
    let absent = |file: &PathBuf| {
        let found = file.symlink_metadata();
        found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    };
    FILES.iter().map(PathBuf::from).find(|file| !absent(file))
}

/// Reads a file.
pub(super) fn read(file: &Path) -> Result<Dict, Error> {
    let (name, format) = (file.display(), Format::of(file));
    let text = std::fs::read_to_string(file).map_err(|refused| {
        error(
            format!("{name} cannot be read: {refused}"),
            "name a file that is there, or write one with \
             `drumline genconfig --config drumline.toml`",
        )
    })?;
    // Some editors begin a file with a mark of its encoding.
    let text = text.trim_start_matches('\u{feff}');
    let value = format.parse(text).map_err(|refused| {
        let cause = refused.trim_end().replace('\n', "\n  ");
        error(
            format!("{name} is not {}: {cause}", format.name()),
            "mend that line; `drumline genconfig` shows how every key is written",
        )
    })?;
    match value {
        Value::Dict(_, dict) => Ok(dict),
        Value::Empty(..) => Ok(Dict::new()),
        other => Err(error(
            format!("{name}: {} stands where the sections should", shown(&other)),
            "write sections with their keys; `drumline defaultconfig` shows them all",
        )),
    }
}
