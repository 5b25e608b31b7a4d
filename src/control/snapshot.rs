//! The snapshot at the end of a drain: asks the homes for their parts, and writes them to the
//! folder of the store.
//!
//! Owns the order of the parts. Never blocks the control plane: a thread of its own writes. The
//! invariants: either all streams and generations are in a snapshot, or the streams that are left
//! out begin new epochs, or there is no snapshot; the homes publish nothing to channels in memory
//! once they are asked, so what was acknowledged is in it.

use std::cmp::Reverse;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::{Config, Store};
use crate::link::Link;
use crate::model::message::Endpoint;
use crate::model::snapshot::{
    NodeSecrets, SavedStream, SnapshotAnswer, SnapshotPart, SnapshotQuery,
};
use crate::model::storage::StoredPublication;
use crate::store::snapshot::entries::Entries;
use crate::store::snapshot::files;
use crate::store::snapshot::writer::SnapshotWriter;

/// Streams whose publications are asked for at a time.
const STREAMS_EACH: usize = 1024;
/// Pause between two attempts to remove a file that cannot be used.
const REMOVAL_PAUSE: Duration = Duration::from_secs(10);
/// Time at the end that is kept for the names of the files.
const NAME_TIME: Duration = Duration::from_millis(200);

/// Where a node keeps its snapshot, and what must be in it.
#[derive(Clone, Debug, Default)]
pub struct SnapshotPlan {
    /// Folder of the store, and the secrets of the node; `None`: there is no folder.
    pub target: Option<(PathBuf, NodeSecrets)>,
    /// Whether the folder has a file that must not be used and could not be removed.
    pub is_stuck: bool,
}

/// Why there is no snapshot, or only a part of the histories.
#[derive(Debug)]
enum Abort {
    Io(io::Error),
    /// A shard does not answer.
    NoAnswer(Endpoint),
    /// The time is over.
    Time,
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Abort::Io(error) => write!(f, "{error}; free space, or check the disk"),
            Abort::NoAnswer(shard) => {
                write!(f, "shard {shard} did not answer; see the lines about stuck shards")
            }
            Abort::Time => f.write_str(
                "the time is over; raise store.snapshot_timeout, and shutdown.timeout with it",
            ),
        }
    }
}

impl SnapshotPlan {
    /// Time of a shutdown that is kept for the snapshot.
    pub fn time(&self, config: &Config) -> Duration {
        let shutdown = &config.shutdown;
        let most = shutdown.timeout.0.saturating_sub(shutdown.spread.0);
        match self.target(&config.store) {
            Some(_) => config.store.snapshot_timeout.0.min(most),
            None => Duration::ZERO,
        }
    }

    fn target(&self, store: &Store) -> Option<&(PathBuf, NodeSecrets)> {
        self.target.as_ref().filter(|_| store.snapshot_max_bytes > 0)
    }

    /// Writes the snapshot until `end`. The outcome is logged.
    pub async fn write(&self, link: &Link, store: &Store, end: Instant) {
        let Some((folder, secrets)) = self.target(store) else {
            let key = if self.target.is_none() { "path" } else { "snapshot_max_bytes" };
            tracing::info!(
                target: "store",
                "no snapshot is written, so channels that are not durable begin anew at the next \
                 start: store.{key} is not set"
            );
            return;
        };
        let begun = Instant::now();
        let end = end.min(begun + store.snapshot_timeout.0);
        let target = (folder.clone(), *secrets, store.snapshot_max_bytes as u64);
        match collect(link, target, end).await {
            Ok((written, left_out, bytes)) => {
                let millis = begun.elapsed().as_millis();
                tracing::info!(
                    target: "store",
                    "wrote a snapshot of {written}: {bytes} bytes in {millis} ms"
                );
                if !left_out.is_empty() {
                    tracing::warn!(
                        target: "store",
                        "the snapshot lacks {left_out}; raise store.snapshot_max_bytes or \
                         store.snapshot_timeout"
                    );
                }
            }
            Err(cause) => tracing::error!(
                target: "store",
                "no snapshot is written, so channels that are not durable begin anew at the next \
                 start: {cause}"
            ),
        }
    }

    /// Removes a file that could not be removed at the start, as soon as it is possible.
    pub async fn remove_stuck(self) {
        let Some((folder, _)) = self.target.filter(|_| self.is_stuck) else { return };
        loop {
            sleep(REMOVAL_PAUSE).await;
            let removed = folder.clone();
            if let Ok(Ok(())) = spawn_blocking(move || files::remove(&removed)).await {
                let path = folder.join(files::FILE);
                return tracing::info!(target: "store", "removed {}, unused", path.display());
            }
        }
    }
}

/// A stream in the snapshot whose publications are not.
struct Entry {
    shard: Endpoint,
    /// Index of the channel at its home.
    at: u32,
    /// Number of the stream in the snapshot.
    number: u64,
    /// Number of its publications.
    publications: u64,
    /// Streams of channels with subscribers come first, then those that end last.
    order: Reverse<(bool, u64)>,
}

/// Collects the parts of a snapshot.
struct Collector<'a> {
    link: &'a Link,
    /// `None` while it works, and after an error.
    writer: Option<SnapshotWriter>,
    entries: Vec<Entry>,
    /// Numbers of the streams whose publications are asked for.
    asked: Vec<u64>,
    /// Whether a publication did not fit.
    is_full: bool,
    end: Instant,
}

