//! The harness on the command line.
//!
//! Owns the list of commands. Never measures. Invariant: an error names cause and cure and ends
//! the process with 1.

use anyhow::Result;
use clap::{Parser, Subcommand};
use drumline_bench::limit;

/// Load generator and reports for Drumline.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The bare kernel's process: takes orders on standard input (started by the scenarios).
    #[command(hide = true)]
    LimitServer(limit::Options),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::LimitServer(options) => limit::serve(&options),
    }
}
