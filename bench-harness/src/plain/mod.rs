//! Two plain broadcast servers, the way an engineer would write them on an afternoon: a task a
//! connection, a map of topics, WebSocket in, HTTP POST to publish.
//!
//! Owns their flags. Never tunes them: they are what Drumline's extra work is held against.
//! Invariant: a topic is subscribed to before the answer to the upgrade is sent.

mod monoio;
mod options;
mod tokio;

pub use self::monoio::serve as serve_monoio;
pub use self::options::Options;
pub use self::tokio::serve as serve_tokio;
