//! One thread of the dense client and its rings.
//!
//! Owns the rings and the slots of their connections. Never closes a connection without a command,
//! so every other loss is caused by the server. Invariant: at most [`BUFFERS`] reads are queued at
//! the same time; a slot with unread data stays on the ready list.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};

use anyhow::{Context, Result};
use drumline::engine::ring::{Completion, Op, Ring, RingSizes, Token};

use super::book::Book;
use super::counters::Counters;
use super::lane::Command;
use super::options::{Mode, Plan};
use super::secured::Secured;
use crate::clock::RunClock;
use crate::latency::Recorder;

/// Number of receive buffers per ring, and the size of each in bytes.
const BUFFERS: u16 = 128;
const BUFFER_BYTES: u32 = 16_384;
/// errno values of a failed read: no data available, and no free buffer.
const EAGAIN: i32 = 11;
const ENOBUFS: i32 = 105;

/// Parameters of a lane.
pub(super) struct Start {
    pub(super) plan: Arc<Plan>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: RunClock,
    /// Index of the first connection.
    pub(super) first: u64,
    pub(super) count: u32,
    /// Number of connections to open at the start. The others are held back.
    pub(super) early: u32,
    pub(super) commands: Receiver<Command>,
}

/// Runs the lanes until one receives `Stop`. The thread waits on the ring of the first lane; the
/// rings of the other lanes wake it through the doorbell.
pub(super) fn run(starts: Vec<Start>, bell: OwnedFd) -> Result<()> {
    let mut lanes = starts.into_iter().map(Lane::new).collect::<Result<Vec<_>>>()?;
    for lane in &mut lanes[1..] {
        lane.ring.ring_doorbell_on_news(&bell).context("cannot announce a ring's news")?;
    }
    lanes[0].ring.watch_doorbell(bell);
    loop {
        // Armed before the lanes are checked, so that a later event ends the wait.
        lanes[0].ring.arm_doorbell();
        let mut worked = false;
        for lane in &mut lanes {
            if !lane.obey()? {
                return Ok(());
            }
            if lane.has_work() {
                lane.turn()?;
                worked = true;
            }
        }
        if !worked {
            lanes[0].ring.wait(None);
        }
    }
}

/// The connections of one ring.
struct Lane {
    ring: Ring,
    plan: Arc<Plan>,
    counters: Arc<Counters>,
    clock: RunClock,
    commands: Receiver<Command>,
    first: u64,
    count: u32,
    /// Slots whose connections are to be made.
    opening: VecDeque<u32>,
    /// Slots whose connections are held back.
    held: Range<u32>,
    book: Book,
    /// TLS of the connections, if they have it.
    secured: Option<Secured>,
    /// Slots whose connections are to ask for items.
    asking: VecDeque<u32>,
    /// Slots with something to read.
    ready: VecDeque<u32>,
    recorder: Option<Recorder>,
}

impl Lane {
    fn new(start: Start) -> Result<Self> {
        let Start { plan, counters, clock, first, count, early, commands } = start;
        let sizes = RingSizes {
            submissions: 1024,
            completions: (count * 2).next_power_of_two().clamp(4096, 65_536),
            slots: count,
            buffers: BUFFERS,
            buffer_bytes: BUFFER_BYTES,
        };
        let ring = Ring::new(&sizes).with_context(|| {
            let refused = drumline::process::preflight::permitted().err();
            let why = refused.map(|fatal| format!(": {fatal}")).unwrap_or_default();
            format!("cannot set up a ring of {count} slots{why}")
        })?;
        let book = Book::new(&plan, count);
        let secured = plan.tls.clone().map(|client| Secured::new(client, count));
        Ok(Lane {
            ring,
            plan,
            counters,
            clock,
            commands,
            first,
            count,
            opening: (0..early).collect(),
            held: early..count,
            book,
            secured,
            asking: VecDeque::new(),
            ready: VecDeque::new(),
            recorder: None,
        })
    }

    fn has_work(&mut self) -> bool {
        !self.ready.is_empty() || self.may_open() || self.may_ask() || self.ring.has_news()
    }

    fn turn(&mut self) -> Result<()> {
        self.open();
        self.ask();
        self.read();
        self.send();
        self.ring.poll();
        self.ring.reap();
        while let Some(completion) = self.ring.next_reaped() {
            self.complete(completion)?;
        }
        // Submit the reads and sends that the completions caused before the thread waits.
        self.read();
        self.send();
        self.ring.poll();
        self.book.publish(&self.counters);
        Ok(())
    }

