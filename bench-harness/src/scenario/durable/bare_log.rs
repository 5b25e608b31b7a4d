//! The bare disk: a loop of write and fdatasync, on the calling thread.
//!
//! Owns the file. Never checks, frames or indexes a record: it is the least that a durable log
//! does. Invariant: a batch counts when its fdatasync has returned.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drumline::base::sys::thread_micros;

use super::data::Records;
use super::folder::written_bytes;
use super::turn::Turn;
use crate::account::busy_ns;
use crate::clock::RunClock;
use crate::latency::Recorder;

/// Appends batches of `mean` records on average to a new file, for so long, one after the other.
pub(super) fn append(path: &Path, mean: f64, lasts: Duration, clock: RunClock) -> Result<Turn> {
    append_with_pauses(path, mean, lasts, Duration::ZERO, clock)
}

/// The same, but a batch begins `pause` after the begin of the one before it, or later.
pub(super) fn append_with_pauses(
    path: &Path,
    mean: f64,
    lasts: Duration,
    pause: Duration,
    clock: RunClock,
) -> Result<Turn> {
    ensure!(mean >= 1.0, "a batch of {mean} records: it must have one or more");
    let told = || format!("cannot append to {}", path.display());
    let mut file = File::create(path).with_context(told)?;
    let mut records = Records::new(1);
    let mut recorder = Recorder::new(clock.started())?;
    let (mut batch, mut acknowledged, mut due) = (Vec::new(), 0, 0.0);
    let written = written_bytes(std::process::id())?;
    let (busy, cpu, begun_ns) = (busy_ns()?, thread_micros(), clock.now_ns());
    let (end_ns, pause_ns) = (begun_ns + lasts.as_nanos() as u64, pause.as_nanos() as u64);
    let (mut sent_ns, mut now_ns) = (begun_ns, begun_ns);
    while now_ns < end_ns {
        // Rounds so that the batches have the mean, whatever its fraction.
        due += mean;
        let count = due as u64 - acknowledged;
        batch.clear();
        for _ in 0..count {
            batch.extend_from_slice(records.next_record());
        }
        std::thread::sleep(clock.until(sent_ns + pause_ns));
        sent_ns = clock.now_ns();
        file.write_all(&batch).and_then(|()| file.sync_data()).with_context(told)?;
        now_ns = clock.now_ns();
        acknowledged += count;
        recorder.expect(1);
        recorder.record(now_ns, now_ns - sent_ns)?;
    }
    Ok(Turn {
        acknowledged,
        took: Duration::from_nanos(now_ns - begun_ns),
        recorder,
        server_ns: (thread_micros() - cpu) * 1_000,
        client_ns: None,
        disk_bytes: written_bytes(std::process::id())? - written,
        batch: Some(mean),
        busy_ns: busy_ns()? - busy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_the_mean_and_their_bytes_are_in_the_file() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("log");
        let turn = append(&path, 2.5, Duration::from_millis(50), RunClock::start()).unwrap();
        let batches = turn.recorder.deliveries.delivered;
        assert_eq!(turn.acknowledged, batches * 5 / 2);
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert_eq!(bytes, turn.acknowledged * super::super::data::BYTES as u64);
        assert!(turn.disk_bytes >= bytes);
        assert!(append(&path, 0.5, Duration::ZERO, RunClock::start()).is_err());
    }

    #[test]
    fn batches_with_pauses_do_not_follow_each_other_sooner() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("log");
        let [lasts, pause] = [50, 10].map(Duration::from_millis);
        let turn = append_with_pauses(&path, 1.0, lasts, pause, RunClock::start()).unwrap();
        assert!((1..=6).contains(&turn.acknowledged), "{}", turn.acknowledged);
    }
}
