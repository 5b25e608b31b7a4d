//! The channels of a home: their names, the interested shards and the members.
//!
//! Owns the streams and the members of the channels whose names hash to this shard. Never sends a
//! message. The invariants: a home assigns the offsets of one epoch once and in order, and commits
//! publications in that order; the answer to a subscribe has exactly the position after which the
//! next publication to that shard continues.

use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use crate::base::memory::ShardUsage;
use crate::base::metrics::Metrics;
use crate::base::wheel::Wheel;
use crate::home::epochs::Epochs;
use crate::home::idempotency_keys::IdempotencyKeys;
use crate::home::latest_cells::LatestCells;
use crate::home::members::Members;
use crate::home::presence_queries::PresenceQueries;
use crate::home::streams::{NONE, Streams};
use crate::model::ids::Ids;
use crate::model::message::{Leave, MemberUpdate, Release, Subscribe};
use crate::model::names::Names;
use crate::model::namespaces::{Namespaces, Options};
use crate::wire::protocol::reply::ClientInfo;

/// Limits of what a home keeps and answers.
#[derive(Clone, Debug)]
pub struct HomeSettings {
    /// Maximum number of publications per recovery.
    pub recovery_limit: usize,
    /// Maximum bytes per recovery and per answer to a query.
    pub answer_bytes: usize,
    /// Maximum number of streams per home; at the maximum, one stream is dropped for a new one.
    pub streams_max: usize,
    /// Which channels are durable.
    pub namespaces: Arc<Namespaces>,
}

pub(super) struct Channel {
    pub(super) name: Arc<str>,
    pub(super) hash: u64,
    /// Bit n: shard n has subscribers, or has requested a subscription.
    pub(super) interested: u64,
    /// Index of its stream, or [`NONE`].
    pub(super) stream: u32,
    /// Generation of its stream, or of the stream that the first publication begins.
    pub(super) generation: u32,
    /// Number of reasons to keep the stream in memory: writes and questions that the store has not
    /// answered, and upkeep.
    pub(super) pins: u32,
    /// Number of prepared publications that are not committed, none of them durable.
    pub(super) prepared: u8,
    /// Whether the channel lost its last subscriber in the drain.
    pub(super) was_subscribed: bool,
    pub(super) members: Option<Box<Members>>,
}

impl Channel {
    /// Whether the stream must stay in memory.
    pub(super) fn keeps_stream(&self) -> bool {
        self.pins > 0 || self.prepared > 0
    }
}

/// All channels whose home is one shard.
pub struct Channels {
    pub(super) settings: HomeSettings,
    pub(super) names: Names,
    pub(super) ids: Ids,
    pub(super) table: HashTable<u32>,
    pub(super) channels: Slab<Channel>,
    pub(super) expiry: Wheel,
    pub(super) streams: Streams,
    /// Number of streams dropped for others.
    pub(super) evicted: u64,
    /// Number of publications dropped for newer ones.
    pub(super) shed: u64,
    pub(super) idempotency_keys: IdempotencyKeys,
    pub(super) presence_queries: PresenceQueries,
    pub(super) epochs: Epochs,
    pub(super) latest_cells: LatestCells,
    /// Whether the clients leave because the node ends.
    pub(super) is_draining: bool,
    /// Memory use of the streams.
    pub(super) history: ShardUsage,
    pub(super) due: Vec<u32>,
    /// Durable streams of which something has expired.
    pub(super) expired: Vec<u32>,
    /// Buffer in which publications are encoded.
    pub(super) buffer: Vec<u8>,
}

