//! The fields of a shard, and the methods that every other file of the hub builds on: the work
//! budget of the turn, and whether the shard accepts publications.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::connection_limits::ConnectionLimits;
use crate::base::memory::{MemoryBudgets, MemoryKind, ShardUsage};
use crate::base::metrics::{FrameType, Metrics};
use crate::base::sys::Now;
use crate::base::vitals::Vitals;
use crate::base::work_budget::{Stage, WorkBudget};
use crate::home::durable::stored::Times;
use crate::home::{self, Home};
use crate::hub::bounded_walks::{SlotWalk, StaleMember, SurveyWalk};
use crate::hub::connections::{Connection, Connections, NONE};
use crate::hub::deadline_share::deadlines_of_pass;
use crate::hub::orders_in_progress::OrdersInProgress;
use crate::hub::ping_plans::PingPlans;
use crate::hub::polled_channels::PolledChannels;
use crate::hub::settings::{HubSettings, NextSettings};
use crate::hub::turn_output::{OutboxFlush, TurnOutput};
use crate::hub::turn_tally::TurnTally;
use crate::local::{self, Delivery, LocalChannels};
use crate::model::ids::{Address, Ids};
use crate::model::message::{Depart, Endpoint, Leave, Message};
use crate::model::names::Names;
use crate::model::revocation::Revocations;
use crate::model::snapshot::RestoredHome;
use crate::wire::deflate::Inflater;
use crate::wire::filter::Filters;

/// Work units of the shards of a worker per pass, without fan-out.
pub const WORK: usize = 1_000_000;

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
    pub(super) settings: Arc<HubSettings>,
    /// Where the control plane puts the next settings.
    pub(super) next_settings: Arc<NextSettings>,
    pub(super) names: Names,
    pub(super) shard: Endpoint,
    pub(super) control: Endpoint,
    pub(super) ids: Ids,
    /// Id of the node.
    pub(super) node: Box<str>,
    pub(super) connection_limits: Arc<ConnectionLimits>,
    /// How much memory the node may use.
    pub(super) budgets: MemoryBudgets,
    pub(super) vitals: Arc<Vitals>,
    /// Whether newcomers are refused, because the node shuts down.
    pub(super) draining: bool,
    /// Number of connections whose only answer is 503.
    pub(super) refusals: usize,
    pub(super) metrics: Arc<Metrics>,
    /// What is counted at the end of the pass.
    pub(super) tally: TurnTally,
    /// The time of this turn in microseconds.
    pub(super) micros: u64,
    /// Type and beginning of the command that is being answered.
    pub(super) answering: (FrameType, u32),
    /// The time of this turn, in milliseconds of the monotonic clock.
    pub(super) now: u64,
    /// The time of this turn by the wall clock: unix time in milliseconds.
    pub(super) unix: u64,
    /// Lead of the wall clock over the monotonic clock when token expirations were last turned into
    /// deadlines; `None` before the first turn.
    pub(super) clock_lead: Option<i64>,
    /// The walk that recomputes these deadlines.
    pub(super) expiry_walk: SlotWalk,
    pub(super) connections: Connections,
    /// When connections get pings.
    pub(super) ping_plans: PingPlans,
    /// Leaves of channels that their homes have not got yet.
    pub(super) leaves: VecDeque<Leave>,
    /// Connections whose new information their homes have not got yet.
    pub(super) stale_members: VecDeque<StaleMember>,
    /// Revoked tokens.
    pub(super) revocations: Arc<Revocations>,
    pub(super) revoked_walk: SlotWalk,
    /// Hook events and renewal requests that wait for room in the inbox of the control plane.
    pub(super) outgoing: VecDeque<Message>,
    pub(super) locals: LocalChannels,
    pub(super) filters: Filters,
    /// Memory use of publications that wait to be sent.
    pub(super) backlog: ShardUsage,
    pub(super) inflater: Inflater,
    /// The home of the channels and users that hash to this shard.
    pub(super) home: Home,
    /// Ended connections that the homes of their users have not got yet.
    pub(super) departures: VecDeque<Depart>,
    pub(super) turn: TurnOutput,
    /// Number of turns with a large share.
    pub(super) turns: u64,
    /// Channels that this shard was polled for.
    pub(super) polled: PolledChannels,
    /// Surveys in progress.
    pub(super) surveys: VecDeque<SurveyWalk>,
    /// Orders that are not answered yet.
    pub(super) orders: OrdersInProgress,
    /// Work budget of this turn.
    pub(super) budget: WorkBudget,
    /// Deadlines that this turn may handle if none is late, and those that it handled.
    pub(super) deadline_share: usize,
    pub(super) deadlines_done: usize,
    /// Whether work was left for the next turn because the budget was used up.
    pub(super) unfinished: bool,
    /// Whether leaves, departures or messages to the backend were queued since
    /// [`Hub::send_waiting`]. A slow consumer can be closed behind that part of the turn, without
    /// an event to follow.
    pub(super) queued_since_send: bool,
    /// Connections whose input continues in the next turn.
    pub(super) ready: VecDeque<u32>,
    /// Connections whose TLS handshake has a record to handle.
    pub(super) handshakes: VecDeque<u32>,
    /// Connections that wait for room on the bus.
    pub(super) blocked: Vec<u32>,
    /// Whether work waits because the backlog of this shard exceeds its bound. No other shard wakes
    /// this one for it.
    pub(super) awaits_backlog: bool,
    /// Work that the first message of this shard to itself needs, if it waits for budget.
    pub(super) own_cost: Option<usize>,
    /// Slots whose outboxes can be sent from as soon as the budget allows.
    pub(super) to_flush: VecDeque<u32>,
    /// Sends from outboxes in this turn.
    pub(super) flushes: Vec<OutboxFlush>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) due: Vec<u32>,
    pub(super) checks: Vec<(u32, u32)>,
    pub(super) body: Vec<u8>,
    pub(super) frames: Vec<u8>,
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
    /// Secret seed of the epochs of all homes of the node.
    pub seed: u64,
    /// Endpoint of the store; `None`: there is none.
    pub store: Option<Endpoint>,
    /// Where the control plane puts the next settings of this shard.
    pub next_settings: Arc<NextSettings>,
    /// The life of the node.
    pub vitals: Arc<Vitals>,
}

