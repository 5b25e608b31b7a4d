//! Publications at a steady rate (open loop) over many connections, each with one outstanding.
//!
//! Owns the schedule and the times without an acknowledgement. Never skips a publication: what
//! finds no free connection goes out late. Invariant: a latency counts from the time at which the
//! publication is due.

use anyhow::{Result, bail};

use super::super::data::Records;
use super::super::talk::{Heard, Interface, Load};
use crate::clock::RunClock;
use crate::latency::Recorder;

/// A step through the channels without a common factor with their number.
const STRIDE: u64 = 611_953;
/// Longest times without an acknowledgement that are kept.
const LONGEST: usize = 5;

/// A time without an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Silence {
    /// The acknowledgement before it, and the one that ended it, in ns since the start of the run.
    pub from_ns: u64,
    /// The acknowledgement that ended it.
    pub to_ns: u64,
}

impl Silence {
    /// How long it was, in ns.
    pub fn length(&self) -> u64 {
        self.to_ns - self.from_ns
    }
}

/// The longest silences so far.
#[derive(Debug, Default)]
pub(super) struct Silences {
    last_ns: Option<u64>,
    longest: Vec<Silence>,
}

impl Silences {
    /// An acknowledgement came.
    fn end(&mut self, now_ns: u64) {
        if let Some(from_ns) = self.last_ns.replace(now_ns) {
            let silence = Silence { from_ns, to_ns: now_ns };
            let shortest = self.longest.last().map_or(0, Silence::length);
            if self.longest.len() < LONGEST || silence.length() > shortest {
                let at = self.longest.partition_point(|one| one.length() >= silence.length());
                self.longest.insert(at, silence);
                self.longest.truncate(LONGEST);
            }
        }
    }

    /// The longest, the longest first.
    pub fn longest(&self) -> &[Silence] {
        &self.longest
    }
}

/// The load.
pub(super) struct Paced {
    interface: Interface,
    channels: Vec<String>,
    records: Records,
    first_ns: u64,
    interval_ns: f64,
    /// Publications that were sent, and how many there will be.
    sent: u64,
    total: u64,
    /// When the outstanding publication of each connection was due.
    due_ns: Vec<u64>,
    /// Latencies from the due times.
    pub recorder: Recorder,
    /// The times without an acknowledgement.
    pub silences: Silences,
}

impl Paced {
    /// `rate` publications per second from `first_ns` on, for so many seconds.
    pub fn new(
        interface: Interface,
        (connections, channels): (usize, u64),
        (rate, seconds): (f64, u64),
        first_ns: u64,
        clock: RunClock,
    ) -> Result<Self> {
        let total = (rate * seconds as f64) as u64;
        let mut recorder = Recorder::new(clock.started())?;
        recorder.expect(total);
        Ok(Paced {
            interface,
            channels: (0..channels).map(|nth| format!("c{nth}")).collect(),
            records: Records::new(first_ns),
            first_ns,
            interval_ns: 1e9 / rate,
            sent: 0,
            total,
            due_ns: vec![0; connections],
            recorder,
            silences: Silences::default(),
        })
    }

    /// When the next publication is due; `None`: all were sent.
    pub fn next_due_ns(&self) -> Option<u64> {
        (self.sent < self.total)
            .then(|| self.first_ns + (self.sent as f64 * self.interval_ns) as u64)
    }

    /// Publications that were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

impl Load for Paced {
    fn next(&mut self, nth: usize, now_ns: u64, out: &mut Vec<u8>) -> bool {
        let Some(due_ns) = self.next_due_ns().filter(|due_ns| *due_ns <= now_ns) else {
            return false;
        };
        let channels = self.channels.len() as u64;
        let channel = &self.channels[(self.sent.wrapping_mul(STRIDE) % channels) as usize];
        self.interface.publish(channel, self.records.next_record(), out);
        self.due_ns[nth] = due_ns;
        self.sent += 1;
        true
    }

    fn hear(&mut self, nth: usize, heard: Heard<'_>, _sent_ns: u64, now_ns: u64) -> Result<()> {
        let Heard::Confirmed(_) = heard else { bail!("a publication was refused: {heard:?}") };
        self.silences.end(now_ns);
        self.recorder.record(now_ns, now_ns.saturating_sub(self.due_ns[nth]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silences_are_kept() {
        let mut silences = Silences::default();
        for now_ns in [10, 20, 25, 125, 126, 326, 330, 360, 367] {
            silences.end(now_ns);
        }
        let lengths: Vec<u64> = silences.longest().iter().map(Silence::length).collect();
        assert_eq!(lengths, [200, 100, 30, 10, 7]);
        assert_eq!(silences.longest()[0], Silence { from_ns: 126, to_ns: 326 });
    }

    #[test]
    fn publications_go_out_when_they_are_due() {
        let clock = RunClock::start();
        let load = (1_000.0, 2);
        let mut paced = Paced::new(Interface::Http, (2, 10), load, 5_000_000, clock).unwrap();
        let mut out = Vec::new();
        assert!(!paced.next(0, 4_999_999, &mut out));
        assert!(paced.next(0, 5_000_000, &mut out));
        assert_eq!(paced.next_due_ns(), Some(6_000_000));
        assert!(paced.next(1, 9_000_000, &mut out), "late");
        paced.hear(1, Heard::Confirmed(b""), 9_000_000, 9_500_000).unwrap();
        let latency = paced.recorder.percentiles().unwrap().max;
        assert!(latency.abs_diff(3_500_000) < 4_000, "{latency} from the due time");
        assert!(paced.hear(0, Heard::Refused(b"no"), 0, 0).is_err());
        assert_eq!(paced.total, 2_000);
    }
}
