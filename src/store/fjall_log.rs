//! The last error that fjall has logged: faults of its background threads are told in no other way.
//!
//! Owns the logger of the crate `log`, which no other part of the server uses. Never writes a line.

use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Crates whose errors count.
const CRATES: [&str; 2] = ["fjall", "lsm_tree"];

static LAST: Mutex<Option<String>> = Mutex::new(None);

struct Capture;

impl Log for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let name = metadata.target().split("::").next().unwrap_or_default();
        metadata.level() == Level::Error && CRATES.contains(&name)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = record.args().to_string();
            *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        }
    }

    fn flush(&self) {}
}

/// Notes errors from now on.
pub fn install() {
    // A second call changes nothing.
    if log::set_logger(&Capture).is_ok() {
        log::set_max_level(LevelFilter::Error);
    }
}

/// The last error, once.
pub fn take() -> Option<String> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).take()
}
