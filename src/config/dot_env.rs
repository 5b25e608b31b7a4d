//! Variables of the file `.env` in the working folder.
//!
//! Owns no state. Never changes the environment of the process. The invariants: a variable of the
//! environment wins, even an empty one; a file that cannot be read is an error, because ignoring it
//! could open the server; no error shows a value.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;

use super::environment::environment;
use super::error::{Error, error};

/// The file with variables, in the working folder.
pub const DOT_ENV: &str = ".env";

/// The variables of the environment and of the file `.env`, as `environment` selects them.
///
/// # Errors
/// The file is there but cannot be read, or the value of a variable is not UTF-8.
pub fn environment_with_file(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    file: &Path,
) -> Result<Vec<(String, String)>, Error> {
    let mut selected = environment(variables)?;
    let more = read(file)?.into_iter().map(|(name, value)| (name.into(), value.into()));
    let more = environment(more)?;
    let is_new = |name: &str| !selected.iter().any(|(known, _)| known == name);
    let mut more: Vec<_> = more.into_iter().filter(|(name, _)| is_new(name)).collect();
    // Of two lines about one variable the first counts, as it does for the environment.
    more.sort_by(|one, other| one.0.cmp(&other.0));
    more.dedup_by(|later, first| later.0 == first.0);
    selected.extend(more);
    Ok(selected)
}

/// All variables of the file; none if there is no file.
fn read(file: &Path) -> Result<Vec<(String, String)>, Error> {
    let name = file.display();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(refused) if refused.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(refused) => {
            let cure = "make it a text that the server can read, or remove it";
            return Err(error(format!("cannot read {name}: {refused}"), cure));
        }
    };
    let text: String = text.lines().map(escape_dollars).collect();
    let mut found: Vec<(String, String)> = Vec::new();
    for line in dotenvy::from_read_iter(text.as_bytes()) {
        // The parser's error contains the line, which may hold a secret.
        let pair = line.map_err(|_| {
            let place = match found.last() {
                Some((name, _)) => format!("the line after {name}"),
                None => "the first line".to_owned(),
            };
            let cause = format!("{name}: {place} is not NAME=VALUE");
            error(cause, "write VALUE in quotes if it has spaces, or remove the line")
        })?;
        found.push(pair);
    }
    Ok(found)
}

/// A line, with every dollar sign escaped that begins no variable. The parser takes each for one;
/// `centrifugo defaultenv` writes `CENTRIFUGO_CHANNEL_PRIVATE_PREFIX="$"`.
fn escape_dollars(line: &str) -> String {
    let is_literal = line.split_once('=').is_some_and(|(_, value)| value.starts_with('\''));
    let mut escaped = String::with_capacity(line.len() + 2);
    let mut before = ' ';
    for (at, letter) in line.char_indices() {
        let next = line[at + letter.len_utf8()..].chars().next();
        let begins = next.is_some_and(|next| next.is_alphanumeric() || next == '{');
        if letter == '$' && !begins && !is_literal && before != '\\' {
            escaped.push('\\');
        }
        escaped.push(letter);
        before = letter;
    }
    escaped.push('\n');
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &[u8], environment: &[(&str, &str)]) -> Result<Vec<(String, String)>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(DOT_ENV);
        std::fs::write(&file, text).unwrap();
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        environment_with_file(environment, &file)
    }

    #[test]
    fn variables_of_the_file_count_unless_the_environment_has_them() {
        let text = b"# a comment\nCENTRIFUGO_A=1\nexport DRUMLINE_B='x $C y'\nOTHER=2\n\
                     DRUMLINE_D=\"a b\"\nDRUMLINE_E=file\nDRUMLINE_D=later\n";
        let found = load(text, &[("DRUMLINE_E", ""), ("DRUMLINE_F", "own")]).unwrap();
        let expected = [
            ("DRUMLINE_E", ""),
            ("DRUMLINE_F", "own"),
            ("CENTRIFUGO_A", "1"),
            ("DRUMLINE_B", "x $C y"),
            ("DRUMLINE_D", "a b"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let dollars = b"CENTRIFUGO_A=\"$\"\nCENTRIFUGO_B=a$\nCENTRIFUGO_C='$'\nCENTRIFUGO_D=\\$\n\
                        CENTRIFUGO_E=\"{\\\"a\\\":\\\"b\\\"}\"\n";
        let values: Vec<_> =
            load(dollars, &[]).unwrap().into_iter().map(|(_, text)| text).collect();
        assert_eq!(values, ["$", "a$", "$", "$", r#"{"a":"b"}"#]);
        let missing = environment_with_file([], Path::new("/none/.env"));
        assert_eq!(missing, Ok(Vec::new()));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_without_its_values() {
        for text in [
            &b"DRUMLINE_A=1\nDRUMLINE_HTTP_API_KEY=hunter2 hunter2\n"[..],
            b"DRUMLINE_A=1\nhunter2\n",
            b"DRUMLINE_A=1\nDRUMLINE_HTTP_API_KEY='hunter2\n",
        ] {
            let refused = load(text, &[]).unwrap_err();
            assert!(!refused.to_string().contains("hunter2"), "{refused}");
            assert!(refused.cause.contains("the line after DRUMLINE_A is not"), "{refused}");
        }
        assert!(load(b"DRUMLINE_A=\xff\n", &[]).is_err());
        let folder = tempfile::tempdir().unwrap();
        let refused = environment_with_file([], folder.path()).unwrap_err();
        assert!(refused.cause.starts_with("cannot read "), "{refused}");
    }
}
