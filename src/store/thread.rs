//! The threads of the store: one serves the bus and commits, one serves the bus meanwhile, and two
//! read.
//!
//! Owns the threads and their wake-ups. Never decides: the state does. The invariants: the bus is
//! served while the disk is slow; at most one batch is being committed; a thread that waits is
//! woken by whoever makes its work. While a batch is being committed, the shards wake no thread:
//! what they send is found when the batch is on disk, or after a nap of the thread that relieves.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::backoff::Backoff;
use crate::base::failure::Failure;
use crate::base::histogram;
use crate::base::memory::MemoryBudget;
use crate::base::store_metrics::StoreMetrics;
use crate::base::{sys, time_slice};
use crate::engine::bus::{Bus, BusPort, ConsumerHandle};
use crate::model::message::{Message, Post as _, Rank};
use crate::model::names::Names;
use crate::model::storage::{StoreFound, StoreRead};
use crate::store::disk::{Disk, Fault, FaultKind};
use crate::store::housekeeping::Housekeeper;
use crate::store::reading;
use crate::store::service::Service;
use crate::store::state::{StoreState, Work};

/// Threads that read.
const READERS: usize = 2;
/// Longest sleep of a thread.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time without a write after which the thread that commits does other work.
const IDLE_TIME: Duration = Duration::from_millis(200);
/// Nap of the thread that serves the bus while the other one is busy.
const NAP: Duration = Duration::from_millis(1);
/// Time after a commit in which that thread goes on with its naps: while commits follow each other,
/// none of them has to wake it.
const WATCH: Duration = Duration::from_millis(4);
/// Pause between two steps of the housekeeping, at least; and in steps, so that it takes a small
/// part of a processor.
const STEP_PAUSE: Duration = Duration::from_millis(250);
const PAUSE_STEPS: u32 = 50;
/// Pause when a walk over all streams has come to its end.
const ROUND_PAUSE: Duration = Duration::from_secs(2);
/// Pause before a step of the walks that are behind, at least; and in steps.
const HURRY_PAUSE: Duration = Duration::from_millis(10);
const HURRY_PAUSE_STEPS: u32 = 4;
/// Shortest wait of a reader, while the other one makes a step or its findings wait for a batch.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// Bytes of answers that shards have not taken up, at which no further question is answered.
const ANSWERS_MAX: usize = 64 << 20;
/// Time after which a question that cannot be answered is logged again: clients may repeat it.
const TOLD_AGAIN: Duration = Duration::from_secs(600);
/// Shortest and longest pause before the disk is opened anew.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What the threads share.
struct Shared<D> {
    disk: Arc<D>,
    names: Names,
    metrics: Arc<StoreMetrics>,
    bus: Arc<Bus>,
    desk: Mutex<Desk>,
    /// Memory of the answers that shards have not taken up.
    answers: Arc<MemoryBudget>,
    /// Wakes the thread that serves the bus in place of the one that commits.
    reliefs: Condvar,
    /// Wakes the threads that read.
    reads: Condvar,
}

/// The state, and its access to the bus.
struct Desk {
    state: StoreState,
    port: BusPort,
    /// The walks over the tables; `None`: a reader makes a step.
    housekeeper: Option<Housekeeper>,
    /// When the next step is made.
    next_step: Instant,
    /// When the next step of the walks that are behind is made; `None`: no walk is.
    next_hurry: Option<Instant>,
    /// When a question that could not be answered was logged last.
    unread_told: Option<Instant>,
    is_stopping: bool,
    /// Whether the thread that commits waits for messages and serves the bus.
    is_waiting: bool,
    /// When the thread that commits last had a batch after a wait.
    last_commit: Instant,
    /// Whether the thread that relieves sleeps until the next commit.
    is_relief_asleep: bool,
    /// Whether the thread that commits has ended.
    is_finished: bool,
}

impl Desk {
    /// Takes what lies in the inbox, and sends what has found room.
    fn serve(&mut self) {
        self.state.send_answers(&mut self.port);
        while self.state.has_room()
            && let Some(message) = self.port.take(Rank::Store)
        {
            self.state.take(message, &mut self.port);
        }
        self.state.send_answers(&mut self.port);
    }

