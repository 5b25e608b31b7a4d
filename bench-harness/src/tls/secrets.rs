//! Traffic secrets that rustls logs during a handshake.
//!
//! Owns what the running thread has logged. Never keeps it longer than a step of a handshake.

use std::cell::RefCell;

use rustls::KeyLog;

/// The traffic secrets of both directions.
#[derive(Debug, Default, Clone)]
pub(super) struct Secrets {
    pub(super) client: Vec<u8>,
    pub(super) server: Vec<u8>,
}

impl Secrets {
    /// Takes over those that were logged.
    pub(super) fn add(&mut self, logged: Secrets) {
        for (kept, new) in [(&mut self.client, logged.client), (&mut self.server, logged.server)] {
            if !new.is_empty() {
                *kept = new;
            }
        }
    }
}

/// What rustls has logged on this thread since the last call.
pub(super) fn take_logged() -> Secrets {
    LOGGED.take()
}

thread_local! {
    /// What rustls has logged since it was taken.
    static LOGGED: RefCell<Secrets> = RefCell::default();
}

/// Keeps the traffic secrets that rustls logs, for the thread that is processing.
#[derive(Debug)]
pub(super) struct LoggedSecrets;

impl KeyLog for LoggedSecrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        LOGGED.with_borrow_mut(|logged| match label {
            "CLIENT_TRAFFIC_SECRET_0" => logged.client = secret.to_vec(),
            "SERVER_TRAFFIC_SECRET_0" => logged.server = secret.to_vec(),
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0")
    }
}