/// What is written and what is left out, and the bytes.
type Outcome = (Entries, Entries, u64);

async fn collect(
    link: &Link,
    (folder, secrets, bytes_max): (PathBuf, NodeSecrets, u64),
    end: Instant,
) -> Result<Outcome, Abort> {
    let create = move || SnapshotWriter::create(&folder, secrets, bytes_max);
    let writer = Some(blocking(create).await?);
    let (entries, asked) = (Vec::new(), Vec::new());
    let mut collector = Collector { link, writer, entries, asked, is_full: false, end };
    for shard in link.shards() {
        collector.add(shard, SnapshotQuery::Streams { from: 0 }).await?;
        collector.add(shard, SnapshotQuery::Generations { from: 0 }).await?;
    }
    collector.write(SnapshotWriter::end_streams).await?;
    for shard in link.shards() {
        collector.add(shard, SnapshotQuery::Keys { from: (0, 0) }).await?;
    }
    collector.add_histories().await?;
    let Some(writer) = collector.writer else { return Err(Abort::Time) };
    let (written, left_out) = (writer.written(), writer.left_out());
    let bytes = blocking(move || writer.finish()).await?;
    Ok((written, left_out, bytes))
}

/// Runs work that waits for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Abort> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| Abort::Io(io::Error::other(error)))?.map_err(Abort::Io)
}

impl Collector<'_> {
    /// Has the writer do something.
    async fn write<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut SnapshotWriter) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Abort> {
        let Some(mut writer) = self.writer.take() else { return Err(Abort::Time) };
        let (writer, result) = blocking(move || {
            let result = work(&mut writer)?;
            Ok((writer, result))
        })
        .await?;
        self.writer = Some(writer);
        Ok(result)
    }

    /// When no more may be added.
    fn last_moment(&self) -> Instant {
        let end_time = self.writer.as_ref().map_or(Duration::ZERO, SnapshotWriter::end_time);
        self.end.checked_sub(end_time + NAME_TIME).unwrap_or(self.end)
    }

    /// Asks a shard, and writes its answers.
    async fn add(&mut self, shard: Endpoint, query: SnapshotQuery) -> Result<(), Abort> {
        let mut next = Some(query);
        while let Some(query) = next.take().filter(|_| !self.is_full) {
            let last_moment = self.last_moment();
            let ask = async { self.link.snapshot(shard, query).await?.snapshot().await };
            let answered = timeout_at(last_moment, ask).await.map_err(|_| Abort::Time)?;
            let answer = answered.map_err(|_| Abort::NoAnswer(shard))?;
            let SnapshotAnswer { part, next: rest, .. } = answer;
            next = rest;
            self.add_part(shard, part).await?;
        }
        Ok(())
    }

    async fn add_part(&mut self, shard: Endpoint, part: SnapshotPart) -> Result<(), Abort> {
        match part {
            SnapshotPart::Streams(found) => {
                let (indexes, streams): (Vec<u32>, Vec<_>) = found.into_iter().unzip();
                let of = |(at, stream): (u32, &SavedStream)| Entry {
                    shard,
                    at,
                    number: 0,
                    publications: (stream.record.top + 1).saturating_sub(stream.record.first),
                    order: Reverse((stream.was_subscribed, stream.record.ends)),
                };
                let entries: Vec<Entry> = indexes.into_iter().zip(&streams).map(of).collect();
                let numbers = self.write(move |writer| writer.add_streams(&streams)).await?;
                let written = entries.into_iter().zip(numbers);
                self.entries.extend(
                    written.filter_map(|(entry, number)| Some(Entry { number: number?, ..entry })),
                );
            }
            SnapshotPart::Generations(generations) => {
                let add = move |writer: &mut SnapshotWriter| {
                    writer.add_generations(generations);
                    Ok(())
                };
                self.write(add).await?;
            }
            SnapshotPart::Keys(keys) => self.write(move |writer| writer.add_keys(&keys)).await?,
            SnapshotPart::Publications(found) => {
                let number =
                    |(nth, one): (usize, StoredPublication)| Some((*self.asked.get(nth)?, one));
                let all: Vec<_> = found.into_iter().filter_map(number).collect();
                self.is_full = !self.write(move |writer| writer.add_publications(&all)).await?;
            }
        }
        Ok(())
    }

    /// Adds the histories, until the bytes or the time are used up.
    async fn add_histories(&mut self) -> Result<(), Abort> {
        let mut entries = std::mem::take(&mut self.entries);
        entries.retain(|entry| entry.publications > 0);
        entries.sort_unstable_by_key(|entry| entry.order);
        for some in entries.chunks(STREAMS_EACH) {
            for shard in self.link.shards() {
                let of_shard = some.iter().filter(|entry| entry.shard == shard);
                self.asked = of_shard.clone().map(|entry| entry.number).collect();
                let channels: Arc<[u32]> = of_shard.map(|entry| entry.at).collect();
                let query = SnapshotQuery::Publications { channels, nth: 0, below: u64::MAX };
                match self.add(shard, query).await {
                    // The histories that are there are complete up to their newest publication.
                    Err(Abort::Time | Abort::NoAnswer(_)) => self.is_full = true,
                    done => done?,
                }
            }
        }
        let all: u64 = entries.iter().map(|entry| entry.publications).sum();
        self.write(move |writer| {
            let publications = all.saturating_sub(writer.written().publications);
            writer.leave_out(Entries { publications, ..Entries::default() });
            Ok(())
        })
        .await
    }
}
