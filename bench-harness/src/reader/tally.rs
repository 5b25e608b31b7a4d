//! What readers count: bytes by kind, prices, latencies and the age of the shown prices.
//!
//! Owns the counts. Never reads a socket. Invariant: the age of a shown price is sampled at regular
//! times, whether a price arrived or not.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use anyhow::{Result, anyhow};

use super::plan::ReaderPlan;
use super::shape::Part;
use super::window::Window;
use crate::clock::RunClock;
use crate::latency::Recorder;
use crate::wire::Stamp;

/// Time between two looks at the price that a client shows, in ns.
const LOOK_NS: u64 = 50_000_000;

/// Counts within the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Prices received; a price that a poll brings again counts again.
    pub prices: u64,
    /// Of them, those that were new to their client.
    pub fresh: u64,
    /// Prices that a client did not get although a later one came.
    pub skipped: u64,
    /// Requests sent.
    pub requests: u64,
    /// Bytes of request heads, response heads and framing.
    pub framing: u64,
    /// Bytes of bodies and messages that are not the price itself.
    pub envelope: u64,
    /// Bytes of prices.
    pub payload: u64,
}

impl Counts {
    /// Header and framing bytes per price.
    pub fn framing_per_price(&self) -> f64 {
        self.framing as f64 / self.prices.max(1) as f64
    }

    /// All bytes but the prices themselves, per price.
    pub fn overhead_per_price(&self) -> f64 {
        (self.framing + self.envelope) as f64 / self.prices.max(1) as f64
    }
}

/// The outcome of a measurement on the clients' side.
#[derive(Debug, Clone)]
pub struct Readings {
    /// Counts within the window.
    pub counts: Counts,
    /// From the publication of each new price to its arrival.
    pub latency: Recorder,
    /// Age of the prices that the clients show, sampled at regular times.
    pub ages: Recorder,
}

/// The price that a client shows.
#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    due_ns: u64,
    sequence: u32,
    /// The next moment to look at the client.
    look_ns: u64,
}

/// What all clients share.
pub(super) struct Shared {
    pub(super) plan: ReaderPlan,
    pub(super) clock: RunClock,
    pub(super) window: Arc<Window>,
    counts: Cell<Counts>,
    shown: RefCell<Vec<Shown>>,
    latency: RefCell<Recorder>,
    ages: RefCell<Recorder>,
    fault: RefCell<Option<String>>,
}

impl Shared {
    pub(super) fn new(plan: ReaderPlan, clock: RunClock, window: Arc<Window>) -> Result<Self> {
        Ok(Shared {
            shown: RefCell::new(vec![Shown::default(); plan.clients as usize]),
            plan,
            clock,
            window,
            counts: Cell::default(),
            latency: RefCell::new(Recorder::new(clock.started())?),
            ages: RefCell::new(Recorder::new(clock.started())?),
            fault: RefCell::default(),
        })
    }

    /// Keeps the first error of a client.
    pub(super) fn fail(&self, index: u64, error: &anyhow::Error) {
        self.fault.borrow_mut().get_or_insert_with(|| format!("client {index}: {error:#}"));
    }

    /// The first error of a client, unless the window is over.
    pub(super) fn check(&self) -> Result<()> {
        match &*self.fault.borrow() {
            Some(fault) if !self.is_over() => Err(anyhow!("{fault}")),
            _ => Ok(()),
        }
    }

