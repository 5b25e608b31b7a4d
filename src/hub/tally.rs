//! Counts of what the hub sends, receives and ends, by their labels.
//!
//! Owns nothing: the numbers of a turn are in `turn_tally`, the counters in the shard's metrics.

use crate::base::histogram::{COMMANDS, NUMBERS};
use crate::base::metrics::FrameType;
use crate::hub::shard_state::Hub;
use crate::hub::turn_tally::lasted;

impl Hub {
    /// Ends the pass of this turn: turns its tally into counters. Must be called once per turn with
    /// the time after its sends, in microseconds.
    pub fn end_pass(&mut self, micros: u64) {
        self.tally.end_pass(&self.metrics.by, micros as u32);
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
        self.tally.end_command(frame_type, began);
    }

    /// Counts the answer to an API call that began at the stamp of its connection.
    pub(super) fn count_call(&mut self, slot: u32, error: Option<u32>) {
        self.tally.end_call(self.connections[slot].stamp);
        if let Some(code) = error {
            self.metrics.by.api_publish_errors.add(code.into());
        }
    }

    /// Counts a close frame with this code.
    pub(super) fn count_close(&self, slot: u32, code: u16) {
        let transport = self.connections[slot].transport as u64;
        self.metrics.by.closes.add(transport << 16 | u64::from(code));
    }

    /// Counts an error reply to the command that is being answered.
    pub(super) fn count_error(&self, code: u32) {
        self.metrics.errors.add(1);
        let method = self.answering.0 as u64;
        self.metrics.by.reply_errors.add(method << 16 | u64::from(code & 0xffff));
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
    use crate::base::histogram::{DURATIONS, Histogram, HistogramSnapshot, Layout};
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
        for _ in 0..publications {
            publish(&mut hub, slots[0], 5);
        }
        let before = writes();
        hub.fan_out();
        transmit(&mut hub, &[]);
        hub.end_pass(START + 300);
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
}
