//! Reads a snapshot, and divides it among the homes of a node.
//!
//! Owns what was read until the homes get it. Never changes a file. The invariant: of a stream that
//! is not taken over, no position of a client matches a later stream.

use std::io::Read;

use crate::model::names::Names;
use crate::model::snapshot::{NodeSecrets, RestoredHome, RestoredStream, SavedKey};
use crate::store::snapshot::blocks::BlockReader;
use crate::store::snapshot::entries::Entries;
use crate::store::snapshot::generations::KnownGenerations;
use crate::store::snapshot::records::{Generations, Kind, Publication, Stream};
use crate::store::snapshot::unreadable::Unreadable;

/// What a start takes over of a snapshot.
pub struct Limits<'a> {
    /// Number of shards.
    pub shards: u8,
    /// The time, in milliseconds of unix time. What has expired is left out.
    pub now: u64,
    /// Maximum bytes of publications in memory.
    pub history_bytes: usize,
    /// Whether a channel still keeps its history in memory.
    pub keeps: &'a dyn Fn(&str) -> bool,
}

/// What was read.
pub struct Snapshot {
    /// The secrets of the node that wrote it.
    pub secrets: NodeSecrets,
    /// When it was begun, in milliseconds of unix time.
    pub begun: u64,
    names: Names,
    generations: KnownGenerations,
    /// By their numbers; `None`: left out.
    streams: Vec<Option<RestoredStream>>,
    keys: Vec<SavedKey>,
    /// Bytes of the publications in memory.
    bytes: usize,
    /// Whether further publications are left out.
    is_full: bool,
    left_out: Entries,
}

impl Snapshot {
    /// Reads a snapshot to its end.
    ///
    /// # Errors
    /// The input cannot be read, is damaged, or has another format.
    pub fn read(input: impl Read, limits: &Limits<'_>) -> Result<Self, Unreadable> {
        let mut reader = BlockReader::new(input)?;
        let Some(Kind::Node(node)) = reader.next_record()? else {
            return Err(Unreadable::Damaged("it does not begin with its secrets"));
        };
        let secrets = node.secrets()?;
        let mut snapshot = Snapshot {
            secrets,
            begun: node.begun,
            names: Names::new(secrets.names, limits.shards.max(1)),
            generations: KnownGenerations::default(),
            streams: Vec::new(),
            keys: Vec::new(),
            bytes: 0,
            is_full: false,
            left_out: Entries::default(),
        };
        while let Some(kind) = reader.next_record()? {
            snapshot.add(kind, limits)?;
        }
        Ok(snapshot)
    }

    fn add(&mut self, kind: Kind, limits: &Limits<'_>) -> Result<(), Unreadable> {
        match kind {
            Kind::Stream(stream) => self.add_stream(stream, limits),
            Kind::Publication(publication) => self.add_publication(&publication, limits),
            Kind::Key(key) => {
                let key = key.read()?;
                self.keys.extend((key.until > limits.now).then_some(key));
                Ok(())
            }
            Kind::Generations(Generations { partitions, generations }) => {
                self.generations.add(partitions.into_iter().zip(generations));
                Ok(())
            }
            Kind::Node(_) | Kind::End(_) => Err(Unreadable::Damaged("it has two begins")),
        }
    }

    fn add_stream(&mut self, stream: Stream, limits: &Limits<'_>) -> Result<(), Unreadable> {
        let stream = stream.read(&self.names)?;
        let is_kept = (limits.keeps)(&stream.channel);
        if !is_kept {
            self.generations.leave_out(stream.hash);
            self.left_out.streams += 1;
        }
        self.streams.push(is_kept.then(|| RestoredStream { stream, publications: Vec::new() }));
        Ok(())
    }

    fn add_publication(
        &mut self,
        publication: &Publication,
        limits: &Limits<'_>,
    ) -> Result<(), Unreadable> {
        let number = usize::try_from(publication.stream).unwrap_or(usize::MAX);
        let Some(stream) = self.streams.get_mut(number) else {
            return Err(Unreadable::Damaged("a publication has no stream"));
        };
        let Some(restored) = stream else { return Ok(()) };
        let stored = publication.read(&restored.stream)?;
        if stored.expires <= limits.now {
            return Ok(());
        }
        let bytes = self.bytes.saturating_add(stored.publication.size());
        self.is_full |= bytes > limits.history_bytes;
        if self.is_full {
            self.left_out.publications += 1;
            return Ok(());
        }
        self.bytes = bytes;
        restored.publications.push(stored);
        Ok(())
    }

    /// What the homes get.
    pub fn entries(&self) -> Entries {
        let streams = self.streams.iter().flatten();
        Entries {
            streams: streams.clone().count() as u64,
            publications: streams.map(|one| one.publications.len() as u64).sum(),
            keys: self.keys.len() as u64,
        }
    }

    /// What does not fit into this configuration.
    pub fn left_out(&self) -> Entries {
        self.left_out
    }

    /// The part of each home.
    pub fn into_homes(self) -> Vec<RestoredHome> {
        let Snapshot { secrets, names, generations, streams, mut keys, .. } = self;
        let home = |_| RestoredHome { epochs: secrets.epochs, ..RestoredHome::default() };
        let mut homes: Vec<RestoredHome> = (0..names.shards()).map(home).collect();
        for one in generations.finish() {
            let home = usize::from(names.home_of_partition(one.0 as usize));
            if let Some(home) = homes.get_mut(home) {
                home.generations.push(one);
            }
        }
        for mut one in streams.into_iter().flatten() {
            one.publications.reverse();
            if let Some(home) = homes.get_mut(usize::from(names.home(one.stream.hash))) {
                home.streams.push(one);
            }
        }
        keys.sort_by_key(|key| key.until);
        for one in keys {
            if let Some(home) = homes.get_mut(usize::from(names.home(one.hash))) {
                home.keys.push(one);
            }
        }
        homes
    }
}
