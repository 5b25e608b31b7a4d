//! Faults that are planted on purpose, to prove that the simulation finds them.
//!
//! Owns one switch per thread. Without the feature `planted-faults` there is no switch, and
//! [`planted`] is always false.

/// A race that the engine avoids. A planted fault removes the protection against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedFault {
    /// A new member of a group gets the whole next lap, instead of the part after its join.
    JoinerGetsWholeLap,
    /// A member that leaves during a lap stays in its group.
    LeaverStaysInGroup,
    /// A shard releases a channel while its own subscribe is on the way to the home.
    ReleasedWhilePending,
    /// A shard sleeps though a slow consumer ended behind the sends to homes and to the backend.
    LateEndForgotten,
    /// A late answer to a subscribe joins the connection that now has the slot.
    StaleAnswerJoins,
    /// An API call is served before the answer to the previous call is sent.
    CallServedBeforeFlush,
    /// A connection that subscribes again is announced before its leave is.
    JoinBeforeLeave,
    /// A leave is sent only if the present options of the channel make its subscribers visible.
    LeaveByPresentOptions,
    /// A leave that finds no room in the home's inbox is dropped.
    LeaveDropped,
    /// A frame of an emulation request that finds no room is dropped.
    EmulationFrameDropped,
    /// A hook event that finds no room is dropped.
    HookEventDropped,
    /// A side table keeps its entry when a slot becomes free.
    SideTableNotFreed,
    /// A shard drops a message to itself that it cannot handle yet.
    OwnMessageLost,
    /// A home drops a prepared publication for which there is no room.
    PreparedPublicationDropped,
    /// A worker does not note that a shard became due earlier than the others.
    EarlierDeadlineForgotten,
    /// Records of TLS that the socket has not begun to take keep their sequence numbers.
    RecordsNotTakenBack,
    /// The rest of a TLS record that the socket took in part is lost.
    RestOfRecordLost,
    /// Input that arrives together with the end of a TLS handshake is dropped.
    InputBehindHandshakeDropped,
    /// A connection with TLS that ends behind unsent records does not tell the peer so.
    ClosingAlertForgotten,
    /// A shard handles no deadlines while other shards of its worker leave none, however late.
    LateDeadlinesStarve,
    /// A home commits a write before the store has answered.
    CommittedBeforeStored,
    /// Only the writes of a batch that failed are taken back, and not those behind them.
    LaterWritesNotFailed,
    /// A home fails its writes for an answer to writes that it has taken back before.
    TermIgnored,
    /// The offset of a failed publication is not assigned again.
    OffsetNotTakenBack,
    /// The record on disk stays as a failed write has left it.
    RecordNotCorrected,
    /// The idempotency key of a failed publication stays on disk.
    FailedKeyNotErased,
    /// Every write erases what failed writes have left, also what an earlier one has written anew.
    ErasedAgain,
    /// A commit that was sent before a failure counts as its correction.
    CorrectedByEarlierWrite,
    /// A publication that is not committed moves the begin of the history.
    TrimmedBeforeCommit,
    /// A removal of a history is acknowledged when it is sent to the store.
    RemovalBeforeStored,
    /// A failed write is not answered.
    RefusalDropped,
    /// A stream whose writes are on their way leaves memory.
    StreamWithWritesEvicted,
    /// Publications that left memory while the store was asked are not asked for.
    ShedMeanwhileIgnored,
    /// A request does not wait behind an earlier one of its channel.
    WaitingRequestOvertaken,
    /// A wait for the store keeps its stream in memory for ever.
    WaitNotEnded,
    /// The idempotency keys of a stream are not loaded with it.
    KeysNotLoaded,
    /// The version of a stream is not part of its record.
    VersionNotStored,
    /// Memory of a write that failed stays charged.
    ChargeKept,
    /// The store may remove what only a write that is not committed has moved out of the history.
    UnsettledRemoved,
    /// The store answers only from the history that the record on disk has.
    RangeByRecord,
    /// The store ignores the record of a stream that a publication carries.
    CarriedRecordIgnored,
    /// The store keeps a write that was sent behind one that failed.
    WriteBehindFailureKept,
    /// The answers to kept and to failed writes become one.
    AnswersMerged,
    /// A stream that has ended is followed by one in the same epoch.
    GenerationKept,
}

#[cfg(feature = "planted-faults")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<PlantedFault>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault in this thread; `None` removes it.
#[cfg(feature = "planted-faults")]
pub fn plant(fault: Option<PlantedFault>) {
    PLANTED.set(fault);
}

/// Whether the fault is planted in this thread.
#[cfg(feature = "planted-faults")]
pub fn planted(fault: PlantedFault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Whether the fault is planted in this thread: never.
#[cfg(not(feature = "planted-faults"))]
#[inline(always)]
pub fn planted(_: PlantedFault) -> bool {
    false
}
