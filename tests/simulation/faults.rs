//! The committed list of planted faults. Each is found within a number of seeds.
//!
//! Owns the faults of the simulated bus, disk and shard. Those inside the hub, the homes and the
//! store are in `drumline::base::planted_faults`.

use crate::run;

/// Seeds within which every planted fault must be found.
const SEEDS: u64 = 3_000;

/// Faults outside the hub: in the bus, the disk, and the code that drives a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A delivery overtakes the one sent before it.
    DeliveryOvertakes,
    /// A publication is sent to a full inbox, which drops it.
    PublicationLostWhenFull,
    /// A publication arrives twice.
    PublicationTwice,
    /// A channel's release is sent to a full inbox, and not sent again.
    ReleaseNotRetried,
    /// A cancelled reservation keeps its room.
    ReservationLeaked,
    /// A sender that waits for room is not notified when room becomes free.
    WaiterForgotten,
    /// A sender that waits for room is notified only if it already sleeps.
    RoomToldOnlyToSleepers,
    /// The unsent rest of a short send is lost.
    ShortSendNotTold,
    /// A completion of a slot's earlier connection is applied to the next one.
    StaleCompletion,
    /// A slot is not freed.
    SlotForgotten,
    /// A turn without output does not end: its laps stay, and count as backlog.
    TurnEndedOnlyWithOutput,
    /// Input that was left unread is not read later.
    UnreadForgotten,
    /// A send that is reported late as failed counts as complete.
    LateSendIgnored,
    /// A send that is reported late closes the slot's next connection.
    LateSendHitsSuccessor,
    /// A message between a home and the store overtakes the one sent before it.
    StoreMessageOvertakes,
    /// A batch is acknowledged though its sync was lost.
    SyncLost,
    /// No sync does anything: a power cut takes all batches of the process.
    SyncDoesNothing,
    /// A batch is acknowledged when its writing begins.
    AcknowledgedBeforeWritten,
    /// Of a batch that a crash tears, the first half is on disk.
    TornBatchApplied,
    /// Readers see the batch that is being written.
    UnwrittenBatchSeen,
    /// A batch that failed reaches the disk when the disk was open again already.
    FailedBatchComesLate,
    /// A channel whose home is another shard than in the process before has no stream.
    StreamLostWithItsHome,
}

/// Finds a fault, which `plant` plants or removes in the hub, the homes and the store. A seed that
/// fails without it, too, has another cause, and has not found it.
fn find(name: &str, fault: Option<Fault>, plant: impl Fn(bool)) {
    for seed in 0..SEEDS {
        plant(true);
        let Err(error) = run(seed, fault) else { continue };
        plant(false);
        if let Err(other) = run(seed, None) {
            panic!("seed {seed} fails without a fault: {other}");
        }
        println!("{name} was found by seed {seed}, after {} seeds: {error}", seed + 1);
        return;
    }
    panic!("{name} was not found within {SEEDS} seeds");
}

macro_rules! faults {
    ($($name:ident $fault:ident;)*) => {
        $(
            #[test]
            fn $name() {
                find(name(Fault::$fault), Some(Fault::$fault), |_| {});
            }
        )*

        /// A fault without a test does not compile.
        fn name(fault: Fault) -> &'static str {
            match fault {
                $(Fault::$fault => stringify!($fault),)*
            }
        }
    };
}

faults! {
    finds_a_delivery_that_overtakes DeliveryOvertakes;
    finds_a_publication_lost_when_full PublicationLostWhenFull;
    finds_a_publication_that_comes_twice PublicationTwice;
    finds_a_release_not_retried ReleaseNotRetried;
    finds_a_reservation_leaked ReservationLeaked;
    finds_a_waiter_forgotten WaiterForgotten;
    finds_room_told_only_to_sleepers RoomToldOnlyToSleepers;
    finds_a_short_send_not_told ShortSendNotTold;
    finds_a_stale_completion StaleCompletion;
    finds_a_slot_forgotten SlotForgotten;
    finds_a_turn_ended_only_with_output TurnEndedOnlyWithOutput;
    finds_unread_input_forgotten UnreadForgotten;
    finds_a_late_send_ignored LateSendIgnored;
    finds_a_late_send_that_hits_a_successor LateSendHitsSuccessor;
    finds_a_store_message_that_overtakes StoreMessageOvertakes;
    finds_a_lost_sync SyncLost;
    finds_a_sync_that_does_nothing SyncDoesNothing;
    finds_a_batch_acknowledged_before_it_was_written AcknowledgedBeforeWritten;
    finds_a_torn_batch_that_is_applied TornBatchApplied;
    finds_a_read_of_an_unwritten_batch UnwrittenBatchSeen;
    finds_a_failed_batch_that_comes_late FailedBatchComesLate;
    finds_a_stream_lost_with_its_home StreamLostWithItsHome;
}

