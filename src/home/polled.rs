//! What a home answers to polls, and when the cells of polled channels change.
//!
//! Owns nothing: the channels and the cells are in [`Channels`]. Never sends a message. The
//! invariant: a cell in use shows the newest publication of its stream.

use std::sync::Arc;

use crate::home::channels::Channels;
use crate::model::message::ChannelAnswer;
use crate::model::publication::Publication;

impl Channels {
    /// The latest publication of a channel, and the cell that shows the next ones. If memory has
    /// none, `older` is what the store has.
    pub(super) fn latest(
        &mut self,
        found: Option<u32>,
        now: u64,
        older: &[Publication],
    ) -> ChannelAnswer {
        let Some((at, stream)) = found.and_then(|at| Some((at, self.stream_of(at)?))) else {
            return ChannelAnswer::Latest(None, None);
        };
        self.streams.change(stream, |stream| stream.expire(now));
        let kept = self.streams.get(stream);
        let latest = kept.latest();
        if latest.is_none() && !kept.only_stored().is_empty() {
            return ChannelAnswer::Latest(older.last().cloned(), None);
        }
        let cell = self.latest_cells.get_or_insert(at);
        if let Some(cell) = &cell {
            cell.show(latest.clone());
        }
        ChannelAnswer::Latest(latest.map(|latest| latest.publication), cell)
    }

    /// Shows the newest publication of a channel to the shards that are polled for it. The cell of
    /// a channel that no shard is polled for is dropped.
    pub(super) fn show_latest(&mut self, at: u32) {
        let Some(cell) = self.latest_cells.get(at) else { return };
        if Arc::strong_count(cell) == 1 {
            self.latest_cells.remove(at);
        } else if let Some(stream) = self.stream_of(at) {
            cell.show(self.streams.get(stream).latest());
        }
    }

    /// Ends the cell of a channel whose history is removed or empty.
    pub(super) fn hide_latest(&mut self, at: u32) {
        if let Some(cell) = self.latest_cells.remove(at) {
            cell.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::memory::{MemoryBudgets, MemoryKind, MemoryLimits};
    use crate::base::work_budget::WorkBudget;
    use crate::home::HomeSettings;
    use crate::model::ids::Ids;
    use crate::model::latest::LatestCell;
    use crate::model::message::{ChannelQuery, HomeQuery, Publish, ReplyTo};
    use crate::model::names::Names;
    use crate::model::publication::PublicationKind;
    use crate::model::retention::Retention;

    const RETENTION: Retention =
        Retention { size: 3, ttl: 5_000, meta_ttl: 60_000, durable: false };

    fn channels() -> Channels {
        let budgets = MemoryBudgets::new(&MemoryLimits::all(1 << 20), 1);
        let settings = HomeSettings {
            recovery_limit: 10,
            answer_bytes: 1 << 20,
            streams_max: 2,
            namespaces: Arc::default(),
        };
        let share = |kind| budgets.shard_usage(kind, 0);
        let (history, keys) = (share(MemoryKind::History), share(MemoryKind::Keys));
        Channels::new(settings, (Names::new([0; 16], 1), Ids::new([0; 16])), 1, (history, keys))
    }

    fn publish(channels: &mut Channels, channel: &str, data: &[u8], now: u64) {
        let request = Publish {
            channel: channel.into(),
            hash: hash(channel),
            data: data.into(),
            kind: PublicationKind::Data,
            delta: false,
            extra: None,
            retention: Some(RETENTION),
            guard: None,
            reply_to: ReplyTo::None,
            accepted: 0,
        };
        let prepared = channels.prepare(Box::new(request), now).ok().unwrap();
        channels.commit(prepared, now);
    }

    fn hash(channel: &str) -> u64 {
        channel.bytes().map(u64::from).sum()
    }

    /// Polls the home for a channel.
    fn ask(channels: &mut Channels, channel: &str, now: u64) -> (Option<Vec<u8>>, Arc<LatestCell>) {
        let question = HomeQuery {
            channel: channel.into(),
            hash: hash(channel),
            reply_to: ReplyTo::None,
            durable: false,
            query: ChannelQuery::Latest,
        };
        match channels.answer_query(&question, now, None) {
            Ok(ChannelAnswer::Latest(latest, cell)) => {
                (latest.map(|latest| latest.data().to_vec()), cell.unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    fn shown(cell: &LatestCell, now: u64) -> Option<Option<Vec<u8>>> {
        cell.read(now).map(|found| found.map(|latest| latest.data().to_vec()))
    }

    #[test]
    fn a_cell_shows_each_new_publication_until_its_history_is_gone() {
        let mut channels = channels();
        publish(&mut channels, "a", b"1", 0);
        let (latest, cell) = ask(&mut channels, "a", 0);
        assert_eq!(latest.as_deref(), Some(&b"1"[..]));
        assert_eq!(shown(&cell, 0), Some(latest));
        publish(&mut channels, "a", b"2", 1_000);
        assert_eq!(shown(&cell, 5_999), Some(Some(b"2".to_vec())));
        assert_eq!(shown(&cell, 6_000), Some(None), "expired");
        channels.expire(7_000, &mut WorkBudget::new(1 << 20, true));
        assert_eq!(shown(&cell, 7_000), None, "the home has dropped the publication");
        publish(&mut channels, "a", b"3", 8_000);
        let (_, fresh) = ask(&mut channels, "a", 8_000);
        assert_eq!(shown(&fresh, 8_000), Some(Some(b"3".to_vec())));
        let question = HomeQuery {
            channel: "a".into(),
            hash: hash("a"),
            reply_to: ReplyTo::None,
            durable: false,
            query: ChannelQuery::RemoveHistory,
        };
        channels.answer_query(&question, 8_000, None).unwrap();
        assert_eq!(shown(&fresh, 8_000), None);
        assert_eq!(ask(&mut channels, "a", 8_000).0, None);
    }

    #[test]
    fn a_stream_that_makes_room_for_another_ends_its_cell() {
        let mut channels = channels();
        publish(&mut channels, "a", b"1", 0);
        publish(&mut channels, "b", b"1", 1);
        let cells = ["a", "b"].map(|name| ask(&mut channels, name, 2).1);
        publish(&mut channels, "c", b"1", 3);
        let ended = cells.iter().filter(|cell| shown(cell, 3).is_none());
        assert_eq!(ended.count(), 1);
    }

    #[test]
    fn a_cell_that_no_shard_keeps_is_dropped() {
        let mut channels = channels();
        publish(&mut channels, "a", b"1", 0);
        drop(ask(&mut channels, "a", 0));
        assert!(!channels.latest_cells.is_empty());
        publish(&mut channels, "a", b"2", 0);
        assert!(channels.latest_cells.is_empty());
    }
}
