//! Crashes and restarts of a simulated node with a store, and the checks of the store at rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use drumline::home::idempotency_keys::HOLD_TIME;
use drumline::store::disk::{Fault as DiskFault, Table};
use drumline::store::layout::{split_channel, split_publication_key};
use drumline::store::reading::{newest_record, table_record};
use drumline::store::records::read_key;

use super::World;
use super::node::{Node, Start};
use super::settings;
use crate::backend::{Backend, Guard, number_of};
use crate::disk::Crash;
use crate::ledger::{BACKEND, Range};

/// Attempts of which one must succeed when the disk works.
const ATTEMPTS: usize = 5;
/// Rounds of housekeeping after which nothing is left that has expired.
const ROUNDS: usize = 8;
/// Milliseconds after which a failed write is corrected on disk.
const UPKEEP: u64 = 1_100;

impl World {
    /// The process ends at once, or in good order, and the next one starts on the same disk.
    pub(super) fn crash(&mut self) -> Result<(), String> {
        let crash = self.random.pick(&[Crash::Killed, Crash::PowerCut, Crash::Stopped]);
        if crash == Crash::Stopped {
            self.stop()?;
        }
        for at in self.first_client..self.clients.len() {
            let client = &mut self.clients[at];
            (client.done, client.socket.vanished) = (true, true);
        }
        self.first_client = self.clients.len();
        self.crashes += 1;
        self.told += self.node.control.told;
        let mut backend = std::mem::replace(&mut self.node.control.backend, Backend::new(0));
        backend.crashed(self.ledger.terms.durable);
        self.ledger.crashed();
        let store = self.node.store.take();
        let disk = store.map(|store| store.crash(crash, &mut self.random));
        let outage = self.random.pick(&[0, 10, 3_000, 3_000, 200_000]);
        self.ledger.clock.restart(outage);
        self.step_wall();
        trace!(
            "CRASH {crash:?} outage {outage} step {} now {} wall {:?}",
            self.ledger.step,
            self.ledger.clock.now,
            self.ledger.clock.read()
        );
        let start = Start {
            seed: self.seed,
            process: self.crashes,
            settings: Arc::new(settings::restarted(&mut self.random, &self.node.settings)),
            backend,
            disk,
            names: Some(self.node.names),
            fault: self.fault,
        };
        self.node = Node::start(start, &mut self.random);
        self.wake_control();
        Ok(())
    }

    /// Steps the wall clock now and then.
    pub(super) fn step_wall(&mut self) {
        if self.random.one_in(3) {
            let by = self.random.pick(&[-20_000, -700, 700, 20_000]);
            self.ledger.clock.step_wall(by);
        }
    }

    /// The shards have stopped: the store commits what it got.
    fn stop(&mut self) -> Result<(), String> {
        let at = self.node.control() + 1;
        self.settling = true;
        for _ in 0..1_000 {
            if self.node.bus.asleep[at] {
                break;
            }
            self.step_store()?;
        }
        self.settling = false;
        Ok(())
    }

    /// All clients leave, and everything ends by its age. The removal of idempotency keys may be
    /// left for the time in which the disk fails.
    pub(super) fn idle(&mut self) -> Result<(), String> {
        self.end_clients()?;
        if self.random.one_in(2) {
            self.pass_time(HOLD_TIME + 60_000)?;
            // Every shard makes a turn, so that no later connection begins in the past.
            self.node.bus.asleep.fill(false);
            self.settle()?;
        }
        self.settling = false;
        Ok(())
    }

    /// Checks at rest that the store works, has what it must have, and keeps nothing else.
    pub(super) fn check_store(&mut self) -> Result<(), String> {
        // Upkeep of streams takes a few rounds.
        for _ in 0..3 {
            self.pass_time(UPKEEP)?;
            self.settle()?;
        }
        for channel in 0..self.channels {
            self.node.control.backend.read(channel, Range::ALL, &self.ledger);
        }
        self.wake_control();
        self.settle()?;
        self.check_disk()?;
        for channel in 0..self.channels {
            self.check_publishing(channel)?;
        }
        for (at, shard) in self.node.shards.iter().enumerate() {
            let counts = shard.hub.resource_counts();
            let kept = (counts.store_waits, counts.store_bytes, counts.pins);
            if kept != (0, 0, 0) {
                return Err(format!("shard {at} waits for the store at rest: {kept:?}"));
            }
        }
        Ok(())
    }

    /// Lets time pass until the store has nothing to keep, and checks that it keeps nothing.
    pub(super) fn end_store(&mut self) -> Result<(), String> {
        if self.node.store.is_none() {
            return Ok(());
        }
        // Keys are removed by the minute. A stream ends by the latest time that the wall clock has
        // shown at one of its publications.
        self.pass_time(HOLD_TIME + 200_000 + self.ledger.clock.behind())?;
        // A step names or removes what has expired; upkeep follows after a second.
        for _ in 0..ROUNDS {
            self.keep_house();
            self.settle()?;
            self.pass_time(UPKEEP)?;
            self.settle()?;
        }
        let Some(store) = &self.node.store else { return Ok(()) };
        for table in [Table::Streams, Table::Publications, Table::Keys] {
            let count = store.disk.table(table).count();
            if count > 0 {
                return Err(format!("{count} entries are left in {table:?}"));
            }
        }
        Ok(())
    }

    /// Publishing resumes by itself when the disk works.
    fn check_publishing(&mut self, channel: usize) -> Result<(), String> {
        let before = self.node.control.backend.acknowledged;
        for _ in 0..ATTEMPTS {
            self.node.control.backend.publish(channel, Guard::None, &mut self.ledger);
            self.wake_control();
            self.settle()?;
            if self.node.control.backend.acknowledged > before {
                return Ok(());
            }
        }
        Err(format!("nothing can be published to c{channel} though the disk works"))
    }

    /// Checks that the tables fit each other, and what was seen.
    fn check_disk(&self) -> Result<(), String> {
        let Some(store) = &self.node.store else { return Ok(()) };
        let mut offsets: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (key, _) in store.disk.table(Table::Publications) {
            let (channel, offset) = split_publication_key(key).ok_or("a key of no publication")?;
            offsets.entry(channel.to_owned()).or_default().push(offset);
        }
        let told = |fault: DiskFault| fault.to_string();
        let view = store.disk.view().map_err(told)?;
        for (key, _) in store.disk.table(Table::Streams) {
            let (channel, _) = split_channel(key).ok_or("a key of no stream")?;
            let record = table_record(&view, channel).map_err(told)?;
            let record = record.ok_or("a stream without a record")?;
            let record = newest_record(&view, channel, record).map_err(told)?;
            let offsets = offsets.get(channel).map_or(&[][..], |offsets| &offsets[..]);
            let history = record.first..record.top + 1;
            let found = offsets.iter().filter(|offset| history.contains(offset)).count();
            if found as u64 != record.top + 1 - record.first {
                return Err(format!("{channel} is {record:?} on disk, with {offsets:?}"));
            }
        }
        for (_, value) in store.disk.table(Table::Keys) {
            let key = read_key(value).map_err(|fault| fault.to_string())?;
            let n = number_of(&key.key).ok_or("a key that nobody sent")?;
            let place = (key.position.epoch.as_str(), key.position.offset);
            self.ledger.check_key(place, (BACKEND, n))?;
        }
        Ok(())
    }
}
