//! An error that an operator can act on.
//!
//! Owns the two parts of the error: cause and cure. Never prints them: the caller that prints the
//! error chooses the layout. No code splits a text to find the parts.

use std::fmt;

/// An error: what failed, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed and why: one sentence.
    pub cause: String,
    /// What to do: one line.
    pub cure: String,
}

impl Failure {
    /// A failure with this cause and cure.
    pub fn new(cause: impl Into<String>, cure: impl Into<String>) -> Self {
        Failure { cause: cause.into(), cure: cure.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.cure)
    }
}

impl std::error::Error for Failure {}
