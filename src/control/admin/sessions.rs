//! Sessions of the admin page: random ids in a table of bounded size.
//!
//! Owns the ids. A session ends at its expiry, at a logout, and when newer sessions need its place.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Maximum number of sessions. A further login ends the oldest session.
pub(super) const SESSIONS_MAX: usize = 32;

/// Id of a session.
pub(super) type SessionId = [u8; 32];

/// The sessions of the admin page.
pub(super) struct Sessions {
    ttl: Duration,
    /// Expiry of each session.
    open: Mutex<HashMap<SessionId, Instant>>,
}

impl Sessions {
    /// Starts without sessions; each will last for `ttl`.
    pub(super) fn new(ttl: Duration) -> Self {
        Sessions { ttl, open: Mutex::default() }
    }

    /// Duration of a session.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    fn open(&self) -> MutexGuard<'_, HashMap<SessionId, Instant>> {
        // After a panic elsewhere the table is consistent: each change is one insertion or removal.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the session with this random id.
    pub(super) fn begin(&self, id: SessionId) {
        let mut open = self.open();
        let now = Instant::now();
        open.retain(|_, expiry| *expiry > now);
        if open.len() >= SESSIONS_MAX {
            let oldest = open.iter().min_by_key(|(_, expiry)| **expiry).map(|(id, _)| *id);
            oldest.map(|oldest| open.remove(&oldest));
        }
        open.insert(id, now + self.ttl);
    }

    /// Whether a session with this id is open.
    pub(super) fn is_open(&self, id: &SessionId) -> bool {
        self.open().get(id).is_some_and(|expiry| *expiry > Instant::now())
    }

    /// Ends a session.
    pub(super) fn end(&self, id: &SessionId) {
        self.open().remove(id);
    }
}

/// An id as it stands in the cookie.
pub(super) fn id_text(id: &SessionId) -> String {
    data_encoding::HEXLOWER.encode(id)
}

/// The ids in the Cookie headers of a request under the cookie `name`.
pub(super) fn ids_in<'a>(
    cookies: impl Iterator<Item = &'a str>,
    name: &str,
) -> impl Iterator<Item = SessionId> {
    cookies.flat_map(|header| header.split(';')).filter_map(move |cookie| {
        let (key, value) = cookie.trim().split_once('=')?;
        let bytes = (key == name).then(|| data_encoding::HEXLOWER.decode(value.as_bytes()))?;
        bytes.ok()?.try_into().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_at_its_expiry_its_logout_or_for_newer_ones() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let id = |nth: usize| [nth as u8; 32];
        assert!(!sessions.is_open(&id(1)));
        sessions.begin(id(1));
        assert!(sessions.is_open(&id(1)));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(!sessions.is_open(&id(1)));
        for nth in 0..=SESSIONS_MAX {
            sessions.begin(id(nth));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(!sessions.is_open(&id(0)), "the oldest gave way");
        assert!(sessions.is_open(&id(1)) && sessions.is_open(&id(SESSIONS_MAX)));
        assert_eq!(sessions.open().len(), SESSIONS_MAX);
        sessions.end(&id(1));
        assert!(!sessions.is_open(&id(1)));
    }

    #[test]
    fn the_id_is_found_among_other_cookies() {
        let text = id_text(&[7; 32]);
        let header = format!("a=b; s_1={text}; s_2=zz;s_1=short");
        let found =
            |name: &str| ids_in([header.as_str(), "x"].into_iter(), name).collect::<Vec<_>>();
        assert_eq!(found("s_1"), [[7; 32]]);
        assert!(found("s_2").is_empty() && found("s").is_empty() && found("a").is_empty());
    }
}
