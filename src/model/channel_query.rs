//! What can be asked about a channel, and what its home tells.
//!
//! Owns the types. Never reads a history.

use crate::model::publication::Publication;
use crate::wire::protocol::reply::{PresenceList, PresenceStats};
use crate::wire::protocol::{Position, Wire};

/// What can be asked about a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelQuery {
    /// What was published.
    History(HistoryRange),
    /// That what was published is forgotten.
    RemoveHistory,
    /// Who is there, in this encoding.
    Presence(Wire),
    /// How many are there.
    Stats,
    /// Where its stream stands.
    Position,
}

/// A part of what was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryRange {
    /// Publications at most.
    pub limit: usize,
    /// From behind this position on, or in front of it.
    pub since: Option<Position>,
    /// Newest first.
    pub reverse: bool,
}

/// What a home tells about a channel.
#[derive(Debug)]
pub enum ChannelAnswer {
    /// What was published, and where the stream stands.
    History(Vec<Publication>, Position),
    /// It is forgotten.
    HistoryRemoved,
    /// Who is there.
    Presence(PresenceList),
    /// How many are there.
    Stats(PresenceStats),
    /// Where its stream stands.
    Position(Position),
}

impl ChannelAnswer {
    /// Bytes that a client's answer has, at least.
    pub fn least(&self) -> usize {
        match self {
            ChannelAnswer::Presence(roll) => roll.bytes(),
            ChannelAnswer::History(publications, _) => {
                publications.iter().map(|publication| publication.data().len()).sum()
            }
            ChannelAnswer::Stats(_)
            | ChannelAnswer::Position(_)
            | ChannelAnswer::HistoryRemoved => 0,
        }
    }
}
