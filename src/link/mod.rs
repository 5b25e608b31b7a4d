//! The control plane's hold on the bus: questions to shards, and their answers.
//!
//! Owns the table of who waits for which answer. Never blocks a thread: without room a task
//! waits. The invariant: whoever asks has first kept room in the control plane's own inbox, so an
//! answer always fits; an answer that nobody waits for any more is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::base::log;
use crate::base::memory::Budgets;
use crate::base::metrics::Metrics;
use crate::engine::bus::{Bus, BusPort};
use crate::model::message::{
    ChannelAnswer, ChannelQuery, Endpoint, HandOver, HomeQuery, HookEvent, LookupRequest, Message,
    Post, Publish, Published, Rank, ReplyTo, Survey, Surveyed,
};
use crate::model::names::Names;
use crate::wire::protocol::Error;

/// How long one waits for room on the bus.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);
/// How long one waits for an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Messages taken before other tasks get their turn.
const BATCH: usize = 512;

/// Why there is no answer: the node is too busy, or going down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkBusy;

enum LinkAnswer {
    Published(Box<Published>),
    Surveyed(Box<Surveyed>),
    ChannelAnswer(Result<ChannelAnswer, Error>),
}

/// A question that was asked.
pub struct Pending {
    answer: oneshot::Receiver<LinkAnswer>,
}

/// The control plane's end of the bus.
pub struct Link {
    bus: Arc<Bus>,
    names: Names,
    metrics: Arc<[Arc<Metrics>]>,
    budgets: Budgets,
    /// What the bus rings.
    bell: Arc<Notify>,
    /// Told whenever there may be room again.
    room: Notify,
    waiting: Mutex<HashMap<u64, oneshot::Sender<LinkAnswer>>>,
    next_tag: AtomicU64,
}

impl Link {
    /// The control plane's end of `bus`, whose bell for it calls `bell.notify_one()`.
    pub fn new(
        bus: Arc<Bus>,
        names: Names,
        metrics: Arc<[Arc<Metrics>]>,
        budgets: Budgets,
        bell: Arc<Notify>,
    ) -> Self {
        Link {
            bus,
            names,
            metrics,
            budgets,
            bell,
            room: Notify::new(),
            waiting: Mutex::default(),
            next_tag: AtomicU64::new(1),
        }
    }

    /// The counters of each shard.
    pub fn metrics(&self) -> &Arc<[Arc<Metrics>]> {
        &self.metrics
    }

    /// How much memory the node may use, and how much it does.
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// How names are hashed.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Every shard.
    pub fn shards(&self) -> std::ops::Range<Endpoint> {
        0..self.bus.control()
    }

    /// The sum of a gauge or total over all shards.
    pub fn sum(&self, of: impl Fn(&Metrics) -> u64) -> u64 {
        self.metrics.iter().map(|metrics| of(metrics)).sum()
    }

