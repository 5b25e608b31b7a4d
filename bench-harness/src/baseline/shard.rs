//! The child process of the kernel baseline: shards that accept sockets, hold them and send.
//!
//! Owns one ring per shard and the reading of orders. Never polls a socket and never reads one: a
//! socket here costs what the kernel takes for it and nothing else. Invariant: every order is
//! answered with one line when the last shard has carried it out, and the answer counts every send
//! that the kernel did not take in full.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use drumline::base::sys::{self, ListenerOptions};
use drumline::engine::ring::{Op, Ring, RingSizes};
use rustix::time::{ClockId, clock_gettime};

use super::order::{Order, Sent};
use crate::dense::GREETING_BYTES;
use crate::subprocess::{answer, ready};

/// Accepts outstanding on a shard.
const ACCEPTS: u32 = 16;
/// errno of a send to a socket that has no room.
const EAGAIN: i32 = 11;

/// Options of the child: sizes and the listeners' socket options.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Port to listen on, on all IPv4 addresses.
    #[arg(long)]
    pub port: u16,
    /// Shards: rings, threads and listeners.
    #[arg(long)]
    pub shards: u32,
    /// Sockets that one shard holds.
    #[arg(long)]
    pub slots: u32,
    /// SO_SNDBUF of accepted sockets, in bytes.
    #[arg(long, default_value_t = 65_536)]
    pub send_buffer: usize,
    /// SO_RCVBUF of accepted sockets, in bytes.
    #[arg(long, default_value_t = 65_536)]
    pub receive_buffer: usize,
}

impl Options {
    /// As arguments of `baseline-server`.
    pub(super) fn arguments(&self) -> Vec<String> {
        let Options { port, shards, slots, send_buffer, receive_buffer } = self;
        vec![
            format!("--port={port}"),
            format!("--shards={shards}"),
            format!("--slots={slots}"),
            format!("--send-buffer={send_buffer}"),
            format!("--receive-buffer={receive_buffer}"),
        ]
    }

    fn listener(&self) -> ListenerOptions {
        ListenerOptions {
            send_buffer: self.send_buffer,
            receive_buffer: self.receive_buffer,
            user_timeout: Duration::from_secs(45),
            backlog: i32::MAX,
        }
    }
}

/// One order for one shard.
struct Job {
    order: Order,
    bytes: Arc<[u8]>,
    done: Sender<Sent>,
}

struct ShardHandle {
    jobs: Sender<Job>,
    bell: OwnedFd,
}

/// Runs the child: reads orders from standard input, answers on standard output.
pub fn serve(options: &Options) -> Result<()> {
    sys::raise_open_files().context("cannot raise RLIMIT_NOFILE")?;
    let accepted = Arc::new(AtomicU64::new(0));
    let (failed, failures) = channel();
    let mut shards = Vec::new();
    for number in 0..options.shards {
        let bell = sys::doorbell().context("cannot make an eventfd")?;
        let (jobs, inbox) = channel();
        let shard = Start {
            options: options.clone(),
            number,
            bell: bell.try_clone().context("cannot copy an eventfd")?,
            accepted: accepted.clone(),
        };
        let failed = failed.clone();
        std::thread::Builder::new().name(format!("baseline-{number}")).spawn(move || {
            let mut ready = Some(failed.clone());
            if let Err(error) = shard.run(&inbox, &mut ready) {
                // Nobody listening: the process is ending anyway.
                let _ = failed.send(Err(error));
            }
        })?;
        shards.push(ShardHandle { jobs, bell });
    }
    for _ in 0..options.shards {
        failures.recv().context("a shard of the kernel baseline died")??;
    }
    ready()?;
    obey(&shards)
}

fn obey(shards: &[ShardHandle]) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        match Order::parse(&line.context("cannot read an order")?)? {
            Order::Quit => return Ok(()),
            order => answer(&all(shards, order)?.line())?,
        }
    }
    Ok(())
}

/// Has every shard carry an order out; the sum.
fn all(shards: &[ShardHandle], order: Order) -> Result<Sent> {
    let (Order::Send { bytes, .. } | Order::Rate { bytes, .. }) = order else {
        return Err(anyhow!("only sends go to the shards"));
    };
    let bytes: Arc<[u8]> = vec![b'x'; bytes].into();
    let (done, dones) = channel();
    let begun = Instant::now();
    for shard in shards {
        let job = Job { order, bytes: bytes.clone(), done: done.clone() };
        shard.jobs.send(job).map_err(|_| anyhow!("a shard of the kernel baseline died"))?;
        sys::ring_doorbell(&shard.bell);
    }
    drop(done);
    let mut sum = Sent::default();
    for _ in shards {
        let one = dones.recv().context("a shard of the kernel baseline died")?;
        sum.add(&one);
    }
    sum.wall_ns = begun.elapsed().as_nanos() as u64;
    Ok(sum)
}

struct Start {
    options: Options,
    number: u32,
    bell: OwnedFd,
    accepted: Arc<AtomicU64>,
}

