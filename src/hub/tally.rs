//! What a turn counts before its end is known: durations, and messages of laps.
//!
//! Owns plain numbers of one thread. The pass's end, which reads the clock, turns them into
//! counters: so a delivery costs no clock, no allocation and no line that another thread writes.

use crate::base::histogram::{COMMANDS, DURATIONS, Histogram, Layout, NUMBERS, REQUESTS};
use crate::base::metrics::{COMMANDS as COMMAND_TYPES, FrameType, TRANSPORTS};
use crate::hub::connections::Connection;
use crate::hub::shard_state::Hub;
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
fn lasted(began: u32, end: u32) -> u64 {
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
}

impl Hub {
    /// Ends the pass of this turn: turns its tally into counters. Must be called once per turn with
    /// the time after its sends, in microseconds.
    pub fn end_pass(&mut self, micros: u64) {
        let (by, end) = (&self.metrics.by, micros as u32);
        self.tally.written.observe(&DURATIONS, &by.publish_to_write, end);
        self.tally.laps.observe(&DURATIONS, &by.laps, end);
        self.tally.calls.observe(&REQUESTS, &by.api_publish, end);
        for (beginnings, histogram) in self.tally.commands.iter_mut().zip(&by.commands) {
            beginnings.observe(&COMMANDS, histogram, end);
        }
        for (sent, counters) in self.tally.sent.iter_mut().zip(&by.sent) {
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

    /// The time of this turn in microseconds, its low bits.
    pub(super) fn stamp(&self) -> u32 {
        self.micros as u32
    }

    /// Counts a message to a client.
    pub(super) fn count_sent(&self, slot: u32, frame_type: FrameType, bytes: usize) {
        let transport = self.connections[slot].transport as usize;
        self.metrics.by.sent[transport][frame_type as usize].add(bytes);
    }

    /// Counts a message of a client.
    pub(super) fn count_received(&self, slot: u32, frame_type: FrameType, bytes: usize) {
        let transport = self.connections[slot].transport as usize;
        self.metrics.by.received[transport][frame_type as usize].add(bytes);
    }

    /// Notes that a command of this type, which began then, is answered.
    pub(super) fn command_answered(&mut self, frame_type: FrameType, began: u32) {
        if let Some(beginnings) = self.tally.commands.get_mut(frame_type as usize) {
            beginnings.add(began, 1);
        }
    }

    /// Counts the answer to an API call that began at the stamp of its connection.
    pub(super) fn count_call(&mut self, slot: u32, error: Option<u32>) {
        self.tally.calls.add(self.connections[slot].stamp, 1);
        if let Some(code) = error {
            self.metrics.by.api_publish_errors.add(code.into());
        }
    }

    /// Counts a pong, which answers the ping of the connection.
    pub(super) fn count_pong(&self, slot: u32) {
        let connection = &self.connections[slot];
        if let Some(histogram) = self.metrics.by.pings.get(connection.transport as usize) {
            histogram.observe(&COMMANDS, lasted(connection.stamp, self.stamp()), 1);
        }
    }

    /// Counts a recovery.
    pub(super) fn count_recovery(&self, recovered: bool, publications: usize) {
        let by = &self.metrics.by;
        by.recoveries[usize::from(recovered)][usize::from(publications > 0)].add(1);
        if recovered {
            by.recovered_publications.observe(&NUMBERS, publications as u64, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::counter::writes;
    use crate::base::histogram::HistogramSnapshot;
    use crate::base::sys::Now;
    use crate::hub::tests::{ROOMY, hub, publish, subscriber, transmit};

    const START: u64 = 5_000_000;

    fn begin(hub: &mut Hub, micros: u64) {
        hub.begin_turn(Now { millis: micros / 1000, micros, unix: 0 });
    }

    fn snapshot(layout: &'static Layout, histogram: &Histogram) -> HistogramSnapshot {
        HistogramSnapshot::of(layout, [histogram])
    }

    /// Relaxed writes of counters and deliveries of a turn in which each of `subscribers` gets a
    /// publication. `Counter` counts the writes of this thread in tests; every number that a shard
    /// shows is one. Nothing else is shared: the counters of a shard begin on a line of their own.
    fn fan_out(subscribers: usize, publications: usize) -> (u64, u64) {
        let mut hub = hub(ROOMY, ROOMY, ROOMY);
        let slots: Vec<u32> = (0..subscribers).map(|_| subscriber(&mut hub)).collect();
        transmit(&mut hub, &[]);
        hub.end_pass(START);
        begin(&mut hub, START);
        let deliveries = hub.metrics.deliveries.get();
        let capacity = hub.tally.written.0.capacity();
        for _ in 0..publications {
            publish(&mut hub, slots[0], 5);
        }
        let before = writes();
        hub.fan_out();
        transmit(&mut hub, &[]);
        hub.end_pass(START + 300);
        assert!(hub.tally.written.0.capacity() <= capacity.max(4), "nothing grows with deliveries");
        (writes() - before, hub.metrics.deliveries.get() - deliveries)
    }

    #[test]
    fn a_delivery_costs_at_most_two_relaxed_writes() {
        let (one, first) = fan_out(1, 1);
        let (many, deliveries) = fan_out(100, 1);
        assert_eq!((first, deliveries), (1, 100));
        assert!(one <= 40, "{one} writes of a turn");
        assert!(many - one <= 2 * (deliveries - first), "{one} and {many} writes");
        let (more, deliveries) = fan_out(100, 10);
        assert_eq!(deliveries, 1000);
        assert!(more <= many, "publications of a lap cost no more: {many} and {more}");
    }

    #[test]
    fn publish_to_write_is_the_time_to_the_end_of_the_pass() {
        let mut hub = hub(ROOMY, ROOMY, ROOMY);
        let slots: Vec<u32> = (0..3).map(|_| subscriber(&mut hub)).collect();
        transmit(&mut hub, &[]);
        hub.end_pass(START);
        let metrics = hub.metrics.clone();
        let written = snapshot(&DURATIONS, &metrics.by.publish_to_write);
        begin(&mut hub, START);
        publish(&mut hub, slots[0], 5);
        // The next turn sends it, to two of them: the third has unsent output before.
        hub.end_pass(START + 100);
        begin(&mut hub, START + 200);
        hub.fan_out();
        transmit(&mut hub, &[slots[2]]);
        hub.end_pass(START + 1_000);
        begin(&mut hub, START + 1_000);
        publish(&mut hub, slots[0], 5);
        hub.fan_out();
        transmit(&mut hub, &[]);
        hub.end_pass(START + 1_500);
        let since = snapshot(&DURATIONS, &metrics.by.publish_to_write).since(&written);
        assert_eq!(since.count(), 5, "three sends and then two");
        let expected = (3 * 1_000 + 2 * 500) as f64 * 1e-6;
        assert!((since.sum() - expected).abs() < 1e-9, "{}", since.sum());
        let sent = &metrics.by.sent[0][FrameType::PushPublication as usize];
        assert_eq!(sent.messages.get(), 6);
        assert_eq!(snapshot(&DURATIONS, &metrics.by.laps).count(), 2);
    }

    #[test]
    fn a_clock_that_is_ahead_counts_as_no_time() {
        assert_eq!(lasted(10, 15), 5);
        assert_eq!(lasted(u32::MAX, 4), 5);
        assert_eq!(lasted(15, 10), 0);
    }
}
