//! Flags of scenarios that are measured in rounds.
//!
//! Owns the flags. Never measures.

use anyhow::{Result, ensure};

use super::Common;

/// Flags of a scenario with rounds.
#[derive(Debug, Clone, clap::Args)]
pub struct InRounds {
    #[command(flatten)]
    pub(super) common: Common,
    /// Number of rounds. Each scenario has its own default.
    #[arg(long)]
    rounds: Option<usize>,
}

impl InRounds {
    /// The number of rounds.
    pub(super) fn or(&self, default: usize) -> Result<usize> {
        let rounds = self.rounds.unwrap_or(default);
        ensure!(rounds > 0, "--rounds must be 1 or more");
        Ok(rounds)
    }
}
