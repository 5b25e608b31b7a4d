//! Tokens that count no more, though they are signed and in time: revoked by their own name, or by
//! whose they are and when they were made.
//!
//! Owns a list of entries of a fixed size, found by keyed hashes. Never reads a clock: the time is
//! brought to it. The invariant: a list never changes once it is made, and the next one shares
//! with it all but what differs, so that every shard may hold one and none has to lock it.

use std::sync::Arc;

/// Parts of a list, of which a change copies one.
const BUCKETS: usize = 256;

/// What a revocation names. Hashed under the node's key, of 64 bits: among a million clients and
/// a hundred thousand revocations one hits a stranger with a chance of one to a hundred million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationScope<'a> {
    /// The token with this name (`jti`).
    Token(&'a str),
    /// A user's connection tokens.
    User(&'a str),
    /// A user's subscription tokens for a channel.
    Subscriber {
        /// The user.
        user: &'a str,
        /// The channel.
        channel: &'a str,
    },
}

/// What is remembered of a token, so that it can be revoked later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenFingerprint {
    /// Hash of its name; 0: it has none.
    pub id: u64,
    /// When it was made, in unix seconds; one that does not say so counts as made at 0.
    pub issued_at: u64,
}

impl TokenFingerprint {
    /// There was no token.
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
    /// Hash of its subject.
    pub subject: u64,
    /// Tokens made at this unix second or later still count.
    pub issued_before: u64,
    /// The unix second from which on it need not be known any more.
    pub until: u64,
}

/// A list of revocations.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    /// None, or as many as [`BUCKETS`].
    buckets: Vec<Arc<[Revocation]>>,
    length: usize,
}

impl Revocations {
    /// Number of entries, those that are over included.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn find(&self, subject: u64, now: u64) -> Option<&Revocation> {
        let bucket = self.buckets.get(subject as usize % BUCKETS)?;
        bucket.iter().find(|one| one.subject == subject && one.until > now)
    }

    /// Whether a token with this mark is revoked at `now`, in unix seconds; `owner` is the hash of
    /// whose it is.
    pub fn covers(&self, mark: TokenFingerprint, owner: u64, now: u64) -> bool {
        let own = mark.id != 0 && self.find(mark.id, now).is_some();
        own || self.find(owner, now).is_some_and(|one| mark.issued_at < one.issued_before)
    }

    /// The list with one more. `None`: it holds `most` already that are not over.
    pub fn with(&self, new: Revocation, now: u64, most: usize) -> Option<Revocations> {
        let mut next = self.clone();
        next.buckets.resize(BUCKETS, Arc::new([]));
        let at = new.subject as usize % BUCKETS;
        if next.length >= most && !next.buckets[at].iter().any(|one| one.subject == new.subject) {
            (0..BUCKETS).for_each(|at| next.rebuild(at, |one| one.until > now, None));
            if next.length >= most {
                return None;
            }
        }
        let before = next.buckets[at].iter().find(|one| one.subject == new.subject);
        let merged = before.filter(|before| before.until > now).map_or(new, |before| Revocation {
            issued_before: before.issued_before.max(new.issued_before),
            until: before.until.max(new.until),
            ..new
        });
        // Those that are over stay until the room is needed: the clock may have stepped.
        next.rebuild(at, |one| one.subject != new.subject, Some(merged));
        Some(next)
    }

    /// Replaces a bucket by those of it that stay, and a new one.
    fn rebuild(
        &mut self,
        at: usize,
        stays: impl Fn(&&Revocation) -> bool,
        new: Option<Revocation>,
    ) {
        let bucket = &mut self.buckets[at];
        self.length -= bucket.len();
        *bucket = bucket.iter().filter(stays).copied().chain(new).collect();
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
    fn tokens_are_revoked_by_name_or_by_owner_and_age() {
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
        assert!(!list.covers(TokenFingerprint::NONE, 8, NOW), "who came without a token");
        assert!(!Revocations::default().covers(TokenFingerprint { id: 7, issued_at: 0 }, 8, NOW));
    }

    #[test]
    fn the_same_again_takes_no_room_and_shortens_nothing() {
        let list = list(&[of(8, 500, 2_000), of(8, 400, 3_000), of(8, 600, 1_500)]);
        assert_eq!(list.len(), 1);
        assert_eq!(list.find(8, 2_999), Some(&of(8, 600, 3_000)));
    }

    #[test]
    fn a_clock_that_was_ahead_for_a_while_erases_nothing() {
        let list = list(&[of(8, 500, 2_000)]).with(of(8 + BUCKETS as u64, 1, 9_000), 5_000, 10);
        let list = list.unwrap();
        assert!(!list.covers(TokenFingerprint { id: 0, issued_at: 499 }, 8, 5_000));
        assert!(list.covers(TokenFingerprint { id: 0, issued_at: 499 }, 8, NOW));
    }

    #[test]
    fn a_full_list_takes_no_more_until_some_are_over() {
        let first = Revocations::default().with(of(1, 0, 1_100), NOW, 2).unwrap();
        let full = first.with(of(2, 0, 1_200), NOW, 2).unwrap();
        assert!(full.with(of(3, 0, 1_300), NOW, 2).is_none());
        assert!(full.with(of(2, 5, 1_300), NOW, 2).is_some(), "it is there already");
        let later = full.with(of(3, 0, 1_300), 1_100, 2).unwrap();
        assert_eq!(later.len(), 2);
        assert!(later.find(1, 0).is_none() && later.find(3, 0).is_some());
        assert_eq!((first.len(), full.len()), (1, 2), "lists do not change");
    }
}
