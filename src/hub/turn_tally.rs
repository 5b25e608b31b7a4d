//! What a turn counts before its end is known: durations, and messages of laps.
//!
//! Owns plain numbers of one thread. The pass's end, which reads the clock, turns them into
//! counters: so a delivery costs no clock, no allocation and no line that another thread writes.

use crate::base::histogram::{COMMANDS, DURATIONS, Histogram, Layout, REQUESTS};
use crate::base::metrics::{COMMANDS as COMMAND_TYPES, FrameType, Labelled, TRANSPORTS};
use crate::hub::connections::Connection;
use crate::local::LapShape;

/// Types of the messages of laps, in the order of [`LapShape::messages`].
const OF_LAPS: [FrameType; 3] =
    [FrameType::PushPublication, FrameType::PushJoin, FrameType::PushLeave];

/// Times with the number of events that began then. Equal neighbours are one.
#[derive(Debug, Default)]
struct Beginnings(Vec<(u32, u64)>);

impl Beginnings {
    fn add(&mut self, began: u32, times: u64) {
        match self.0.last_mut() {
            Some((last, count)) if *last == began => *count += times,
            _ => self.0.push((began, times)),
        }
    }

    /// Counts what took until `end`. The sum is one write, and each different time another.
    fn observe(&mut self, layout: &Layout, histogram: &Histogram, end: u32) {
        if !self.0.is_empty() {
            let took = self.0.drain(..).map(|(began, times)| (lasted(began, end), times));
            histogram.observe_all(layout, took);
        }
    }
}

/// Microseconds between two times, of which only the low bits are known.
pub(super) fn lasted(began: u32, end: u32) -> u64 {
    // A later beginning is that of another thread's clock.
    let took = end.wrapping_sub(began);
    if took > u32::MAX / 2 { 0 } else { took.into() }
}

/// The numbers of a turn.
#[derive(Debug, Default)]
pub(super) struct TurnTally {
    /// When publications were accepted that were sent to members of laps.
    written: Beginnings,
    /// When laps began that are over.
    laps: Beginnings,
    /// When commands began that were answered, by type.
    commands: [Beginnings; COMMAND_TYPES],
    /// When API calls began that were answered.
    calls: Beginnings,
    /// Messages of laps and their bytes, by transport and type.
    sent: [[(u64, u64); OF_LAPS.len()]; TRANSPORTS],
    /// Members of one step of a lap, by transport.
    members: [u64; TRANSPORTS],
}

impl TurnTally {
    /// Notes a member of the lap that is being walked.
    pub(super) fn add_member(&mut self, connection: &Connection) {
        if let Some(members) = self.members.get_mut(connection.transport as usize) {
            *members += 1;
        }
    }

    /// Counts the messages that the noted members got of a lap. `direct` of them were sent in this
    /// turn; the others have unsent output before.
    pub(super) fn end_step(&mut self, shape: &LapShape, direct: u64) {
        for (members, sent) in self.members.iter_mut().zip(&mut self.sent) {
            let members = std::mem::take(members);
            if members > 0 {
                for ((messages, bytes), (number, size)) in sent.iter_mut().zip(&shape.messages) {
                    *messages += members * u64::from(*number);
                    *bytes += members * u64::from(*size);
                }
            }
        }
        if direct > 0 {
            for (accepted, publications) in &shape.accepted {
                self.written.add(*accepted, direct * u64::from(*publications));
            }
        }
    }

    /// Notes a lap that is over.
    pub(super) fn end_lap(&mut self, began: u32) {
        self.laps.add(began, 1);
    }

    /// Notes that a command of this type, which began then, is answered.
    pub(super) fn end_command(&mut self, frame_type: FrameType, began: u32) {
        if let Some(beginnings) = self.commands.get_mut(frame_type as usize) {
            beginnings.add(began, 1);
        }
    }

    /// Notes that an API call which began then is answered.
    pub(super) fn end_call(&mut self, began: u32) {
        self.calls.add(began, 1);
    }

    /// Turns the numbers into counters. `end` is the time after the sends of the turn.
    pub(super) fn end_pass(&mut self, by: &Labelled, end: u32) {
        self.written.observe(&DURATIONS, &by.publish_to_write, end);
        self.laps.observe(&DURATIONS, &by.laps, end);
        self.calls.observe(&REQUESTS, &by.api_publish, end);
        for (beginnings, histogram) in self.commands.iter_mut().zip(&by.commands) {
            beginnings.observe(&COMMANDS, histogram, end);
        }
        for (sent, counters) in self.sent.iter_mut().zip(&by.sent) {
            for ((messages, bytes), frame_type) in sent.iter_mut().zip(OF_LAPS) {
                if *messages > 0
                    && let Some(counter) = counters.get(frame_type as usize)
                {
                    counter.messages.add(std::mem::take(messages));
                    counter.bytes.add(std::mem::take(bytes));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::lasted;

    #[test]
    fn a_clock_that_is_ahead_counts_as_no_time() {
        assert_eq!(lasted(10, 15), 5);
        assert_eq!(lasted(u32::MAX, 4), 5);
        assert_eq!(lasted(15, 10), 0);
    }
}
