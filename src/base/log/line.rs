//! The text of a log line, in both formats.
//!
//! Owns no state. Never writes to a descriptor. The invariants: a line contains one line break, at
//! its end; control characters in messages and values are escaped, so text of a client or backend
//! cannot forge a line; a line has a maximum size.

use std::fmt::{self, Debug, Write as _};

use tracing::Level;
use tracing::field::{Field, Visit};

/// Size in bytes at which the values of a line are cut.
const LINE_BYTES: usize = 4096;

/// Format of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For humans.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Their format.
    pub format: Format,
    /// Whether journald reads the lines: they begin with a priority, and text has no time.
    pub journal: bool,
}

/// What a line begins with.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Severity.
    pub level: Level,
    /// Part of the server.
    pub part: &'a str,
    /// Unix time in milliseconds.
    pub unix_millis: u64,
}

impl Style {
    /// A line whose message and fields `record` passes to a visitor.
    pub fn line(self, head: Head<'_>, record: impl FnOnce(&mut Fields)) -> Vec<u8> {
        let mut fields = Fields { format: self.format, out: String::new(), cut: false };
        let Head { level, part, unix_millis } = head;
        let name = name(level);
        if self.journal {
            _ = write!(fields.out, "<{}>", priority(level));
        }
        let time = Time(unix_millis);
        _ = match (self.format, self.journal) {
            (Format::Json, _) => {
                write!(fields.out, r#"{{"level":"{name}","time":"{time}","part":"{part}""#)
            }
            (Format::Text, true) => write!(fields.out, "drumline [{name}] {part}:"),
            (Format::Text, false) => write!(fields.out, "{time} drumline [{name}] {part}:"),
        };
        record(&mut fields);
        fields.out.push_str(match self.format {
            Format::Json => "}\n",
            Format::Text => "\n",
        });
        fields.out.into_bytes()
    }

    /// A line with a message alone.
    pub fn message(self, head: Head<'_>, message: &str) -> Vec<u8> {
        self.line(head, |fields| fields.text("message", |out| out.write_str(message)))
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Priority of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// The message and the fields of a line.
pub struct Fields {
    format: Format,
    out: String,
    /// The line has reached its maximum size: further fields are left out.
    cut: bool,
}

impl Fields {
    /// Adds a number or a boolean.
    pub fn plain(&mut self, name: &str, value: impl fmt::Display) {
        if self.cut {
            return;
        }
        _ = match self.format {
            Format::Json => write!(self.out, ",\"{name}\":{value}"),
            Format::Text => write!(self.out, " {name}={value}"),
        };
    }

    /// Adds a text, which `write` writes.
    fn text(&mut self, name: &str, write: impl FnOnce(&mut Escaped<'_>) -> fmt::Result) {
        if self.cut {
            return;
        }
        let is_message = self.format == Format::Text && name == "message";
        _ = match self.format {
            Format::Json => write!(self.out, ",\"{name}\":\""),
            Format::Text if is_message => write!(self.out, " "),
            Format::Text => write!(self.out, " {name}=\""),
        };
        let json = self.format == Format::Json;
        let mut escaped = Escaped { out: &mut self.out, json, quoted: !is_message };
        // It fails if the line is too long or if the value's `Display` fails. The value then
        // consists of the text written so far.
        self.cut = write(&mut escaped).is_err();
        if !is_message {
            self.out.push('"');
        }
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), |out| out.write_str(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field.name(), |out| write!(out, "{value:?}"));
    }
}

/// Text of a value with control characters escaped, cut at [`LINE_BYTES`] of the line.
struct Escaped<'a> {
    out: &'a mut String,
    json: bool,
    /// Whether the value stands in quotes.
    quoted: bool,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if self.out.len() >= LINE_BYTES {
                self.out.push_str("...");
                return Err(fmt::Error);
            }
            match letter {
                '"' | '\\' if self.quoted => self.out.extend(['\\', letter]),
                _ if !is_special(letter) => self.out.push(letter),
                _ if self.json => write!(self.out, "\\u{:04x}", u32::from(letter))?,
                _ => self.out.extend(letter.escape_default()),
            }
        }
        Ok(())
    }
}

/// Whether a character controls a terminal, ends a line or changes the direction of a text.
pub fn is_special(letter: char) -> bool {
    let is_invisible = matches!(
        letter,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    letter.is_control() || is_invisible
}

/// Unix time in milliseconds, displayed as RFC 3339 in UTC.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1000, self.0 % 1000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Year, month and day of the Gregorian calendar, from the days since 1970.
fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so the leap day is the last of its year. An era has 400 years.
    let since_era_0 = days + 719_468;
    let (era, of_era) = (since_era_0 / 146_097, since_era_0 % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Style = Style { format: Format::Text, journal: false };
    const JSON: Style = Style { format: Format::Json, journal: false };

    fn head(level: Level) -> Head<'static> {
        Head { level, part: "backend", unix_millis: 1_795_811_345_007 }
    }

    fn line(style: Style, message: &str) -> String {
        let fields = |fields: &mut Fields| {
            fields.text("message", |out| out.write_str(message));
            fields.text("user", |out| out.write_str(message));
            fields.plain("code", 7);
        };
        String::from_utf8(style.line(head(Level::WARN), fields)).unwrap()
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_795_811_345_007, "2026-11-27T20:29:05.007Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Time(millis).to_string(), expected);
        }
    }

    #[test]
    fn each_format_has_its_head_and_its_fields() {
        let text =
            "2026-11-27T20:29:05.007Z drumline [warn] backend: failed user=\"failed\" code=7\n";
        assert_eq!(line(TEXT, "failed"), text);
        let journal = line(Style { journal: true, ..TEXT }, "failed");
        assert_eq!(journal, "<4>drumline [warn] backend: failed user=\"failed\" code=7\n");
        let json = line(JSON, "failed");
        let expected = concat!(
            r#"{"level":"warn","time":"2026-11-27T20:29:05.007Z","part":"backend","#,
            r#""message":"failed","user":"failed","code":7}"#,
            "\n"
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn text_of_a_peer_cannot_forge_a_line_or_control_a_terminal() {
        let forged = "a\n2026 drumline [error] tls: b\r\u{1b}[31m\u{85}\u{9b}\u{2028}\u{202e}\u{200f}\u{61c}\"}\\\0";
        for style in [TEXT, JSON, Style { journal: true, ..TEXT }] {
            let line = line(style, forged);
            let special = line.trim_end_matches('\n').chars().filter(|at| is_special(*at));
            assert_eq!(special.count(), 0, "{line}");
            assert!(line.ends_with('\n'));
        }
        let read: serde_json::Value = serde_json::from_str(&line(JSON, forged)).unwrap();
        assert_eq!((&read["message"], &read["user"]), (&forged.into(), &forged.into()));
        let text = line(TEXT, "\"a\" \\");
        assert!(text.contains(r#": "a" \ user="\"a\" \\" code"#), "{text}");
    }

    #[test]
    fn a_long_value_is_cut_and_the_line_stays_valid() {
        for long in ["\u{1F980}".repeat(10_000), "\"\n".repeat(10_000)] {
            let text = line(TEXT, &long);
            assert!(text.len() < LINE_BYTES + 32 && text.ends_with("...\n"), "{}", text.len());
            let json = line(JSON, &long);
            assert!(json.len() < LINE_BYTES + 32, "{}", json.len());
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert!(read["message"].as_str().unwrap().ends_with("..."));
            assert!(read.get("user").is_none());
        }
    }
}