    /// The shard that holds the fewest sockets.
    pub fn least_loaded_shard(&self) -> Endpoint {
        let sockets = |shard: &Endpoint| self.metrics[usize::from(*shard)].sockets.get();
        self.shards().min_by_key(sockets).unwrap_or(0)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<LinkAnswer>>> {
        // A panic elsewhere leaves the table whole: it is only ever inserted into or removed from.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- asking --------------------------------------------------------------------------

    /// Sends a publication to its channel's home; the answer may be waited for later.
    pub async fn publish(
        &self,
        channel: &str,
        request: impl FnOnce(ReplyTo, u64) -> Publish,
    ) -> Result<Pending, LinkBusy> {
        let hash = self.names.hash(channel);
        let message = |tag| Message::Publish(Box::new(request(ReplyTo::Control(tag), hash)));
        self.ask(self.names.home(hash), Rank::Request, message).await
    }

    /// Asks a channel's home about it.
    pub async fn ask_home(
        &self,
        channel: &Arc<str>,
        query: ChannelQuery,
    ) -> Result<Pending, LinkBusy> {
        let hash = self.names.hash(channel);
        let channel = channel.clone();
        let message = |tag| {
            let reply_to = ReplyTo::Control(tag);
            Message::HomeQuery(Box::new(HomeQuery { channel, hash, reply_to, about: query }))
        };
        self.ask(self.names.home(hash), Rank::Request, message).await
    }

    /// Asks a shard what it holds.
    pub async fn survey_shard(
        &self,
        shard: Endpoint,
        pattern: Option<String>,
    ) -> Result<Pending, LinkBusy> {
        let message = |tag| Message::Survey(Box::new(Survey { tag, pattern }));
        self.ask(shard, Rank::Ingress, message).await
    }

    async fn ask(
        &self,
        to: Endpoint,
        rank: Rank,
        message: impl FnOnce(u64) -> Message,
    ) -> Result<Pending, LinkBusy> {
        let mut line = self.wait_for_room(to, rank, true).await?;
        let tag = self.next_tag.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(tag, sender);
        line.send(to, message(tag));
        line.wake_receivers();
        Ok(Pending { answer })
    }

    /// Sends what nobody answers; gives it back where there is no room.
    pub async fn send(&self, to: Endpoint, message: Message) -> Result<(), Message> {
        match self.wait_for_room(to, message.rank(), false).await {
            Ok(mut line) => {
                line.send(to, message);
                line.wake_receivers();
                Ok(())
            }
            Err(LinkBusy) => Err(message),
        }
    }

    /// Sends what nobody answers, however long it takes until there is room: a connection waits
    /// for it and reads nothing meanwhile.
    pub async fn send_persistently(&self, to: Endpoint, message: Message) {
        let mut left = self.send(to, message).await;
        while let Err(message) = left {
            left = self.send(to, message).await;
        }
    }

    async fn wait_for_room(
        &self,
        to: Endpoint,
        rank: Rank,
        answered: bool,
    ) -> Result<BusPort, LinkBusy> {
        let attempts = async {
            loop {
                // Listens before it looks, so that room made in between is not missed.
                let room = self.room.notified();
                if let Some(line) = self.try_room(to, rank, answered) {
                    return line;
                }
                room.await;
            }
        };
        timeout(ROOM_PATIENCE, attempts).await.map_err(|_| LinkBusy)
    }

    /// Keeps room for a message, and for its answer where there is one.
    fn try_room(&self, to: Endpoint, rank: Rank, answered: bool) -> Option<BusPort> {
        let own = self.bus.control();
        let mut line = self.bus.port(own);
        if answered && !line.reserve(own, Rank::Delivery) {
            return None;
        }
        if line.reserve(to, rank) {
            return Some(line);
        }
        if answered {
            line.cancel(own, Rank::Delivery);
        }
        line.wake_receivers();
        None
    }

    // ---- being told ----------------------------------------------------------------------

    /// Takes what comes in, for as long as the process runs. Sockets go to `hand_over`, what
    /// is to be found out to `consult`, and news for the backend to `tell`.
    pub async fn dispatch(
        &self,
        mut hand_over: impl FnMut(HandOver),
        mut consult: impl FnMut(LookupRequest),
        mut tell: impl FnMut(HookEvent),
    ) {
        let mut line = self.bus.port(self.bus.control());
        let watch = self.bus.consumer(self.bus.control());
        loop {
            watch.take_news();
            let mut taken = 0;
            for rank in Rank::SERVED {
                while taken < BATCH
                    && let Some(message) = line.take(rank)
                {
                    taken += 1;
                    match message {
                        Message::HandOver(socket) => hand_over(*socket),
                        Message::LookupRequest(about) => consult(*about),
                        Message::HookEvent(news) => tell(*news),
                        message => self.handle(message),
                    }
                }
            }
            line.wake_receivers();
            let asleep = taken < BATCH && watch.prepare_to_sleep();
            // Said to be asleep, the bell rings for room too; only now is it safe to let those
            // who wait for some look again and wait on.
            self.room.notify_waiters();
            if asleep {
                self.bell.notified().await;
                watch.wake_up();
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    fn handle(&self, message: Message) {
        match message {
            Message::Published(published) => match published.reply_to {
                ReplyTo::Control(tag) => self.answer(tag, LinkAnswer::Published(published)),
                _ => misrouted(),
            },
            Message::HomeAnswer(told) => match told.reply_to {
                ReplyTo::Control(tag) => self.answer(tag, LinkAnswer::ChannelAnswer(told.told)),
                _ => misrouted(),
            },
            Message::Surveyed(surveyed) => {
                self.answer(surveyed.tag, LinkAnswer::Surveyed(surveyed))
            }
            _ => misrouted(),
        }
    }

    fn answer(&self, tag: u64, answer: LinkAnswer) {
        if let Some(waiting) = self.waiting().remove(&tag) {
            // Whoever asked may have given up.
            let _ = waiting.send(answer);
        }
    }
}

/// A message came here that only shards take: it is dropped, and its sender gets no answer.
fn misrouted() {
    log::error("control", "a message between shards came to the control plane and was dropped");
}

impl Pending {
    async fn answer(self) -> Result<LinkAnswer, LinkBusy> {
        match timeout(ANSWER_PATIENCE, self.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(LinkBusy),
        }
    }

    /// What a home said to a publication.
    pub async fn published(self) -> Result<Published, LinkBusy> {
        match self.answer().await? {
            LinkAnswer::Published(published) => Ok(*published),
            LinkAnswer::Surveyed(_) | LinkAnswer::ChannelAnswer(_) => Err(LinkBusy),
        }
    }

    /// What a shard said to a survey.
    pub async fn surveyed(self) -> Result<Surveyed, LinkBusy> {
        match self.answer().await? {
            LinkAnswer::Surveyed(surveyed) => Ok(*surveyed),
            LinkAnswer::Published(_) | LinkAnswer::ChannelAnswer(_) => Err(LinkBusy),
        }
    }

    /// What a home said to a question.
    pub async fn channel_answer(self) -> Result<Result<ChannelAnswer, Error>, LinkBusy> {
        match self.answer().await? {
            LinkAnswer::ChannelAnswer(told) => Ok(told),
            LinkAnswer::Published(_) | LinkAnswer::Surveyed(_) => Err(LinkBusy),
        }
    }
}
