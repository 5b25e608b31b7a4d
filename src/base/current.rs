//! A value that is replaced as a whole while tasks use it.
//!
//! Owns the present value. Never on the path of a delivery: shards get new values by message.

use std::sync::{Arc, PoisonError, RwLock};

/// A value that can be replaced. Users of the earlier value keep it until they drop it.
#[derive(Debug)]
pub struct Current<T: ?Sized>(RwLock<Arc<T>>);

impl<T: ?Sized> Current<T> {
    /// Begins with this value.
    pub fn new(value: impl Into<Arc<T>>) -> Self {
        Current(RwLock::new(value.into()))
    }

    /// The present value.
    pub fn get(&self) -> Arc<T> {
        // The value is replaced as a whole, so a panic elsewhere leaves it valid.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the value.
    pub fn set(&self, value: impl Into<Arc<T>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value.into();
    }
}
