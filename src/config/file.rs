//! Configuration files: which there are, and how they are written.
//!
//! Owns nothing. Never knows a key. The invariant: whatever a file is written in, what comes out of
//! it is a table.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};

use super::error::{Error, error};
use super::value_kind::kind_of;

/// The files of which the first that is there is read where none is named.
pub const FILES: [&str; 4] = ["drumline.toml", "config.json", "config.yaml", "config.toml"];

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// TOML.
    Toml,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl FileFormat {
    /// What a file of that name is written in; TOML where the name does not say.
    pub fn of(file: &Path) -> Self {
        let extension = file.extension().and_then(|found| found.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "json" => FileFormat::Json,
            "yaml" | "yml" => FileFormat::Yaml,
            _ => FileFormat::Toml,
        }
    }

    fn name(self) -> &'static str {
        match self {
            FileFormat::Toml => "TOML",
            FileFormat::Json => "JSON",
            FileFormat::Yaml => "YAML",
        }
    }

    /// Reads a text. The error says where and why, and shows nothing of a value: it may be a key.
    fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            FileFormat::Toml => toml::from_str(text).map_err(|refused| {
                let at = refused.span().map(|span| position(text, span.start));
                told(text, at, refused.message())
            }),
            FileFormat::Json => serde_json::from_str(text).map_err(|refused| {
                let at = (refused.line(), refused.column());
                let said = refused.to_string();
                // It ends with the place, which is told anyway.
                told(text, Some(at), said.rsplit_once(" at line ").map_or(&said, |(what, _)| what))
            }),
            FileFormat::Yaml => {
                // Only true and false are switches: a namespace may be named `on`.
                let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
                serde_saphyr::from_str_with_options(text, options).map_err(|refused| {
                    let at = refused.location();
                    let at = at.map(|at| (at.line() as usize, at.column() as usize));
                    told(text, at, refused.to_string().lines().next().unwrap_or_default())
                })
            }
        }
    }
}

/// Line and column, from 1, of a byte of a text.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// What is wrong and where. A message that repeats a word of that line's value is left out.
fn told(text: &str, at: Option<(usize, usize)>, message: &str) -> String {
    const SHORTEST: usize = 3;
    let Some((number, column)) = at else { return "the syntax is wrong".to_owned() };
    let line = text.lines().nth(number.saturating_sub(1)).unwrap_or_default();
    let value = line.split_once(['=', ':']).map_or(line, |(_, value)| value);
    let message = message.to_ascii_lowercase();
    let value = value.to_ascii_lowercase();
    let mut words = value.split(|letter: char| !letter.is_alphanumeric());
    let repeats = words.any(|word| word.chars().count() >= SHORTEST && message.contains(word));
    let message = if repeats { "the syntax is wrong" } else { message.trim() };
    format!("line {number}, column {column}: {message}")
}

/// What stands in the working folder where no file is named.
pub(super) enum FileChoice {
    /// The file to read.
    File(PathBuf),
    /// None of [`FILES`].
    Nothing,
    /// The folder cannot be looked at, so that there may be one.
    Unknown,
}

/// Looks for the file that is read where none is named.
pub(super) fn find() -> FileChoice {
    for file in FILES.map(PathBuf::from) {
        match file.symlink_metadata() {
            Ok(_) => return FileChoice::File(file),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => return FileChoice::Unknown,
        }
    }
    FileChoice::Nothing
}

/// Reads a file.
pub(super) fn read(file: &Path) -> Result<Dict, Error> {
    let (name, format) = (file.display(), FileFormat::of(file));
    let text = std::fs::read_to_string(file).map_err(|refused| {
        error(
            format!("{name} cannot be read: {refused}"),
            "name a file that is there, or write one with \
             `drumline genconfig --config drumline.toml`",
        )
    })?;
    // Some editors begin a file with a mark of its encoding.
    let text = text.trim_start_matches('\u{feff}');
    let value = format.parse(text).map_err(|cause| {
        error(
            format!("{name} is not {}: {cause}", format.name()),
            "correct that line; `drumline genconfig` shows how every key is written",
        )
    })?;
    match value {
        Value::Dict(_, dict) => Ok(dict),
        Value::Empty(..) => Ok(Dict::new()),
        other => Err(error(
            format!("{name}: {} stands where the sections should", kind_of(&other)),
            "write sections with their keys; `drumline defaultconfig` shows them all",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_place_and_shows_no_value() {
        let check = |format: FileFormat, text: &str, place: &str| {
            let cause = format.parse(text).unwrap_err();
            assert!(cause.starts_with(place), "{text}: {cause}");
            assert!(!cause.to_lowercase().contains("hunter2"), "{text}: {cause}");
        };
        for (text, place) in [
            ("a = 1\nkey = hunter2", "line 2, column 7: "),
            ("key = \"hunter2", "line 1, column "),
            ("key = \"hunter2\" hunter2", "line 1, column "),
            ("key = \"hunter2\"\nkey = \"hunter2\"", "line 2, column 1: duplicate key"),
            ("key = 'hunter2\n", "line 1, column "),
            ("key = \"\\hunter2\"", "line 1, column "),
            ("[a]\nkey = hunter2 = 3", "line 2, column "),
            ("key = [hunter2]", "line 1, column "),
        ] {
            check(FileFormat::Toml, text, place);
        }
        for (text, place) in [
            ("{\n\"key\": hunter2}", "line 2, column "),
            ("{\"key\": \"hunter2}", "line 1, column "),
            ("{\"key\": \"hunter2\" \"hunter2\"}", "line 1, column "),
            ("{\"key\": \"\\hunter2\"}", "line 1, column "),
            ("{\"key\": \"hunter2\"} hunter2", "line 1, column "),
        ] {
            check(FileFormat::Json, text, place);
        }
        for text in [
            "a: 1\nkey: *hunter2",
            "key: !hunter2 x: y: z",
            "key: \"hunter2",
            "key: {hunter2",
            "key: [hunter2]: hunter2",
            "key: \"\\hunter2\"",
            "key: hunter2\nkey: hunter2",
            "key: hunter2\n\t- hunter2: x",
            "%hunter2\nkey: @hunter2",
        ] {
            let refused = FileFormat::Yaml.parse(text);
            let cause = refused.expect_err(text);
            assert!(!cause.to_lowercase().contains("hunter2"), "{text}: {cause}");
            assert!(cause.contains("line "), "{text}: {cause}");
        }
    }
}