    /// Executes the queued commands. Returns false when the lane has to stop.
    fn obey(&mut self) -> Result<bool> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Begin(phase, done)) => {
                    self.book.begin(phase);
                    self.recorder = Some(Recorder::new(self.clock.started())?);
                    // The caller may no longer wait.
                    let _ = done.send(());
                }
                Ok(Command::Finish(out)) => {
                    let fresh = Recorder::new(self.clock.started())?;
                    let mut recorder = self.recorder.take().unwrap_or(fresh);
                    self.book.finish(&mut recorder);
                    let _ = out.send(recorder);
                }
                Ok(Command::BeginPings(interval_ms, done)) => {
                    self.book.pings.begin(interval_ms);
                    let _ = done.send(());
                }
                Ok(Command::CountPings(window, now_ms, out)) => {
                    let live = |slot| self.book.is_live(slot);
                    let _ = out.send(self.book.pings.tally(window, now_ms, live));
                }
                Ok(Command::EndPings(done)) => {
                    self.book.pings.end();
                    let _ = done.send(());
                }
                Ok(Command::GiveUp(done)) => {
                    self.opening.clear();
                    let held = self.held.len() as u32;
                    self.book.give_up(0..self.count - held, &self.counters);
                    let _ = done.send(());
                }
                Ok(Command::Resume) => self.ready.extend(self.book.resume()),
                Ok(Command::OpenRest) => self.opening.extend(std::mem::take(&mut self.held)),
                Ok(Command::Track) => self.book.track(),
                Ok(Command::Ask) => self.asking.extend(self.book.standing()),
                Ok(Command::Drip) => self.book.drip(),
                Ok(Command::Cut) => self.cut(),
                Ok(Command::ComeBack(recovers)) => {
                    self.opening.extend(self.book.come_back(recovers));
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return Ok(false),
                Err(TryRecvError::Empty) => return Ok(true),
            }
        }
    }

    /// Begins to close every connection: shut down, then cancel the poll, then close. Each step
    /// starts when the previous one has completed.
    fn cut(&mut self) {
        for slot in self.book.cut() {
            self.ring.shutdown(0, slot);
        }
        self.ring.poll();
    }

    fn may_open(&self) -> bool {
        !self.opening.is_empty() && self.book.in_flight < self.plan.in_flight
    }

    /// Opens connections up to the limit of connections in flight.
    fn open(&mut self) {
        while self.may_open() {
            let Some(slot) = self.opening.pop_front() else { return };
            self.ring.socket(0, slot);
            self.book.in_flight += 1;
        }
    }

    fn may_ask(&self) -> bool {
        !self.asking.is_empty() && self.book.asked < self.plan.in_flight
    }

    /// Lets connections ask for items, up to the limit of requests without an answer.
    fn ask(&mut self) {
        while self.may_ask() {
            let Some(slot) = self.asking.pop_front() else { return };
            self.book.ask(slot, self.first + u64::from(slot));
        }
    }

    /// Queues reads for ready slots, at most one per buffer.
    fn read(&mut self) {
        for _ in 0..BUFFERS {
            let Some(slot) = self.ready.pop_front() else { break };
            if self.book.is_live(slot) {
                self.ring.receive(0, slot);
            }
        }
    }

    /// Sends the queued messages of the connections.
    fn send(&mut self) {
        let book = &mut self.book;
        let unsent = match &mut self.secured {
            Some(secured) => {
                secured.seal(book);
                if secured.is_empty() {
                    return;
                }
                self.ring.transmit(|batch| {
                    secured.sends().for_each(|(slot, bytes)| batch.send(0, slot, bytes));
                })
            }
            None if book.sends.is_empty() => return,
            None => {
                let book = &*book;
                self.ring.transmit(|batch| {
                    book.sends.iter().for_each(|(slot, send)| {
                        batch.send(0, *slot, book.bytes(send));
                    });
                })
            }
        };
        // The messages are so short that an incomplete send means a broken connection.
        let unsent: Vec<u32> = unsent.iter().map(|send| send.slot).collect();
        self.book.sends.clear();
        self.book.text.clear();
        if let Some(secured) = &mut self.secured {
            secured.clear();
        }
        unsent.into_iter().for_each(|slot| self.lose(slot, 1006));
    }

    /// Counts a connection that did not come up, and closes it.
    fn refuse(&mut self, slot: u32, cause: String) {
        let was_live = self.book.is_live(slot);
        self.book.refuse(slot, cause, &self.counters);
        self.close_if_down(slot, was_live);
    }

    /// Counts a connection that ended, and closes it.
    fn lose(&mut self, slot: u32, code: u16) {
        let was_live = self.book.is_live(slot);
        self.book.lose(slot, code, &self.counters);
        self.close_if_down(slot, was_live);
    }

    /// Begins to close a connection that has just ended, as [`Lane::cut`] does: a server waits a
    /// while for the client's end.
    fn close_if_down(&mut self, slot: u32, was_live: bool) {
        if was_live && self.book.is_down(slot) {
            self.ring.shutdown(0, slot);
        }
    }

    fn complete(&mut self, completion: Completion) -> Result<()> {
        let slot = completion.token.slot;
        match completion.token.op {
            Op::Socket | Op::Connect if completion.result < 0 => {
                let error = std::io::Error::from_raw_os_error(-completion.result);
                let step = if completion.token.op == Op::Socket { "socket" } else { "connect" };
                self.refuse(slot, format!("{step}: {error}"));
            }
            // With a small receive buffer, unread data waits at the server.
            Op::Socket if matches!(self.plan.mode, Mode::Stall(_)) => {
                self.ring.limit_receive_buffer(0, slot)
            }
            Op::Socket | Op::LimitReceiveBuffer => {
                let peer = self.plan.peer(self.first + u64::from(slot));
                self.ring.connect(0, slot, peer);
            }
            Op::Connect => {
                self.ring.watch(0, slot);
                self.connected(slot);
            }
            Op::Poll if !self.book.is_live(slot) && completion.more() => {}
            Op::Poll if !self.book.is_live(slot) => self.ring.close(0, slot),
            Op::Poll => {
                if !completion.more() && completion.result >= 0 && self.book.is_live(slot) {
                    self.ring.watch(0, slot);
                }
                if self.book.wants_read(slot) {
                    self.ready.push_back(slot);
                }
            }
            Op::Receive => self.received(completion)?,
            Op::Shutdown => self.ring.cancel(Token::new(Op::Poll, 0, slot)),
            Op::Close if self.book.is_cut(slot) => {
                self.counters.up.fetch_sub(1, Ordering::Relaxed);
            }
            Op::Send => self.lose(slot, 1006),
            _ => {}
        }
        Ok(())
    }

    /// The TCP connection is there: the TLS handshake begins, or the connection's first words.
    fn connected(&mut self, slot: u32) {
        let index = self.first + u64::from(slot);
        let Some(secured) = &mut self.secured else { return self.book.connected(slot, index) };
        match secured.start(slot) {
            Ok(()) => self.book.securing(slot),
            Err(cause) => self.refuse(slot, cause),
        }
    }

    fn received(&mut self, mut completion: Completion) -> Result<()> {
        let slot = completion.token.slot;
        let Some(input) = completion.take_received() else {
            match completion.errno() {
                Some(EAGAIN) => {}
                Some(ENOBUFS) => self.ready.push_back(slot),
                _ => self.lose(slot, 1006),
            }
            return Ok(());
        };
        if !self.book.is_live(slot) {
            // The last bytes of a connection that has ended are no part of the next one's.
            return Ok(());
        }
        let bytes = input.len();
        if bytes == 0 {
            self.lose(slot, 1006);
            return Ok(());
        }
        let now_ns = self.clock.now_ns();
        let index = self.first + u64::from(slot);
        let result = match &mut self.secured {
            None => self.book.consume(slot, index, &input, now_ns, &mut self.recorder)?,
            Some(secured) => match secured.receive(slot, index, &input, &mut self.book) {
                Ok([]) => Ok(()),
                Ok(plain) => {
                    let taken =
                        self.book.consume(slot, index, plain, now_ns, &mut self.recorder)?;
                    secured.seal(&mut self.book);
                    taken
                }
                Err(cause) => Err(cause),
            },
        };
        drop(input);
        if let Err(cause) = result {
            self.refuse(slot, cause);
        }
        let more = completion.socket_nonempty() || bytes == BUFFER_BYTES as usize;
        if more && self.book.wants_read(slot) {
            self.ready.push_back(slot);
        }
        // The socket of a closed connection reports no further event: handle its end now.
        if let Some(code) = self.book.take_closed() {
            self.lose(slot, code);
        }
        self.counters.bytes.fetch_add(self.book.take_bytes(), Ordering::Relaxed);
        Ok(())
    }
}
