//! Section about the store of durable channels.
//!
//! Owns its keys. Never opens the store.

use super::section::section;

section! {
    /// The store: publications of durable channels on disk.
    Store {
        /// Folder of the store. The server creates it if it is missing. Empty: there is no store,
        /// and no channel can be durable.
        path: String = String::new(),
    }
}
