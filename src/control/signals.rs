//! Signals: which of them end the server, and what the others do.
//!
//! Owns the handlers. The invariant: a signal that does not ask the process to end never ends it,
//! and one that arrives while the server starts is carried out once it runs.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::base::log;

/// The handlers of a process that serves.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// SIGUSR1 and SIGUSR2, which nothing reads: a handled signal no longer ends the process.
    _ignored: [Signal; 2],
}

impl Signals {
    /// Installs the handlers. Call it in the context of the runtime, and before anything listens:
    /// whoever has been accepted is drained.
    ///
    /// # Errors
    /// The kernel's.
    pub fn install() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _ignored: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// Waits for a signal that asks the process to end.
    pub async fn end(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    log::warn("signals", "SIGHUP: a running server does not reload its \
                                          configuration; restart it to apply a changed one");
                }
            }
        }
    }
}
