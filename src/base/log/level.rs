//! Levels of log lines and the parts of the server that log.
//!
//! Owns the names of both. Never writes a line.

use tracing::level_filters::LevelFilter;

/// The parts of the server that log: the targets of its `tracing` events.
pub const PARTS: [&str; 15] = [
    "acme", "admin", "api", "backend", "config", "control", "feeds", "hooks", "http", "log",
    "reload", "store", "tls", "tokens", "traces",
];

/// Target of the lines of the access log, which `log.access` enables and no level.
pub const ACCESS: &str = "access";

/// The least severe lines that a part logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// No lines.
    None,
    /// No lines either: a failure that ends the server is always written to stderr.
    Fatal,
    /// Failures that the operator must fix.
    Error,
    /// Failures that the server continues after.
    Warn,
    /// Events that the operator may want to know.
    #[default]
    Info,
    /// Causes of failures that clients and backends see.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// All levels with their names, which are Centrifugo's.
    pub const NAMES: [(&'static str, Level); 7] = [
        ("none", Level::None),
        ("fatal", Level::Fatal),
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("info", Level::Info),
        ("debug", Level::Debug),
        ("trace", Level::Trace),
    ];

    /// The level of this name, in lower or upper case.
    pub fn parse(name: &str) -> Option<Self> {
        let found = Self::NAMES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, level)| level)
    }

    /// The level with this discriminant.
    pub(super) fn from_rank(rank: u8) -> Self {
        Self::NAMES.get(usize::from(rank)).map_or(Level::Trace, |(_, level)| *level)
    }

    /// The same as a filter of `tracing`.
    pub(super) fn filter(self) -> LevelFilter {
        match self {
            Level::None | Level::Fatal => LevelFilter::OFF,
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        }
    }
}
