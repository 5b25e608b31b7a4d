//! Log lines and the startup banner: `tracing` events and plain texts on their way to stderr,
//! stdout or a file.
//!
//! Owns all writes to stderr and stdout, except the crash report (`crash`). Never blocks or fails a
//! caller that logs, whatever stderr is. Lines are events of `tracing` whose target is one of
//! [`PARTS`]: `tracing::warn!(target: "tls", "...")`.

mod level;
mod access;
mod line;
mod rate;
mod sink;
mod logger;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing::Dispatch;

pub use self::access::AccessClient;
pub use self::level::{ACCESS, Level, PARTS};
pub use self::line::{Format, is_special};
pub use self::logger::LogOptions;

use self::line::{Head, Style};
use self::logger::Logger;
use self::sink::{Report, Sink};
use crate::base::failure::Failure;
use crate::base::sys;

/// The logger of the process, once it has been started.
static LOGGER: OnceLock<Arc<Logger>> = OnceLock::new();

/// Queues a text of several lines for stderr, without escapes.
pub fn text(text: impl Into<String>) {
    stderr().push(text.into().into_bytes());
}

/// Queues a text for stdout, without escapes: the startup banner.
pub fn screen(text: impl Into<String>) {
    stdout().push(text.into().into_bytes());
}

/// Writes the output of a command to stdout and waits until it is written.
///
/// # Errors
/// The error of the kernel, such as EPIPE if the reader has closed the pipe, or ENOSPC if the
/// device is full.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A copy of stdout, for a command whose output is data.
///
/// # Errors
/// The limit on descriptors is reached.
pub fn data_output() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Starts the writer threads, and logs from now on. Before this call, events are not logged; writer
/// threads of texts start with the first one and run on the processor to which the caller of that
/// moment is pinned.
///
/// # Errors
/// The log file cannot be opened.
pub fn start(options: &LogOptions) -> Result<(), Failure> {
    stdout();
    let style = Style { format: options.format, journal: is_journal() };
    let sink = match &options.file {
        None => stderr().clone(),
        Some(path) => {
            let style = Style { journal: false, ..style };
            let opened = Sink::of_file(path, report(move || style), complain);
            Arc::new(opened.map_err(|error| {
                Failure::new(
                    format!("log.file: cannot open {}: {error}", path.display()),
                    "name a file in an existing folder that the server may write to",
                )
            })?)
        }
    };
    let logged = Style { journal: style.journal && options.file.is_none(), ..style };
    let logger = LOGGER.get_or_init(|| Arc::new(Logger::new(options, logged, sink)));
    // A second start keeps the first subscriber.
    let _ = tracing::dispatcher::set_global_default(Dispatch::new(logger.clone()));
    STDERR_STYLE.get_or_init(|| style);
    Ok(())
}

/// Changes levels and rate. Format and file stay.
pub fn set(options: &LogOptions) {
    if let Some(logger) = LOGGER.get() {
        logger.set(options);
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Opens the log file again, after it was renamed.
pub fn reopen() {
    if let Some(logger) = LOGGER.get() {
        logger.sink().reopen();
    }
}

/// Waits until every text queued so far is written or dropped, for at most `within`. Returns false
/// if the time ran out.
pub fn flush(within: Duration) -> bool {
    let end = Instant::now() + within;
    let is_written = LOGGER.get().is_none_or(|logger| logger.sink().flush(end));
    is_written & stderr().flush(end) & stdout().flush(end)
}

/// Number of lines dropped since the start because the queue was full or the write failed.
pub fn dropped() -> u64 {
    LOGGER.get().map_or_else(|| stderr().dropped(), |logger| logger.sink().dropped())
}

/// Number of lines left out since the start because their kind had reached the rate limit.
pub fn suppressed() -> u64 {
    LOGGER.get().map_or(0, |logger| logger.rate.left_out())
}

/// Style of the lines on stderr, once the logger has started.
static STDERR_STYLE: OnceLock<Style> = OnceLock::new();

fn stderr_style() -> Style {
    STDERR_STYLE.get().copied().unwrap_or_default()
}

fn stderr() -> &'static Arc<Sink> {
    static SINK: OnceLock<Arc<Sink>> = OnceLock::new();
    SINK.get_or_init(|| {
        let report = report(stderr_style);
        Arc::new(Sink::of_descriptor("log-stderr", io::stderr().as_fd(), report))
    })
}

fn stdout() -> &'static Sink {
    static SINK: OnceLock<Sink> = OnceLock::new();
    SINK.get_or_init(|| {
        Sink::of_descriptor("log-stdout", io::stdout().as_fd(), report(Style::default))
    })
}

