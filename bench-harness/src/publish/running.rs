//! Tasks on a thread of their own, most with a monoio runtime.
//!
//! Owns the thread and the start of all publishers of a load. Never knows how a message is sent.

use std::rc::Rc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};

use super::load::Load;
use super::published::Published;
use crate::clock::RunClock;

/// Tasks running on a thread of their own.
pub struct Running<T> {
    handle: JoinHandle<Result<T>>,
}

impl<T: Send + 'static> Running<T> {
    /// Runs `task` on a thread of its own.
    pub(super) fn on_thread(
        name: &str,
        task: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(task);
        Ok(Running { handle: handle.context("cannot start the publishers' thread")? })
    }
}

impl<T> Running<T> {
    /// Waits for their end.
    pub fn join(self) -> Result<T> {
        self.handle.join().map_err(|_| anyhow!("the thread of publishers or probes panicked"))?
    }
}

/// Runs `tasks` on a monoio runtime of its own thread.
pub(crate) fn spawn<T: Send + 'static, F: Future<Output = Result<T>> + 'static>(
    name: &str,
    tasks: impl FnOnce() -> F + Send + 'static,
) -> Result<Running<T>> {
    Running::on_thread(name, move || {
        let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
            .enable_timer()
            .build()
            .context("cannot set up the publishers' ring")?;
        runtime.block_on(tasks())
    })
}

/// Runs all publishers of a load at the same time, each by `one`, and adds up their outcome.
pub(super) async fn each<F: Future<Output = Result<Published>> + 'static>(
    load: Load,
    clock: RunClock,
    one: impl Fn(Rc<Load>, u64, RunClock) -> F,
) -> Result<Published> {
    let load = Rc::new(load);
    let tasks: Vec<_> = (0..load.publishers)
        .map(|publisher| monoio::spawn(one(load.clone(), publisher, clock)))
        .collect();
    let mut sum = Published::new(&clock)?;
    for task in tasks {
        sum.merge(task.await?)?;
    }
    Ok(sum)
}