    /// The housekeeper, if a step is due and the findings of the last one were taken up. `true`: a
    /// step of each walk.
    fn take_step(&mut self) -> Option<(Housekeeper, bool)> {
        let now = Instant::now();
        let is_ready = self.state.is_open() && self.state.is_clean() && self.next_work() <= now;
        let taken = if is_ready { self.housekeeper.take() } else { None };
        taken.map(|housekeeper| (housekeeper, self.next_step <= now))
    }

    /// Whether a question that cannot be answered is to be logged.
    fn tells_unread(&mut self) -> bool {
        let is_due = self.unread_told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN);
        if is_due {
            self.unread_told = Some(Instant::now());
        }
        is_due
    }

    /// When the housekeeping goes on.
    fn next_work(&self) -> Instant {
        self.next_hurry.map_or(self.next_step, |hurry| hurry.min(self.next_step))
    }

    /// Takes the housekeeper back from a step that took this time.
    fn end_step(&mut self, housekeeper: Housekeeper, took: Duration, next: Option<Duration>) {
        let now = Instant::now();
        if let Some(pause) = next {
            self.next_step = now + pause.max(took * PAUSE_STEPS);
        }
        let pause = HURRY_PAUSE.max(took * HURRY_PAUSE_STEPS);
        self.next_hurry = housekeeper.is_behind().then(|| now + pause);
        self.housekeeper = Some(housekeeper);
    }
}

impl<D: Disk> Shared<D> {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the threads that have work, and then the shards that got messages or room.
    fn leave(&self, mut desk: MutexGuard<'_, Desk>, wakes: &mut BusPort) {
        wakes.add_wakes(desk.port.take_wakes());
        let reads = desk.state.has_read();
        drop(desk);
        if reads {
            self.reads.notify_all();
        }
        wakes.wake_receivers();
    }

    /// A port for wake-ups and answers outside of the desk.
    fn wakes(&self) -> BusPort {
        self.bus.port(self.bus.store())
    }

    /// Wakes the thread that waits for messages.
    fn ring(&self) {
        if let Some(doorbell) = self.bus.consumer(self.bus.store()).doorbell() {
            sys::ring_doorbell(doorbell);
        }
    }

    /// Serves the bus now and then while the thread that commits is busy, until the store has
    /// stopped.
    fn relieve(&self) {
        let mut wakes = self.wakes();
        loop {
            let mut desk = self.desk();
            if desk.is_finished {
                return;
            } else if !desk.is_waiting {
                desk.serve();
                self.leave(desk, &mut wakes);
            } else if desk.last_commit.elapsed() > WATCH {
                self.sleep_until_commit(desk);
            } else {
                drop(desk);
            }
            std::thread::sleep(NAP);
        }
    }

    fn sleep_until_commit(&self, mut desk: MutexGuard<'_, Desk>) {
        desk.is_relief_asleep = true;
        let sleeps = |desk: &mut Desk| desk.is_relief_asleep && !desk.is_finished;
        let slept = self.reliefs.wait_timeout_while(desk, PATIENCE, sleeps);
        drop(slept.unwrap_or_else(PoisonError::into_inner));
    }

