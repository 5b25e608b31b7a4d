//! The state of one shard: its connections, their channels, the channels at home here, and the
//! output of the turn.
//!
//! Owns everything a shard knows, as plain data. Never does I/O, reads a clock or blocks: the shard
//! passes bytes, messages, the time and a [`Post`], and takes lists of what the ring must do. The
//! invariants: a connection gets bytes in the order of their events; nothing is written to a
//! connection that takes no more output; whatever finds no room on the bus stays where it was.

mod admission;
mod http_answers;
mod backend;
mod calls;
mod commands;
pub mod connections;
mod deadlines;
mod frames;
mod holds;
pub mod resource_counts;
mod requests;
mod slots;
mod paused_input;
mod inbound;
mod token_expiry;
mod messages;
mod orders;
mod output;
mod position_checks;
mod home_queries;
mod refresh;
mod memory_pressure;
mod revocations;
mod sending;
mod session;
mod settings;
mod emulation;
mod event_ids;
pub mod turn_output;
mod lookups;
mod bounded_walks;
mod surveys;
mod subscribe;
mod subscribe_answers;
pub mod publish;
mod subscriptions;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::connection_limits::ConnectionLimits;
use crate::base::memory::{MemoryBudgets, MemoryKind, ShardUsage};
use crate::base::metrics::Metrics;
use crate::base::work_budget::{Stage, WorkBudget};
use crate::home::{self, Home};
use crate::hub::connections::{Connections, NONE};
use crate::hub::turn_output::{OutboxFlush, TurnOutput};
use crate::local;
use crate::local::{Delivery, LocalChannels};
use crate::model::ids::Ids;
use crate::model::message::{Depart, Endpoint, Leave, Message, Post};
use crate::model::names::Names;
use crate::model::revocation::Revocations;
use crate::wire::deflate::Inflater;
use crate::wire::filter::Filters;

use self::bounded_walks::{SlotWalk, SurveyWalk};
pub use self::settings::{HubSettings, TokenVerifiers};
pub use self::turn_output::Segments;

/// Work units of the shards of a worker per pass, without fan-out.
pub const WORK: usize = 1_000_000;
/// Maximum sends of the fan-out per turn: about a millisecond.
pub const FANOUT_SENDS: usize = 128;

/// Milliseconds that a refused connection has to send its request head and to take the answer.
const REFUSAL_TIME: u64 = 1000;

/// Operations that the hub requests of the ring; the shard empties each list.
#[derive(Debug, Default)]
pub struct RingRequests {
    /// Slots to shut down and close.
    pub ends: Vec<u32>,
    /// Slots to hand over to the control plane.
    pub hand_overs: Vec<u32>,
    /// Slots to poll for writability.
    pub writable: Vec<u32>,
    /// Slots to read, because their input was left unread.
    pub reads: Vec<u32>,
}

/// The state of one shard.
pub struct Hub {
    settings: Arc<HubSettings>,
    names: Names,
    shard: Endpoint,
    control: Endpoint,
    ids: Ids,
    /// Id of the node.
    node: Box<str>,
    connection_limits: Arc<ConnectionLimits>,
    /// How much memory the node may use.
    budgets: MemoryBudgets,
    metrics: Arc<Metrics>,
    /// The time of this turn, in milliseconds of the monotonic clock.
    now: u64,
    /// The time of this turn by the wall clock: unix time in milliseconds.
    unix: u64,
    /// Lead of the wall clock over the monotonic clock when token expirations were last turned into
    /// deadlines; `None` before the first turn.
    clock_lead: Option<i64>,
    /// The walk that recomputes these deadlines.
    expiry_walk: SlotWalk,
    connections: Connections,
    /// Leaves of channels that their homes have not got yet.
    leaves: VecDeque<Leave>,
    /// Revoked tokens.
    revocations: Arc<Revocations>,
    revoked_walk: SlotWalk,
    /// Hook events and renewal requests that wait for room in the inbox of the control plane.
    outgoing: VecDeque<Message>,
    locals: LocalChannels,
    filters: Filters,
    /// Memory use of publications that wait to be sent.
    backlog: ShardUsage,
    inflater: Inflater,
    /// The home of the channels and users that hash to this shard.
    home: Home,
    /// Ended connections that the homes of their users have not got yet.
    departures: VecDeque<Depart>,
    turn: TurnOutput,
    /// Number of turns with a large share.
    turns: u64,
    /// Surveys in progress.
    surveys: VecDeque<SurveyWalk>,
    /// Work budget of this turn.
    budget: WorkBudget,
    /// Whether work was left for the next turn because the budget was used up.
    unfinished: bool,
    /// Connections whose input continues in the next turn.
    ready: VecDeque<u32>,
    /// Connections that wait for room on the bus.
    blocked: Vec<u32>,
    /// Whether work waits because the backlog of this shard exceeds its bound. No other shard wakes
    /// this one for it.
    awaits_backlog: bool,
    /// Work that the first message of this shard to itself needs, if it waits for budget.
    own_cost: Option<usize>,
    /// Slots whose outboxes can be sent from as soon as the budget allows.
    to_flush: VecDeque<u32>,
    /// Sends from outboxes in this turn.
    flushes: Vec<OutboxFlush>,
    deliveries: Vec<Delivery>,
    due: Vec<u32>,
    checks: Vec<(u32, u32)>,
    body: Vec<u8>,
    frames: Vec<u8>,
    /// What the ring should do.
    pub ring_requests: RingRequests,
}

