//! Configuration files: finds the file to read and parses it as TOML, JSON or YAML.
//!
//! Owns no state. Never knows a key. The invariant: a file that was read is a table, whatever its
//! format, and no error shows a value of the file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};

use super::error::{Error, error};
use super::value_kind::kind_of;

/// Files to look for in the working folder if the command names no file. The server reads the first
/// one that exists.
pub const FILES: [&str; 4] = ["drumline.toml", "config.json", "config.yaml", "config.toml"];

/// Format of a configuration file.
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
    /// The format that the file's extension names; TOML for any other extension.
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

    /// Parses a text. The error names the line and column and the cause. It shows no value, because
    /// a value may be a secret.
    fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            FileFormat::Toml => toml::from_str(text).map_err(|refused| {
                let at = refused.span().map(|span| position(text, span.start));
                describe_error(text, at, refused.message())
            }),
            FileFormat::Json => serde_json::from_str(text).map_err(|refused| {
                let at = (refused.line(), refused.column());
                let message = refused.to_string();
                // The message ends with the line and column, which the error names anyway.
                let cause = message.rsplit_once(" at line ").map_or(&*message, |(cause, _)| cause);
                describe_error(text, Some(at), cause)
            }),
            FileFormat::Yaml => {
                // Only `true` and `false` are booleans: a namespace may be named `on`.
                let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
                serde_saphyr::from_str_with_options(text, options).map_err(|refused| {
                    let at = refused.location();
                    let at = at.map(|at| (at.line() as usize, at.column() as usize));
                    let message = refused.to_string();
                    describe_error(text, at, message.lines().next().unwrap_or_default())
                })
            }
        }
    }
}

/// Line and column of the byte with index `byte`. Both count from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// The place and cause of a syntax error. A parser message that repeats a word of that line's value
/// is replaced, because it could show a secret.
fn describe_error(text: &str, at: Option<(usize, usize)>, message: &str) -> String {
    /// Shorter words are not compared: most messages contain them.
    const COMPARED_CHARS_MIN: usize = 3;
    let Some((number, column)) = at else { return "syntax error".to_owned() };
    let line = text.lines().nth(number.saturating_sub(1)).unwrap_or_default();
    let value = line.split_once(['=', ':']).map_or(line, |(_, value)| value);
    let message = message.to_ascii_lowercase();
    let value = value.to_ascii_lowercase();
    let mut words = value.split(|letter: char| !letter.is_alphanumeric());
    let repeats =
        words.any(|word| word.chars().count() >= COMPARED_CHARS_MIN && message.contains(word));
    let message = if repeats { "syntax error" } else { message.trim() };
    format!("line {number}, column {column}: {message}")
}

/// Which configuration file to read.
pub(super) enum FileChoice {
    /// The file to read.
    File(PathBuf),
    /// The working folder has none of [`FILES`].
    Nothing,
    /// The working folder cannot be read, so it may have one of [`FILES`].
    Unknown,
}

/// Looks for one of [`FILES`] in the working folder.
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

/// Reads and parses a file.
pub(super) fn read(file: &Path) -> Result<Dict, Error> {
    let (name, format) = (file.display(), FileFormat::of(file));
    let text = std::fs::read_to_string(file).map_err(|refused| {
        let cure = match refused.kind() {
            ErrorKind::PermissionDenied => "let the user of the server read it",
            ErrorKind::InvalidData => "write it in UTF-8",
            ErrorKind::IsADirectory => "name the file in it",
            _ => {
                "name a file that exists, or create one with \
                 `drumline genconfig --config drumline.toml`"
            }
        };
        error(format!("cannot read {name}: {refused}"), cure)
    })?;
    // Some editors put a byte order mark at the start of a file.
    let text = text.trim_start_matches('\u{feff}');
    let value = format.parse(text).map_err(|cause| {
        error(
            format!("{name} is not {}: {cause}", format.name()),
            "correct that line; `drumline genconfig` shows the syntax of every key",
        )
    })?;
    match value {
        Value::Dict(_, dict) => Ok(dict),
        Value::Empty(..) => Ok(Dict::new()),
        other => Err(error(
            format!("{name}: expected a table of sections, found {}", kind_of(&other)),
            "write sections with their keys; `drumline defaultconfig` shows all of them",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_a_cure_for_the_cause() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("binary.toml");
        std::fs::write(&binary, b"\xff\xfe").unwrap();
        let missing = folder.path().join("missing.toml");
        for (path, cure) in [
            (binary.as_path(), "write it in UTF-8"),
            (folder.path(), "name the file in it"),
            (missing.as_path(), "name a file that exists"),
        ] {
            let refused = read(path).unwrap_err();
            assert!(refused.cause.contains(&path.display().to_string()), "{refused}");
            assert!(refused.cure.starts_with(cure), "{refused}");
        }
    }

    #[test]
    fn a_syntax_error_names_line_and_column_and_shows_no_value() {
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
