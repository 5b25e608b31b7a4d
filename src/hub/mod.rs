//! The state of one shard: its connections, their channels, the channels at home here, and the
//! output of the turn.
//!
//! Owns everything a shard knows, as plain data. Never does I/O, reads a clock or blocks: the shard
//! passes bytes, messages, the time and a [`Post`], and takes lists of what the ring must do. The
//! invariants: a connection gets bytes in the order of their events; nothing is written to a
//! connection that takes no more output; whatever finds no room on the bus stays where it was.
//!
//! The files are listed from the ground up: a method calls methods of its own file and of files
//! before it.

mod ping_plans;
mod settings;
mod command_failure;
mod bounded_walks;
mod polled_channels;
mod orders_in_progress;
pub mod connections;
pub mod turn_output;
mod paused_input;
mod turn_tally;
mod shard_state;
mod tally;
mod lookups;
mod time;
mod hook_events;
mod access_log;
mod subscriptions;
mod presence_updates;
mod connection_end;
mod connect_refusals;
mod output;
mod sealing;
mod admission;
mod backend;
mod http_answers;
mod client_addresses;
mod slots;
mod drain;
pub mod publish;
mod event_ids;
mod owed;
mod subscription_end;
mod position_checks;
mod home_queries;
mod token_expiry;
mod revocations;
mod renewals;
mod deadline_share;
mod deadlines;
mod results;
mod subscribe_answers;
mod surveys;
mod watch;
mod subscribe;
mod orders;
mod memory_pressure;
mod emulation_commands;
mod reconfigure;
mod messages;
mod calls;
mod polls;
mod holds;
mod session;
mod refresh;
mod commands;
mod frames;
mod emulation;
mod requests;
mod unsealing;
mod proxy_headers;
mod inbound;
pub mod resource_counts;
mod sending;

use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::work_budget::Stage;
use crate::model::message::Post;

pub use self::connections::{COMMAND_RATE_MAX, CommandLimit};
pub use self::deadline_share::deadlines_of_pass;
pub use self::sending::FANOUT_SENDS;
pub use self::settings::{
    ConnectRefusalResponse, ConnectRefusalResponses, HubSettings, NextSettings, TokenVerifiers,
};
pub use self::shard_state::{Hub, RingRequests, ShardContext, WORK};
pub use self::token_expiry::CLOCK_STEP;
pub use self::turn_output::Segments;

impl Hub {
    /// Whether there is work that needs no event from outside.
    pub fn is_busy(&self) -> bool {
        self.unfinished
            || (self.queued_since_send && !planted(PlantedFault::LateEndForgotten))
            || !self.ready.is_empty()
            || !self.handshakes.is_empty()
            || self.locals.has_unsent()
            || !self.to_flush.is_empty()
            || (self.awaits_backlog && self.takes_deliveries())
            || self.revoked_walk.goes_on()
            || self.expiry_walk.goes_on()
            || self.locals.has_out_of_sync()
            || self.must_relieve()
            || self.orders.has_done()
    }

    /// Sends what waits for other endpoints, if anything does.
    #[inline]
    pub fn send_waiting(&mut self, post: &mut impl Post) {
        let queries = self.home.waits() || !self.surveys.is_empty();
        let left = self.locals.has_idle() || !self.leaves.is_empty() || !self.departures.is_empty();
        let left = left || self.queued_since_send || !self.stale_members.is_empty();
        let checks = self.locals.position_checks.next_due().is_some_and(|due| due <= self.now);
        let orders = self.orders.has_work();
        let waits = queries || left || checks || orders || !self.outgoing.is_empty();
        if waits || self.budgets.may_be_exceeded() {
            self.send_all_waiting(post);
        }
    }

    /// Continues work of the home, releases channels, and sends what waits for the control plane,
    /// while inboxes have room.
    #[inline(never)]
    fn send_all_waiting(&mut self, post: &mut impl Post) {
        self.budget.begin(Stage::Answers);
        if self.orders.has_queued() {
            // Large messages may have spent their stage before the publications that they cause.
            self.serve_own(post);
        }
        self.apply_orders(post);
        self.unfinished |= self.home.continue_work(post, &mut self.budget);
        self.continue_surveys(post);
        self.budget.begin(Stage::Rest);
        self.queued_since_send = false;
        if self.locals.has_idle() || !self.leaves.is_empty() {
            self.release_channels(post);
        }
        self.send_member_updates(post);
        self.send_departures(post);
        self.relieve(post);
        self.check_positions(post);
        self.send_to_control(post);
        self.serve_own(post);
        self.answer_orders(post);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::memory::{MemoryBudgets, MemoryKind, MemoryLimits};
    use crate::base::sys::Now;
    use crate::model::auth::{ApiKey, Rules};
    use crate::model::ids::Ids;
    use crate::model::message::{Endpoint, Message, Rank};
    use crate::model::names::Names;
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
            ("/u", Service::Transport(Transport::UniWebSocket)),
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
            api: ApiKey { key: "k".into(), ..ApiKey::default() },
            routes: routes.into(),
            slots: 128,
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
        let context = ShardContext {
            shard,
            control: 9,
            names,
            ids,
            connection_limits,
            budgets,
            seed: 0,
            store: None,
            next_settings: Arc::default(),
            vitals: Arc::default(),
        };
        Hub::new(Arc::new(settings), &context, Arc::default())
    }

    /// A frame of a client whose mask is 0.
    pub(crate) fn say(hub: &mut Hub, slot: u32, text: &str) {
        say_on(&mut LoneShardBus::default(), hub, slot, text);
    }

    /// Like `say`, with a bus that outlasts the call.
    pub(crate) fn say_on(bus: &mut impl Post, hub: &mut Hub, slot: u32, text: &str) {
        let mut frame = vec![0x81, 0xfe];
        frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        hub.receive(bus, slot, &mut frame);
    }

    /// A connected client that is subscribed to channel `c`.
    pub(crate) fn subscriber(hub: &mut Hub) -> u32 {
        let slot = upgraded(hub, "/w");
        let commands = r#"{"id":1,"connect":{}} {"id":2,"subscribe":{"channel":"c"}}"#;
        say(hub, slot, commands);
        slot
    }

    /// A unidirectional client that is subscribed to channel `c`.
    pub(crate) fn uni_subscriber(hub: &mut Hub) -> u32 {
        let slot = upgraded(hub, "/u");
        say(hub, slot, r#"{"subs":{"c":{}}}"#);
        slot
    }

    fn upgraded(hub: &mut Hub, path: &str) -> u32 {
        let (slot, _) = hub.reserve().unwrap();
        hub.socket_opened(slot);
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\n\r\n"
        );
        hub.receive(&mut LoneShardBus::default(), slot, &mut head.into_bytes());
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
        hub.seal_output();
        hub.for_each_send(|_, slot, segments| {
            let bytes = match segments {
                Segments::Whole(bytes) => bytes.to_vec(),
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
