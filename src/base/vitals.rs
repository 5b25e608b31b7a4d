//! The life of a node: its stage between start and end, and whether its shards still turn.
//!
//! Owns the numbers that shards and the control plane share. Never waits and never reads a clock.
//! The invariant: a node is alive only while the control plane has looked at its shards lately and
//! found that each of them turns.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::base::counter::Counter;

/// Time within which every shard must finish a turn.
pub const TURN_PATIENCE: Duration = Duration::from_secs(2);
/// Milliseconds without a look of the control plane after which the control plane counts as stuck.
const LOOK_PATIENCE: u64 = 5000;
/// The control plane has not looked yet.
const NEVER: u64 = u64::MAX;

/// Stage of a node's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LifeStage {
    /// The node serves.
    Serving,
    /// The node will drain soon: it serves as before and says that it is not ready.
    Unready,
    /// The node refuses newcomers and closes its connections.
    Draining,
    /// The shards end.
    Stopping,
}

/// What a shard tells of itself.
#[derive(Debug, Default)]
#[repr(align(128))]
struct ShardVitals {
    turns: Counter,
    established: Counter,
}

/// The life of a node.
#[derive(Debug)]
pub struct Vitals {
    stage: AtomicU8,
    /// Bit n: shard n has finished no turn in time.
    stuck: AtomicU64,
    /// Milliseconds of the shards' clock when the control plane last looked at them.
    looked: AtomicU64,
    shards: Box<[ShardVitals]>,
}

impl Default for Vitals {
    /// The life of a node at which no control plane looks.
    fn default() -> Self {
        Vitals::new(0)
    }
}

impl Vitals {
    /// The life of a node that starts with this number of shards.
    pub fn new(shards: usize) -> Self {
        Vitals {
            stage: AtomicU8::new(LifeStage::Serving as u8),
            stuck: AtomicU64::new(0),
            looked: AtomicU64::new(NEVER),
            shards: (0..shards).map(|_| ShardVitals::default()).collect(),
        }
    }

    /// The stage of the node.
    pub fn stage(&self) -> LifeStage {
        match self.stage.load(Ordering::Acquire) {
            0 => LifeStage::Serving,
            1 => LifeStage::Unready,
            2 => LifeStage::Draining,
            _ => LifeStage::Stopping,
        }
    }

    /// Enters a stage. A node never returns to an earlier one.
    pub fn enter(&self, stage: LifeStage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }

    /// Notes that a shard finished a turn, and how many of its connections a drain must close.
    pub fn note_turn(&self, shard: usize, established: u64) {
        if let Some(shard) = self.shards.get(shard) {
            shard.turns.add(1);
            shard.established.set(established);
        }
    }

    /// Number of turns that each shard has finished.
    pub fn turns(&self) -> impl Iterator<Item = u64> {
        self.shards.iter().map(|shard| shard.turns.get())
    }

    /// Number of connections that a drain must close, of all shards.
    pub fn established(&self) -> u64 {
        self.shards.iter().map(|shard| shard.established.get()).sum()
    }

    /// Notes which shards are stuck at `now`, in milliseconds of the shards' clock.
    pub fn note_look(&self, stuck: u64, now: u64) {
        self.stuck.store(stuck, Ordering::Relaxed);
        self.looked.store(now, Ordering::Release);
    }

    /// Whether the node is alive at `now`.
    ///
    /// # Errors
    /// The reason why it is not.
    pub fn check_alive(&self, now: u64) -> Result<(), LifeFault> {
        let looked = self.looked.load(Ordering::Acquire);
        match self.stuck.load(Ordering::Relaxed) {
            0 if looked == NEVER || now.saturating_sub(looked) <= LOOK_PATIENCE => Ok(()),
            0 => Err(LifeFault::ControlPlaneStuck),
            stuck => Err(LifeFault::ShardsStuck(stuck)),
        }
    }

    /// Whether the node is ready for new clients at `now`.
    ///
    /// # Errors
    /// The reason why it is not.
    pub fn check_ready(&self, now: u64) -> Result<(), LifeFault> {
        self.check_alive(now)?;
        match self.stage() {
            LifeStage::Serving => Ok(()),
            _ => Err(LifeFault::ShuttingDown),
        }
    }
}

/// Why a node is not alive, or not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeFault {
    /// The shards whose bits are set have finished no turn in time.
    ShardsStuck(u64),
    /// The control plane has not looked at the shards in time.
    ControlPlaneStuck,
    /// The node shuts down.
    ShuttingDown,
}

impl fmt::Display for LifeFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LifeFault::ShardsStuck(shards) => {
                let numbers = (0..u64::BITS).filter(|nth| shards >> nth & 1 != 0);
                let numbers: Vec<_> = numbers.map(|nth| nth.to_string()).collect();
                let plural = if numbers.len() == 1 { "" } else { "s" };
                let (numbers, limit) = (numbers.join(", "), TURN_PATIENCE.as_secs());
                write!(out, "no turn within {limit} seconds: shard{plural} {numbers}")
            }
            LifeFault::ControlPlaneStuck => {
                write!(out, "the control plane has not looked at the shards in time")
            }
            LifeFault::ShuttingDown => write!(out, "the server shuts down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_shard_or_control_plane_is_named_and_a_drain_makes_a_node_unready() {
        let vitals = Vitals::new(3);
        let alive = |now| vitals.check_alive(now).map_err(|fault| fault.to_string());
        assert_eq!(alive(1_000_000), Ok(()), "nobody has looked yet");
        vitals.note_look(0, 1000);
        assert_eq!(alive(1000 + LOOK_PATIENCE), Ok(()));
        let late = alive(1001 + LOOK_PATIENCE).unwrap_err();
        assert!(late.contains("control plane"), "{late}");
        vitals.note_look(0b101, 9000);
        let named = Err("no turn within 2 seconds: shards 0, 2".to_owned());
        assert_eq!(alive(9000), named);
        vitals.note_look(0b010, 9000);
        assert_eq!(alive(9000), Err("no turn within 2 seconds: shard 1".to_owned()));
        assert_eq!(vitals.check_ready(9000), Err(LifeFault::ShardsStuck(0b010)));
        vitals.note_look(0, 9000);
        assert_eq!(vitals.check_ready(9000), Ok(()));
        vitals.enter(LifeStage::Unready);
        assert_eq!(vitals.check_ready(9000), Err(LifeFault::ShuttingDown));
        assert_eq!(alive(9000), Ok(()), "a node that drains is alive");
        vitals.enter(LifeStage::Draining);
        vitals.enter(LifeStage::Unready);
        assert_eq!(vitals.stage(), LifeStage::Draining);
    }

    #[test]
    fn turns_and_connections_are_counted_per_shard() {
        let vitals = Vitals::new(2);
        vitals.note_turn(0, 5);
        vitals.note_turn(0, 4);
        vitals.note_turn(1, 3);
        assert_eq!(vitals.turns().collect::<Vec<_>>(), [2, 1]);
        assert_eq!(vitals.established(), 7);
        Vitals::default().note_turn(0, 1);
    }
}
