//! Faults planted on purpose, to prove that the simulation sees them.
//!
//! Owns a switch for each thread. Without the feature `planted-faults` there is none, and nothing
//! is ever planted.

/// A race that the engine is built to avoid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A joiner gets all of the next lap, not only what comes behind its join.
    JoinerStartsAtFront,
    /// A leaver stays a member while a lap is open.
    LeaverStays,
    /// A channel is released while a subscribe of it is on its way.
    ReleasedWhilePending,
    /// An answer joins whoever has its place now.
    StaleAnswerJoins,
    /// A call is served while the answer before it is still to be sent.
    CallBeforeFlush,
    /// Who returns to a channel is announced before its leave is.
    LeaveOvertaken,
    /// A leave that finds no room is not told later.
    LeaveForgotten,
    /// What was said for a stream's client is forgotten where it finds no room.
    VoiceForgotten,
    /// News for the backend that finds no room is not told later.
    NoticeForgotten,
    /// A side table keeps its entry of a slot that is given back.
    TableForgotten,
    /// A message of a shard to itself that cannot be handled yet is not handled later.
    OwnMessageLost,
    /// A prepared publication for which there is no room is not committed later.
    PreparedForgotten,
}

#[cfg(feature = "planted-faults")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault in this thread, or none.
#[cfg(feature = "planted-faults")]
pub fn plant(fault: Option<Planted>) {
    PLANTED.set(fault);
}

/// Whether this fault is planted.
#[cfg(feature = "planted-faults")]
pub fn planted(fault: Planted) -> bool {
    PLANTED.get() == Some(fault)
}

/// Whether this fault is planted: never.
#[cfg(not(feature = "planted-faults"))]
#[inline(always)]
pub fn planted(_: Planted) -> bool {
    false
}
