//! Histories as the HTTP API returns them, and the names of publications in them.
//!
//! Owns the questions about histories. Never interprets an answer. Invariant: a publication's data
//! begins with the name that its publisher gave it, and no name is given twice.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::data;
use crate::scenario::hostile::post_with;
use crate::server::API_KEY;

/// Name of a publication: its publisher, and a number that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    /// Number of the publisher.
    pub publisher: u32,
    /// Number of the publication, from 1.
    pub sequence: u32,
}

impl Name {
    /// The name in a publication's data.
    pub fn of(data: &str) -> Result<Self> {
        let told = || format!("the data of a publication was changed: {data}");
        let (publisher, sequence) =
            data::name(data).and_then(|name| name.split_once('-')).with_context(told)?;
        let (publisher, sequence) =
            publisher.parse().ok().zip(sequence.parse().ok()).with_context(told)?;
        Ok(Name { publisher, sequence })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.publisher, self.sequence)
    }
}

/// A history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Epoch of the stream.
    pub epoch: String,
    /// Offset of the latest publication.
    pub top: u64,
    /// Offsets and names, in the order of the answer.
    pub publications: Vec<(u64, Name)>,
}

#[derive(Deserialize)]
struct Answer {
    result: Option<AnsweredHistory>,
}

#[derive(Deserialize)]
struct AnsweredHistory {
    #[serde(default)]
    publications: Vec<Publication>,
    #[serde(default)]
    epoch: String,
    #[serde(default)]
    offset: u64,
}

/// A publication of an answer or a push.
#[derive(Deserialize)]
pub(super) struct Publication {
    /// Its data.
    pub data: String,
    /// Its offset.
    #[serde(default)]
    pub offset: u64,
}

/// The whole history of a channel.
pub(super) fn read(control: SocketAddr, channel: &str) -> Result<History> {
    let body = format!("{{\"channel\":\"{channel}\",\"limit\":-1}}");
    let text = post_with(control, "history", &body, API_KEY)?;
    let answer: Answer = serde_json::from_str(&text).context("an answer that is not JSON")?;
    let Some(found) = answer.result else { bail!("the history of {channel}: {text}") };
    let named = |one: Publication| Ok((one.offset, Name::of(&one.data)?));
    Ok(History {
        epoch: found.epoch,
        top: found.offset,
        publications: found.publications.into_iter().map(named).collect::<Result<_>>()?,
    })
}

/// Asks for the history until there is an answer.
pub(super) fn read_first(
    control: SocketAddr,
    channel: &str,
    patience: Duration,
) -> Result<History> {
    let begun = Instant::now();
    loop {
        match read(control, channel) {
            Ok(history) => return Ok(history),
            Err(error) => {
                ensure!(begun.elapsed() < patience, "no history after {patience:?}: {error:#}");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::durable::data::Records;

    #[test]
    fn names_come_back_from_the_data() {
        let name = Name { publisher: 3, sequence: 4_000_000_000 };
        let record = *Records::new(1).named(&name.to_string());
        let data: String = serde_json::from_slice(&record).unwrap();
        assert_eq!(Name::of(&data).unwrap(), name);
        assert!(Name::of(data.trim_start_matches('3')).is_err());
        assert!(Name::of("x").is_err());
    }
}
