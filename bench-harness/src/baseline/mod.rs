//! The bare kernel: what every number is held against.
//!
//! Owns the child process that accepts sockets with the engine's ring and sends the same bytes to
//! all, and the lines it is commanded with. Never speaks a protocol. Invariant: the child's sockets
//! have the options of the server's, and its sends the server's flags, so what remains between
//! the two is the server.

use anyhow::{Context, Result, bail};

use crate::account::ProcessSample;
use crate::subprocess::{QUIT, Subprocess};

mod shard;

pub use shard::{Options, serve};

/// Sends that go into one enter, as in the server.
pub const PER_TURN: u32 = 128;

/// What a command of the child did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Sends tried.
    pub sends: u64,
    /// Of them, those that the kernel took partly or not at all.
    pub short: u64,
    /// Processor time of the sending threads, in ns.
    pub cpu_ns: u64,
    /// From the command to its end, in ns.
    pub wall_ns: u64,
}

impl Sent {
    /// As one line of the child's output.
    fn line(&self) -> String {
        let Sent { sends, short, cpu_ns, wall_ns } = self;
        format!("sent {sends} short {short} cpu_ns {cpu_ns} wall_ns {wall_ns}")
    }

    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, sends, _, short, _, cpu_ns, _, wall_ns] = words[..] else { return None };
        Some(Sent {
            sends: sends.parse().ok()?,
            short: short.parse().ok()?,
            cpu_ns: cpu_ns.parse().ok()?,
            wall_ns: wall_ns.parse().ok()?,
        })
    }
}

/// What the child is told, one a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// `send BYTES ROUNDS PER_TURN`: to each socket, so many times.
    Send { bytes: usize, rounds: u32, per_turn: u32 },
    /// `rate PER_SECOND SECONDS BYTES PER_TURN`: to the sockets in turn.
    Rate { per_second: u64, seconds: u64, bytes: usize, per_turn: u32 },
    /// `quit`.
    Quit,
}

impl Order {
    fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().with_context(|| format!("in `{line}`"));
        Ok(match words[..] {
            ["send", bytes, rounds, per_turn] => Order::Send {
                bytes: number(bytes)? as usize,
                rounds: number(rounds)? as u32,
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
                "`{line}` is no command; use `send BYTES ROUNDS PER_TURN`, \
                 `rate PER_SECOND SECONDS BYTES PER_TURN` or `quit`"
            ),
        })
    }
}

/// The running child.
pub struct Baseline {
    process: Subprocess,
}

impl Baseline {
    /// Starts the child and waits until it listens.
    pub fn start(options: &Options) -> Result<Self> {
        let process = Subprocess::start("baseline-server", &options.arguments())?;
        Ok(Baseline { process })
    }

    /// The child's processor time and memory so far.
    pub fn sample(&self) -> Result<ProcessSample> {
        self.process.sample()
    }

    /// Sends `bytes` bytes to each socket, `rounds` times.
    pub fn send(&mut self, bytes: usize, rounds: u32) -> Result<Sent> {
        self.sent(&format!("send {bytes} {rounds} {PER_TURN}"))
    }

    /// Sends `bytes` bytes to the sockets in turn, `per_second` sends a second in all.
    pub fn rate(&mut self, per_second: u64, seconds: u64, bytes: usize) -> Result<Sent> {
        self.sent(&format!("rate {per_second} {seconds} {bytes} {PER_TURN}"))
    }

    fn sent(&mut self, order: &str) -> Result<Sent> {
        self.process.order(order)?;
        let line = self.process.answer()?;
        Sent::parse(&line).with_context(|| format!("the kernel baseline said `{line}`"))
    }

    /// Ends the child.
    pub fn stop(self) -> Result<()> {
        self.process.stop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back() {
        let sent = Sent { sends: 1, short: 2, cpu_ns: 3, wall_ns: 4 };
        assert_eq!(Sent::parse(&sent.line()), Some(sent));
        let order = Order::Send { bytes: 128, rounds: 2, per_turn: 1 };
        assert_eq!(Order::parse("send 128 2 0").unwrap(), order);
        assert!(Order::parse("send 128").unwrap_err().to_string().contains("is no command"));
    }
}
