//! Publishers, probes, and clients that join and leave: tasks on a thread of their own that use an
//! independent WebSocket implementation.
//!
//! Owns schedules and their outcome. Never waits for an answer before the next message is due (open
//! loop). Invariant: a message carries its scheduled time as its stamp, so a late publisher adds to
//! the latency, and its lateness is reported too.

use std::net::SocketAddr;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::clock::RunClock;
use crate::dense::Channels;
use crate::latency::Recorder;
use crate::wire::{Data, Stamp};

mod churn;
mod http;
mod pace;
mod probe;
mod socket;
mod stream;
mod websocket;

pub use churn::Churn;
pub use probe::{ProbePlan, Probed, probe};
pub use stream::Feed;

/// A step through the channels that has no factor in common with any likely number of them: the
/// next message goes to another shard.
const STRIDE: u64 = 611_953;

/// How messages reach the server; each publisher has its own connection.
#[derive(Debug, Clone)]
pub enum Api {
    /// Drumline's `publish` commands.
    WebSocket,
    /// Requests on a kept-alive connection.
    Http(Post),
    /// A protocol of its own over TCP.
    Stream(&'static dyn Feed),
}

/// How a publication is posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// The path; `{}` in it stands for the channel.
    pub path: String,
    /// More header lines, each with its CRLF.
    pub headers: String,
    /// Whether the body is Drumline's JSON around channel and data, and not the bare payload.
    pub envelope: bool,
}

impl Post {
    /// To Drumline, with this key of its API.
    pub fn drumline(key: &str) -> Self {
        let headers = format!("X-API-Key: {key}\r\nContent-Type: application/json\r\n");
        Post { path: "/api/publish".to_owned(), headers, envelope: true }
    }

    /// The bare payload to a path that names the channel.
    pub fn bare(path: &str) -> Self {
        Post { path: path.to_owned(), headers: String::new(), envelope: false }
    }
}

/// The messages of a load: content, schedule, channels and server.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub server: SocketAddr,
    /// How messages reach the server.
    pub api: Api,
    /// Connections that publish.
    pub publishers: u64,
    /// Channels by number.
    pub channels: Channels,
    /// How many channels there are.
    pub channel_count: u64,
    /// Phase that the messages belong to.
    pub phase: u16,
    /// Data of each message.
    pub data: Data,
    /// The first message is due so long after the start of the run, in ns.
    pub first_ns: u64,
    /// Time between two messages, in ns.
    pub interval_ns: u64,
    /// Total number of messages.
    pub messages: u64,
    /// Publications that go out together, all due with the first: in one frame, or as requests
    /// that do not wait for each other's answers.
    pub per_frame: u64,
}

/// One message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) channel: String,
    pub(crate) stamp: Stamp,
}

impl Load {
    /// The number of the channel that message `index` goes to.
    fn channel(&self, index: u64) -> u64 {
        let step = if gcd(STRIDE, self.channel_count) == 1 { STRIDE } else { 1 };
        (u128::from(index) * u128::from(step) % u128::from(self.channel_count)) as u64
    }

    /// Whether `publisher` sends message `index`: over HTTP they take turns, otherwise a channel
    /// stays with one publisher, which keeps its order.
    fn is_of(&self, index: u64, publisher: u64) -> bool {
        match self.api {
            Api::Http(_) => index % self.publishers == publisher,
            Api::WebSocket | Api::Stream(_) => self.channel(index) % self.publishers == publisher,
        }
    }

    /// Message `index`.
    pub(crate) fn message(&self, index: u64) -> Message {
        let due_ns = self.first_ns + index / self.per_frame * self.per_frame * self.interval_ns;
        let sequence = (index / self.channel_count + 1) as u32;
        Message {
            channel: self.channels.nth(self.channel(index)),
            stamp: Stamp { due_ns, phase: self.phase, sequence },
        }
    }

    /// The messages of `publisher`, in the order of its schedule.
    pub(crate) fn of(&self, publisher: u64) -> impl Iterator<Item = Message> + '_ {
        // Whose turn comes so regularly need not be asked about the turns of others.
        let (first, step) = match self.api {
            Api::Http(_) => (publisher, self.publishers as usize),
            Api::WebSocket | Api::Stream(_) => (0, 1),
        };
        (first..self.messages)
            .step_by(step)
            .filter(move |index| self.is_of(*index, publisher))
            .map(|index| self.message(index))
    }

    /// Deliveries that the messages cause among `connections` connections, each on its channel.
    pub fn expected(&self, connections: u64) -> u64 {
        let subscribers = |channel: u64| match self.channels {
            Channels::Shared(_) => connections,
            Channels::Distinct => u64::from(channel < connections),
            Channels::Rooms(rooms) => connections.saturating_sub(channel).div_ceil(rooms),
        };
        (0..self.messages).map(|index| subscribers(self.channel(index))).sum()
    }

    /// Starts the publishers on a thread of their own.
    pub fn start(self, clock: RunClock) -> Result<Running<Published>> {
        spawn("publishers", move || async move {
            let first_ns = self.first_ns;
            let mut published = match self.api {
                Api::WebSocket => each(self, clock, websocket::one).await,
                Api::Http(_) => each(self, clock, http::one).await,
                Api::Stream(_) => each(self, clock, stream::one).await,
            }?;
            published.took = Duration::from_nanos(clock.now_ns().saturating_sub(first_ns));
            Ok(published)
        })
    }
}

