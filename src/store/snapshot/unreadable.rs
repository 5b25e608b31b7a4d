//! The format of snapshots, and why a file cannot be read as one.
//!
//! Owns the number of the format. Never reads a file.

use std::fmt;
use std::io;

/// Format that this version writes.
pub const FORMAT: u32 = 1;

/// Why a snapshot cannot be used.
#[derive(Debug)]
pub enum Unreadable {
    /// The file cannot be read.
    Io(io::Error),
    /// The file has the format of another version.
    Format(u32),
    /// The file is damaged, or no snapshot.
    Damaged(&'static str),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Io(error) => write!(f, "{error}"),
            Unreadable::Format(format) => {
                write!(f, "it has format {format}, and this version reads format {FORMAT}")
            }
            Unreadable::Damaged(what) => f.write_str(what),
        }
    }
}
