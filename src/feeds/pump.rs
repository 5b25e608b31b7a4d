//! The loop of a session: messages in, publications out, acknowledgements back.
//!
//! Owns the messages that the session delivered and has not settled. Never connects. The
//! invariants: a message is settled only after the node has answered for it, in the session that
//! delivered it. The number of messages is bounded by the broker, which sends at most `prefetch` of
//! them ahead. A message that waits delays only messages of its own channels; an API command runs
//! alone, in the order of arrival.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::decode::Work;
use super::feed::Feed;
use super::message::{Fault, Message, Refusal, Retry};
use super::order::{MessageNumber, Order};
use super::session::{Session, Verdict};

/// Messages and results that are taken between two flushes.
const BATCH: usize = 256;
/// Maximum time to finish messages at the shutdown.
const LAST_MESSAGES: Duration = Duration::from_secs(2);

/// How the loop of a session ended.
pub enum End {
    /// The feed was stopped.
    Stopped,
    /// The session ended. The broker delivers again what was not settled.
    Lost {
        /// Why.
        fault: Fault,
        /// Whether the session settled a message.
        has_settled: bool,
    },
}

/// A message that is not settled.
struct Entry<O> {
    origin: O,
    message: Message,
    work: Option<Arc<Work>>,
    /// Attempts that the node refused.
    refusals: u16,
    /// Whether the message has its place in the order of its channels.
    in_order: bool,
}

/// A step of a message that has ended.
enum Step {
    Tried(MessageNumber, Result<(), Refusal>),
    SetAside(MessageNumber, Verdict),
}

struct Pump<O> {
    feed: Arc<Feed>,
    entries: HashMap<MessageNumber, Entry<O>>,
    next_number: MessageNumber,
    order: Order,
    /// Messages with a place in the order, and commands that run.
    active: usize,
    /// Whether a command runs.
    is_exclusive: bool,
    /// A command that waits for the messages before it, and the messages after it.
    backlog: VecDeque<MessageNumber>,
    steps: FuturesUnordered<Pin<Box<dyn Future<Output = Step> + Send>>>,
    has_settled: bool,
}

/// Handles the messages of a session until it ends, or until `stop` changes.
pub async fn pump<S: Session>(
    feed: &Arc<Feed>,
    session: &mut S,
    stop: &mut watch::Receiver<()>,
) -> End {
    let mut pump = Pump::new(feed.clone());
    let end = loop {
        let received = tokio::select! {
            biased;
            Some(step) = pump.steps.next() => {
                pump.finish(session, step);
                Ok(())
            }
            received = session.next() => {
                received.map(|(origin, message)| pump.receive(session, origin, message))
            }
            _ = stop.changed() => break End::Stopped,
            // Nothing is ready.
            () = wake_shards(feed) => Ok(()),
        };
        let taken = match received {
            Ok(()) => pump.take_ready(session),
            Err(fault) => Err(fault),
        };
        feed.destination.link.wake_batch();
        feed.state.counters.in_flight.set(pump.entries.len() as u64);
        match taken.and_then(|taken| session.flush().map(|()| taken)) {
            Ok(taken) if taken == BATCH => tokio::task::yield_now().await,
            Ok(_) => {}
            Err(fault) => break End::Lost { fault, has_settled: pump.has_settled },
        }
    };
    if matches!(end, End::Stopped) {
        pump.finish_all(session).await;
    }
    feed.state.counters.in_flight.set(0);
    end
}

/// Wakes the shards that got publications, whenever the caller is about to wait. It never ends.
async fn wake_shards(feed: &Feed) {
    poll_fn(|_| {
        feed.destination.link.wake_batch();
        Poll::<()>::Pending
    })
    .await;
}

impl<O: Send> Pump<O> {
    fn new(feed: Arc<Feed>) -> Self {
        Pump {
            feed,
            entries: HashMap::new(),
            next_number: 0,
            order: Order::default(),
            active: 0,
            is_exclusive: false,
            backlog: VecDeque::new(),
            steps: FuturesUnordered::new(),
            has_settled: false,
        }
    }

    /// Takes what is ready without waiting. Returns the number of messages and results.
    fn take_ready<S: Session<Origin = O>>(&mut self, session: &mut S) -> Result<usize, Fault> {
        for taken in 0..BATCH {
            if let Some(Some(step)) = self.steps.next().now_or_never() {
                self.finish(session, step);
                continue;
            }
            let Some(received) = session.next().now_or_never() else { return Ok(taken) };
            let (origin, message) = received?;
            self.receive(session, origin, message);
        }
        Ok(BATCH)
    }

    fn receive<S: Session<Origin = O>>(&mut self, session: &S, origin: O, message: Message) {
        let number = self.next_number;
        self.next_number += 1;
        self.feed.state.counters.received.add(1);
        let Feed { options, destination, .. } = &*self.feed;
        let read = options.decoder.read(&message, &*destination.options.get().commands);
        let (work, refused) = match read {
            Ok(work) => (Some(Arc::new(work)), None),
            Err(refusal) => (None, Some(refusal)),
        };
        let entry = Entry { origin, message, work, refusals: 0, in_order: false };
        self.entries.insert(number, entry);
        match refused {
            None => {
                self.backlog.push_back(number);
                self.launch_backlog();
            }
            Some(refusal) => self.refuse(session, number, &refusal),
        }
    }