/// Identity of a hub, and what it shares with the node.
#[derive(Clone, Debug)]
pub struct ShardContext {
    /// Endpoint of the shard.
    pub shard: Endpoint,
    /// Endpoint of the control plane.
    pub control: Endpoint,
    /// Maps names to homes.
    pub names: Names,
    /// Makes the ids of clients.
    pub ids: Ids,
    /// Limits of clients and of sockets on the control plane.
    pub connection_limits: Arc<ConnectionLimits>,
    /// How much memory the node may use.
    pub budgets: MemoryBudgets,
    /// Seed of the epochs.
    pub seed: u64,
}

impl Hub {
    /// Creates a shard without connections.
    pub fn new(settings: Arc<HubSettings>, place: &ShardContext, metrics: Arc<Metrics>) -> Self {
        let share = |kind| place.budgets.shard_usage(kind, usize::from(place.shard));
        let around = home::HomeContext {
            control: place.control,
            names: place.names,
            ids: place.ids,
            seed: place.seed,
            history: share(MemoryKind::History),
            keys: share(MemoryKind::Keys),
            metrics: metrics.clone(),
        };
        Hub {
            names: place.names,
            shard: place.shard,
            control: place.control,
            ids: place.ids,
            node: place.ids.node().into(),
            connection_limits: place.connection_limits.clone(),
            budgets: place.budgets.clone(),
            metrics,
            now: 0,
            unix: 0,
            clock_lead: None,
            expiry_walk: SlotWalk::default(),
            connections: Connections::new(
                settings.slots,
                place.names,
                share(MemoryKind::Unread),
                share(MemoryKind::Outboxes),
            ),
            leaves: VecDeque::new(),
            revocations: Arc::default(),
            revoked_walk: SlotWalk::default(),
            outgoing: VecDeque::new(),
            locals: LocalChannels::new(settings.compression, settings.uni_compression),
            filters: Filters::new(place.budgets[MemoryKind::Filters].clone()),
            backlog: share(MemoryKind::Backlog),
            inflater: Inflater::default(),
            home: Home::new(settings.homes.clone(), settings.user_limit, around),
            departures: VecDeque::new(),
            turn: TurnOutput::default(),
            turns: 0,
            surveys: VecDeque::new(),
            budget: WorkBudget::new(WORK, true),
            unfinished: false,
            ready: VecDeque::new(),
            blocked: Vec::new(),
            awaits_backlog: false,
            own_cost: None,
            to_flush: VecDeque::new(),
            flushes: Vec::new(),
            deliveries: Vec::new(),
            due: Vec::new(),
            checks: Vec::new(),
            body: Vec::new(),
            frames: Vec::new(),
            ring_requests: RingRequests::default(),
            settings,
        }
    }

    /// Endpoint of the control plane.
    pub fn control(&self) -> Endpoint {
        self.control
    }

    /// Sets the work budget of this turn; see [`WorkBudget::new`].
    pub fn set_share(&mut self, units: usize, large: bool) {
        self.turns = self.turns.wrapping_add(u64::from(large));
        self.budget = WorkBudget::new(units, large).in_turn(self.turns);
        self.unfinished = false;
    }

    /// Work done in this turn.
    pub fn work_done(&self) -> usize {
        self.budget.used()
    }

    /// Begins a stage of the turn.
    pub fn begin(&mut self, stage: Stage) {
        self.budget.begin(stage);
    }

    /// Charges work to the budget.
    pub fn charge(&mut self, units: usize) {
        self.budget.charge(units);
    }

    /// Whether the budget of the stage is used up. The rest of its work is then left for the next
    /// turn.
    pub fn is_spent(&mut self) -> bool {
        let spent = self.budget.is_spent();
        self.unfinished |= spent;
        spent
    }

