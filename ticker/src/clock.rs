//! The time that prices carry and that the page compares with.

use std::time::SystemTime;

/// Microseconds since 1970.
pub fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
