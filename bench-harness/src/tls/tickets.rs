//! Tickets of finished handshakes, for clients that resume.
//!
//! Owns the tickets. Never uses one twice. Invariant: a taken ticket counts as used.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Maximum number of tickets that wait; the oldest ones go first.
const KEPT: usize = 65_536;

/// Tickets of one server.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    waiting: Mutex<VecDeque<Tls13ClientSessionValue>>,
    used: AtomicU64,
}

impl Tickets {
    /// Counts a handshake that resumed.
    pub(super) fn count(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    /// Handshakes that resumed.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _server_name: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _server_name: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(
        &self,
        _server_name: ServerName<'static>,
        _value: Tls12ClientSessionValue,
    ) {
    }

    fn tls12_session(&self, _server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {}

    fn insert_tls13_ticket(
        &self,
        _server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == KEPT {
            waiting.pop_front();
        }
        waiting.push_back(value);
    }

    fn take_tls13_ticket(
        &self,
        _server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
