//! Durations in configurations, such as `25s` and `1h30m`.
//!
//! Owns no state. The invariant: a duration of whole milliseconds that is printed parses as the
//! same duration.

use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration, written like `25s`, `300ms` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigDuration(pub Duration);

impl ConfigDuration {
    /// A duration of this many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        ConfigDuration(Duration::from_secs(seconds))
    }

    /// The duration in milliseconds, the unit of the data plane.
    pub fn millis(self) -> u64 {
        self.0.as_millis() as u64
    }
}

impl fmt::Display for ConfigDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
        match units.into_iter().find(|(unit, _)| millis != 0 && millis.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", millis / unit),
            None => f.write_str("0s"),
        }
    }
}

impl Serialize for ConfigDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConfigDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text)
            .map(ConfigDuration)
            .ok_or_else(|| D::Error::custom(format!("`{text}` is not a duration")))
    }
}

/// Longest duration: a hundred years. Sums of times and durations then never overflow.
const LONGEST: Duration = Duration::from_secs(876_000 * 3600);

/// Parses a duration of at most [`LONGEST`]: one or more numbers, each with a unit. `0` needs no
/// unit.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|at: char| !at.is_ascii_digit() && at != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|at: char| at.is_ascii_digit() || at == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    (!text.is_empty() && duration <= LONGEST).then_some(duration)
}