/// Runs all publishers of a load at the same time, each by `one`, and adds up their outcome.
async fn each<F: Future<Output = Result<Published>> + 'static>(
    load: Load,
    clock: RunClock,
    one: impl Fn(Rc<Load>, u64, RunClock) -> F,
) -> Result<Published> {
    let load = Rc::new(load);
    let tasks: Vec<_> = (0..load.publishers)
        .map(|publisher| monoio::spawn(one(load.clone(), publisher, clock)))
        .collect();
    let mut sum = Published::new(&clock)?;
    for task in tasks {
        sum.merge(task.await?)?;
    }
    Ok(sum)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The outcome of a load on the publishers' side.
#[derive(Debug, Clone)]
pub struct Published {
    /// Messages written to a socket.
    pub sent: u64,
    /// Of them, those that the server confirmed.
    pub confirmed: u64,
    /// The first refusal, if any.
    pub refusal: Option<String>,
    /// From the first scheduled message until all publishers were done.
    pub took: Duration,
    /// Actual minus scheduled time of sending.
    pub lateness: Recorder,
}

impl Published {
    fn new(clock: &RunClock) -> Result<Self> {
        let lateness = Recorder::new(clock.started())?;
        Ok(Published { sent: 0, confirmed: 0, refusal: None, took: Duration::ZERO, lateness })
    }

    fn merge(&mut self, other: Published) -> Result<()> {
        self.sent += other.sent;
        self.confirmed += other.confirmed;
        self.refusal = self.refusal.take().or(other.refusal);
        self.lateness.merge(other.lateness)
    }

    /// Notes that a message that was due at `due_ns` goes out now.
    fn note(&mut self, clock: &RunClock, due_ns: u64) -> Result<()> {
        let now_ns = clock.now_ns();
        self.sent += 1;
        self.lateness.expect(1);
        self.lateness.record(now_ns, now_ns.saturating_sub(due_ns))
    }
}

/// Tasks running on a thread of their own.
pub struct Running<T> {
    handle: JoinHandle<Result<T>>,
}

impl<T> Running<T> {
    /// Waits for their end.
    pub fn join(self) -> Result<T> {
        self.handle.join().map_err(|_| anyhow!("the thread of publishers or probes panicked"))?
    }
}

/// Runs `tasks` on a monoio runtime of its own thread.
fn spawn<T: Send + 'static, F: Future<Output = Result<T>> + 'static>(
    name: &str,
    tasks: impl FnOnce() -> F + Send + 'static,
) -> Result<Running<T>> {
    let handle = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
                .enable_timer()
                .build()
                .context("cannot set up the publishers' ring")?;
            runtime.block_on(tasks())
        })
        .context("cannot start the publishers' thread")?;
    Ok(Running { handle })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(api: Api, channels: Channels, channel_count: u64) -> Load {
        Load {
            server: SocketAddr::from(([127, 0, 0, 1], 1)),
            api,
            publishers: 3,
            channels,
            channel_count,
            phase: 2,
            data: Data::Filled(128),
            first_ns: 1000,
            interval_ns: 10,
            messages: 100,
            per_frame: 1,
        }
    }

    #[test]
    fn every_message_has_one_publisher_and_every_channel_its_order() {
        for api in [Api::WebSocket, Api::Http(Post::drumline("k"))] {
            let load = load(api.clone(), Channels::Rooms(7), 7);
            let all: Vec<Message> = (0..3).flat_map(|p| load.of(p).collect::<Vec<_>>()).collect();
            assert_eq!(all.len(), 100);
            let mut of_room: Vec<Message> =
                all.into_iter().filter(|message| message.channel == "r3").collect();
            if matches!(api, Api::Http(_)) {
                of_room.sort_by_key(|message| message.stamp.due_ns);
            }
            let sequences: Vec<u32> = of_room.iter().map(|m| m.stamp.sequence).collect();
            assert_eq!(sequences, (1..=sequences.len() as u32).collect::<Vec<_>>());
            assert!(of_room.is_sorted_by_key(|message| message.stamp.due_ns));
        }
    }

    #[test]
    fn messages_of_a_frame_are_due_together() {
        let mut load = load(Api::WebSocket, Channels::Shared("all".into()), 1);
        load.per_frame = 10;
        assert_eq!(load.message(9).stamp.due_ns, 1000);
        assert_eq!(load.message(10).stamp.due_ns, 1100);
        assert_eq!(load.message(10).stamp.sequence, 11);
    }
}
