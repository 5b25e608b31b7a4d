//! Orders to the child of the kernel baseline, and the counts that answer them.
//!
//! Owns both as lines of text. Never sends. Invariant: a count holds every send of its order, those
//! that the kernel did not take in full included.

use anyhow::{Context, Result, bail};
use drumline::engine::ring::Unsent;

use crate::subprocess::QUIT;

/// What an order sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Orders that this is the sum of.
    pub rounds: u32,
    /// Sends tried.
    pub sends: u64,
    /// Bytes that the kernel took.
    pub bytes: u64,
    /// Sends of which the kernel took only a part, or nothing, for want of room.
    pub short: u64,
    /// Sends that failed because their socket was closed or aborted.
    pub closed: u64,
    /// Processor time of the sending threads, in ns.
    pub cpu_ns: u64,
    /// Time from the order to its end, in ns.
    pub wall_ns: u64,
}

impl Sent {
    /// Adds what a later order sent.
    pub(super) fn add(&mut self, later: &Sent) {
        self.rounds += later.rounds;
        self.sends += later.sends;
        self.bytes += later.bytes;
        self.short += later.short;
        self.closed += later.closed;
        self.cpu_ns += later.cpu_ns;
        self.wall_ns += later.wall_ns;
    }

    /// Counts `sends` sends of `bytes` bytes each, of which these were not taken in full.
    pub(super) fn count(&mut self, sends: usize, bytes: usize, unsent: &[Unsent]) {
        self.sends += sends as u64;
        self.bytes += sends as u64 * bytes as u64;
        unsent.iter().for_each(|send| self.take_back(bytes, send.taken));
    }

    /// Corrects the count of a send of `bytes` bytes of which the kernel took only `taken`;
    /// `None`: its socket is closed.
    pub(super) fn take_back(&mut self, bytes: usize, taken: Option<usize>) {
        let missing = bytes.saturating_sub(taken.unwrap_or(0));
        self.bytes = self.bytes.saturating_sub(missing as u64);
        match taken {
            Some(_) => self.short += 1,
            None => self.closed += 1,
        }
    }

    /// The count as one line of the child's output.
    pub(super) fn line(&self) -> String {
        let Sent { rounds: _, sends, bytes, short, closed, cpu_ns, wall_ns } = self;
        format!(
            "sent {sends} bytes {bytes} short {short} closed {closed} cpu_ns {cpu_ns} \
             wall_ns {wall_ns}"
        )
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, sends, _, bytes, _, short, _, closed, _, cpu_ns, _, wall_ns] = words[..] else {
            return None;
        };
        Some(Sent {
            rounds: 1,
            sends: sends.parse().ok()?,
            bytes: bytes.parse().ok()?,
            short: short.parse().ok()?,
            closed: closed.parse().ok()?,
            cpu_ns: cpu_ns.parse().ok()?,
            wall_ns: wall_ns.parse().ok()?,
        })
    }
}

/// An order to the child: one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `send BYTES PER_TURN`: once to each socket.
    Send { bytes: usize, per_turn: u32 },
    /// `rate PER_SECOND SECONDS BYTES PER_TURN`: to the sockets one after the other.
    Rate { per_second: u64, seconds: u64, bytes: usize, per_turn: u32 },
    /// `quit`.
    Quit,
}

impl Order {
    pub(super) fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().with_context(|| format!("in `{line}`"));
        Ok(match words[..] {
            ["send", bytes, per_turn] => Order::Send {
                bytes: number(bytes)? as usize,
                per_turn: number(per_turn)?.max(1) as u32,
            },
            ["rate", per_second, seconds, bytes, per_turn] => Order::Rate {
                per_second: number(per_second)?,
                seconds: number(seconds)?,
                bytes: number(bytes)? as usize,
                per_turn: number(per_turn)?.max(1) as u32,
            },
            [QUIT] => Order::Quit,
            _ => bail!(
                "`{line}` is no order; use `send BYTES PER_TURN`, \
                 `rate PER_SECOND SECONDS BYTES PER_TURN` or `quit`"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_answers_survive_being_written_as_lines() {
        let sent =
            Sent { rounds: 1, sends: 1, bytes: 2, short: 3, closed: 4, cpu_ns: 5, wall_ns: 6 };
        assert_eq!(Sent::parse(&sent.line()), Some(sent));
        let order = Order::Send { bytes: 128, per_turn: 1 };
        assert_eq!(Order::parse("send 128 0").unwrap(), order);
        assert!(Order::parse("send 128").unwrap_err().to_string().contains("is no order"));
    }
}
