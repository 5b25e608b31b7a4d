//! The checks of a simulated node at rest and at its end.

use drumline::base::metrics::Metrics;
use drumline::home::users::UserLimit;
use drumline::hub::resource_counts::ResourceCounts;

use super::World;
use super::settings::WINDOW_MAX;
use crate::client::{Asked, Client};

/// Rounds in which everything must come to rest.
const ROUNDS_MAX: usize = 20_000;
/// Presence queries of a channel of which one must be answered while no subscriber is closed.
const COUNTS_MAX: usize = 20;

impl World {
    /// Checks that each grant belongs to a subscription of a connection.
    pub(super) fn count_grants(&self) -> Result<(), String> {
        for (at, shard) in self.node.shards.iter().enumerate() {
            let states = shard.hub.slots().map(|(slot, _)| shard.hub.state(slot));
            let subscriptions = states.flat_map(|state| state.subscriptions);
            let listed = subscriptions.filter(|found| found.grant.is_some()).count();
            let kept = shard.hub.resource_counts().grants;
            if listed != kept {
                return Err(format!(
                    "shard {at} keeps {kept} grants; {listed} belong to subscriptions"
                ));
            }
        }
        Ok(())
    }

    /// Whether publications wait in a batch, or commands for their rate.
    fn is_waiting(&self) -> bool {
        let counts = self.node.shards.iter().map(|shard| shard.hub.resource_counts());
        counts.into_iter().any(|counts| counts.backlog > 0 || counts.rate_waits > 0)
    }

