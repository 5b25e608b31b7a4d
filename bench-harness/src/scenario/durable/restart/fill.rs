//! Fills the store: many channels, each with as many publications as it keeps.
//!
//! Owns the broadcasts of the HTTP API. Never publishes out of order: each group of channels
//! belongs to one connection. Invariant: publication `n` of every channel has the name `n` of the
//! filler, and a channel that refused one gets the same one again.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::data::Records;
use super::super::stream::Name;
use super::super::talk::{Heard, Interface, Load, Talk, api_request};
use super::channels::channel;
use crate::clock::RunClock;
use crate::progress::Progress;

/// Number of the filler among the publishers.
const FILLER: u32 = 0;
/// Connections, and channels of a broadcast.
const CONNECTIONS: u64 = 16;
const GROUP: u64 = 250;

/// What a connection is at.
struct Filler {
    /// Numbers of the groups of this connection.
    groups: Vec<u64>,
    /// Place of the present group in `groups`, and number of its publication, from 1.
    at: usize,
    nth: u32,
    /// Channels of the present group that still lack the publication.
    missing: Vec<u64>,
}

struct Fill {
    channels: u64,
    each: u32,
    fillers: Vec<Filler>,
    records: Records,
    stored: u64,
    refused: u64,
}

#[derive(Deserialize)]
struct Answer {
    result: Responses,
}

#[derive(Deserialize)]
struct Responses {
    responses: Vec<Response>,
}

#[derive(Deserialize)]
struct Response {
    error: Option<IgnoredAny>,
}

/// Publishes `each` publications to each of so many channels. Returns the number of refusals.
pub(super) fn fill(server: SocketAddr, channels: u64, each: u32, clock: RunClock) -> Result<u64> {
    let groups = channels.div_ceil(GROUP);
    let connections = CONNECTIONS.min(groups);
    let filler = |nth: u64| {
        let groups: Vec<u64> = (nth..groups).step_by(connections as usize).collect();
        let missing = groups.first().map(|first| group(*first, channels)).unwrap_or_default();
        Filler { groups, at: 0, nth: 1, missing }
    };
    let fillers = (0..connections).map(filler).collect();
    let load = Fill { channels, each, fillers, records: Records::new(1), stored: 0, refused: 0 };
    let interfaces = vec![Interface::Http; connections as usize];
    let mut talk = Talk::open(server, &interfaces, load, clock)?;
    let total = channels * u64::from(each);
    let progress = Progress::new("publications", total);
    while talk.outstanding() > 0 {
        talk.turn(std::time::Duration::from_secs(1))?;
        progress.set(talk.load.stored);
    }
    progress.finish(talk.load.stored);
    let Fill { stored, refused, .. } = talk.load;
    ensure!(stored == total, "{stored} of {total} publications are stored");
    Ok(refused)
}

/// The channels of a group.
fn group(number: u64, channels: u64) -> Vec<u64> {
    (number * GROUP..((number + 1) * GROUP).min(channels)).collect()
}

impl Filler {
    /// Goes to the next group that needs a publication. False: all have everything.
    fn advance(&mut self, each: u32, channels: u64) -> bool {
        self.at += 1;
        if self.at == self.groups.len() {
            self.at = 0;
            self.nth += 1;
        }
        if self.nth > each {
            return false;
        }
        self.missing = group(self.groups[self.at], channels);
        true
    }
}

impl Load for Fill {
    fn next(&mut self, nth: usize, _now_ns: u64, out: &mut Vec<u8>) -> bool {
        let filler = &mut self.fillers[nth];
        if filler.nth > self.each {
            return false;
        }
        let mut body = String::from("{\"channels\":[");
        for (nth, one) in filler.missing.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            let written = write!(body, "{comma}\"{}\"", channel(*one));
            debug_assert!(written.is_ok(), "writing to a String cannot fail");
        }
        body.push_str("],\"data\":");
        let name = Name { publisher: FILLER, sequence: filler.nth };
        let mut body = body.into_bytes();
        body.extend_from_slice(self.records.named(&name.to_string()));
        body.push(b'}');
        api_request("broadcast", &body, out);
        true
    }

    fn hear(&mut self, nth: usize, heard: Heard<'_>, _sent_ns: u64, _now_ns: u64) -> Result<()> {
        let (Heard::Confirmed(answer) | Heard::Refused(answer) | Heard::Push(answer)) = heard;
        let told = || format!("a broadcast was answered with {}", String::from_utf8_lossy(answer));
        let Answer { result } = serde_json::from_slice(answer).with_context(told)?;
        let filler = &mut self.fillers[nth];
        ensure!(
            result.responses.len() == filler.missing.len(),
            "a response per channel: {}",
            told()
        );
        let responses = result.responses.iter().zip(&filler.missing);
        let refused = responses.filter(|(response, _)| response.error.is_some());
        let refused: Vec<u64> = refused.map(|(_, channel)| *channel).collect();
        self.stored += (filler.missing.len() - refused.len()) as u64;
        self.refused += refused.len() as u64;
        if refused.is_empty() {
            filler.advance(self.each, self.channels);
        } else {
            filler.missing = refused;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_gets_every_publication_in_order_and_refused_ones_again() {
        let filler = Filler { groups: vec![0, 1], at: 0, nth: 1, missing: group(0, 300) };
        let fillers = vec![filler];
        let records = Records::new(1);
        let mut fill = Fill { channels: 300, each: 2, fillers, records, stored: 0, refused: 0 };
        let mut sent = Vec::new();
        let mut out = Vec::new();
        while fill.next(0, 0, &mut out) {
            let filler = &fill.fillers[0];
            sent.push((filler.nth, filler.missing.len()));
            let ok = "{\"result\":{}}";
            let mut responses = vec![ok; filler.missing.len()];
            if sent.len() == 2 {
                responses[7] = "{\"error\":{\"code\":100}}";
            }
            let answer = format!("{{\"result\":{{\"responses\":[{}]}}}}", responses.join(","));
            fill.hear(0, Heard::Confirmed(answer.as_bytes()), 0, 0).unwrap();
        }
        assert_eq!(sent, [(1, 250), (1, 50), (1, 1), (2, 250), (2, 50)]);
        assert_eq!((fill.stored, fill.refused), (600, 1));
        let short = b"{\"result\":{\"responses\":[]}}";
        fill.fillers[0].missing = vec![1];
        assert!(fill.hear(0, Heard::Confirmed(short), 0, 0).is_err());
    }
}
