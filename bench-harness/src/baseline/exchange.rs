//! The kernel baseline with its client: what the one sends, the other has to receive.
//!
//! Owns both and the count of bytes. Never knows which rows are made of them. Invariant: a round is
//! sent only when the client has received all bytes of the round before. Rounds that pile up unread
//! exhaust the kernel's TCP memory (`net.ipv4.tcp_mem`). The kernel then drops segments that the
//! sender already counts as sent, and after TCP_USER_TIMEOUT it aborts their connections.

use std::time::Duration;

use anyhow::Result;

use super::child::Baseline;
use super::order::Sent;
use crate::account::ProcessSample;
use crate::dense::Dense;

/// Time without a received byte after which the missing bytes count as lost. Longer than the
/// TCP_USER_TIMEOUT of the sockets, so that a retransmission can still arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an order sent, and what is wrong with it.
#[derive(Debug)]
pub struct Outcome {
    /// What was sent, all rounds together.
    pub sent: Sent,
    /// The difference between sent and received; `None`: every byte was received.
    pub fault: Option<String>,
}

/// The running kernel baseline and its connected client.
pub struct Exchange {
    baseline: Baseline,
    client: Dense,
    /// Bytes that the client has received.
    received: u64,
}

impl Exchange {
    /// Joins the kernel baseline with the client that is connected to it.
    pub fn new(baseline: Baseline, client: Dense) -> Self {
        Exchange { baseline, client, received: 0 }
    }

    /// The processor time and memory of the kernel baseline so far.
    pub fn sample(&self) -> Result<ProcessSample> {
        self.baseline.sample()
    }

    /// Sends `bytes` bytes to each socket, `rounds` times. Waits after each round until the client
    /// has received it, and stops at the first round with a fault.
    pub fn send(&mut self, bytes: usize, rounds: u32) -> Result<Outcome> {
        let Exchange { baseline, client, received } = self;
        let sockets = client.counters().standing();
        let arrived = |expected| client.await_bytes(expected, PATIENCE);
        let mut outcome = in_rounds(rounds, received, || baseline.send(bytes), arrived)?;
        let held = outcome.sent.sends / u64::from(outcome.sent.rounds.max(1));
        if held != sockets && outcome.fault.is_none() {
            outcome.fault = Some(format!(
                "the kernel baseline sent to {held} sockets, but the client holds {sockets}"
            ));
        }
        Ok(outcome)
    }

    /// Sends `bytes` bytes to the sockets in turn, `per_second` sends per second in all, and waits
    /// until the client has received them.
    pub fn rate(&mut self, per_second: u64, seconds: u64, bytes: usize) -> Result<Outcome> {
        let Exchange { baseline, client, received } = self;
        let send = || baseline.rate(per_second, seconds, bytes);
        in_rounds(1, received, send, |expected| client.await_bytes(expected, PATIENCE))
    }

    /// The client.
    pub fn client(&self) -> &Dense {
        &self.client
    }

    /// Ends the client and the kernel baseline.
    pub fn stop(self) -> Result<()> {
        let closed = self.client.stop();
        let stopped = self.baseline.stop();
        closed.and(stopped)
    }
}

/// Sends round by round: each one only when `arrived` has seen all bytes of those before.
/// `arrived` takes the bytes expected since the start and returns the bytes received since then.
fn in_rounds(
    rounds: u32,
    received: &mut u64,
    mut send: impl FnMut() -> Result<Sent>,
    mut arrived: impl FnMut(u64) -> u64,
) -> Result<Outcome> {
    let mut sum = Sent::default();
    for _ in 0..rounds {
        let sent = send()?;
        sum.add(&sent);
        let expected = *received + sent.bytes;
        // After a fault the next order starts from what has come.
        *received = arrived(expected);
        if *received != expected || sent.short > 0 || sent.closed > 0 {
            let came = sent.bytes.saturating_sub(expected.saturating_sub(*received));
            let fault = format!(
                "round {}: the kernel took {} bytes in {} sends, {} came back short, {} found \
                 their socket closed; the client received {came} bytes",
                sum.rounds, sent.bytes, sent.sends, sent.short, sent.closed
            );
            return Ok(Outcome { sent: sum, fault: Some(fault) });
        }
    }
    Ok(Outcome { sent: sum, fault: None })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn round(bytes: u64) -> Sent {
        Sent { rounds: 1, sends: 1, bytes, ..Sent::default() }
    }

    #[test]
    fn a_round_is_sent_only_when_the_round_before_has_arrived() {
        let (sent, arrived) = (Cell::new(0), Cell::new(0));
        let send = || {
            assert_eq!(sent.get(), arrived.get(), "bytes of an earlier round are unread");
            sent.set(sent.get() + 100);
            Ok(round(100))
        };
        let mut received = 0;
        let outcome = in_rounds(10, &mut received, send, |expected| {
            arrived.set(expected);
            expected
        });
        let outcome = outcome.unwrap();
        assert_eq!((outcome.sent.bytes, outcome.sent.rounds, outcome.fault), (1000, 10, None));
        assert_eq!(received, 1000);
    }

    #[test]
    fn a_lost_byte_is_a_fault_and_ends_the_rounds() {
        let mut received = 50;
        let outcome = in_rounds(10, &mut received, || Ok(round(100)), |expected| expected - 1);
        let outcome = outcome.unwrap();
        assert_eq!((outcome.sent.bytes, received), (100, 149));
        assert!(outcome.fault.unwrap().ends_with("the client received 99 bytes"));
    }

    #[test]
    fn a_closed_socket_is_a_fault_although_every_byte_arrived() {
        let broken = Sent { closed: 1, ..round(100) };
        let outcome = in_rounds(1, &mut 0, || Ok(broken), |expected| expected).unwrap();
        assert!(outcome.fault.unwrap().contains("1 found their socket closed"));
    }
}