impl ShardContext {
    /// What the home of the shard needs.
    fn of_home(&self, metrics: &Arc<Metrics>) -> home::HomeContext {
        let share = |kind| self.budgets.shard_usage(kind, usize::from(self.shard));
        home::HomeContext {
            control: self.control,
            names: self.names,
            ids: self.ids,
            seed: self.seed,
            history: share(MemoryKind::History),
            keys: share(MemoryKind::Keys),
            store: self.store,
            shard: self.shard,
            stored: share(MemoryKind::Stored),
            metrics: metrics.clone(),
        }
    }
}

impl Hub {
    /// Creates a shard without connections.
    pub fn new(settings: Arc<HubSettings>, context: &ShardContext, metrics: Arc<Metrics>) -> Self {
        let share = |kind| context.budgets.shard_usage(kind, usize::from(context.shard));
        let home_context = context.of_home(&metrics);
        Hub {
            names: context.names,
            shard: context.shard,
            control: context.control,
            ids: context.ids,
            node: context.ids.node().into(),
            connection_limits: context.connection_limits.clone(),
            budgets: context.budgets.clone(),
            vitals: context.vitals.clone(),
            draining: false,
            refusals: 0,
            metrics,
            tally: TurnTally::default(),
            micros: 0,
            answering: (FrameType::Unknown, 0),
            now: 0,
            unix: 0,
            clock_lead: None,
            expiry_walk: SlotWalk::default(),
            connections: Connections::new(
                settings.slots,
                context.names,
                share(MemoryKind::Unread),
                share(MemoryKind::Outboxes),
            )
            .with_command_limit(settings.command_limit, settings.slots),
            ping_plans: PingPlans::new(settings.ping_times()),
            leaves: VecDeque::new(),
            stale_members: VecDeque::new(),
            revocations: settings.revocations.clone(),
            revoked_walk: SlotWalk::default(),
            outgoing: VecDeque::new(),
            locals: LocalChannels::new(settings.compression, settings.uni_compression),
            filters: Filters::new(context.budgets[MemoryKind::Filters].clone()),
            backlog: share(MemoryKind::Backlog),
            inflater: Inflater::default(),
            home: Home::new(settings.homes.clone(), settings.user_limit, home_context),
            departures: VecDeque::new(),
            turn: TurnOutput::default(),
            turns: 0,
            polled: PolledChannels::default(),
            surveys: VecDeque::new(),
            orders: OrdersInProgress::default(),
            budget: WorkBudget::new(WORK, true),
            deadline_share: deadlines_of_pass(false),
            deadlines_done: 0,
            unfinished: false,
            queued_since_send: false,
            ready: VecDeque::new(),
            handshakes: VecDeque::new(),
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
            next_settings: context.next_settings.clone(),
        }
    }

    /// Gives the home what it had before a restart.
    pub fn restore(&mut self, home: RestoredHome, now: Now) {
        self.home.restore(home, Times { now: now.millis, unix: now.unix });
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

    /// Whether the shard accepts publications: backlog and turn output are within their bounds.
    pub fn takes_deliveries(&self) -> bool {
        self.locals.backlog() <= self.settings.backlog_bytes && !self.turn.is_full()
    }

    /// The connection of a slot, if it has this generation.
    pub fn connection(&mut self, slot: u32, generation: u32) -> Option<&mut Connection> {
        self.connections.get_current(slot, generation)
    }

    /// The address of a connection.
    pub(super) fn address(&self, slot: u32) -> Address {
        let generation = self.connections[slot].generation;
        Address { shard: self.shard, slot, generation }
    }

    /// The id of a client.
    pub(super) fn client_id(&self, slot: u32) -> String {
        self.ids.client(self.address(slot))
    }

    /// Number of free slots.
    pub fn room(&self) -> usize {
        self.settings.slots - self.connections.len()
    }
}

const _: () = assert!(NONE == local::NONE && NONE == crate::hub::turn_output::NONE);
