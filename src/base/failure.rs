//! An error that an operator can act on.
//!
//! Owns the two parts of such an error. Whoever prints the error decides how the parts are laid
//! out; nobody takes a text apart to find them.

use std::fmt;

/// What failed, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed and why: one sentence.
    pub cause: String,
    /// What to do: one line.
    pub cure: String,
}

impl Failure {
    /// A failure of these parts.
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