    /// Whether the window is over.
    pub(super) fn is_over(&self) -> bool {
        self.clock.now_ns() >= self.window.end_ns()
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// Counts a request.
    pub(super) fn sent(&self, head: usize, body: usize) {
        if self.window.contains(self.clock.now_ns()) {
            self.count(|counts| {
                counts.requests += 1;
                counts.framing += head as u64;
                counts.envelope += body as u64;
            });
        }
    }

    /// Counts a part that a client received, with the prices in its message.
    pub(super) fn received(&self, index: u64, part: &Part, message: &[u8]) -> Result<()> {
        let now_ns = self.clock.now_ns();
        let counted = self.window.contains(now_ns);
        let mut prices = 0;
        for stamp in Stamp::all(message) {
            prices += 1;
            self.price(index, &stamp, now_ns, counted)?;
        }
        if counted {
            let payload = (prices * self.plan.bytes as u64).min(message.len() as u64);
            self.count(|counts| {
                counts.prices += prices;
                counts.framing += part.framing() as u64;
                counts.envelope += message.len() as u64 - payload;
                counts.payload += payload;
            });
        }
        Ok(())
    }

    fn price(&self, index: u64, stamp: &Stamp, now_ns: u64, counted: bool) -> Result<()> {
        let mut shown = self.shown.borrow_mut();
        let Some(shown) = shown.get_mut(index as usize) else { return Ok(()) };
        if stamp.sequence <= shown.sequence {
            return Ok(());
        }
        let skipped = stamp.sequence - shown.sequence - 1;
        let first = shown.sequence == 0;
        self.look(index, shown, now_ns)?;
        (shown.due_ns, shown.sequence) = (stamp.due_ns, stamp.sequence);
        if counted {
            self.latency.borrow_mut().record(now_ns, now_ns.saturating_sub(stamp.due_ns))?;
            self.count(|counts| {
                counts.fresh += 1;
                counts.skipped += if first { 0 } else { u64::from(skipped) };
            });
        }
        Ok(())
    }

    /// Records the age of a client's price at every look of the window until `now_ns`.
    fn look(&self, index: u64, shown: &mut Shown, now_ns: u64) -> Result<()> {
        if shown.look_ns == 0 {
            // Clients are looked at one after the other.
            shown.look_ns = 1 + index * 1_000_003 % LOOK_NS;
        }
        let begin_ns = self.window.begin_ns();
        if begin_ns > now_ns {
            return Ok(());
        }
        if shown.look_ns < begin_ns {
            shown.look_ns += (begin_ns - shown.look_ns).div_ceil(LOOK_NS) * LOOK_NS;
        }
        let mut ages = self.ages.borrow_mut();
        while shown.look_ns <= now_ns.min(self.window.end_ns()) {
            if shown.sequence > 0 {
                ages.record(shown.look_ns, shown.look_ns.saturating_sub(shown.due_ns))?;
            }
            shown.look_ns += LOOK_NS;
        }
        Ok(())
    }

    /// The outcome, after the window.
    pub(super) fn finish(&self) -> Result<Readings> {
        let end_ns = self.window.end_ns();
        for (index, shown) in self.shown.borrow_mut().iter_mut().enumerate() {
            self.look(index as u64, shown, end_ns)?;
        }
        let whole = |recorder: &RefCell<Recorder>| {
            let mut recorder = recorder.borrow().clone();
            recorder.expect(recorder.deliveries.delivered);
            recorder
        };
        Ok(Readings {
            counts: self.counts.get(),
            latency: whole(&self.latency),
            ages: whole(&self.ages),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::shape::Shape;
    use super::super::way::Way;
    use super::*;
    use crate::dense::Channels;

    fn shared(clients: u64) -> Shared {
        let plan = ReaderPlan {
            server: SocketAddr::from(([127, 0, 0, 1], 1)),
            way: Way::Polling,
            clients,
            channels: Channels::Shared("all".into()),
            path: "/".into(),
            headers: String::new(),
            interval_ns: 1,
            bytes: 48,
        };
        let window = Arc::new(Window::default());
        window.set(0, u64::MAX - 1);
        Shared::new(plan, RunClock::start(), window).unwrap()
    }

    fn price(due_ns: u64, sequence: u32) -> Vec<u8> {
        let mut out = Vec::new();
        Stamp { due_ns, phase: 1, sequence }.write(48, &mut out);
        out
    }

    #[test]
    fn bytes_are_counted_by_kind_and_repeated_prices_are_not_fresh() {
        let shared = shared(1);
        let hear = |message: &[u8], framing: usize| {
            let used = framing + message.len();
            let part = Part { used, message: framing..used, next: Shape::Head, last: true };
            shared.received(0, &part, message).unwrap();
        };
        hear(&price(1, 1), 100);
        hear(&price(1, 1), 100);
        let wrapped = [b"{\"data\":".as_slice(), &price(9, 4), b"}"].concat();
        hear(&wrapped, 2);
        shared.sent(40, 10);
        let counts = shared.counts.get();
        let wanted = Counts {
            prices: 3,
            fresh: 2,
            skipped: 2,
            requests: 1,
            framing: 242,
            envelope: 19,
            payload: 144,
        };
        assert_eq!(counts, wanted);
        assert_eq!(counts.overhead_per_price(), 87.0);
        assert_eq!(counts.framing_per_price(), 242.0 / 3.0);
    }

    #[test]
    fn the_age_grows_until_the_next_price_comes() {
        let shared = shared(1);
        shared.window.set(0, 1_000_000_001);
        let mut shown = Shown { due_ns: 0, sequence: 1, look_ns: 1 };
        shared.look(0, &mut shown, 499_999_999).unwrap();
        shown.due_ns = 500_000_000;
        shared.look(0, &mut shown, 2_000_000_000).unwrap();
        let mut ages = shared.ages.borrow().clone();
        assert_eq!(ages.deliveries.delivered, 21);
        ages.expect(21);
        let percentiles = ages.percentiles().unwrap();
        assert!(percentiles.max.abs_diff(500_000_001) < 1_000_000, "{percentiles:?}");
        assert!(percentiles.p50.abs_diff(250_000_001) < 51_000_000, "{percentiles:?}");
    }
}
