//! The watchdog: looks whether every shard turns, and tells the health endpoint and the service
//! manager.
//!
//! Owns the times since the last turns. Never acts on a stuck shard: the service manager restarts
//! the process when it gets no notification. The invariants: a shard that sleeps is woken in time
//! to show that it turns; time in which the whole process was stopped counts against no shard.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::base::notify;
use crate::base::vitals::{LifeFault, LifeStage, TURN_PATIENCE, Vitals};
use crate::link::Link;

/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Time without a turn after which a shard is woken.
const WAKE_AFTER: Duration = Duration::from_secs(1);
/// Maximum pause between two notifications to the service manager.
const BEAT_PAUSE: Duration = Duration::from_secs(5);

/// A shard as the watchdog knows it.
#[derive(Clone, Copy, Default)]
struct Watched {
    turns: u64,
    /// Time since its last turn.
    silent: Duration,
}

/// What a look at the shards found, a bit for each shard.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Shards that are to be woken.
    to_wake: u64,
    /// Shards that are stuck.
    stuck: u64,
}

/// Looks at the turns of each shard, `elapsed` after the last look.
fn look(watched: &mut Vec<Watched>, elapsed: Duration, turns: impl Iterator<Item = u64>) -> Found {
    // A longer time means that this thread did not run either.
    let elapsed = elapsed.min(2 * LOOK_PAUSE);
    let mut found = Found::default();
    for (nth, turns) in turns.enumerate() {
        if nth == watched.len() {
            watched.push(Watched { turns, silent: Duration::ZERO });
            continue;
        }
        let Some(shard) = watched.get_mut(nth) else { continue };
        let silent = if shard.turns == turns { shard.silent + elapsed } else { Duration::ZERO };
        *shard = Watched { turns, silent };
        found.to_wake |= u64::from(silent >= WAKE_AFTER) << nth;
        found.stuck |= u64::from(silent > TURN_PATIENCE) << nth;
    }
    found
}

/// Looks at the shards until they end. While all of them turn, notifies the service manager at
/// least twice within its watchdog's time.
pub async fn watch(link: Arc<Link>, vitals: Arc<Vitals>) {
    let watchdog = notify::watchdog_time();
    let beat_pause = watchdog.map_or(BEAT_PAUSE, |time| (time / 2).min(BEAT_PAUSE));
    let pause = LOOK_PAUSE.min(beat_pause / 2);
    let (mut watched, mut stuck) = (Vec::new(), 0);
    let (mut last, mut next_beat) = (Instant::now(), Instant::now());
    while vitals.stage() < LifeStage::Stopping {
        let now = Instant::now();
        let found = look(&mut watched, now - last, vitals.turns());
        last = now;
        link.wake_shards(found.to_wake);
        vitals.note_look(found.stuck, link.millis());
        if found.stuck != stuck {
            stuck = found.stuck;
            report(stuck);
        }
        if stuck == 0 && now >= next_beat {
            next_beat = now + beat_pause;
            beat(watchdog.is_some(), vitals.stage());
        }
        sleep(pause).await;
    }
}

/// Notifies the service manager that the node is alive, and that a shutdown goes on.
fn beat(has_watchdog: bool, stage: LifeStage) {
    if has_watchdog {
        notify::notify("WATCHDOG=1");
    }
    if stage > LifeStage::Serving {
        notify::extend_timeout(notify::STOP_STEP);
    }
}

/// Logs which shards are stuck, or that none is any more.
fn report(stuck: u64) {
    if stuck == 0 {
        tracing::info!(target: "control", "every shard turns again");
        return notify::status("every shard turns again");
    }
    let fault = LifeFault::ShardsStuck(stuck);
    let effect = "/health answers 503 and the watchdog of the service manager is not fed";
    tracing::error!(target: "control", "{fault}; {effect}");
    notify::status(fault);
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Duration = Duration::from_millis(500);

    #[test]
    fn a_silent_shard_is_woken_first_and_is_stuck_after_two_seconds() {
        let mut watched = Vec::new();
        let mut found = |elapsed, turns: [u64; 2]| look(&mut watched, elapsed, turns.into_iter());
        assert_eq!(found(HALF, [1, 1]), Found::default(), "the first look");
        assert_eq!(found(HALF, [2, 1]), Found::default());
        assert_eq!(found(HALF, [3, 1]), Found { to_wake: 0b10, stuck: 0 });
        for turns in [4, 5] {
            assert_eq!(found(HALF, [turns, 1]), Found { to_wake: 0b10, stuck: 0 }, "{turns}");
        }
        assert_eq!(found(HALF, [6, 1]), Found { to_wake: 0b10, stuck: 0b10 });
        assert_eq!(found(HALF, [6, 2]), Found::default(), "it turns again");
    }

    #[test]
    fn a_process_that_was_stopped_has_no_stuck_shard() {
        let mut watched = Vec::new();
        let mut found = |elapsed| look(&mut watched, elapsed, [1].into_iter());
        assert_eq!(found(HALF), Found::default());
        let an_hour = Duration::from_secs(3600);
        assert_eq!(found(an_hour), Found { to_wake: 0b1, stuck: 0 });
        assert_eq!(found(HALF).stuck, 0);
        assert_eq!(found(an_hour).stuck, 1, "it was woken and has had the time to turn");
    }
}
