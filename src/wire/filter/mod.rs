//! Filters of publications by tags: the compiled form of a filter, and the filters that the
//! subscribers of a shard share.
//!
//! Owns no subscriber. Never reads the data of a publication.

mod compiled;
mod shared;

pub use self::compiled::{Filter, FilterNode, compile};
pub use self::shared::Filters;
