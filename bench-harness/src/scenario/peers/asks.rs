//! Requests to a target: publications as fast as they are answered, history, presence, and members
//! that join and leave.
//!
//! Owns the numbers of `publish`, `history`, `presence` and `members`. Never publishes while it
//! asks. Invariant: an answer without one of its items counts that item as lost.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::quantities::{
    CLIENT_CPU_ANSWER, CLIENT_CPU_PUBLISH, CPU_ANSWER, CPU_MEMBER, CPU_PUBLISH, LOST, PUBLISHES,
    TOLD, TOOK,
};
use super::scenarios::{BYTES, FAST_PUBLISHERS, KEPT, Scenario, Stage};
use super::turn::{PATIENCE, SETTLE, Turn, client, own};
use crate::dense::{Channels, Dense, Plan};
use crate::dialect::{Asking, Dialect, Watching};
use crate::publish::Published;
use crate::scenario::{Bench, Burst};
use crate::target::{Adapter, Peer};
use crate::wire::Data;

/// Publications that estimate a target's speed, from which the length of a turn follows.
const GUESS: u64 = 5_000;
const HISTORY: Asking = Asking::History { limit: KEPT.0 };

/// The protocol of the connections of a stage.
pub(super) fn dialect(adapter: &dyn Adapter, stage: Stage) -> &'static dyn Dialect {
    match stage {
        Stage::History => &HISTORY,
        Stage::Presence => &Asking::Presence,
        _ => adapter.dialect(),
    }
}

/// Publishes what clients ask for later.
pub(super) fn keep(bench: &mut Bench, peer: &Peer) -> Result<()> {
    let (messages, bytes) = (u64::from(KEPT.0), KEPT.1);
    let api = peer.adapter().api();
    let burst = Burst { api, ..Burst::to_all(messages, Data::Filled(bytes), 1) };
    bench.publish_unheard(peer.publish_address(), burst).map(drop)
}

impl Turn<'_> {
    /// Publishes by HTTP without subscribers, as fast as the answers come.
    pub(super) fn publish(&mut self) -> Result<()> {
        let guess = self.publish_fast(GUESS)?;
        let rate = guess.confirmed as f64 / guess.took.as_secs_f64();
        let messages = (rate * self.plan.seconds as f64) as u64 + FAST_PUBLISHERS;
        let (server, client) = (self.peer.sample()?, own()?);
        let published = self.publish_fast(messages)?;
        let server = self.peer.sample()?.since(&server)?;
        let client = own()?.since(&client)?;
        ensure!(published.confirmed == messages, "only {} confirmed", published.confirmed);
        let rate = messages as f64 / published.took.as_secs_f64();
        self.set(Scenario::Publish, PUBLISHES, rate);
        self.set(Scenario::Publish, CPU_PUBLISH, server.cpu_ns_per(messages)?);
        self.set(Scenario::Publish, CLIENT_CPU_PUBLISH, client.cpu_ns_per(messages)?);
        Ok(())
    }

    fn publish_fast(&mut self, messages: u64) -> Result<Published> {
        let burst = Burst {
            api: self.peer.adapter().api(),
            publishers: FAST_PUBLISHERS,
            channels: Channels::Shared("empty".to_owned()),
            data: Data::Filled(BYTES),
            messages,
            // All are due at once, so each goes when the one before it is answered.
            interval_ns: 0,
            per_frame: 1,
        };
        self.bench.publish_unheard(self.peer.publish_address(), burst)
    }

    /// Every connection asks for the items of its channel once.
    pub(super) fn ask(&mut self, scenario: Scenario) -> Result<()> {
        std::thread::sleep(SETTLE);
        let connections = self.dense.connections();
        let per_answer = match scenario {
            Scenario::History => u64::from(KEPT.0),
            _ => connections,
        };
        let (server, client, begun) = (self.peer.sample()?, own()?, Instant::now());
        let (answers, items) = self.dense.ask(PATIENCE)?;
        let took = begun.elapsed();
        let server = self.peer.sample()?.since(&server)?;
        let client = own()?.since(&client)?;
        let told = format!("{answers} of {connections} answers");
        self.items_lost(scenario, per_answer * connections, items, &told);
        if answers == connections {
            self.set(scenario, CPU_ANSWER, server.cpu_ns_per(answers)?);
            self.set(scenario, CLIENT_CPU_ANSWER, client.cpu_ns_per(answers)?);
            self.set(scenario, TOOK, took.as_nanos() as f64);
        }
        Ok(())
    }

    /// Members join and leave while one client is told.
    pub(super) fn members(&mut self) -> Result<()> {
        // They join again below, when the client that is told is there.
        self.dense.cut()?;
        std::thread::sleep(SETTLE);
        let told = client(self.bench, self.peer, (&Watching, Stage::Members), self.plan);
        let watcher = Dense::start(Plan { connections: 1, ..told }, self.bench.clock)?;
        let ramp = watcher.ramp()?;
        ensure!(ramp.up == 1, "the watcher was refused: {:?}", watcher.counters().causes());
        std::thread::sleep(SETTLE);
        let own_join = watcher.await_items(0, PATIENCE);
        let members = self.dense.connections();
        let (server, begun) = (self.peer.sample()?, Instant::now());
        let ramp = self.dense.come_back(false)?;
        self.up(ramp)?;
        self.dense.cut()?;
        let items = watcher.await_items(own_join + 2 * members, PATIENCE) - own_join;
        let took = begun.elapsed();
        let server = self.peer.sample()?.since(&server)?;
        watcher.stop()?;
        self.items_lost(Scenario::Members, 2 * members, items, "joins and leaves");
        if items >= 2 * members {
            self.set(Scenario::Members, CPU_MEMBER, server.cpu_ns_per(members)?);
            self.set(Scenario::Members, TOLD, took.as_nanos() as f64);
        }
        Ok(())
    }

    /// Records missing items as a fault.
    fn items_lost(&mut self, scenario: Scenario, expected: u64, items: u64, of: &str) {
        let lost = expected.abs_diff(items);
        self.set(scenario, LOST, lost as f64);
        if lost > 0 {
            let told = format!(
                "round {}: {items} of {expected} items received ({of}); errors: {:?}",
                self.tables.round() + 1,
                self.dense.counters().causes()
            );
            self.tables.remark(scenario, &told);
            let name = self.peer.adapter().name();
            self.bench.fault(format!("{name}, {}: {told}", scenario.name()));
        }
    }
}