/// Head of a line about the log itself.
fn head(level: tracing::Level) -> Head<'static> {
    Head { level, part: "log", unix_millis: sys::unix_millis() }
}

fn report(style: impl Fn() -> Style + Send + 'static) -> Report {
    Box::new(move |message| style().message(head(tracing::Level::WARN), message))
}

/// Writes a line about the log file to stderr.
fn complain(message: &str) {
    stderr().push(stderr_style().message(head(tracing::Level::ERROR), message));
}

/// Whether journald reads stderr: systemd names the stream in a variable.
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(copy) = io::stderr().as_fd().try_clone_to_owned() else { return false };
    let stream = std::fs::File::from(copy).metadata();
    stream.is_ok_and(|stream| named == format!("{}:{}", stream.dev(), stream.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    use tracing::{debug, error, info, warn};

    /// The lines that `log` writes with these options.
    fn logged(options: &LogOptions, log: impl FnOnce(&Logger)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let style = Style { format: options.format, journal: false };
        let sink = Sink::of_file(&path, report(move || style), |text| panic!("{text}")).unwrap();
        let logger = Arc::new(Logger::new(options, style, Arc::new(sink)));
        tracing::dispatcher::with_default(&Dispatch::new(logger.clone()), || log(&logger));
        assert!(logger.sink().flush(Instant::now() + Duration::from_secs(20)));
        fs::read_to_string(path).unwrap()
    }

    /// Logs a line of each level in two parts, and events that are not the server's.
    fn each_level() {
        error!(target: "tls", "tls-error");
        warn!(target: "tls", "tls-warn");
        info!(target: "tls", "tls-info");
        debug!(target: "tls", "tls-debug");
        error!(target: "api", "api-error");
        info!(target: "api", "api-info");
        debug!(target: "api", "api-debug");
        error!(target: "hyper", "foreign");
        error!("foreign");
        info!(target: ACCESS, "access-info");
    }

    fn words(text: &str) -> Vec<&str> {
        text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect()
    }

    #[test]
    fn each_part_logs_the_lines_of_its_level_and_a_change_applies_at_once() {
        let levels = vec![("api", Level::Debug), ("tls", Level::Error)];
        let options = LogOptions { levels, ..LogOptions::default() };
        let text = logged(&options, |logger| {
            each_level();
            let options = LogOptions { level: Level::Debug, ..LogOptions::default() };
            logger.set(&LogOptions { levels: vec![("api", Level::None)], ..options });
            tracing::callsite::rebuild_interest_cache();
            each_level();
        });
        let first = ["tls-error", "api-error", "api-info", "api-debug", "access-info"];
        let second = ["tls-error", "tls-warn", "tls-info", "tls-debug", "access-info"];
        assert_eq!(words(&text), [first, second].concat(), "{text}");
    }

    #[test]
    fn a_kind_of_line_beyond_the_rate_is_left_out_and_the_next_one_has_the_number() {
        let options = LogOptions { rate: 3, format: Format::Json, ..LogOptions::default() };
        let text = logged(&options, |logger| {
            let log = |nth: usize| warn!(target: "tls", nth, "often");
            // A second may end in between.
            (0..20).for_each(log);
            assert!(logger.rate.left_out() >= 14);
            warn!(target: "tls", "other");
            (0..20).for_each(|nth| info!(target: ACCESS, nth, "connect"));
            std::thread::sleep(Duration::from_secs(1));
            log(20);
        });
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
        assert_eq!((of("other"), of("connect")), (1, 20));
        let written = of("often");
        assert!((4..=7).contains(&written), "{written}");
        let left_out = lines.iter().filter_map(|line| line["suppressed"].as_u64()).sum::<u64>();
        assert_eq!(written as u64 + left_out, 21, "{text}");
    }

    /// The texts between `before` and the next quote in all Rust files of a folder.
    fn quoted(folder: &Path, before: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                quoted(&path, before, found);
            } else if path.extension().is_some_and(|kind| kind == "rs")
                && !path.ends_with("base/log/mod.rs")
            {
                let text = fs::read_to_string(&path).unwrap();
                let parts = text.split(before).skip(1);
                found.extend(parts.map(|rest| rest.split('"').next().unwrap().to_owned()));
            }
        }
    }

    #[test]
    fn every_target_in_the_code_is_a_part_and_every_part_logs() {
        let mut found = Vec::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        quoted(&folder, concat!("target", ": \""), &mut found);
        let unknown = found.iter().filter(|name| !PARTS.contains(&name.as_str()));
        assert_eq!(unknown.count(), 0, "{found:?}");
        let silent = PARTS.iter().filter(|part| !found.iter().any(|name| name == *part));
        let silent: Vec<_> = silent.collect();
        assert_eq!(silent, [&"log"], "the log itself reports losses");
    }
}