    /// Whether there is work that needs no event from outside.
    pub fn is_busy(&self) -> bool {
        self.unfinished
            || !self.ready.is_empty()
            || self.locals.has_unsent()
            || !self.to_flush.is_empty()
            || (self.awaits_backlog && self.takes_deliveries())
            || self.revoked_walk.goes_on()
            || self.expiry_walk.goes_on()
            || self.locals.has_out_of_sync()
            || self.must_relieve()
    }

    /// Whether the shard accepts publications: backlog and turn output are within their bounds.
    pub fn takes_deliveries(&self) -> bool {
        self.locals.backlog() <= self.settings.backlog_bytes && !self.turn.is_full()
    }

    /// Sends what waits for other endpoints, if anything does.
    #[inline]
    pub fn send_waiting(&mut self, post: &mut impl Post) {
        let asked = self.home.waits() || !self.surveys.is_empty();
        let left = self.locals.has_idle() || !self.leaves.is_empty() || !self.departures.is_empty();
        let checks = self.locals.position_checks.next_due().is_some_and(|due| due <= self.now);
        let tells = asked || left || checks || !self.outgoing.is_empty();
        if tells || self.budgets.may_be_exceeded() {
            self.send_all_waiting(post);
        }
    }

    /// Continues work of the home, releases channels, and sends what waits for the control plane,
    /// while inboxes have room.
    #[inline(never)]
    fn send_all_waiting(&mut self, post: &mut impl Post) {
        self.budget.begin(Stage::Answers);
        self.unfinished |= self.home.continue_work(post, &mut self.budget);
        self.continue_surveys(post);
        self.budget.begin(Stage::Rest);
        if self.locals.has_idle() || !self.leaves.is_empty() {
            self.release_channels(post);
        }
        self.send_departures(post);
        self.relieve(post);
        self.check_positions(post);
        self.send_to_control(post);
        self.serve_own(post);
    }
}

