//! The subscriber of the server's `tracing` events: it selects lines by part and level, limits
//! their rate and passes them to a sink.
//!
//! Owns the levels in force. Never blocks or locks a caller that logs. The invariant: only events
//! whose target is one of the parts, or the access log, become lines; spans do not.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use super::level::{ACCESS, Level, PARTS};
use super::line::{Format, Head, Style};
use super::rate::RateLimit;
use super::sink::Sink;
use crate::base::sys;

/// How the server logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Level of the parts that are not in `levels`.
    pub level: Level,
    /// Levels of single parts.
    pub levels: Vec<(&'static str, Level)>,
    /// Lines per second of each kind; 0: no limit.
    pub rate: u64,
    /// Format of the lines.
    pub format: Format,
    /// File of the lines; `None`: stderr.
    pub file: Option<PathBuf>,
}

/// Writes the events of the process to a sink.
pub(super) struct Logger {
    levels: [AtomicU8; PARTS.len()],
    pub(super) rate: RateLimit,
    style: Style,
    sink: Arc<Sink>,
}

impl Logger {
    /// A logger for this sink.
    pub(super) fn new(options: &LogOptions, style: Style, sink: Arc<Sink>) -> Self {
        let levels = std::array::from_fn(|_| AtomicU8::default());
        let logger = Logger { levels, rate: RateLimit::new(options.rate), style, sink };
        logger.set(options);
        logger
    }

    /// Changes levels and rate. The caller must rebuild the interest cache of `tracing`.
    pub(super) fn set(&self, options: &LogOptions) {
        for (part, level) in PARTS.iter().zip(&self.levels) {
            let own = options.levels.iter().find(|(name, _)| name == part);
            let wanted = own.map_or(options.level, |(_, level)| *level);
            level.store(wanted as u8, Ordering::Relaxed);
        }
        self.rate.set(options.rate);
    }

    /// The sink of the lines.
    pub(super) fn sink(&self) -> &Sink {
        &self.sink
    }

    fn filter(&self, part: usize) -> LevelFilter {
        Level::from_rank(self.levels[part].load(Ordering::Relaxed)).filter()
    }
}

impl Subscriber for Logger {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let part = PARTS.iter().position(|part| *part == target);
        metadata.is_event()
            && match part {
                Some(part) => *metadata.level() <= self.filter(part),
                None => target == ACCESS,
            }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let levels = (0..PARTS.len()).map(|part| self.filter(part));
        // Lines of the access log have the level `info`.
        levels.chain([LevelFilter::INFO]).max()
    }

    fn event(&self, event: &Event<'_>) {
        let (metadata, unix_millis) = (event.metadata(), sys::unix_millis());
        let part = metadata.target();
        let left_out = match part {
            ACCESS => Some(0),
            _ => self.rate.admit(std::ptr::from_ref(metadata).addr(), unix_millis / 1000),
        };
        let Some(left_out) = left_out else { return };
        let head = Head { level: *metadata.level(), part, unix_millis };
        self.sink.push(self.style.line(head, |fields| {
            event.record(fields);
            if left_out > 0 {
                fields.plain("suppressed", left_out);
            }
        }));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // No span is enabled; an ID must not be zero.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
