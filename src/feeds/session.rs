//! The seam between feeds and brokers: what a kind of feed implements.
//!
//! Owns the traits. Never publishes and never connects. A new kind is one file or folder that
//! implements [`Source`] and [`Session`], and one arm in `start`. The invariant: a session settles
//! only messages that it delivered.

use std::future::Future;

use super::message::{Fault, Message};

/// A broker that a feed connects to, again and again.
pub trait Source: Send + Sync + 'static {
    /// A connection that delivers messages.
    type Session: Session;

    /// Connects and begins to consume. It ends in bounded time.
    fn open(&self) -> impl Future<Output = Result<Self::Session, Fault>> + Send;
}

/// What happens to a message at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The broker deletes it.
    Acknowledge,
    /// The broker follows the dead-letter policy of the queue. It never delivers the message again.
    Reject,
}

/// A connection that delivers messages. When it ends, the broker delivers every message again that
/// was not settled.
pub trait Session: Send + 'static {
    /// What the session needs to settle a message.
    type Origin: Send;

    /// Asks the broker to send no more. [`Session::next`] then returns the messages that are on
    /// their way, and after them a fault.
    fn stop_receiving(&mut self);

    /// Waits for a message. Dropping the future loses no message.
    fn next(&mut self) -> impl Future<Output = Result<(Self::Origin, Message), Fault>> + Send;

    /// Notes that a message is settled. The broker learns it with the next flush.
    fn settle(&mut self, origin: &Self::Origin, verdict: Verdict);

    /// Tells the broker which messages are settled, without waiting.
    fn flush(&mut self) -> Result<(), Fault>;

    /// Sets a message aside that cannot be published, as configured. It repeats a failed attempt
    /// until the broker has taken the message.
    fn set_aside(
        &self,
        origin: &Self::Origin,
        message: &Message,
        cause: &str,
    ) -> impl Future<Output = Verdict> + Send + 'static;

    /// Ends the connection in bounded time.
    fn close(self) -> impl Future<Output = ()> + Send;
}
