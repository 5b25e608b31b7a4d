//! Why a command is not executed, or not yet.

use crate::wire::protocol::{Disconnect, Error};

/// Why the commands of a connection stop, for now or for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The connection used its share of the turn.
    Turn,
    /// The connection has run as many commands as its rate permits.
    Rate,
    /// An inbox is full: the command is retried when there is room.
    Room,
    /// An earlier command or a lookup must be answered first.
    Wait,
    /// The client violated the protocol.
    Disconnect(Disconnect),
}

/// An inbox that a message must go to is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InboxFull;

impl From<InboxFull> for StopReason {
    fn from(_: InboxFull) -> Self {
        StopReason::Room
    }
}

/// Why a command was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandFailure {
    /// The command must wait, or the connection ends.
    Stop(StopReason),
    /// The reply is this error.
    Error(Error),
    /// The reply was sent.
    Answered,
}

impl From<Error> for CommandFailure {
    fn from(error: Error) -> Self {
        CommandFailure::Error(error)
    }
}

impl From<InboxFull> for CommandFailure {
    fn from(_: InboxFull) -> Self {
        CommandFailure::Stop(StopReason::Room)
    }
}

impl From<Disconnect> for CommandFailure {
    fn from(disconnect: Disconnect) -> Self {
        CommandFailure::Stop(StopReason::Disconnect(disconnect))
    }
}

impl From<StopReason> for CommandFailure {
    fn from(stop: StopReason) -> Self {
        CommandFailure::Stop(stop)
    }
}
