//! Two simple broadcast servers without tuning: tasks per connection, a map of topics, WebSocket
//! for subscribers and HTTP POST to publish.
//!
//! Owns their flags. Never tunes them: they are the reference for the cost of Drumline's features.
//! Invariant: a topic is subscribed to before the answer to the upgrade is sent.

mod monoio;
mod options;
mod tokio;

pub use self::monoio::serve as serve_monoio;
pub use self::options::Options;
pub use self::tokio::{listen, serve as serve_tokio};