impl Start {
    fn run(self, inbox: &Receiver<Job>, ready: &mut Option<Sender<Result<()>>>) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.options.port));
        let listener = sys::listener(address, &self.options.listener()).with_context(|| {
            format!("the kernel baseline cannot listen on port {}", self.options.port)
        })?;
        if sys::processors() >= self.options.shards as usize {
            sys::pin(self.number as usize);
        }
        let sizes = RingSizes {
            submissions: 1024,
            completions: 4096,
            slots: self.options.slots,
            buffers: 1,
            buffer_bytes: 4096,
        };
        let ring = Ring::new(&sizes).context("the kernel baseline cannot set up a ring")?;
        let mut shard = Shard::new(ring, self.options.slots, self.accepted);
        shard.ring.listen([listener]);
        shard.ring.watch_doorbell(self.bell);
        for _ in 0..ACCEPTS {
            shard.accept();
        }
        if let Some(ready) = ready.take() {
            // Nobody listening: the process is ending anyway.
            let _ = ready.send(Ok(()));
        }
        shard.run(inbox)
    }
}

struct Shard {
    ring: Ring,
    slots: u32,
    /// Slots from here on were not given to an accept yet.
    next: u32,
    /// Slots of accepted sockets.
    live: Vec<u32>,
    /// Sockets that all shards have accepted.
    accepted: Arc<AtomicU64>,
    /// What was sent since the last answer.
    sent: Sent,
    /// Bytes of each send of the order being carried out.
    bytes_each: usize,
    /// Slots of sockets that a send found closed, to be forgotten after the order.
    closed: Vec<u32>,
    /// Where in `live` the next order of a rate goes on.
    at: usize,
}

impl Shard {
    fn new(ring: Ring, slots: u32, accepted: Arc<AtomicU64>) -> Self {
        Shard {
            ring,
            slots,
            next: 0,
            live: Vec::new(),
            accepted,
            sent: Sent::default(),
            bytes_each: 0,
            closed: Vec::new(),
            at: 0,
        }
    }

    fn accept(&mut self) {
        if self.next < self.slots {
            self.ring.accept(0, self.next, 0, false);
            self.next += 1;
        }
    }

    fn run(&mut self, inbox: &Receiver<Job>) -> Result<()> {
        loop {
            self.ring.arm_doorbell();
            match inbox.try_recv() {
                Ok(job) => {
                    let sent = self.carry_out(job.order, &job.bytes);
                    // The receiver is gone only when the process ends.
                    let _ = job.done.send(sent);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            self.ring.wait(None);
            self.reap();
        }
    }

    /// Takes completions: accepted sockets, which are greeted, and sends that failed after their
    /// transmit had returned.
    fn reap(&mut self) {
        self.ring.reap();
        let mut fresh = Vec::new();
        while let Some(completion) = self.ring.next_reaped() {
            let slot = completion.token.slot;
            match completion.token.op {
                Op::Accept if completion.result >= 0 => {
                    fresh.push(slot);
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    self.accept();
                }
                Op::Accept => {
                    let error = std::io::Error::from_raw_os_error(-completion.result);
                    eprintln!("the kernel baseline could not accept a socket: {error}");
                    self.ring.accept(0, slot, 0, false);
                }
                Op::Send => self.note_late(slot, completion.result),
                _ => {}
            }
        }
        if !fresh.is_empty() {
            self.greet(&fresh);
            self.live.extend(fresh);
        }
    }

    /// Greets accepted sockets. Greetings belong to no order: only those that fail are counted, in
    /// the answer to the next order.
    fn greet(&mut self, slots: &[u32]) {
        let before = self.sent;
        self.send_to(slots, &[b'x'; GREETING_BYTES as usize]);
        (self.sent.sends, self.sent.bytes) = (before.sends, before.bytes);
    }

    /// Sends to these slots in one transmit and counts what the kernel took.
    fn send_to(&mut self, slots: &[u32], bytes: &[u8]) {
        let unsent = self.ring.transmit(|batch| {
            slots.iter().for_each(|slot| batch.send(0, *slot, bytes));
        });
        self.sent.count(slots.len(), bytes.len(), unsent);
        let closed = unsent.iter().filter(|send| send.taken.is_none());
        self.closed.extend(closed.map(|send| send.slot));
    }

    /// Corrects the count by a send whose result, bytes or a negated errno, came after its transmit
    /// had returned.
    fn note_late(&mut self, slot: u32, result: i32) {
        let taken = if result == -EAGAIN { Some(0) } else { usize::try_from(result).ok() };
        self.sent.take_back(self.bytes_each, taken);
        if taken.is_none() {
            self.closed.push(slot);
        }
    }

    fn carry_out(&mut self, order: Order, bytes: &[u8]) -> Sent {
        let (cpu, begun) = (thread_ns(), Instant::now());
        self.bytes_each = bytes.len();
        match order {
            Order::Send { per_turn, .. } => self.send(bytes, per_turn),
            Order::Rate { per_second, seconds, per_turn, .. } => {
                self.rate(bytes, per_second, seconds, per_turn);
            }
            Order::Quit => {}
        }
        self.forget_closed();
        Sent {
            cpu_ns: thread_ns() - cpu,
            wall_ns: begun.elapsed().as_nanos() as u64,
            ..std::mem::take(&mut self.sent)
        }
    }

    fn send(&mut self, bytes: &[u8], per_turn: u32) {
        let live = std::mem::take(&mut self.live);
        for slots in live.chunks(per_turn as usize) {
            self.send_to(slots, bytes);
            self.reap();
        }
        // Sockets that were accepted meanwhile come behind.
        self.live.splice(0..0, live);
    }

    /// Sends this shard's part of the rate, in proportion to its part of the sockets. A turn is
    /// sent when its last send is due.
    fn rate(&mut self, bytes: &[u8], per_second: u64, seconds: u64, per_turn: u32) {
        let total = self.accepted.load(Ordering::Relaxed).max(1);
        let rate = per_second as f64 * self.live.len() as f64 / total as f64;
        let all = (rate * seconds as f64) as u64;
        let begun = Instant::now();
        let mut sent = 0;
        while sent < all && !self.live.is_empty() {
            let turn = u64::from(per_turn).min(all - sent);
            let due = Duration::from_secs_f64((sent + turn) as f64 / rate);
            if let Some(left) = due.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
                self.ring.wait(Some(left));
                self.reap();
                continue;
            }
            let slots: Vec<u32> = (0..turn).map(|_| self.next_in_turn()).collect();
            self.send_to(&slots, bytes);
            self.reap();
            sent += turn;
        }
    }

    /// The slot that the rate sends to next.
    fn next_in_turn(&mut self) -> u32 {
        self.at = (self.at + 1) % self.live.len();
        self.live[self.at]
    }

    /// Closes sockets that a send found closed: no later order sends to them.
    fn forget_closed(&mut self) {
        let closed: BTreeSet<u32> = self.closed.drain(..).collect();
        self.live.retain(|slot| !closed.contains(slot));
        for slot in closed {
            self.ring.close(0, slot);
        }
    }
}

/// Processor time of this thread, in ns.
fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A shard that has accepted `count` sockets, and the other ends.
    fn shard(count: u32) -> (Shard, Vec<TcpStream>) {
        let sizes = RingSizes {
            submissions: 16,
            completions: 64,
            slots: count,
            buffers: 1,
            buffer_bytes: 4096,
        };
        let mut ring = Ring::new(&sizes).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut peers = Vec::new();
        for slot in 0..count {
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            peers.push(peer);
            ring.place(slot, &listener.accept().unwrap().0.into()).unwrap();
        }
        let mut shard = Shard::new(ring, count, Arc::default());
        shard.live = (0..count).collect();
        (shard, peers)
    }

