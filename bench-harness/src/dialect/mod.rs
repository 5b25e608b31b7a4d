//! Dialects: the protocols that subscribers speak with the measured servers.
//!
//! Owns the interface between the dense client and the protocols.
//! Never does I/O and keeps no state: the dense client holds the state of each connection.
//! Invariant: a connection counts as a subscriber only when the server has confirmed every step
//! that the dialect awaits.

mod asking;
mod bearer;
mod drumline;
mod framing;
mod identified;
mod interface;
mod packed;
mod pusher;
mod streamed;
mod unidirectional;

pub use asking::{Asking, Watching};
pub use bearer::Bearer;
pub use drumline::Drumline;
pub use framing::{Framing, Part};
pub use identified::Identified;
pub use interface::{CONNECTED, Dialect, Heard, Packing, SUBSCRIBED, Subscriber};
pub use packed::Packed;
pub use pusher::Pusher;
pub use streamed::Streamed;
pub use unidirectional::Unidirectional;
