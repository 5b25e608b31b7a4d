//! An activity of a soak: what it does, how often, and what it counts.
//!
//! Owns the loop of an activity and its counts. Never decides what an episode does. Invariant: an
//! episode's random numbers follow from the seed, the activity and the number of the episode, so
//! that a seed repeats the mix however long the episodes take.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use anyhow::Result;

use super::scene::Scene;
use crate::random::Random;

/// Faults of an activity that are kept; the others are counted.
const FAULTS_KEPT: usize = 3;
/// Maximum pause before the first episode, in ms.
const FIRST_PAUSE_MS: u64 = 2_000;

/// An activity, which runs beside the others.
pub(super) struct Activity {
    /// Its name.
    pub(super) name: &'static str,
    /// Pause before each episode, in ms.
    pub(super) pause_ms: RangeInclusive<u64>,
    /// The counts that must grow: a run without them has not exercised the server.
    pub(super) counts: &'static [&'static str],
    /// One episode.
    pub(super) episode: fn(&Scene<'_>, &mut Random, &mut Tally) -> Result<()>,
}

/// What an activity has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Number of the present episode: kinds of episodes take turns, so that a short run has each.
    pub(super) episode: u64,
    /// Counts by name.
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// The first faults.
    pub(super) faults: Vec<String>,
    /// Number of all faults.
    pub(super) faulty: u64,
}

impl Tally {
    /// Adds to a count.
    pub(super) fn add(&mut self, what: &'static str, count: u64) {
        *self.counts.entry(what).or_default() += count;
    }

    /// A count.
    pub(super) fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    fn fault(&mut self, fault: String) {
        self.faulty += 1;
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(fault);
        }
    }
}

impl Activity {
    /// Repeats the episodes until the soak ends. An episode that has begun is finished.
    pub(super) fn repeat(&self, scene: &Scene<'_>, seed: u64) -> Tally {
        let mut tally = Tally::default();
        let own = self.name.bytes().fold(0, |sum: u64, byte| sum * 31 + u64::from(byte));
        for episode in 0.. {
            let mut random = Random::of_part(seed, [own, episode]);
            let mut pause = random.within(self.pause_ms.clone());
            if episode == 0 {
                pause = pause.min(random.within(0..=FIRST_PAUSE_MS));
            }
            if !scene.pause(pause) {
                break;
            }
            tally.episode = episode;
            if let Err(error) = (self.episode)(scene, &mut random, &mut tally) {
                eprintln!("  {}: {error:#}", self.name);
                tally.fault(format!("{error:#}"));
            }
        }
        tally
    }
}