    /// Answers questions until the store stops, and does the housekeeping in between.
    fn run_reader(&self) {
        let mut wakes = self.wakes();
        loop {
            let has_room = self.answers.used() < self.answers.limit();
            let mut desk = self.desk();
            if has_room && let Some(read) = desk.state.next_read() {
                drop(desk);
                self.answer(read, &mut wakes);
            } else if desk.is_finished {
                return;
            } else if let Some((housekeeper, is_whole)) = desk.take_step() {
                drop(desk);
                self.keep_house(housekeeper, is_whole, &mut wakes);
            } else {
                let time = desk.next_work().saturating_duration_since(Instant::now());
                let time = match (desk.state.has_read(), desk.state.is_open()) {
                    // There is no room for an answer.
                    (true, _) => SHORTEST_WAIT,
                    (false, true) => time.clamp(SHORTEST_WAIT, PATIENCE),
                    (false, false) => PATIENCE,
                };
                drop(self.reads.wait_timeout(desk, time).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    fn answer(&self, read: StoreRead, wakes: &mut BusPort) {
        let shard = read.shard;
        let (mut answer, fault) = reading::answer(self.disk.view(), &self.names, read);
        let bytes = answer.result.as_ref().map_or(0, StoreFound::size);
        answer.charge = Some(self.answers.charge_anyway(bytes));
        let counter = match answer.result {
            Ok(_) => &self.metrics.reads,
            Err(_) => &self.metrics.refused_reads,
        };
        counter.add_shared(1);
        if let Some(fault) = fault.filter(|_| self.desk().tells_unread()) {
            let cure = fault.cure();
            tracing::error!(
                target: "store",
                "cannot read {}: {fault}; {cure}; further channels are logged after 10 minutes",
                answer.channel
            );
        }
        wakes.send(shard, Message::StoreAnswer(Box::new(answer)));
        wakes.wake_receivers();
    }

    /// Makes a step of the housekeeping: of each walk, or of those that are behind.
    fn keep_house(&self, mut housekeeper: Housekeeper, is_whole: bool, wakes: &mut BusPort) {
        let (began, now) = (Instant::now(), sys::unix_millis());
        let found = self.disk.view().and_then(|view| match is_whole {
            true => housekeeper.step(&view, now),
            false => housekeeper.hurry(&view, now),
        });
        let took = began.elapsed();
        let (mut desk, mut fault) = (self.desk(), None);
        let is_round = found.as_ref().map_or(true, |findings| findings.is_round);
        match found {
            Ok(mut findings) if desk.state.is_open() => {
                let Desk { state, port, .. } = &mut *desk;
                fault = findings.fault.take();
                state.take_findings(findings, port);
            }
            // The database was closed.
            Ok(_) | Err(_) => housekeeper = housekeeper.restarted(),
        }
        let pause = if is_round { ROUND_PAUSE } else { STEP_PAUSE };
        desk.end_step(housekeeper, took, is_whole.then_some(pause));
        self.leave(desk, wakes);
        if let Some(fault) = fault {
            let cure = fault.cure();
            tracing::error!(
                target: "store",
                "the walk over the store passes over what it cannot read: {fault}; {cure}"
            );
        }
    }
}

/// Waits for news of the bus, at most for this time.
fn sleep(consumer: &ConsumerHandle, time: Duration) {
    if consumer.prepare_to_sleep() {
        if let Some(doorbell) = consumer.doorbell() {
            sys::wait_for_doorbell(doorbell, time);
            sys::silence_doorbell(doorbell);
        }
        consumer.wake_up();
    }
}

/// Lets the calling thread run as soon as the disk answers, ahead of threads that use the
/// processor meanwhile: every publication of a batch waits for it.
fn ask_for_short_slices() {
    if let Err(error) = time_slice::request(time_slice::SHORTEST) {
        tracing::info!(
            target: "store",
            "the kernel refuses short time slices: {error}; durable publishing takes longer while \
             the processors are busy; allow the calls sched_getattr and sched_setattr"
        );
    }
}

/// The thread that commits, and that opens the disk anew after a fault.
struct Committer<D> {
    shared: Arc<Shared<D>>,
    wakes: BusPort,
    backoff: Backoff,
    /// The fault that was logged and is not over.
    fault: Option<FaultKind>,
}

impl<D: Disk> Committer<D> {
    fn run(mut self) {
        ask_for_short_slices();
        loop {
            let shared = self.shared.clone();
            let mut desk = shared.desk();
            desk.serve();
            let (batch, is_open) = (desk.state.next_batch(), desk.state.is_open());
            let is_stopping = desk.is_stopping;
            shared.leave(desk, &mut self.wakes);
            match batch {
                Some(batch) => self.commit(&batch),
                None if is_stopping => return self.finish(),
                None if is_open => self.idle(),
                None => self.recover(),
            }
        }
    }

    /// Serves the bus until there is a batch, the store stops, or this time is over. Returns
    /// whether there is a batch or a stop.
    fn wait(&mut self, time: Duration) -> bool {
        let began = Instant::now();
        let shared = self.shared.clone();
        let consumer = shared.bus.consumer(shared.bus.store());
        loop {
            consumer.take_news();
            let mut desk = shared.desk();
            desk.serve();
            let is_due = desk.state.has_batch() || desk.is_stopping;
            let left = time.saturating_sub(began.elapsed());
            desk.is_waiting = !is_due && !left.is_zero();
            let is_waiting = desk.is_waiting;
            if is_due {
                desk.last_commit = Instant::now();
            }
            let wakes_relief = !is_waiting && std::mem::take(&mut desk.is_relief_asleep);
            shared.leave(desk, &mut self.wakes);
            if wakes_relief {
                shared.reliefs.notify_one();
            }
            if !is_waiting {
                return is_due;
            }
            sleep(&consumer, left.min(PATIENCE));
        }
    }

    fn commit(&mut self, work: &Work) {
        let began = Instant::now();
        match self.write(work) {
            Ok(()) => {
                // A store that opens may not be able to write.
                self.backoff.reset();
                let mut desk = self.shared.desk();
                let Desk { state, port, .. } = &mut *desk;
                state.committed(port);
                self.shared.leave(desk, &mut self.wakes);
                let metrics = &self.shared.metrics;
                let micros = began.elapsed().as_micros() as u64;
                metrics.batches.add(1);
                let writes = work.writes.len() as u64;
                metrics.writes.add(writes);
                metrics.batch_sizes.observe(&histogram::NUMBERS, writes, 1);
                metrics.commit_micros.observe(&histogram::DURATIONS, micros, 1);
                let longest = &metrics.longest_commit_micros;
                longest.set(longest.get().max(micros));
            }
            Err(fault) => self.fail(&fault),
        }
    }

    /// Writes a batch.
    fn write(&mut self, work: &Work) -> Result<(), Fault> {
        let disk = &self.shared.disk;
        let view = disk.view()?;
        let batch = work.batch(&view)?;
        let (publications, bytes) = (batch.publications(), batch.bytes());
        let changes = batch.into_changes();
        drop(view);
        disk.commit(changes)?;
        self.shared.metrics.publications.add(publications);
        self.shared.metrics.bytes.add(bytes);
        Ok(())
    }

    /// Waits for a batch. If none comes, removes what the housekeeping has found, and looks for
    /// faults of work in the background.
    fn idle(&mut self) {
        if self.wait(IDLE_TIME) {
            return;
        }
        let cleanup = self.shared.desk().state.next_cleanup();
        if let Some(work) = cleanup {
            self.commit(&work);
        } else if let Err(fault) = self.shared.disk.probe() {
            self.fail(&fault);
        }
    }

    /// Refuses everything until the disk is open again.
    fn fail(&mut self, fault: &Fault) {
        let mut desk = self.shared.desk();
        let Desk { state, port, .. } = &mut *desk;
        state.closed(port);
        self.shared.leave(desk, &mut self.wakes);
        self.shared.metrics.failures.add(1);
        self.log(fault);
    }

    /// Logs a fault once, and again when its kind changes.
    fn log(&mut self, fault: &Fault) {
        if self.fault.replace(fault.kind) != Some(fault.kind) {
            let cure = fault.cure();
            tracing::error!(
                target: "store",
                "the store is unavailable, durable publishing answers error 100: {fault}; {cure}"
            );
        }
    }

    /// Waits for a while and tries to open the disk.
    fn recover(&mut self) {
        let pause = self.backoff.pause();
        if self.wait(pause) {
            return;
        }
        match self.shared.disk.reopen() {
            Ok(()) => {
                self.shared.desk().state.opened();
                self.fault = None;
                tracing::info!(target: "store", "the store is available");
            }
            Err(fault) => self.log(&fault),
        }
    }

    /// Refuses everything from now on, closes the disk and ends all threads.
    fn finish(self) {
        let mut desk = self.shared.desk();
        let Desk { state, port, .. } = &mut *desk;
        state.closed(port);
        drop(desk);
        if let Err(fault) = self.shared.disk.close() {
            let cure = fault.cure();
            tracing::error!(target: "store", "cannot write tables at the end: {fault}; {cure}");
        }
        self.shared.desk().is_finished = true;
        self.shared.reads.notify_all();
        self.shared.reliefs.notify_one();
    }
}

/// The running threads of a store.
pub struct StoreThread {
    stop: Box<dyn FnOnce() + Send>,
    threads: Vec<JoinHandle<()>>,
    service: Option<Service>,
}

impl StoreThread {
    /// The same threads, with the service for commands. The stop ends it first.
    pub fn with_service(self, service: Option<Service>) -> Self {
        StoreThread { service, ..self }
    }

    /// Finishes what lies in the inbox, writes the tables and ends the threads.
    pub fn stop(self) {
        if let Some(service) = self.service {
            service.stop();
        }
        (self.stop)();
        for thread in self.threads {
            // A panic of a thread ends the process, except in a test.
            let _ = thread.join();
        }
    }
}

/// Starts the threads of a store on its endpoint of the bus. `is_open` says whether the disk is
/// open already, `bytes_max` how many bytes of publications stay; 0: any number.
///
/// # Errors
/// The kernel starts no thread, or has no random numbers.
pub fn start<D: Disk>(
    disk: Arc<D>,
    (is_open, bytes_max): (bool, u64),
    (bus, names): (Arc<Bus>, Names),
    metrics: Arc<StoreMetrics>,
) -> Result<StoreThread, Failure> {
    let mut state = StoreState::new(usize::from(bus.control()), names, metrics.clone());
    if is_open {
        state.opened();
    }
    let port = bus.port(bus.store());
    let desk = Mutex::new(Desk {
        state,
        port,
        housekeeper: Some(Housekeeper::new(bytes_max)),
        next_step: Instant::now(),
        next_hurry: None,
        unread_told: None,
        is_stopping: false,
        is_waiting: false,
        last_commit: Instant::now(),
        is_relief_asleep: false,
        is_finished: false,
    });
    let (reliefs, reads) = (Condvar::new(), Condvar::new());
    let answers = MemoryBudget::alone(ANSWERS_MAX);
    let shared = Arc::new(Shared { disk, names, metrics, bus, desk, answers, reliefs, reads });
    let wakes = shared.wakes();
    let backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let committer = Committer { shared: shared.clone(), wakes, backoff, fault: None };
    let mut threads = vec![spawn("store-commit", move || committer.run())?];
    let relief = shared.clone();
    threads.push(spawn("store", move || relief.relieve())?);
    for _ in 0..READERS {
        let reader = shared.clone();
        threads.push(spawn("store-read", move || reader.run_reader())?);
    }
    let stop = Box::new(move || {
        shared.desk().is_stopping = true;
        shared.ring();
    });
    Ok(StoreThread { stop, threads, service: None })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| {
        let cause = format!("cannot start thread {name}: {error}");
        Failure::new(cause, "raise the limit on threads (`ulimit -u`, TasksMax=)")
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::message::{Endpoint, RANKS};
    use crate::model::publication::{NewPublication, Publication};
    use crate::model::storage::{StoreFound, StoreQuery, StoreRefusal, StoreWrite, StoreWritten};
    use crate::store::batch::tests::{commit, offsets, publish};
    use crate::store::disk::Table;
    use crate::store::memory_disk::{CommitFault, MemoryDisk};
    use crate::store::reading::tests::question;
    use crate::store::{layout, records};
    use crate::wire::protocol::{Epoch, Position};

    /// A store on a bus of two shards whose inboxes nobody else serves.
    pub(crate) struct Fixture {
        pub(crate) bus: Arc<Bus>,
        pub(crate) thread: Option<StoreThread>,
        pub(crate) metrics: Arc<StoreMetrics>,
    }

    pub(crate) fn bus() -> Arc<Bus> {
        Bus::new(2, 1, [16; RANKS], Box::new(|| {})).unwrap()
    }

    impl Fixture {
        fn new(disk: impl Disk) -> Self {
            let bus = bus();
            let metrics = Arc::<StoreMetrics>::default();
            disk.reopen().unwrap();
            let names = Names::new([0; 16], 2);
            let thread =
                start(Arc::new(disk), (true, 0), (bus.clone(), names), metrics.clone()).unwrap();
            Fixture { bus, thread: Some(thread), metrics }
        }

        pub(crate) fn send(&self, shard: Endpoint, message: Message) {
            let mut port = self.bus.port(shard);
            let began = Instant::now();
            while !port.reserve(self.bus.store(), Rank::Store) {
                assert!(began.elapsed() < Duration::from_secs(10), "the store takes nothing");
                std::thread::yield_now();
            }
            port.send(self.bus.store(), message);
            port.wake_receivers();
        }

        pub(crate) fn write(&self, shard: Endpoint, serial: u64, term: u32) {
            let write = StoreWrite { shard, serial, term, ..publish("a", serial, 1) };
            self.send(shard, Message::StoreWrite(Box::new(write)));
        }

        /// The next answer to a shard.
        pub(crate) fn take(&self, shard: Endpoint) -> Message {
            loop {
                match self.take_any(shard) {
                    Message::StoreDue(_) => {}
                    answer => return answer,
                }
            }
        }

        fn take_any(&self, shard: Endpoint) -> Message {
            let mut port = self.bus.port(shard);
            let began = Instant::now();
            loop {
                if let Some(message) = port.take(Rank::Store) {
                    port.wake_receivers();
                    return message;
                }
                assert!(began.elapsed() < Duration::from_secs(10), "no answer");
                std::thread::sleep(Duration::from_micros(100));
            }
        }

        /// Waits until the writes of a shard are answered up to a serial.
        pub(crate) fn wait(&self, shard: Endpoint, serial: u64) -> StoreWritten {
            loop {
                match self.take(shard) {
                    Message::StoreWritten(written) if written.through >= serial => return written,
                    Message::StoreWritten(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }

        pub(crate) fn load(&self, shard: Endpoint) -> Result<StoreFound, StoreRefusal> {
            let query = StoreQuery::Load { limit: 10, bytes: 1 << 20 };
            let read = StoreRead { shard, ..question("a", 0, query) };
            self.send(shard, Message::StoreRead(Box::new(read)));
            match self.take(shard) {
                Message::StoreAnswer(answer) => answer.result,
                other => panic!("{other:?}"),
            }
        }

        pub(crate) fn top(&self) -> u64 {
            let Ok(StoreFound::Stream(stream)) = self.load(1) else { panic!("a stream") };
            let newest = stream.newest.last().and_then(|stored| stored.publication.offset());
            assert_eq!(newest, stream.record.as_ref().map(|record| record.top));
            newest.unwrap_or(0)
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            if let Some(thread) = self.thread.take() {
                thread.stop();
            }
        }
    }

    #[test]
    fn after_a_failed_commit_the_disk_is_opened_anew_and_writes_are_kept_again() {
        let disk = MemoryDisk::default();
        disk.plan_commits([None, Some(CommitFault::Lost(FaultKind::Io))]);
        let fixture = Fixture::new(disk.clone());
        disk.plan_opens([FaultKind::Full, FaultKind::Full]);
        fixture.write(0, 1, 0);
        assert!(fixture.wait(0, 1).kept);
        fixture.write(0, 2, 0);
        let failed = StoreWritten { through: 2, term: 0, kept: false, touched: true };
        assert_eq!(fixture.wait(0, 2), failed);
        assert_eq!(fixture.metrics.accepts.get(), 0);
        assert!(fixture.load(1).is_err(), "refused while the disk is closed");
        let mut serial = 2;
        for term in 1.. {
            serial += 1;
            fixture.write(0, serial, term);
            if fixture.wait(0, serial).kept {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(serial > 3, "some writes are refused meanwhile");
        assert_eq!((fixture.top(), fixture.metrics.accepts.get()), (serial, 1));
        assert_eq!(fixture.metrics.failures.get(), 1);
    }

    #[test]
    fn a_fault_in_the_background_is_found_without_a_write() {
        let disk = MemoryDisk::default();
        let fixture = Fixture::new(disk.clone());
        disk.plan_probe(FaultKind::Full);
        let began = Instant::now();
        while fixture.metrics.failures.get() == 0 || fixture.metrics.accepts.get() == 0 {
            assert!(began.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(1));
        }
        fixture.write(0, 1, 0);
        assert!(fixture.wait(0, 1).kept);
    }

    #[test]
    fn the_housekeeping_asks_the_home_and_removes_what_belongs_to_no_stream() {
        let disk = MemoryDisk::default();
        let orphan = publish("gone", 1, 1).change.publication.unwrap();
        let key = layout::publication_key("gone", 1);
        disk.set(Table::Publications, &key, &records::write_publication(&orphan, None));
        let fixture = Fixture::new(disk.clone());
        // Its history expired long ago.
        fixture.write(0, 1, 0);
        fixture.wait(0, 1);
        let home = Names::new([0; 16], 2);
        let due = loop {
            if let Message::StoreDue(due) = fixture.take_any(home.home(home.hash("a"))) {
                break due;
            }
        };
        assert_eq!(due.channels, [Arc::from("a")]);
        let began = Instant::now();
        while !offsets(&disk, "gone").is_empty() {
            assert!(began.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(offsets(&disk, "a"), [1]);
    }

    #[test]
    fn many_expired_keys_are_removed_within_seconds() {
        let disk = MemoryDisk::default();
        for nth in 0..30_000_u32 {
            let key = [layout::bucket_key(1), nth.to_be_bytes().to_vec()].concat();
            disk.set(Table::Keys, &key, b"");
        }
        let _fixture = Fixture::new(disk.clone());
        let began = Instant::now();
        while !disk.entries(Table::Keys).is_empty() {
            // A step for each walk over the streams would take a minute.
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn answers_that_nobody_takes_have_a_bound_in_bytes() {
        let disk = MemoryDisk::default();
        disk.reopen().unwrap();
        let mut write = publish("a", 1, 1);
        let (channel, data) = ("a", vec![b'x'; 20 << 20]);
        let position = Some(Position { offset: 1, epoch: Epoch::from_random(1) });
        let draft = NewPublication { channel, data: &data, position, ..NewPublication::default() };
        let stored = write.change.publication.as_mut().unwrap();
        stored.publication = Publication::new(draft);
        commit(&disk, &[write]);
        let fixture = Fixture::new(disk);
        for tag in 0..10 {
            let query = StoreQuery::Load { limit: 1, bytes: 64 << 20 };
            let read = StoreRead { shard: 0, ..question("a", tag, query) };
            fixture.send(0, Message::StoreRead(Box::new(read)));
        }
        let mut taken: Vec<_> = (0..4).map(|_| fixture.take(0)).collect();
        std::thread::sleep(Duration::from_millis(300));
        let mut port = fixture.bus.port(0);
        taken.extend(std::iter::from_fn(|| port.take(Rank::Store)));
        taken.retain(|message| matches!(message, Message::StoreAnswer(_)));
        // Each reader may be in the middle of an answer when the bound is reached.
        assert!(taken.len() <= 5, "{} answers of 20 MiB", taken.len());
        let rest = 10 - taken.len();
        drop(taken);
        (0..rest).for_each(|_| drop(fixture.take(0)));
    }

    #[test]
    fn a_stop_finishes_what_lies_in_the_inbox() {
        let disk = MemoryDisk::default();
        let mut fixture = Fixture::new(disk.clone());
        for serial in 1..=10 {
            fixture.write(1, serial, 0);
        }
        fixture.thread.take().unwrap().stop();
        assert_eq!(fixture.wait(1, 10).through, 10);
        disk.reopen().unwrap();
        assert_eq!(offsets(&disk, "a").len(), 10);
    }
}
