//! Queries about a channel, and the answers of its home.
//!
//! Owns the types. Never reads a history.

use std::sync::Arc;

use crate::model::latest::LatestCell;
use crate::model::publication::Publication;
use crate::wire::protocol::reply::{PresenceList, PresenceStats};
use crate::wire::protocol::{Position, Wire};

/// A query about a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelQuery {
    /// Read publications from the history.
    History(HistoryRange),
    /// Remove the history.
    RemoveHistory,
    /// Remove the publications before this offset.
    TrimHistory(u64),
    /// List the clients that are present, in this encoding.
    Presence(Wire),
    /// Count the clients and users that are present.
    Stats,
    /// Read the current position of the stream.
    Position,
    /// Read the latest publication.
    Latest,
}

/// Part of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryRange {
    /// Maximum number of publications.
    pub limit: usize,
    /// Start after this position, or before it if `reverse`; `None`: at the first or last one.
    pub since: Option<Position>,
    /// Return the newest publications first.
    pub reverse: bool,
}

/// The answer of a home to a [`ChannelQuery`].
#[derive(Debug)]
pub enum ChannelAnswer {
    /// Publications, and the current position of the stream.
    History(Vec<Publication>, Position),
    /// The history was removed.
    HistoryRemoved,
    /// The clients that are present.
    Presence(PresenceList),
    /// Numbers of clients and users that are present.
    Stats(PresenceStats),
    /// The current position of the stream.
    Position(Position),
    /// The latest publication, if any, and the cell that shows the next ones.
    Latest(Option<Publication>, Option<Arc<LatestCell>>),
}

impl ChannelAnswer {
    /// Lower bound of the size of the encoded answer in bytes.
    pub fn least(&self) -> usize {
        match self {
            ChannelAnswer::Presence(list) => list.bytes(),
            ChannelAnswer::History(publications, _) => {
                publications.iter().map(|publication| publication.data().len()).sum()
            }
            ChannelAnswer::Stats(_)
            | ChannelAnswer::Position(_)
            | ChannelAnswer::Latest(..)
            | ChannelAnswer::HistoryRemoved => 0,
        }
    }
}