/// Faults inside the hub, the homes and the store. Among them: a message to the own shard is lost,
/// a publication is prepared and not committed, `free` leaves a table as it was.
#[cfg(feature = "planted-faults")]
mod planted {
    use drumline::base::planted_faults::{PlantedFault, plant};

    use super::find;

    macro_rules! planted_faults {
        ($($name:ident $fault:ident;)*) => {
            $(
                #[test]
                fn $name() {
                    let fault = PlantedFault::$fault;
                    find(name(fault), None, |is_planted| plant(is_planted.then_some(fault)));
                }
            )*

            /// A fault without a test does not compile.
            fn name(fault: PlantedFault) -> &'static str {
                match fault {
                    $(PlantedFault::$fault => stringify!($fault),)*
                }
            }
        };
    }

    planted_faults! {
        finds_a_joiner_that_gets_a_whole_lap JoinerGetsWholeLap;
        finds_a_leaver_that_stays_in_its_group LeaverStaysInGroup;
        finds_a_release_of_a_pending_channel ReleasedWhilePending;
        finds_a_late_end_that_is_forgotten LateEndForgotten;
        finds_a_stale_answer_that_joins StaleAnswerJoins;
        finds_a_call_served_before_the_flush CallServedBeforeFlush;
        finds_a_join_before_the_leave JoinBeforeLeave;
        finds_a_leave_by_present_options LeaveByPresentOptions;
        finds_a_leave_dropped LeaveDropped;
        finds_an_emulation_frame_dropped EmulationFrameDropped;
        finds_a_hook_event_dropped HookEventDropped;
        finds_a_side_table_not_freed SideTableNotFreed;
        finds_an_own_message_lost OwnMessageLost;
        finds_a_prepared_publication_dropped PreparedPublicationDropped;
        finds_an_earlier_deadline_forgotten EarlierDeadlineForgotten;
        finds_late_deadlines_that_starve LateDeadlinesStarve;
        finds_records_not_taken_back RecordsNotTakenBack;
        finds_the_rest_of_a_record_lost RestOfRecordLost;
        finds_input_behind_a_handshake_dropped InputBehindHandshakeDropped;
        finds_a_closing_alert_forgotten ClosingAlertForgotten;
        finds_a_commit_before_the_store_answered CommittedBeforeStored;
        finds_later_writes_not_failed LaterWritesNotFailed;
        finds_a_term_ignored TermIgnored;
        finds_an_offset_not_taken_back OffsetNotTakenBack;
        finds_a_record_not_corrected RecordNotCorrected;
        finds_a_failed_key_not_erased FailedKeyNotErased;
        finds_a_key_erased_again ErasedAgain;
        finds_an_earlier_write_that_counts_as_correction CorrectedByEarlierWrite;
        finds_a_history_trimmed_before_the_commit TrimmedBeforeCommit;
        finds_a_removal_before_the_store_answered RemovalBeforeStored;
        finds_a_refusal_dropped RefusalDropped;
        finds_a_stream_evicted_with_writes StreamWithWritesEvicted;
        finds_publications_shed_meanwhile ShedMeanwhileIgnored;
        finds_a_waiting_request_overtaken WaitingRequestOvertaken;
        finds_a_wait_not_ended WaitNotEnded;
        finds_keys_not_loaded KeysNotLoaded;
        finds_a_version_not_stored VersionNotStored;
        finds_a_charge_kept ChargeKept;
        finds_remains_that_are_not_settled UnsettledRemoved;
        finds_a_range_by_the_record RangeByRecord;
        finds_a_carried_record_ignored CarriedRecordIgnored;
        finds_a_write_kept_behind_a_failure WriteBehindFailureKept;
        finds_answers_merged AnswersMerged;
        finds_a_generation_kept GenerationKept;
    }
}
