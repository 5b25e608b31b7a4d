//! Log lines and traces: the rules of the sections, and the settings for the logger.
//!
//! Owns the rules between its keys. Never writes a line.

use std::path::PathBuf;

use super::error::{Error, error};
use super::sections::{Config, Log};
use crate::base::log::{Format, Level, LogOptions, PARTS};

/// Formats with their names.
const FORMATS: [(&str, Format); 2] = [("text", Format::Text), ("json", Format::Json)];

impl Config {
    /// How the server logs.
    pub fn log_options(&self) -> LogOptions {
        let Log { level, file, format, rate, levels, .. } = &self.log;
        let of_part = |part: &'static str| Some((part, Level::parse(levels.get(part)?)?));
        let format = FORMATS.iter().find(|(name, _)| name == format);
        LogOptions {
            level: Level::parse(level).unwrap_or_default(),
            levels: PARTS.into_iter().filter_map(of_part).collect(),
            rate: *rate as u64,
            format: format.map_or(Format::Text, |(_, format)| *format),
            file: (!file.is_empty()).then(|| PathBuf::from(file)),
        }
    }

    /// Whether commands of the API are traced.
    pub fn traces_api(&self) -> bool {
        self.opentelemetry.enabled && self.opentelemetry.api
    }

    /// Whether requests to the backend are traced.
    pub fn traces_backend(&self) -> bool {
        self.opentelemetry.enabled && self.opentelemetry.backend
    }

    /// Checks the keys about log lines.
    pub(super) fn check_log(&self) -> Result<(), Error> {
        let Log { level, format, levels, .. } = &self.log;
        check_level("log.level", level)?;
        for (part, level) in levels {
            if !PARTS.contains(&part.as_str()) {
                return Err(error(
                    format!("log.levels: there is no part {part:?}"),
                    format!("use one of {}", PARTS.join(", ")),
                ));
            }
            check_level(&format!("log.levels.{part}"), level)?;
        }
        if !FORMATS.iter().any(|(name, _)| name == format) {
            return Err(error(format!("log.format is {format:?}"), "use text or json"));
        }
        Ok(())
    }
}

fn check_level(key: &str, level: &str) -> Result<(), Error> {
    let names: Vec<&str> = Level::NAMES.iter().rev().map(|(name, _)| *name).collect();
    match Level::parse(level) {
        Some(_) => Ok(()),
        None => {
            Err(error(format!("{key} is {level:?}"), format!("use one of {}", names.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::keys;

    fn with(change: impl FnOnce(&mut Log)) -> Result<LogOptions, Error> {
        let mut config = Config::default();
        change(&mut config.log);
        config.check_log()?;
        Ok(config.log_options())
    }

    fn levels(log: &mut Log, part: &str, level: &str) {
        log.levels.insert(part.to_owned(), level.to_owned());
    }

    #[test]
    fn unknown_levels_parts_and_formats_are_refused_with_the_known_ones() {
        let refused = with(|log| log.level = "loud".into()).unwrap_err();
        assert_eq!(refused.cause, "log.level is \"loud\"");
        assert_eq!(refused.cure, "use one of trace, debug, info, warn, error, fatal, none");
        let refused = with(|log| levels(log, "htt", "debug")).unwrap_err();
        assert_eq!(refused.cause, "log.levels: there is no part \"htt\"");
        assert!(PARTS.iter().all(|part| refused.cure.contains(part)), "{refused}");
        assert!(with(|log| levels(log, "http", "")).unwrap_err().cause.contains("levels.http"));
        assert!(with(|log| log.format = "xml".into()).is_err());
    }

    #[test]
    fn values_reach_the_logger() {
        let options = with(|log| {
            (log.level, log.file, log.format) = ("WARN".into(), "a.log".into(), "json".into());
            levels(log, "tls", "none");
            log.rate = 7;
        });
        let expected = LogOptions {
            level: Level::Warn,
            levels: vec![("tls", Level::None)],
            rate: 7,
            format: Format::Json,
            file: Some("a.log".into()),
        };
        assert_eq!(options.unwrap(), expected);
        assert_eq!(with(|_| ()).unwrap().level, Level::Info);
    }

    #[test]
    fn the_description_names_every_part() {
        let key = keys().iter().find(|key| key.path == "log.levels").unwrap();
        for part in PARTS {
            assert!(key.doc.contains(part), "{part}");
        }
    }
}
