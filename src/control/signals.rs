//! Signals: SIGTERM and SIGINT end the server, SIGHUP reloads its configuration, SIGUSR1 and
//! SIGUSR2 do nothing.
//!
//! Owns the handlers. The invariant: only SIGTERM and SIGINT end the process. A signal that arrives
//! during the start takes effect once the server runs.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The handlers of a process that serves.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
    /// SIGUSR1 and SIGUSR2 have a handler only so that they do not end the process.
    _ignored: [Signal; 2],
}

impl Signals {
    /// Installs the handlers. Call it in the context of the runtime, and before anything listens,
    /// so that every accepted connection is drained at the shutdown.
    ///
    /// # Errors
    /// The kernel refuses a handler.
    pub fn install() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: Some(signal(SignalKind::hangup())?),
            _ignored: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// Takes the handler of SIGHUP, for the part that reloads.
    pub fn take_hangups(&mut self) -> Option<Signal> {
        self.hangup.take()
    }

    /// Waits for SIGTERM or SIGINT.
    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
