//! Why a configuration cannot be used.
//!
//! Owns the error of this folder. Never prints it.

use std::fmt;

/// Why a configuration cannot be used: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// One sentence.
    pub cause: String,
    /// One line.
    pub cure: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.cure)
    }
}

impl std::error::Error for Error {}

/// Makes an error.
pub(super) fn error(cause: impl Into<String>, cure: impl Into<String>) -> Error {
    Error { cause: cause.into(), cure: cure.into() }
}
