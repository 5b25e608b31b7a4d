//! A small server of the harness: tasks on a thread of their own, which end with their handle.
//!
//! Owns the thread. Never knows what it serves.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tokio::sync::oneshot;

/// A running service; dropping it ends it.
pub(super) struct Service {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts what `open` returns, and waits until it has an address.
    pub(super) fn start<F: Future<Output = ()>>(
        name: &str,
        open: impl AsyncFnOnce() -> Result<(SocketAddr, F)> + Send + 'static,
    ) -> Result<Self> {
        let (told, address) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime.context("cannot make a runtime") {
                Ok(runtime) => runtime,
                Err(error) => return drop(told.send(Err(error))),
            };
            runtime.block_on(async move {
                match open().await {
                    Err(error) => drop(told.send(Err(error))),
                    Ok((address, serving)) => {
                        drop(told.send(Ok(address)));
                        tokio::select! {
                            () = serving => {}
                            _ = ended => {}
                        }
                    }
                }
            });
        });
        let thread = Some(thread.context("cannot start a thread")?);
        let address = address.recv().context("a thread ended at once")??;
        Ok(Service { address, end: Some(end), thread })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // Nothing is left to do if the thread has panicked.
            let _ = thread.join();
        }
    }
}
