//! Why a configuration cannot be used.
//!
//! Owns the error of this folder. Never prints it.

use crate::base::failure::Failure;

/// Why a configuration cannot be used: what is wrong, and what to do.
pub type Error = Failure;

/// Makes an error.
pub(super) fn error(cause: impl Into<String>, cure: impl Into<String>) -> Error {
    Failure::new(cause, cure)
}
