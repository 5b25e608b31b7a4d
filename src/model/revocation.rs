//! Revocations of tokens: by the ID of the token, or by user (and channel) and time of issue.
//!
//! Owns a list of entries of fixed size, found by keyed hashes. Never reads a clock: the caller
//! passes the time. The invariant: a list never changes. A new list shares all unchanged buckets
//! with its predecessor, so every shard can hold a list without a lock.

use std::sync::Arc;

/// Number of buckets of a list. A change copies one bucket.
const BUCKETS: usize = 256;

/// Scope of a revocation. The list stores a 64-bit hash of it under the node's key. With a million
/// clients and 100 000 revocations, the probability that a hash collision revokes a wrong token is
/// about 1 in 100 million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationScope<'a> {
    /// The token with this ID (`jti`).
    Token(&'a str),
    /// The connection tokens of a user.
    User(&'a str),
    /// The subscription tokens of a user for a channel.
    Subscriber {
        /// The user.
        user: &'a str,
        /// The channel.
        channel: &'a str,
    },
}

/// The part of a token that the server keeps to apply later revocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenFingerprint {
    /// Hash of the token's ID; 0: the token has no ID.
    pub id: u64,
    /// Time at which the token was issued, in Unix seconds; 0: the token does not contain it.
    pub issued_at: u64,
}

impl TokenFingerprint {
    /// The fingerprint of a client or subscription without a token.
    pub const NONE: TokenFingerprint = TokenFingerprint { id: 0, issued_at: u64::MAX };
}

impl Default for TokenFingerprint {
    fn default() -> Self {
        TokenFingerprint::NONE
    }
}

/// One revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Hash of the scope.
    pub subject: u64,
    /// Tokens issued at this Unix second or later stay valid.
    pub issued_before: u64,
    /// Unix second at which the revocation ends.
    pub until: u64,
}

impl Revocation {
    /// One revocation that revokes what this one and `new` revoke.
    #[must_use]
    pub fn merged(self, new: Revocation) -> Revocation {
        Revocation {
            issued_before: self.issued_before.max(new.issued_before),
            until: self.until.max(new.until),
            ..new
        }
    }
}

/// A list of revocations.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    /// Empty, or [`BUCKETS`] buckets.
    buckets: Vec<Arc<[Revocation]>>,
    length: usize,
}

impl Revocations {
    /// Number of entries, including entries that have ended.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the list has no entries.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn find(&self, subject: u64, now: u64) -> Option<&Revocation> {
        let bucket = self.buckets.get(subject as usize % BUCKETS)?;
        bucket.iter().find(|entry| entry.subject == subject && entry.until > now)
    }

    /// Whether the token is revoked at `now`, in Unix seconds. `owner` is the hash of the token's
    /// user or subscriber scope.
    pub fn covers(&self, token: TokenFingerprint, owner: u64, now: u64) -> bool {
        let by_id = token.id != 0 && self.find(token.id, now).is_some();
        by_id || self.find(owner, now).is_some_and(|entry| token.issued_at < entry.issued_before)
    }

    /// A list with one more revocation; `None`: the list has `max` entries that have not ended.
    pub fn with(&self, new: Revocation, now: u64, max: usize) -> Option<Revocations> {
        let mut next = self.clone();
        next.buckets.resize(BUCKETS, Arc::new([]));
        let at = new.subject as usize % BUCKETS;
        if next.length >= max && !next.buckets[at].iter().any(|entry| entry.subject == new.subject)
        {
            (0..BUCKETS).for_each(|at| next.rebuild(at, |entry| entry.until > now, None));
            if next.length >= max {
                return None;
            }
        }
        let before = next.buckets[at].iter().find(|entry| entry.subject == new.subject);
        let merged =
            before.filter(|before| before.until > now).map_or(new, |before| before.merged(new));
        // Ended entries stay until their room is needed, because the clock may have been ahead.
        next.rebuild(at, |entry| entry.subject != new.subject, Some(merged));
        Some(next)
    }

    /// Replaces a bucket by its entries that `keep` selects, and `new`.
    fn rebuild(&mut self, at: usize, keep: impl Fn(&&Revocation) -> bool, new: Option<Revocation>) {
        let bucket = &mut self.buckets[at];
        self.length -= bucket.len();
        *bucket = bucket.iter().filter(keep).copied().chain(new).collect();
        self.length += bucket.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;

    fn of(subject: u64, issued_before: u64, until: u64) -> Revocation {
        Revocation { subject, issued_before, until }
    }

    fn list(entries: &[Revocation]) -> Revocations {
        let add = |list: Revocations, one: &Revocation| list.with(*one, NOW, 10).unwrap();
        entries.iter().fold(Revocations::default(), add)
    }

    #[test]
    fn tokens_are_revoked_by_id_or_by_owner_and_time_of_issue() {
        let list = list(&[of(7, u64::MAX, 2_000), of(8, 500, 2_000)]);
        let check = |id, issued_at, owner, now, expected| {
            let found = list.covers(TokenFingerprint { id, issued_at }, owner, now);
            assert_eq!(found, expected, "{id} {issued_at} {owner} {now}");
        };
        check(7, 900, 1, NOW, true);
        check(7, 900, 1, 2_000, false);
        check(0, 900, 1, NOW, false);
        check(0, 499, 8, NOW, true);
        check(0, 500, 8, NOW, false);
        check(0, 0, 8, NOW, true);
        check(0, 0, 8, 2_000, false);
        assert!(!list.covers(TokenFingerprint::NONE, 8, NOW), "a client without a token");
        assert!(!Revocations::default().covers(TokenFingerprint { id: 7, issued_at: 0 }, 8, NOW));
    }

    #[test]
    fn a_repeated_revocation_extends_the_existing_entry() {
        let list = list(&[of(8, 500, 2_000), of(8, 400, 3_000), of(8, 600, 1_500)]);
        assert_eq!(list.len(), 1);
        assert_eq!(list.find(8, 2_999), Some(&of(8, 600, 3_000)));
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_while_removes_no_entry() {
        let list = list(&[of(8, 500, 2_000)]).with(of(8 + BUCKETS as u64, 1, 9_000), 5_000, 10);
        let list = list.unwrap();
        assert!(!list.covers(TokenFingerprint { id: 0, issued_at: 499 }, 8, 5_000));
        assert!(list.covers(TokenFingerprint { id: 0, issued_at: 499 }, 8, NOW));
    }

    #[test]
    fn a_full_list_refuses_new_entries_until_others_end() {
        let first = Revocations::default().with(of(1, 0, 1_100), NOW, 2).unwrap();
        let full = first.with(of(2, 0, 1_200), NOW, 2).unwrap();
        assert!(full.with(of(3, 0, 1_300), NOW, 2).is_none());
        assert!(full.with(of(2, 5, 1_300), NOW, 2).is_some(), "the entry exists");
        let later = full.with(of(3, 0, 1_300), 1_100, 2).unwrap();
        assert_eq!(later.len(), 2);
        assert!(later.find(1, 0).is_none() && later.find(3, 0).is_some());
        assert_eq!((first.len(), full.len()), (1, 2), "lists do not change");
    }
}
