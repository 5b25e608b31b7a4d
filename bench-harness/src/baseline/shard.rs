//! The kernel baseline's child: shards that accept, hold and send.
//!
//! Owns one ring a shard and the reading of orders. Never polls a socket and never reads one: a
//! socket here costs what the kernel takes for it and nothing else. Invariant: every order is
//! answered with one line when the last shard is done with it.

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

use super::{Order, Sent};
use crate::dense::GREETING_BYTES;
use crate::subprocess::{answer, ready};

/// Accepts outstanding on a shard.
const ACCEPTS: u32 = 16;

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

struct Handle {
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
        shards.push(Handle { jobs, bell });
    }
    for _ in 0..options.shards {
        failures.recv().context("a shard of the kernel baseline died")??;
    }
    ready()?;
    obey(&shards)
}

fn obey(shards: &[Handle]) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        match Order::parse(&line.context("cannot read an order")?)? {
            Order::Quit => return Ok(()),
            order => answer(&all(shards, order)?.line())?,
        }
    }
    Ok(())
}

/// Has every shard carry an order out; the sum.
fn all(shards: &[Handle], order: Order) -> Result<Sent> {
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
    let mut sum = Sent { sends: 0, short: 0, cpu_ns: 0, wall_ns: 0 };
    for _ in shards {
        let one = dones.recv().context("a shard of the kernel baseline died")?;
        sum.sends += one.sends;
        sum.short += one.short;
        sum.cpu_ns += one.cpu_ns;
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
        let mut shard = Shard {
            ring,
            slots: self.options.slots,
            next: 0,
            live: Vec::new(),
            accepted: self.accepted,
            short: 0,
            at: 0,
        };
        shard.ring.listen(listener);
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
    live: Vec<u32>,
    accepted: Arc<AtomicU64>,
    short: u64,
    /// Where in `live` a rate goes on.
    at: usize,
}

impl Shard {
    fn accept(&mut self) {
        if self.next < self.slots {
            self.ring.accept(0, self.next);
            self.next += 1;
        }
    }

    fn run(&mut self, inbox: &Receiver<Job>) -> Result<()> {
        loop {
            self.ring.arm_doorbell();
            match inbox.try_recv() {
                Ok(job) => {
                    let sent = self.carry_out(&job);
                    // Nobody waiting: the order was given up.
                    let _ = job.done.send(sent);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            self.ring.wait(None);
            self.reap();
        }
    }

    /// Takes completions: new sockets, which are greeted, and sends that came back short.
    fn reap(&mut self) {
        self.ring.reap();
        let from = self.live.len();
        while let Some(completion) = self.ring.next_reaped() {
            let slot = completion.token.slot;
            match completion.token.op {
                Op::Accept if completion.result >= 0 => {
                    self.live.push(slot);
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    self.accept();
                }
                Op::Accept => {
                    let error = std::io::Error::from_raw_os_error(-completion.result);
                    eprintln!("the kernel baseline could not accept a socket: {error}");
                    self.ring.accept(0, slot);
                }
                _ => {}
            }
        }
        let fresh = &self.live[from..];
        if !fresh.is_empty() {
            let greeting = [b'x'; GREETING_BYTES as usize];
            let ring = &mut self.ring;
            let unsent = ring.transmit(|batch| {
                fresh.iter().for_each(|slot| batch.send(0, *slot, &greeting));
            });
            self.short += unsent.len() as u64;
        }
    }

    fn carry_out(&mut self, job: &Job) -> Sent {
        let (cpu, begun) = (thread_ns(), Instant::now());
        self.short = 0;
        let sends = match job.order {
            Order::Send { rounds, per_turn, .. } => self.send(&job.bytes, rounds, per_turn),
            Order::Rate { per_second, seconds, per_turn, .. } => {
                self.rate(&job.bytes, per_second, seconds, per_turn)
            }
            Order::Quit => 0,
        };
        Sent {
            sends,
            short: self.short,
            cpu_ns: thread_ns() - cpu,
            wall_ns: begun.elapsed().as_nanos() as u64,
        }
    }

    fn send(&mut self, bytes: &[u8], rounds: u32, per_turn: u32) -> u64 {
        let live = std::mem::take(&mut self.live);
        for _ in 0..rounds {
            for slots in live.chunks(per_turn as usize) {
                let unsent = self.ring.transmit(|batch| {
                    slots.iter().for_each(|slot| batch.send(0, *slot, bytes));
                });
                self.short += unsent.len() as u64;
                self.reap();
            }
        }
        let sends = live.len() as u64 * u64::from(rounds);
        // Sockets that were accepted meanwhile come behind.
        self.live.splice(0..0, live);
        sends
    }

    /// This shard's part of the rate, by its part of the sockets; a turn waits until it is full.
    fn rate(&mut self, bytes: &[u8], per_second: u64, seconds: u64, per_turn: u32) -> u64 {
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
            let (live, at) = (&self.live, &mut self.at);
            let unsent = self.ring.transmit(|batch| {
                for _ in 0..turn {
                    *at = (*at + 1) % live.len();
                    batch.send(0, live[*at], bytes);
                }
            });
            self.short += unsent.len() as u64;
            self.reap();
            sent += turn;
        }
        sent
    }
}

/// Processor time of this thread, in ns.
fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