const _: () = assert!(NONE == local::NONE && NONE == crate::hub::turn_output::NONE);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::memory::MemoryLimits;
    use crate::base::sys::Now;
    use crate::model::auth::{ApiKey, Rules};
    use crate::model::message::Rank;
    use crate::model::own_queues::OwnQueues;
    use crate::wire::http::{Route, Service, Transport};

    /// A bus on which only the shard itself has room.
    pub(crate) struct LoneShardBus(OwnQueues);

    impl Default for LoneShardBus {
        fn default() -> Self {
            LoneShardBus(OwnQueues::new(8))
        }
    }

    impl Post for LoneShardBus {
        fn reserve(&mut self, to: Endpoint, rank: Rank) -> bool {
            to == 0 && self.0.reserve(rank)
        }

        fn wake(&mut self, _: Endpoint) {}

        fn cancel(&mut self, _: Endpoint, rank: Rank) {
            self.0.cancel(rank);
        }

        fn send(&mut self, _: Endpoint, message: Message) {
            self.0.send(message);
        }

        fn take_own(&mut self, rank: Rank) -> Option<Message> {
            self.0.take(rank)
        }

        fn put_back(&mut self, message: Message) {
            self.0.put_back(message);
        }

        fn was_full(&mut self) -> bool {
            self.0.was_full()
        }
    }

    pub(crate) fn hub(outbox_bytes: usize, outbox_budget: usize, backlog_bytes: usize) -> Hub {
        let limits = MemoryLimits::all(1 << 40).with(MemoryKind::Outboxes, outbox_budget);
        hub_of(outbox_bytes, backlog_bytes, &MemoryBudgets::new(&limits, 1), 0)
    }

    /// A shard of a node whose shards share budgets.
    pub(crate) fn hub_of(
        outbox_bytes: usize,
        backlog_bytes: usize,
        budgets: &MemoryBudgets,
        shard: Endpoint,
    ) -> Hub {
        let routes = [
            ("/w", Service::Transport(Transport::WebSocket)),
            ("/s", Service::Transport(Transport::HttpStream)),
            ("/e", Service::Emulation),
            ("/health", Service::Health),
        ]
        .map(|(path, service)| Route {
            path: path.into(),
            service,
            body_max: 1000,
            compresses: false,
        });
        let settings = HubSettings {
            rules: Rules { insecure: true, ..Rules::default() },
            api: ApiKey { key: "k".into(), insecure: false },
            routes: routes.into(),
            slots: 4,
            outbox_bytes,
            backlog_bytes,
            channel_limit: 8,
            head_timeout: 1000,
            stale_close_delay: 1000,
            ..HubSettings::default()
        };
        let names = Names::new([0; 16], 1);
        let ids = Ids::new([0; 16]);
        let connection_limits = Arc::default();
        let budgets = budgets.clone();
        let place =
            ShardContext { shard, control: 9, names, ids, connection_limits, budgets, seed: 0 };
        Hub::new(Arc::new(settings), &place, Arc::default())
    }

    /// A frame of a client whose mask is 0.
    pub(crate) fn say(hub: &mut Hub, slot: u32, text: &str) {
        say_on(&mut LoneShardBus::default(), hub, slot, text);
    }

    /// Like `say`, with a bus that outlasts the call.
    fn say_on(bus: &mut LoneShardBus, hub: &mut Hub, slot: u32, text: &str) {
        let mut frame = vec![0x81, 0xfe];
        frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        hub.receive(bus, slot, &mut frame);
    }

    /// A connected client that is subscribed to channel `c`.
    pub(crate) fn subscriber(hub: &mut Hub) -> u32 {
        let (slot, _) = hub.reserve().unwrap();
        hub.socket_opened(slot);
        let mut head = b"GET /w HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\n\r\n"
            .to_vec();
        hub.receive(&mut LoneShardBus::default(), slot, &mut head);
        let commands = r#"{"id":1,"connect":{}} {"id":2,"subscribe":{"channel":"c"}}"#;
        say(hub, slot, commands);
        slot
    }

    pub(crate) fn publish(hub: &mut Hub, slot: u32, bytes: usize) {
        let data = "x".repeat(bytes);
        say(hub, slot, &format!(r#"{{"id":3,"publish":{{"channel":"c","data":"{data}"}}}}"#));
    }

    /// Sends everything, except that the sockets in `short` take nothing.
    pub(crate) fn transmit(hub: &mut Hub, short: &[u32]) -> Vec<(u32, Vec<u8>)> {
        let mut sent = Vec::new();
        hub.set_share(WORK, true);
        hub.choose_flushes();
        hub.for_each_send(|_, slot, segments| {
            let bytes = match segments {
                Segments::Outbox(bytes) => bytes.to_vec(),
                Segments::Turn(pieces) => pieces.flatten().copied().collect(),
            };
            sent.push((slot, bytes));
        });
        for slot in short {
            hub.send_fell_short(*slot, hub.generation(*slot), Some(0));
        }
        hub.end_turn();
        sent
    }

    pub(crate) const ROOMY: usize = 1 << 20;

    #[test]
    fn a_frame_of_many_commands_runs_over_several_turns() {
        let mut hub = hub(ROOMY, ROOMY, ROOMY);
        let slot = subscriber(&mut hub);
        transmit(&mut hub, &[]);
        hub.resume_paused(&mut LoneShardBus::default());
        let start = hub.metrics.commands.get();
        assert_eq!(start, 2, "connect and subscribe");
        let commands = [r#"{"id":3,"unsubscribe":{"channel":"a"}}"#; 1000].join("\n");
        say(&mut hub, slot, &commands);
        let (mut done, mut turns) = (0, 0);
        while done < 1000 {
            let now = hub.metrics.commands.get() - start;
            assert!((1..=64).contains(&(now - done)), "{} commands in a turn", now - done);
            (done, turns) = (now, turns + 1);
            transmit(&mut hub, &[]);
            hub.resume_paused(&mut LoneShardBus::default());
        }
        assert_eq!((done, turns), (1000, 16));
    }

    #[test]
    fn work_that_waits_for_the_own_backlog_keeps_the_shard_busy() {
        let (mut hub, mut bus) = (hub(ROOMY, ROOMY, 0), LoneShardBus::default());
        let slot = subscriber(&mut hub);
        transmit(&mut hub, &[]);
        for data in ["first", "second"] {
            let publish = r#"{"id":3,"publish":{"channel":"c","data":"DATA"}}"#;
            say_on(&mut bus, &mut hub, slot, &publish.replace("DATA", data));
        }
        hub.fan_out();
        let sent = |sent: Vec<(u32, Vec<u8>)>| {
            let bytes: Vec<u8> = sent.into_iter().flat_map(|(_, bytes)| bytes).collect();
            let text = String::from_utf8_lossy(&bytes);
            (text.contains("first"), text.contains("second"))
        };
        assert_eq!(sent(transmit(&mut hub, &[])), (true, false));
        assert!(hub.is_busy(), "the second publication can go on now");
        hub.begin_turn(Now::default());
        hub.serve_own(&mut bus);
        hub.resume_paused(&mut bus);
        hub.fan_out();
        assert_eq!(sent(transmit(&mut hub, &[])), (false, true));
        assert!(!hub.is_busy());
    }
}
