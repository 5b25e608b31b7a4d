//! Errors of the configuration.
//!
//! Owns the error type of this folder. Never prints an error.

use crate::base::failure::Failure;

/// An error of the configuration: the cause, and what to do about it.
pub type Error = Failure;

/// Makes an error of a cause and a cure.
pub(super) fn error(cause: impl Into<String>, cure: impl Into<String>) -> Error {
    Failure::new(cause, cure)
}
