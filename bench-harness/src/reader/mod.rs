//! Clients that read prices: by polling, long-polling, HTTP streaming, server-sent events or
//! WebSocket, as tasks on a thread of their own.
//!
//! Owns the clients and their sockets. Never publishes. Invariant: every byte that a client sends
//! or receives within the window is counted once, as header and framing, as envelope or as price.

use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use monoio::task::JoinHandle;

use crate::clock::RunClock;
use crate::publish::{Running, spawn};

mod client;
mod plan;
mod shape;
mod tally;
mod way;
mod window;

use client::client;
pub use plan::ReaderPlan;
use tally::Shared;
pub use tally::{Counts, Readings};
pub use way::Way;
pub use window::Window;

/// Clients that connect at the same time.
const AT_ONCE: u64 = 64;
/// Time after the window in which its last bytes arrive.
const GRACE: Duration = Duration::from_millis(300);
/// Maximum time until the clients have ended after their server.
const PATIENCE: Duration = Duration::from_secs(30);

/// The running clients.
pub struct Reading {
    outcome: mpsc::Receiver<Result<Readings>>,
    thread: Running<()>,
}

impl Reading {
    /// Waits until the window is over.
    pub fn outcome(&self) -> Result<Readings> {
        self.outcome.recv().context("the thread of the clients ended early")?
    }

    /// Waits until all clients have ended, which they do when the server has.
    pub fn end(self) -> Result<()> {
        self.thread.join()
    }
}

/// Starts the clients.
pub fn read(plan: ReaderPlan, clock: RunClock, window: Arc<Window>) -> Result<Reading> {
    let (sender, outcome) = mpsc::channel();
    let thread = spawn("readers", move || async move {
        let shared = Rc::new(Shared::new(plan, clock, window)?);
        let mut tasks = Vec::new();
        let readings = run(&shared, &mut tasks).await;
        // The caller may have given up.
        let _ = sender.send(readings);
        let ended = monoio::time::timeout(PATIENCE, async {
            for task in tasks {
                task.await;
            }
        });
        ended.await.map_err(|_| anyhow!("clients did not end with their server"))
    })?;
    Ok(Reading { outcome, thread })
}

async fn run(shared: &Rc<Shared>, tasks: &mut Vec<JoinHandle<()>>) -> Result<Readings> {
    let (clock, window) = (shared.clock, &shared.window);
    for index in 0..shared.plan.clients {
        tasks.push(monoio::spawn(client(shared.clone(), index)));
        while window.up() + AT_ONCE <= index + 1 {
            shared.check()?;
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    while clock.now_ns() < window.end_ns() {
        shared.check()?;
        monoio::time::sleep(Duration::from_millis(5)).await;
    }
    monoio::time::sleep(GRACE).await;
    if window.is_cancelled() {
        bail!("the clients were ended early");
    }
    shared.finish()
}
