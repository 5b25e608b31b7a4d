//! The life of a feed: connects, handles messages, and reconnects with growing pauses.
//!
//! Owns the pauses. Never knows a broker. The invariant: between two connects there is always a
//! pause, and each end of a session is logged with cause and cure and counted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::Level;

use super::feed::Feed;
use super::message::Fault;
use super::pump::{End, pump};
use super::session::{Session, Source};
use crate::base::backoff::Backoff;

/// Pauses between two connects.
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
/// Pauses while configuration and broker contradict each other.
const MISCONFIGURED: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(30));
/// A session of this length counts as success: the next pause is short.
const STABLE: Duration = Duration::from_secs(10);

/// Runs a feed until `stop` changes. `first` is the result of the first connect.
pub async fn run<S: Source>(
    feed: Arc<Feed>,
    source: S,
    first: Result<S::Session, Fault>,
    mut stop: watch::Receiver<()>,
) {
    let counters = &feed.state.counters;
    let mut backoff = RECONNECT;
    let mut opened = first;
    loop {
        let fault = match opened {
            Ok(mut session) => {
                counters.up.set(1);
                feed.state.log(Level::INFO, "receives messages");
                let began = Instant::now();
                let end = pump(&feed, &mut session, &mut stop).await;
                counters.up.set(0);
                match end {
                    End::Stopped => return session.close().await,
                    End::Lost { fault, has_settled } => {
                        tokio::spawn(session.close());
                        if has_settled || began.elapsed() >= STABLE {
                            backoff.reset();
                        }
                        fault
                    }
                }
            }
            Err(fault) => fault,
        };
        counters.errors.add(1);
        let pause =
            if fault.is_misconfigured { MISCONFIGURED.clone().pause() } else { backoff.pause() };
        let millis = pause.as_millis();
        feed.state.log(Level::WARN, format_args!("{fault} (connecting again in {millis} ms)"));
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.changed() => return,
        }
        counters.reconnects.add(1);
        opened = tokio::select! {
            opened = source.open() => opened,
            _ = stop.changed() => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::base::current::Current;
    use crate::base::memory::{MemoryBudgets, MemoryLimits};
    use crate::config::{Config, PublicationDataMode};
    use crate::engine::bus::Bus;
    use crate::feeds::decode::{CommandResult, Commands, Decoder, Work};
    use crate::feeds::feed::{Destination, DestinationOptions, FeedOptions, FeedState};
    use crate::feeds::message::{Message, Refusal};
    use crate::feeds::session::Verdict;
    use crate::link::publishing::{Draft, post};
    use crate::link::{Link, Wake};
    use crate::model::message::{RANKS, Rank};
    use crate::model::names::Names;

    struct NoCommands;

    impl Commands for NoCommands {
        fn read(&self, _: &str, _: &[u8]) -> Result<Work, Refusal> {
            Err(Refusal::unreadable("no commands"))
        }

        fn run<'a>(&'a self, _: &'a str, _: &'a [u8]) -> CommandResult<'a> {
            Box::pin(async { Ok(()) })
        }
    }

    /// A feed over a node without shards that answer.
    fn feed() -> Arc<Feed> {
        let bus = Bus::new(1, 1, [8; RANKS], Box::new(|| {})).unwrap();
        feed_over(bus, Decoder::new("", &PublicationDataMode::default()))
    }

    /// A feed whose node has this bus.
    fn feed_over(bus: Arc<Bus>, decoder: Decoder) -> Arc<Feed> {
        let budgets = MemoryBudgets::new(&MemoryLimits::all(0), 1);
        let metrics: Arc<[_]> = Arc::new([Arc::default()]);
        let names = Names::new([7; 16], 1);
        let link = Arc::new(Link::new(
            bus,
            names,
            metrics,
            budgets,
            (Arc::default(), crate::base::sys::Clock::new()),
        ));
        let namespaces = Config::default().namespaces();
        let commands = Arc::new(NoCommands);
        let changeable = DestinationOptions { namespaces, publication_max: 100, commands };
        Arc::new(Feed {
            state: Arc::new(FeedState::new("test", "fake")),
            options: FeedOptions { decoder, attempts: 2, delay: Duration::from_secs(1) },
            destination: Destination { link, options: Arc::new(Current::new(changeable)) },
        })
    }

    /// Delivers one message that cannot be read, and ends once it is settled.
    struct FakeSession {
        is_fresh: bool,
        settled: Arc<Mutex<Vec<Verdict>>>,
    }

    impl Session for FakeSession {
        type Origin = ();

        fn stop_receiving(&mut self) {}

        async fn next(&mut self) -> Result<((), Message), Fault> {
            if std::mem::take(&mut self.is_fresh) {
                return Ok(((), Message::default()));
            }
            if self.settled.lock().unwrap().is_empty() {
                std::future::pending::<()>().await;
            }
            Err(Fault::passing("ended", "wait"))
        }

        fn settle(&mut self, (): &(), verdict: Verdict) {
            self.settled.lock().unwrap().push(verdict);
        }

        fn flush(&mut self) -> Result<(), Fault> {
            Ok(())
        }

        async fn close(self) {}

        fn set_aside(
            &self,
            (): &(),
            _: &Message,
            _: &str,
        ) -> impl Future<Output = Verdict> + Send + 'static {
            std::future::ready(Verdict::Reject)
        }
    }

    /// Notes when it is opened.
    struct FakeSource {
        opened: Arc<Mutex<Vec<Instant>>>,
        settled: Arc<Mutex<Vec<Verdict>>>,
        open: fn(usize) -> Result<(), Fault>,
    }

    impl Source for FakeSource {
        type Session = FakeSession;

        async fn open(&self) -> Result<FakeSession, Fault> {
            let mut opened = self.opened.lock().unwrap();
            opened.push(Instant::now());
            let settled = self.settled.clone();
            settled.lock().unwrap().clear();
            (self.open)(opened.len()).map(|()| FakeSession { is_fresh: true, settled })
        }
    }

    /// Pauses in milliseconds between the connects of a feed, for a virtual time.
    async fn pauses(time: Duration, open: fn(usize) -> Result<(), Fault>) -> (Vec<u64>, Arc<Feed>) {
        let (opened, settled) = (Arc::default(), Arc::default());
        let source = FakeSource { opened: Arc::clone(&opened), settled, open };
        let (stop, stopped) = watch::channel(());
        let feed = feed();
        let first = Err(Fault::passing("first", "wait"));
        let running = tokio::spawn(run(feed.clone(), source, first, stopped));
        sleep(time).await;
        drop(stop);
        running.await.unwrap();
        let opened: Vec<Instant> = opened.lock().unwrap().clone();
        let pause = |pair: &[Instant]| (pair[1] - pair[0]).as_millis() as u64;
        (opened.windows(2).map(pause).collect(), feed)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_between_connects_grow_and_are_long_for_contradictions() {
        let minutes = Duration::from_secs(120);
        let refused = |_| Err(Fault::passing("refused", "wait"));
        let (found, feed) = pauses(minutes, refused).await;
        for (at, pause) in found.iter().enumerate() {
            // The first pause, of 200 ms, comes before the first of these connects.
            let whole = (400 << at.min(10)).min(10_000);
            assert!((whole / 2..=whole + 2).contains(pause), "{at}: {pause} of {whole}");
        }
        assert!(found.len() > 10, "{found:?}");
        assert_eq!(feed.state.counters.errors.get(), found.len() as u64 + 2);
        let contradicts = |_| Err(Fault::misconfigured("contradicts", "correct it"));
        let (found, _) = pauses(minutes, contradicts).await;
        assert!(found.iter().all(|pause| (15_000..=30_002).contains(pause)), "{found:?}");
        assert!((2..9).contains(&found.len()), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_settled_a_message_makes_the_next_pause_short() {
        let (found, feed) = pauses(Duration::from_secs(5), |_| Ok(())).await;
        assert!(found.iter().all(|pause| (100..=202).contains(pause)), "{found:?}");
        let counters = &feed.state.counters;
        assert!(
            counters.set_aside.get() > 10 && counters.set_aside.get() == counters.received.get()
        );
        assert_eq!((counters.up.get(), counters.in_flight.get()), (0, 0));
    }

    /// Delivers as many messages to channels of their own as it has numbers, and then none.
    struct Deliveries(std::ops::Range<u8>);

    impl Session for Deliveries {
        type Origin = ();

        fn stop_receiving(&mut self) {}

        async fn next(&mut self) -> Result<((), Message), Fault> {
            match self.0.next() {
                Some(number) => {
                    let (routing_key, body) = (format!("c{number}"), b"1".to_vec());
                    Ok(((), Message { routing_key, body, ..Message::default() }))
                }
                None => std::future::pending().await,
            }
        }

        fn settle(&mut self, (): &(), _: Verdict) {}

        fn flush(&mut self) -> Result<(), Fault> {
            Ok(())
        }

        async fn close(self) {}

        fn set_aside(
            &self,
            (): &(),
            _: &Message,
            _: &str,
        ) -> impl Future<Output = Verdict> + Send + 'static {
            std::future::ready(Verdict::Reject)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_sleeps_is_woken_for_the_messages_that_were_ready() {
        let bus = Bus::new(1, 1, [8; RANKS], Box::new(|| {})).unwrap();
        let mode = PublicationDataMode {
            enabled: true,
            channel_template: "{routing_key}".to_owned(),
            ..PublicationDataMode::default()
        };
        let feed = feed_over(bus.clone(), Decoder::new("", &mode));
        let shard = bus.consumer(0);
        let doorbell = shard.doorbell().unwrap().try_clone().unwrap();
        assert!(shard.prepare_to_sleep());
        let (_stop, mut stopped) = watch::channel(());
        let mut session = Deliveries(0..5);
        let pumped = pump(&feed, &mut session, &mut stopped);
        assert!(tokio::time::timeout(Duration::from_millis(1), pumped).await.is_err());
        assert_eq!(shard.take_news(), 1);
        let mut rings = [0; 8];
        assert_eq!(rustix::io::read(&doorbell, &mut rings), Ok(8));
        assert_eq!(u64::from_ne_bytes(rings), 1);
        let mut port = bus.port(0);
        let taken = std::iter::from_fn(|| port.take(Rank::Request)).count();
        assert_eq!(taken, 5);
    }

    #[tokio::test]
    async fn publications_of_a_batch_leave_the_shard_asleep_until_its_end() {
        let bus = Bus::new(1, 1, [8; RANKS], Box::new(|| {})).unwrap();
        let feed = feed_over(bus.clone(), Decoder::new("", &PublicationDataMode::default()));
        let Destination { link, options } = &feed.destination;
        let namespaces = options.get().namespaces.clone();
        let (shard, channel) = (bus.consumer(0), Arc::from("c"));
        let data = b"1".as_slice().into();
        let draft = Draft { data, is_json: true, ..Draft::default() };
        let options = namespaces.of(&channel).unwrap();
        for _ in 0..2 {
            assert!(post(link, &channel, options, &draft, Wake::WithBatch).await.is_ok());
        }
        assert_eq!(shard.take_news(), 0);
        link.wake_batch();
        assert_eq!(shard.take_news(), 1);
        link.wake_batch();
        assert_eq!(shard.take_news(), 0, "nothing is owed");
        assert!(post(link, &channel, options, &draft, Wake::Now).await.is_ok());
        assert_eq!(shard.take_news(), 1, "other publishers wake it at once");
    }
}