    fn send(shard: &mut Shard, bytes: usize) -> Sent {
        shard.carry_out(Order::Send { bytes, per_turn: 128 }, &vec![b'x'; bytes])
    }

    #[test]
    fn the_count_says_what_the_kernel_took_of_a_socket_that_is_full() {
        let (mut shard, mut peers) = shard(2);
        let bytes = 64 << 20;
        let sent = send(&mut shard, bytes);
        assert_eq!((sent.sends, sent.short, sent.closed), (2, 2, 0));
        assert!(sent.bytes > 0 && sent.bytes < 2 * bytes as u64, "{sent:?}");
        assert_eq!(send(&mut shard, 0).bytes, 0, "each answer counts its own order");
        (0..2).for_each(|slot| shard.ring.shutdown(0, slot));
        shard.ring.submit();
        let mut received = 0;
        for peer in &mut peers {
            received += std::io::copy(peer, &mut std::io::sink()).unwrap();
        }
        assert_eq!(received, sent.bytes);
    }

    #[test]
    fn a_closed_socket_is_counted_once_and_then_no_longer_sent_to() {
        let (mut shard, mut peers) = shard(3);
        send(&mut shard, 10);
        // Unread bytes make the close a reset.
        drop(peers.remove(1));
        let sent = send(&mut shard, 10);
        assert_eq!((sent.sends, sent.bytes, sent.short, sent.closed), (3, 20, 0, 1));
        let sent = send(&mut shard, 10);
        assert_eq!((sent.sends, sent.bytes, sent.short, sent.closed), (2, 20, 0, 0));
        for peer in &mut peers {
            peer.read_exact(&mut [0; 30]).unwrap();
        }
    }

    #[test]
    fn a_send_that_fails_after_its_transmit_is_counted() {
        let (mut shard, _peers) = shard(3);
        shard.bytes_each = 10;
        shard.sent.count(3, 10, &[]);
        shard.note_late(0, 4);
        shard.note_late(1, -EAGAIN);
        shard.note_late(2, -104);
        assert_eq!((shard.sent.bytes, shard.sent.short, shard.sent.closed), (4, 2, 1));
        assert_eq!(send(&mut shard, 0).closed, 1);
        assert_eq!(shard.live, [0, 1]);
    }

    #[test]
    fn greetings_count_only_where_they_fail() {
        let (mut shard, peers) = shard(2);
        shard.greet(&[0, 1]);
        assert_eq!(shard.sent, Sent::default());
        drop(peers);
        shard.greet(&[0, 1]);
        assert_eq!(shard.sent, Sent { closed: 2, ..Sent::default() });
    }
}