    /// Lets all clients read and send nothing new, until nothing changes any more.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.settling = true;
        for client in &mut self.clients {
            client.stalled = false;
        }
        for _ in 0..ROUNDS_MAX {
            self.ledger.step += 1;
            let mut moved = false;
            for at in 0..self.clients.len() {
                let client = &self.clients[at];
                let socket = &client.socket;
                if !client.done && (!socket.output.is_empty() || socket.shut || socket.awaited) {
                    moved = true;
                    let limit = self.random.pick(&[50, 100_000]);
                    self.read(at, limit)?;
                }
            }
            moved |= self.node.is_awake();
            for at in 0..self.node.shards.len() {
                for _ in 0..self.random.between(1, 9) {
                    self.step_shard(at)?;
                }
            }
            moved |= self.node.is_awake();
            self.step_control()?;
            self.step_store()?;
            if !moved && self.is_waiting() {
                self.pass_time(WINDOW_MAX)?;
            } else if !moved {
                return Ok(());
            }
        }
        Err(format!("no rest after {ROUNDS_MAX} rounds"))
    }

    /// Brings the node to rest, and checks what everybody knows.
    pub(super) fn rest(&mut self) -> Result<(), String> {
        self.settle()?;
        self.check_sent()?;
        let is_done = |at: usize| self.clients[at].done || self.clients[at].closed.is_some();
        // A stream whose sender is closed may lack replies.
        let heard = self.clients.iter().filter(|client| !client.voice.is_some_and(is_done));
        for client in heard {
            let settled = client.check_settled(&self.ledger);
            settled.map_err(|error| self.of(client.number, &error))?;
        }
        self.count_present()?;
        self.count_users()?;
        self.count_grants()?;
        if self.ledger.terms.durable {
            self.check_store()?;
        }
        Ok(())
    }

    /// Checks at rest that no shard keeps what it must send: every inbox has room.
    fn check_sent(&self) -> Result<(), String> {
        for (at, shard) in self.node.shards.iter().enumerate() {
            let counts = shard.hub.resource_counts();
            let kept = (counts.leaves, counts.outgoing);
            if kept != (0, 0) {
                return Err(format!("shard {at} keeps leaves or hook events at rest: {kept:?}"));
            }
        }
        Ok(())
    }

    /// Checks that presence counts the subscribers of each channel.
    pub(super) fn count_present(&mut self) -> Result<(), String> {
        let askers = self
            .clients
            .iter()
            .filter(|client| client.is_there() && !client.uni && client.voice.is_none());
        let Some(at) = askers.map(|client| client.number).next().filter(|_| self.node.presence)
        else {
            return Ok(());
        };
        for channel in 0..self.channels {
            let mut changed = true;
            for _ in 0..COUNTS_MAX {
                if changed && self.clients[at].is_there() {
                    changed = self.count_present_in(channel, at)?;
                }
            }
            if changed && self.clients[at].is_there() {
                return Err(format!("the subscribers of c{channel} change at rest"));
            }
        }
        Ok(())
    }

    /// Has client `at` ask for the number of subscribers of a channel, and checks the answer.
    /// Returns whether a subscriber was closed meanwhile, as a ping closes a slow one: the answer
    /// is then that of an unknown moment, and is not checked.
    fn count_present_in(&mut self, channel: usize, at: usize) -> Result<bool, String> {
        let there = |client: &&Client| client.is_there() && client.views[channel].subscribed;
        let before = self.clients.iter().filter(there).count() as u64;
        let text = self.clients[at].command(Asked::Stats, channel, 0, &mut self.ledger);
        self.say(at, &text);
        self.settle()?;
        let after = self.clients.iter().filter(there).count() as u64;
        let counted = self.clients[at].counted.take();
        if before != after || !self.clients[at].is_there() {
            return Ok(true);
        }
        if counted == Some(after) {
            return Ok(false);
        }
        let told = format!("presence counts {counted:?} in c{channel}, {after} are subscribed");
        Err(self.of(at, &told))
    }

    /// Checks that no named user has more connections than its limit.
    pub(super) fn count_users(&self) -> Result<(), String> {
        let most = match self.limit {
            UserLimit { single: true, .. } => 1,
            UserLimit { most: 0, .. } => usize::MAX,
            UserLimit { most, .. } => most,
        };
        for user in 0..self.tokens.len() - 1 {
            let there = |client: &&Client| client.is_there() && client.user == user;
            let count = self.clients.iter().filter(there).count();
            if count > most {
                return Err(format!("user {user} has {count} connections, the limit is {most}"));
            }
        }
        Ok(())
    }

    /// Ends all clients, and lets time pass until nothing is kept any more.
    pub(super) fn end_clients(&mut self) -> Result<(), String> {
        for at in 0..self.clients.len() {
            match self.clients[at].done {
                false if self.random.one_in(2) => self.close(at),
                false => self.vanish(at),
                true => {}
            }
            for _ in 0..self.random.between(0, 20) {
                let shard = self.random.below(self.node.shards.len());
                self.step_shard(shard)?;
            }
        }
        self.settle()?;
        for by in [6_000, 200_000, 2_000, 2_000] {
            self.pass_time(by)?;
            self.node.bus.asleep.fill(false);
            self.keep_house();
            self.settle()?;
        }
        Ok(())
    }

    /// Ends all clients; checks that no state remains.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.end_clients()?;
        self.end_store()?;
        for (at, shard) in self.node.shards.iter().enumerate() {
            let remains = shard.hub.resource_counts();
            if remains != ResourceCounts::default() || shard.is_stalled() {
                let slots: Vec<_> = shard.hub.slots().collect();
                return Err(format!("shard {at} at the end: {remains:?} {slots:?}"));
            }
        }
        self.check_told()?;
        if !self.node.control.is_confirmed() {
            return Err("a shard did not confirm its settings".into());
        }
        match self.node.bus.taken() {
            0 => Ok(()),
            taken => Err(format!("{taken} messages or reservations are left on the bus")),
        }
    }

    /// Checks that every hook event arrived, and the disconnect of every client.
    fn check_told(&self) -> Result<(), String> {
        let sum =
            |of: fn(&Metrics) -> u64| self.node.metrics.iter().map(|one| of(one)).sum::<u64>();
        let (noted, dropped) =
            (sum(|one| one.hook_events.get()), sum(|one| one.hook_events_dropped.get()));
        if dropped > 0 || noted != self.node.control.told {
            let told = self.node.control.told;
            return Err(format!("{told} of {noted} hook events arrived, {dropped} were dropped"));
        }
        let clients = &self.clients[self.first_client..];
        for client in clients.iter().filter(|client| client.connected && self.hooked) {
            let life = (client.shard, client.slot, client.generation);
            if !self.node.control.has_ended(life) {
                return Err(self.of(client.number, "its disconnect event is missing"));
            }
        }
        Ok(())
    }
}