    /// Launches messages in the order of arrival, until a command has to wait.
    fn launch_backlog(&mut self) {
        while let Some(number) = self.backlog.front().copied() {
            let Some(work) = self.entries.get(&number).and_then(|entry| entry.work.clone()) else {
                self.backlog.pop_front();
                continue;
            };
            let is_command = matches!(*work, Work::Command { .. });
            if self.is_exclusive || (is_command && self.active > 0) {
                return;
            }
            self.backlog.pop_front();
            self.active += 1;
            self.is_exclusive = is_command;
            if let Some(entry) = self.entries.get_mut(&number) {
                entry.in_order = true;
            }
            let may_start = match &*work {
                Work::Publish { channels, .. } => self.order.enter(number, channels),
                Work::Command { .. } => true,
            };
            if may_start {
                self.attempt(number, work, None);
            }
        }
    }

    /// Begins an attempt, after a pause if there is one.
    fn attempt(&mut self, number: MessageNumber, work: Arc<Work>, pause: Option<Duration>) {
        let feed = self.feed.clone();
        self.steps.push(Box::pin(async move {
            if let Some(pause) = pause {
                sleep(pause).await;
            }
            Step::Tried(number, feed.carry_out(&work).await)
        }));
    }

    fn finish<S: Session<Origin = O>>(&mut self, session: &mut S, step: Step) {
        match step {
            Step::Tried(number, result) => {
                self.leave_order(number);
                match result {
                    Ok(()) => self.settle(session, number, Verdict::Acknowledge),
                    Err(refusal) => self.refuse(session, number, &refusal),
                }
                self.launch_backlog();
            }
            Step::SetAside(number, verdict) => {
                self.feed.state.counters.set_aside.add(1);
                self.settle(session, number, verdict);
            }
        }
    }

    /// Gives the places of a message to the messages behind it. Later attempts have no order.
    fn leave_order(&mut self, number: MessageNumber) {
        let Some(entry) = self.entries.get_mut(&number).filter(|entry| entry.in_order) else {
            return;
        };
        entry.in_order = false;
        self.active -= 1;
        let mut ready = Vec::new();
        match entry.work.as_deref() {
            Some(Work::Publish { channels, .. }) => {
                self.order.leave(number, channels, &mut ready);
            }
            _ => self.is_exclusive = false,
        }
        for next in ready {
            if let Some(work) = self.entries.get(&next).and_then(|entry| entry.work.clone()) {
                self.attempt(next, work, None);
            }
        }
    }

    fn settle<S: Session<Origin = O>>(
        &mut self,
        session: &mut S,
        number: MessageNumber,
        verdict: Verdict,
    ) {
        if let Some(entry) = self.entries.remove(&number) {
            session.settle(&entry.origin, verdict);
            self.feed.state.counters.processed.add(1);
            self.has_settled = true;
        }
    }

    /// Repeats the attempt later, or sets the message aside.
    fn refuse<S: Session<Origin = O>>(
        &mut self,
        session: &S,
        number: MessageNumber,
        refusal: &Refusal,
    ) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let Feed { state, options, .. } = &*self.feed;
        state.counters.errors.add(1);
        entry.refusals = entry.refusals.saturating_add(1);
        if refusal.retry != Retry::Never
            && entry.refusals < options.attempts
            && let Some(work) = entry.work.clone()
        {
            state.counters.retried.add(1);
            let delay = options.delay;
            self.attempt(number, work, Some(delay));
            return;
        }
        let cause = &refusal.cause;
        state.log_message(format_args!("cannot publish {}: {cause}", entry.message.shown()));
        let set_aside = session.set_aside(&entry.origin, &entry.message, cause);
        self.steps.push(Box::pin(async move { Step::SetAside(number, set_aside.await) }));
    }

    /// Finishes the messages that the broker has sent, for a bounded time. What the broker has sent
    /// and the session does not settle counts as one more delivery of the message.
    async fn finish_all<S: Session<Origin = O>>(&mut self, session: &mut S) {
        let end = Instant::now() + LAST_MESSAGES;
        let feed = self.feed.clone();
        session.stop_receiving();
        let mut is_receiving = true;
        while is_receiving || self.active > 0 {
            tokio::select! {
                biased;
                Some(step) = self.steps.next() => self.finish(session, step),
                received = session.next(), if is_receiving => match received {
                    Ok((origin, message)) => self.receive(session, origin, message),
                    Err(_) => is_receiving = false,
                },
                () = sleep_until(end) => break,
                () = wake_shards(&feed) => {}
            }
        }
        // A broker that is gone delivers the messages again.
        let _ = session.flush();
    }
}
