//! The latest publication of a channel, which its home shows to the shards that are polled for it.
//!
//! Owns one publication. Never blocks: a reader that meets a change, and a change that meets a
//! reader, leave the reader to ask the home by message. The invariant: a reader gets the latest
//! publication at some moment during the read, or nothing.

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::publication::Publication;

/// A publication and when it leaves the history.
#[derive(Clone, Debug)]
pub struct Latest {
    /// The publication.
    pub publication: Publication,
    /// When it expires, in milliseconds of the monotonic clock.
    pub expires: u64,
}

/// The place where a home shows the latest publication of a channel. Only the home changes it.
#[derive(Debug, Default)]
pub struct LatestCell {
    /// Whether `latest` is up to date.
    current: AtomicBool,
    latest: RwLock<Option<Latest>>,
}

impl LatestCell {
    /// Shows a publication, or that there is none.
    pub fn show(&self, latest: Option<Latest>) {
        let changed = self.change(latest);
        self.current.store(changed, Ordering::Release);
    }

    /// Ends the cell: readers ask the home.
    pub fn end(&self) {
        self.current.store(false, Ordering::Release);
        self.change(None);
    }

    fn change(&self, latest: Option<Latest>) -> bool {
        let free = self.latest.try_write();
        free.map(|mut place| *place = latest).is_ok()
    }

    /// The latest publication at this time, if any; `None`: ask the home.
    pub fn read(&self, now: u64) -> Option<Option<Publication>> {
        if !self.current.load(Ordering::Acquire) {
            return None;
        }
        let latest = self.latest.try_read().ok()?;
        let kept = latest.as_ref().filter(|latest| latest.expires > now);
        Some(kept.map(|latest| latest.publication.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::publication::NewPublication;

    fn latest(data: &[u8], expires: u64) -> Option<Latest> {
        let draft = NewPublication { channel: "c", data, ..NewPublication::default() };
        Some(Latest { publication: Publication::new(draft), expires })
    }

    fn data(cell: &LatestCell, now: u64) -> Option<Option<Vec<u8>>> {
        cell.read(now).map(|found| found.map(|publication| publication.data().to_vec()))
    }

    #[test]
    fn a_reader_gets_the_latest_publication_until_it_expires() {
        let cell = LatestCell::default();
        assert_eq!(data(&cell, 0), None, "nothing was shown");
        cell.show(None);
        assert_eq!(data(&cell, 0), Some(None));
        cell.show(latest(b"1", 10));
        cell.show(latest(b"2", 10));
        assert_eq!(data(&cell, 9), Some(Some(b"2".to_vec())));
        assert_eq!(data(&cell, 10), Some(None));
        cell.end();
        assert_eq!(data(&cell, 0), None);
        assert!(cell.latest.try_read().unwrap().is_none(), "the publication is freed");
    }

    #[test]
    fn a_change_that_meets_a_reader_sends_readers_to_the_home() {
        let cell = LatestCell::default();
        cell.show(latest(b"1", 10));
        let reader = cell.latest.try_read().unwrap();
        cell.show(latest(b"2", 10));
        drop(reader);
        assert_eq!(data(&cell, 0), None, "never the publication before");
        cell.show(latest(b"3", 10));
        assert_eq!(data(&cell, 0), Some(Some(b"3".to_vec())));
    }
}
