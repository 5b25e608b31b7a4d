//! The revocations on disk: written before an API call is answered, and in force at the next start.
//!
//! Owns the records. Never checks a token: the shards do. The invariant: a revocation that was
//! acknowledged is in force after a crash until it ends. Scopes are written by their names, because
//! the hashes of names may have another key after a restart.

use std::collections::HashMap;
use std::path::Path;

use prost::Message;

use crate::model::names::Names;
use crate::model::revocation::{Revocation, RevocationScope, Revocations};
use crate::store::entry_log::{EntryLog, NotKept};
use crate::store::folder;

/// A revocation, as it is written.
#[derive(Clone, PartialEq, Message)]
pub struct RevocationRecord {
    /// ID of the token; empty: the revocation is about a user.
    #[prost(string, tag = "1")]
    token: String,
    #[prost(string, tag = "2")]
    user: String,
    /// The channel; empty: the user's connection tokens.
    #[prost(string, tag = "3")]
    channel: String,
    #[prost(uint64, tag = "4")]
    issued_before: u64,
    #[prost(uint64, tag = "5")]
    until: u64,
}

impl RevocationRecord {
    /// The record of a revocation.
    pub fn new(scope: RevocationScope<'_>, revocation: Revocation) -> Self {
        let Revocation { issued_before, until, .. } = revocation;
        let (token, user, channel) = match scope {
            RevocationScope::Token(id) => (id, "", ""),
            RevocationScope::User(user) => ("", user, ""),
            RevocationScope::Subscriber { user, channel } => ("", user, channel),
        };
        let [token, user, channel] = [token, user, channel].map(str::to_owned);
        RevocationRecord { token, user, channel, issued_before, until }
    }

    fn revocation(&self, names: &Names) -> Revocation {
        let RevocationRecord { token, user, channel, issued_before, until } = self;
        let scope = match (token.as_str(), channel.as_str()) {
            ("", "") => RevocationScope::User(user),
            ("", channel) => RevocationScope::Subscriber { user, channel },
            (token, _) => RevocationScope::Token(token),
        };
        let subject = names.subject(scope);
        Revocation { subject, issued_before: *issued_before, until: *until }
    }
}

/// The revocations on disk.
pub struct RevocationLog {
    log: EntryLog,
    /// The entry of each revocation, by its subject.
    entries: HashMap<u64, (u64, Revocation)>,
}

impl RevocationLog {
    /// Opens the log in the folder of the store. Returns the revocations that have not ended at
    /// `now`, in Unix seconds.
    pub fn open(folder: &Path, names: &Names, bytes_max: u64, now: u64) -> (Self, Revocations) {
        let (log, found) = EntryLog::open(folder, folder::REVOCATIONS, bytes_max);
        let (mut revocations, mut entries) = (Revocations::default(), HashMap::new());
        for (number, bytes) in found {
            // A record of a later version can have more fields, but these stay.
            let Ok(record) = RevocationRecord::decode(&*bytes) else { continue };
            let revocation = record.revocation(names);
            entries.insert(revocation.subject, (number, revocation));
            if revocation.until > now {
                // The bytes bound the log, so the list needs no bound of its own here.
                let added = revocations.with(revocation, now, usize::MAX);
                revocations = added.unwrap_or(revocations);
            }
        }
        (RevocationLog { log, entries }, revocations)
    }

    /// Writes a revocation, of which `record` has the scope, and syncs it.
    ///
    /// # Errors
    /// The log is full, or the disk is full, read-only or faulty. Then the revocation may be lost
    /// at the next start.
    pub fn keep(
        &mut self,
        record: RevocationRecord,
        new: Revocation,
        now: u64,
    ) -> Result<(), NotKept> {
        let before = self.entries.get(&new.subject).copied();
        let merged = match before.filter(|(_, before)| before.until > now) {
            Some((_, before)) => before.merged(new),
            None => new,
        };
        if before.is_some_and(|(_, before)| before == merged) {
            return Ok(self.log.sync()?);
        }
        let Revocation { issued_before, until, .. } = merged;
        let record = RevocationRecord { issued_before, until, ..record }.encode_to_vec();
        let number = match self.log.add(&record) {
            Err(NotKept::Full) => {
                self.remove_ended(now)?;
                self.log.add(&record)?
            }
            added => added?,
        };
        self.entries.insert(new.subject, (number, merged));
        if let Some((replaced, _)) = before {
            self.log.remove(replaced)?;
        }
        Ok(self.log.sync()?)
    }

    fn remove_ended(&mut self, now: u64) -> Result<(), NotKept> {
        let is_over = |_: &u64, (_, one): &mut (u64, Revocation)| one.until <= now;
        let ended: Vec<u64> =
            self.entries.extract_if(is_over).map(|(_, (number, _))| number).collect();
        Ok(ended.into_iter().try_for_each(|number| self.log.remove(number))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::revocation::TokenFingerprint;

    const NOW: u64 = 1_000;
    const BYTES_MAX: u64 = 4_000;

    fn names(key: u8) -> Names {
        Names::new([key; 16], 1)
    }

    fn keep(log: &mut RevocationLog, scope: RevocationScope<'_>, until: u64) -> bool {
        let subject = names(1).subject(scope);
        let new = Revocation { subject, issued_before: 500, until };
        log.keep(RevocationRecord::new(scope, new), new, NOW).is_ok()
    }

    #[test]
    fn revocations_are_in_force_after_a_restart_whatever_the_key_of_names_is() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, none) = RevocationLog::open(folder.path(), &names(1), BYTES_MAX, NOW);
        assert!(none.is_empty());
        assert!(keep(&mut log, RevocationScope::Token("t"), 2_000));
        assert!(keep(&mut log, RevocationScope::User("u"), 2_000));
        assert!(keep(&mut log, RevocationScope::Subscriber { user: "v", channel: "c" }, u64::MAX));
        assert!(keep(&mut log, RevocationScope::User("short"), NOW + 1));
        drop(log);
        let names = names(2);
        let (_, found) = RevocationLog::open(folder.path(), &names, BYTES_MAX, NOW + 1);
        assert_eq!(found.len(), 3, "one has ended");
        let covers = |id, issued_at, scope| {
            found.covers(TokenFingerprint { id, issued_at }, names.subject(scope), NOW)
        };
        let token = names.subject(RevocationScope::Token("t"));
        assert!(covers(token, 900, RevocationScope::User("x")));
        assert!(covers(0, 499, RevocationScope::User("u")));
        assert!(!covers(0, 500, RevocationScope::User("u")));
        assert!(covers(0, 499, RevocationScope::Subscriber { user: "v", channel: "c" }));
        assert!(!covers(0, 499, RevocationScope::User("v")));
    }

    #[test]
    fn a_repeated_revocation_takes_no_more_room_and_ended_ones_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = RevocationLog::open(folder.path(), &names(1), BYTES_MAX, NOW);
        for until in 2_000..3_000 {
            assert!(keep(&mut log, RevocationScope::User("u"), until));
        }
        assert_eq!(log.entries.len(), 1);
        let mut users = 0..;
        let mut add = |log: &mut RevocationLog, until| {
            let user: u32 = users.next().unwrap();
            keep(log, RevocationScope::User(&user.to_string()), until)
        };
        assert!((0..1000).all(|_| add(&mut log, NOW)), "ended ones make room");
        assert!((0..1000).any(|_| !add(&mut log, 2_000)), "the log is bounded");
    }
}