impl Channels {
    /// Creates an empty table. `seed` determines the epochs; the shares are the parts of the
    /// budgets for history and idempotency keys.
    pub fn new(
        settings: HomeSettings,
        (names, ids): (Names, Ids),
        seed: u64,
        (history, keys): (ShardUsage, ShardUsage),
    ) -> Self {
        Channels {
            settings,
            names,
            ids,
            table: HashTable::new(),
            channels: Slab::new(),
            expiry: Wheel::new(1024),
            streams: Streams::new(),
            evicted: 0,
            shed: 0,
            idempotency_keys: IdempotencyKeys::new(keys),
            presence_queries: PresenceQueries::default(),
            epochs: Epochs::new(seed, names.shards()),
            latest_cells: LatestCells::default(),
            is_draining: false,
            history,
            due: Vec::new(),
            expired: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Number of channels that a shard is interested in or that keep history.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether no channel is kept.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Number of prepared publications, and of other reasons to keep streams.
    pub fn pins(&self) -> usize {
        let pins = |channel: &Channel| channel.pins as usize + usize::from(channel.prepared);
        self.channels.iter().map(|(_, channel)| pins(channel)).sum()
    }

    /// Whether the store keeps the histories of a channel.
    pub(super) fn is_durable(&self, name: &str) -> bool {
        self.settings.namespaces.of(name).is_ok_and(Options::is_durable)
    }

    pub(super) fn find(&self, hash: u64, name: &str) -> Option<u32> {
        let channels = &self.channels;
        self.table.find(hash, |at| *channels[*at as usize].name == *name).copied()
    }

    pub(super) fn find_or_insert(&mut self, hash: u64, name: &Arc<str>) -> u32 {
        if let Some(at) = self.find(hash, name) {
            return at;
        }
        let channel = Channel {
            name: name.clone(),
            hash,
            interested: 0,
            stream: NONE,
            generation: self.epochs.generation(hash),
            pins: 0,
            prepared: 0,
            was_subscribed: false,
            members: None,
        };
        let at = self.channels.insert(channel) as u32;
        let channels = &self.channels;
        self.table.insert_unique(hash, at, |at| channels[*at as usize].hash);
        at
    }

    pub(super) fn remove_if_unused(&mut self, at: u32) {
        let Some(channel) = self.channels.get(at as usize) else { return };
        let is_used = channel.interested != 0 || channel.stream != NONE || channel.keeps_stream();
        let is_remembered = self.is_draining && self.has_own_generation(channel);
        if is_used || is_remembered || channel.members.is_some() {
            return;
        }
        let hash = channel.hash;
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == at) {
            entry.remove();
        }
        self.channels.remove(at as usize);
    }

    /// Whether the generation of a channel does not follow from its partition, because another
    /// stream of the partition has ended since.
    pub(super) fn has_own_generation(&self, channel: &Channel) -> bool {
        channel.generation != self.epochs.generation(channel.hash)
    }

    /// The shards that get a publication of the channel: bit n for shard n.
    pub fn interested(&self, hash: u64, name: &str) -> u64 {
        self.find(hash, name).map_or(0, |at| self.channels[at as usize].interested)
    }

    /// Updates the metrics of channels and streams.
    pub fn measure(&self, metrics: &Metrics) {
        metrics.channels.set(self.len() as u64);
        metrics.streams.set(self.streams.len() as u64);
        metrics.history_bytes.set(self.history.used() as u64);
        metrics.streams_evicted.set(self.evicted);
        metrics.history_shed.set(self.shed);
    }

    /// Adds a subscriber to the presence of its channel.
    pub fn add_member(&mut self, request: &Subscribe, info: &ClientInfo) {
        // Without presence queries, an unlisted member needs no record as hidden.
        let at = self.find_or_insert(request.hash, &request.channel);
        let user_hash = self.names.hash(&info.user);
        let members = self.channels[at as usize].members.get_or_insert_default();
        let listed = request.visibility.listed;
        members.insert(
            request.subscriber.address(),
            info,
            user_hash,
            listed || !request.terms.presence,
        );
    }

    /// Removes a subscriber from the presence of its channel; returns its description.
    pub fn remove_member(&mut self, leave: &Leave) -> Option<ClientInfo> {
        let at = self.find(leave.hash, &leave.channel)?;
        let members = self.channels[at as usize].members.as_mut()?;
        let info = members.remove(leave.address, &self.ids);
        if members.is_empty() {
            self.channels[at as usize].members = None;
            self.remove_if_unused(at);
        }
        info
    }

    /// Replaces the information about a subscriber in the presence of its channel.
    pub fn update_member(&mut self, update: &MemberUpdate) {
        let at = self.find(update.hash, &update.channel);
        if let Some(members) = at.and_then(|at| self.channels[at as usize].members.as_mut()) {
            members.update(update.address, &update.info);
        }
    }

    /// Removes the interest of a shard.
    pub fn release(&mut self, release: &Release) {
        if let Some(at) = self.find(release.hash, &release.channel) {
            let channel = &mut self.channels[at as usize];
            channel.interested &= !(1 << release.shard);
            channel.was_subscribed |= self.is_draining;
            self.remove_if_unused(at);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::memory::{MemoryBudgets, MemoryKind, MemoryLimits};
    use crate::base::work_budget::WorkBudget;
    use crate::model::ids::Address;
    use crate::model::message::{
        ChannelAnswer, ChannelQuery, HistoryRange, HomeQuery, Publish, Subscribed,
    };
    use crate::model::message::{
        DuplicateGuard, ReplyTo, StreamAccess, SubscribeTerms, Subscriber, Visibility,
    };
    use crate::model::publication::{Encoding, PublicationKind};
    use crate::model::retention::Retention;
    use crate::wire::protocol::reply::PresenceStats;
    use crate::wire::protocol::{Epoch, Error, Position};

    /// Room for some dozens of small publications.
    const HISTORY_BYTES: usize = 16_000;

    /// Channels, and how much history each of them keeps.
    struct Homes {
        channels: Channels,
        retention: Option<Retention>,
    }

    impl std::ops::Deref for Homes {
        type Target = Channels;

        fn deref(&self) -> &Channels {
            &self.channels
        }
    }

    impl std::ops::DerefMut for Homes {
        fn deref_mut(&mut self) -> &mut Channels {
            &mut self.channels
        }
    }

    impl Homes {
        fn publish(&mut self, request: Publish, now: u64) -> Option<Position> {
            let prepared = self.prepare(Box::new(request), now).ok()?;
            self.commit(prepared, now).position()
        }
    }

    fn homes(retention: Option<Retention>, streams_max: usize) -> Homes {
        let settings = HomeSettings {
            recovery_limit: 10,
            answer_bytes: 1 << 20,
            streams_max,
            namespaces: Arc::default(),
        };
        let budgets = MemoryBudgets::new(&MemoryLimits::all(HISTORY_BYTES), 1);
        let shares =
            (budgets.shard_usage(MemoryKind::History, 0), budgets.shard_usage(MemoryKind::Keys, 0));
        let names = (Names::new([0; 16], 1), Ids::new([0; 16]));
        Homes { channels: Channels::new(settings, names, 1, shares), retention }
    }

    fn publish(homes: &mut Homes, channel: &str, now: u64) -> Option<Position> {
        publish_data(homes, channel, b"1", now)
    }

    fn publish_data(homes: &mut Homes, channel: &str, data: &[u8], now: u64) -> Option<Position> {
        let request = Publish {
            channel: channel.into(),
            hash: 7,
            data: data.into(),
            kind: PublicationKind::Data,
            delta: false,
            extra: None,
            retention: homes.retention,
            guard: None,
            reply_to: ReplyTo::None,
            accepted: 0,
        };
        homes.publish(request, now)
    }

    /// A subscribe of a shard to channel "a".
    pub(crate) fn request(shard: u8, since: Option<Position>) -> Subscribe {
        let subscriber = Subscriber {
            shard,
            slot: 0,
            generation: 0,
            subscription: 0,
            serial: 0,
            command: 1,
            began: 0,
        };
        Subscribe {
            channel: "a".into(),
            hash: 7,
            subscriber,
            encoding: Encoding::default(),
            filter: None,
            since,
            was_recovering: since.is_some(),
            strict: false,
            stream_access: StreamAccess { positioned: true, recoverable: true },
            terms: SubscribeTerms { presence: true, ..SubscribeTerms::default() },
            visibility: Visibility { listed: true, announced: true },
            info: None,
        }
    }

    fn subscribe(homes: &mut Homes, shard: u8, since: Option<Position>) -> Subscribed {
        let keeps = homes.retention.is_some();
        let stream_access = StreamAccess { positioned: keeps, recoverable: keeps };
        homes.subscribe(&Subscribe { stream_access, ..request(shard, since) }, 0, &[])
    }

    fn ask(homes: &mut Homes, query: ChannelQuery) -> Result<ChannelAnswer, Error> {
        let question = HomeQuery {
            channel: "a".into(),
            hash: 7,
            reply_to: ReplyTo::None,
            durable: false,
            query,
        };
        homes.answer_query(&question, 0, None)
    }

    const RETENTION: Retention =
        Retention { size: 2, ttl: 5_000, meta_ttl: 60_000, durable: false };

    #[test]
    fn channels_without_history_are_removed_with_their_last_interest() {
        let mut homes = homes(None, 10);
        assert_eq!(publish(&mut homes, "a", 0), None);
        assert!(homes.is_empty());
        assert_eq!(subscribe(&mut homes, 3, None).position, None);
        subscribe(&mut homes, 5, None);
        assert_eq!(homes.interested(7, "a"), 1 << 3 | 1 << 5);
        assert_eq!(homes.interested(7, "other"), 0);
        for shard in [3, 5, 5] {
            homes.release(&Release { channel: "a".into(), hash: 7, shard });
        }
        assert!(homes.is_empty());
    }

    #[test]
    fn offsets_increase_and_recovery_returns_the_requested_offset() {
        let mut homes = homes(Some(RETENTION), 10);
        for offset in 1..=3 {
            assert_eq!(publish(&mut homes, "a", 0).unwrap().offset, offset);
        }
        let top = subscribe(&mut homes, 0, None).position.unwrap();
        assert_eq!(top.offset, 3);
        let answer = subscribe(&mut homes, 0, Some(Position { offset: 2, epoch: top.epoch }));
        assert!(answer.recovered && answer.was_recovering);
        assert_eq!((answer.publications.len(), answer.position.unwrap().offset), (1, 2));
        let answer = subscribe(&mut homes, 0, Some(Position { offset: 0, epoch: top.epoch }));
        assert!(!answer.recovered && answer.was_recovering);
        assert_eq!(answer.position.unwrap().offset, 3);
    }

    #[test]
    fn repeated_publications_are_recognized() {
        let mut homes = homes(Some(RETENTION), 10);
        let mut publish = |key: &str, version, version_epoch: &str| {
            let guard =
                DuplicateGuard { key: key.into(), version, version_epoch: version_epoch.into() };
            let request = Publish {
                channel: "a".into(),
                hash: 7,
                data: b"1"[..].into(),
                kind: PublicationKind::Data,
                delta: false,
                extra: None,
                retention: homes.retention,
                guard: Some(Box::new(guard)),
                reply_to: ReplyTo::None,
                accepted: 0,
            };
            let before = homes.published_before(&request, 0);
            let at = before.unwrap_or_else(|| homes.publish(request, 0));
            (before.is_some(), at.map(|at| at.offset))
        };
        assert_eq!(publish("k", 0, ""), (false, Some(1)));
        assert_eq!(publish("l", 0, ""), (false, Some(2)));
        assert_eq!(publish("k", 0, ""), (true, Some(1)));
        assert_eq!(publish("", 5, "e"), (false, Some(3)));
        assert_eq!(publish("", 5, "e"), (true, Some(3)));
        assert_eq!(publish("", 4, "e"), (true, Some(3)));
        assert_eq!(publish("", 6, "e"), (false, Some(4)));
        assert_eq!(publish("", 1, "f"), (false, Some(5)));
        assert!(homes.idempotency_keys.share().used() > 0);
        homes.expire(301_000, &mut WorkBudget::new(1_000_000, true));
        assert_eq!(homes.idempotency_keys.share().used(), 0, "keys expire without a publication");
        assert_eq!(homes.next_expiry(), None);
    }

    #[test]
    fn presence_is_kept_until_the_last_member_leaves() {
        let mut homes = homes(None, 10);
        let stats = |homes: &mut Homes| match ask(homes, ChannelQuery::Stats) {
            Ok(ChannelAnswer::Stats(stats)) => stats,
            other => panic!("{other:?}"),
        };
        assert_eq!(stats(&mut homes), PresenceStats::default());
        let info = ClientInfo { user: "u".into(), ..ClientInfo::default() };
        for shard in [1, 2] {
            homes.add_member(&request(shard, None), &info);
        }
        assert_eq!(stats(&mut homes), PresenceStats { clients: 2, users: 1 });
        let (query, reply_to) =
            (ChannelQuery::Presence(crate::wire::protocol::Wire::Json), ReplyTo::None);
        for _ in 0..2 {
            homes
                .queue_presence_query(HomeQuery {
                    channel: "a".into(),
                    hash: 7,
                    reply_to,
                    durable: false,
                    query,
                })
                .unwrap();
        }
        let answer = homes.encode_first_presence(&mut WorkBudget::new(1_000_000, true)).unwrap();
        assert!(matches!(answer, Ok(ChannelAnswer::Presence(roll)) if roll.parts().len() == 1));
        homes.drop_first();
        homes.settings.answer_bytes = 100;
        let answer = homes.encode_first_presence(&mut WorkBudget::new(1_000_000, true)).unwrap();
        assert_eq!(answer.unwrap_err(), Error::LIMIT_EXCEEDED, "two members take more");
        homes.drop_first();
        assert_eq!(homes.presence_queries(), 0);
        for shard in [1, 2] {
            let address = Address { shard, slot: 0, generation: 0 };
            let leave = Leave { channel: "a".into(), hash: 7, address, announced: true };
            assert_eq!(&*homes.remove_member(&leave).unwrap().user, "u");
            assert!(homes.remove_member(&leave).is_none());
        }
        assert!(homes.is_empty());
    }

    #[test]
    fn a_presence_answer_over_the_limit_counts_member_infos() {
        let mut homes = homes(None, 10);
        let mut ask = |members: u32, info_bytes: usize| {
            let connection = Some(format!("\"{}\"", "i".repeat(info_bytes)).into_bytes().into());
            let info = ClientInfo { connection, ..ClientInfo::default() };
            for slot in 0..members {
                let request = request(0, None);
                let subscriber = Subscriber { slot, ..request.subscriber };
                homes.add_member(&Subscribe { subscriber, ..request }, &info);
            }
            let query = ChannelQuery::Presence(crate::wire::protocol::Wire::Protobuf);
            let (channel, reply_to) = ("a".into(), ReplyTo::None);
            let question = HomeQuery { channel, hash: 7, reply_to, durable: false, query };
            homes.queue_presence_query(question).unwrap();
            let answer =
                homes.encode_first_presence(&mut WorkBudget::new(100_000_000, true)).unwrap();
            homes.drop_first();
            for slot in 0..members {
                let address = Address { shard: 0, slot, generation: 0 };
                homes.remove_member(&Leave {
                    channel: "a".into(),
                    hash: 7,
                    address,
                    announced: true,
                });
            }
            answer.map(
                |presence| matches!(presence, ChannelAnswer::Presence(roll) if roll.bytes() <= 1 << 20),
            )
        };
        assert_eq!(ask(600, 4096), Err(Error::LIMIT_EXCEEDED));
        assert_eq!(ask(600, 1000), Ok(true));
        assert_eq!(ask(9000, 0), Ok(true));
        assert_eq!(ask(13_000, 0), Err(Error::LIMIT_EXCEEDED), "exactly, once it is encoded");
    }

    #[test]
    fn history_is_answered_and_removed() {
        let mut homes = homes(Some(RETENTION), 10);
        (0..3).for_each(|_| _ = publish(&mut homes, "a", 0));
        let history = |homes: &mut Homes, since| {
            let range = HistoryRange { limit: 10, since, reverse: false };
            match ask(homes, ChannelQuery::History(range)) {
                Ok(ChannelAnswer::History(publications, at)) => Ok((publications.len(), at.offset)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error),
            }
        };
        assert_eq!(history(&mut homes, None), Ok((2, 3)));
        let elsewhere = Position { offset: 1, epoch: Epoch::parse("aaaaaaaa") };
        assert_eq!(history(&mut homes, Some(elsewhere)), Err(Error::UNRECOVERABLE_POSITION));
        ask(&mut homes, ChannelQuery::RemoveHistory).unwrap();
        assert_eq!(history(&mut homes, None), Ok((0, 3)));
    }

    #[test]
    fn history_expires_and_is_bounded() {
        let mut homes = homes(Some(RETENTION), 2);
        for channel in ["a", "b", "c", "d"] {
            publish(&mut homes, channel, 0);
        }
        assert_eq!(homes.len(), 2, "endless channels replace each other");
        homes.expire(7_000, &mut WorkBudget::new(1_000_000, true));
        assert_eq!(homes.len(), 2);
        homes.expire(62_000, &mut WorkBudget::new(1_000_000, true));
        assert!(homes.is_empty());
        assert_eq!(homes.next_expiry(), None);
    }

    /// Number of kept publications and top offset of a channel.
    fn kept(homes: &Channels, channel: &str) -> Option<(usize, u64)> {
        let stream = homes.streams.get(homes.stream_of(homes.find(7, channel)?)?);
        let range = HistoryRange { limit: usize::MAX, ..HistoryRange::default() };
        Some((stream.read_range(&range, usize::MAX, &[])?.len(), stream.position().offset))
    }

    #[test]
    fn channels_without_publications_have_a_position_and_no_stream() {
        let mut homes = homes(Some(RETENTION), 2);
        publish(&mut homes, "real", 0);
        let empty = |homes: &mut Homes, name: &str, since| {
            let answer =
                homes.subscribe(&Subscribe { channel: name.into(), ..request(0, since) }, 0, &[]);
            homes.release(&Release { channel: name.into(), hash: 7, shard: 0 });
            answer
        };
        let position = empty(&mut homes, "quiet", None).position.unwrap();
        assert_eq!(position.offset, 0);
        for nth in 0..1000 {
            empty(&mut homes, &format!("other-{nth}"), None);
        }
        assert_eq!((homes.streams.len(), homes.evicted, homes.len()), (1, 0, 1));
        assert_eq!(kept(&homes, "real"), Some((1, 1)));
        let answer = empty(&mut homes, "quiet", Some(position));
        assert!(answer.recovered && answer.publications.is_empty());
        assert_eq!(answer.position, Some(position));
        assert!(!empty(&mut homes, "quiet", Some(Position { offset: 1, ..position })).recovered);
        let begun = publish(&mut homes, "quiet", 0).unwrap();
        assert_eq!(begun, Position { offset: 1, ..position }, "in the epoch that was promised");
        let answer = empty(&mut homes, "quiet", Some(position));
        assert!(answer.recovered && answer.publications.len() == 1, "{answer:?}");
    }

    #[test]
    fn queries_of_unpublished_channels_create_no_stream() {
        let mut homes = homes(Some(RETENTION), 2);
        let range = HistoryRange { limit: 10, ..HistoryRange::default() };
        let Ok(ChannelAnswer::History(publications, history)) =
            ask(&mut homes, ChannelQuery::History(range))
        else {
            panic!("no history")
        };
        let Ok(ChannelAnswer::Position(position)) = ask(&mut homes, ChannelQuery::Position) else {
            panic!("no position")
        };
        assert!(publications.is_empty() && history.offset == 0 && homes.is_empty());
        let subscribed = subscribe(&mut homes, 0, None).position.unwrap();
        assert_eq!((history, position), (subscribed, subscribed));
        assert_eq!(homes.streams.len(), 0);
    }

    #[test]
    fn a_position_in_a_stream_that_ended_matches_no_later_one() {
        let ends: [fn(&mut Homes); 2] = [
            |homes| (0..2).for_each(|nth| _ = publish(homes, &format!("other-{nth}"), 1)),
            |homes| homes.expire(70_000, &mut WorkBudget::new(1_000_000, true)),
        ];
        for (nth, end) in ends.into_iter().enumerate() {
            for subscribed in [false, true] {
                let mut homes = homes(Some(RETENTION), 1);
                let before = subscribe(&mut homes, 0, None).position.unwrap();
                if !subscribed {
                    homes.release(&Release { channel: "a".into(), hash: 7, shard: 0 });
                }
                publish(&mut homes, "a", 0);
                end(&mut homes);
                assert_eq!(kept(&homes, "a"), None, "end {nth}");
                let Ok(ChannelAnswer::Position(now)) = ask(&mut homes, ChannelQuery::Position)
                else {
                    panic!("no position")
                };
                assert_ne!(now.epoch, before.epoch, "end {nth}, subscribed {subscribed}");
                let answer = subscribe(&mut homes, 0, Some(before));
                assert!(!answer.recovered && answer.position == Some(now), "{answer:?}");
                let after = publish(&mut homes, "a", 80_000).unwrap();
                assert_eq!(after, Position { offset: 1, ..now });
                let answer = subscribe(&mut homes, 0, Some(Position { offset: 1, ..before }));
                assert!(!answer.recovered);
            }
        }
    }

    #[test]
    fn subscribers_of_an_unpublished_channel_keep_their_epoch_while_others_end() {
        let mut homes = homes(Some(RETENTION), 1);
        let before = subscribe(&mut homes, 0, None).position.unwrap();
        // All channels of this test share one counter.
        (0..5).for_each(|nth| _ = publish(&mut homes, &format!("other-{nth}"), 0));
        assert_eq!(homes.evicted, 4);
        let Ok(ChannelAnswer::Position(now)) = ask(&mut homes, ChannelQuery::Position) else {
            panic!("no position")
        };
        assert_eq!(now, before);
        assert_eq!(publish(&mut homes, "a", 0), Some(Position { offset: 1, ..before }));
    }

    #[test]
    fn empty_streams_without_subscribers_are_dropped_first() {
        let mut homes = homes(Some(RETENTION), 12);
        for nth in 0..4 {
            publish(&mut homes, &format!("old-{nth}"), 0);
        }
        // No publication is left, but streams are kept longer.
        homes.expire(7_000, &mut WorkBudget::new(1_000_000, true));
        subscribe(&mut homes, 0, None);
        publish(&mut homes, "a", 0);
        homes.expire(14_000, &mut WorkBudget::new(1_000_000, true));
        for nth in 0..7 {
            publish(&mut homes, &format!("live-{nth}"), 14_000);
        }
        assert_eq!((homes.streams.len(), homes.evicted), (12, 0));
        for nth in 0..4 {
            publish(&mut homes, &format!("new-{nth}"), 15_000);
        }
        assert!((0..4).all(|nth| kept(&homes, &format!("old-{nth}")).is_none()));
        assert!((0..7).all(|nth| kept(&homes, &format!("live-{nth}")).is_some()));
        assert_eq!(kept(&homes, "a"), Some((0, 1)), "it has a subscriber");
    }

    #[test]
    fn new_streams_replace_old_ones_at_the_limit() {
        let mut homes = homes(Some(RETENTION), 40);
        for nth in 0..400u64 {
            publish(&mut homes, &nth.to_string(), nth * 10);
            assert!(homes.len() <= 40);
        }
        assert_eq!(homes.evicted, 360);
        assert!((0..300).all(|nth: u32| kept(&homes, &nth.to_string()).is_none()), "the old go");
        let metrics = Metrics::default();
        homes.measure(&metrics);
        assert_eq!((metrics.streams.get(), metrics.streams_evicted.get()), (40, 360));
    }

    #[test]
    fn new_publications_replace_the_oldest_and_positions_stay() {
        let retention = Retention { size: 1000, ..RETENTION };
        let mut homes = homes(Some(retention), 1000);
        for nth in 0..300u64 {
            publish(&mut homes, "old", nth);
        }
        let (most, top) = kept(&homes, "old").unwrap();
        assert!(most < 200 && top == 300, "{most}");
        assert_eq!(homes.shed, 300 - most as u64);
        for nth in 0..300u64 {
            publish(&mut homes, &format!("new{}", nth % 3), 1000 + nth);
            assert!(homes.streams.bytes() <= HISTORY_BYTES);
        }
        assert_eq!(kept(&homes, "old"), Some((0, 300)), "what is older goes first");
        let (some, top) = kept(&homes, "new2").unwrap();
        assert!(some > 10 && top == 100, "{some}");
        ask(&mut homes, ChannelQuery::RemoveHistory).unwrap();
        homes.expire(62_000, &mut WorkBudget::new(1_000_000, true));
        assert_eq!((homes.streams.bytes(), homes.len()), (0, 0));
    }

    #[test]
    fn a_publication_larger_than_the_budget_is_not_kept() {
        let mut homes = homes(Some(RETENTION), 10);
        publish(&mut homes, "a", 0);
        let large = [b'1'; HISTORY_BYTES];
        assert_eq!(publish_data(&mut homes, "b", &large, 1).unwrap().offset, 1);
        assert_eq!((kept(&homes, "a"), kept(&homes, "b")), (Some((0, 1)), Some((0, 1))));
        assert_eq!(publish(&mut homes, "b", 2).unwrap().offset, 2);
        assert_eq!(kept(&homes, "b"), Some((1, 2)));
    }
}
