//! What the records of a peer contain.

use std::ops::Range;

use crate::wire::tls::alert::AlertDescription;

/// What the first bytes of a connection's input are.
#[derive(Debug, PartialEq, Eq)]
pub enum Unsealed {
    /// A part of a record.
    Partial,
    /// A record of `used` bytes, whose data is the range of plain bytes in its place.
    Data {
        /// Bytes of the record.
        used: usize,
        /// The data.
        plain: Range<usize>,
    },
    /// A record of `used` bytes changed the keys of the peer.
    KeyUpdate {
        /// Bytes of the record.
        used: usize,
        /// Whether the peer asks for new keys of this side.
        answer: bool,
    },
    /// The peer sends nothing more.
    Closed,
    /// The connection ends: this alert is owed to the peer, unless the peer sent one itself.
    Fault(Option<AlertDescription>),
}
