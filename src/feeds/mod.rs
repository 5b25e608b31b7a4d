//! Feeds: messages of brokers that the node publishes (`consumers` in the configuration).
//!
//! A feed is a publisher on the link, like the HTTP API; the data plane knows nothing of it. Owns
//! no channel. The invariant: the broker gets the acknowledgement of a message only after the node
//! has answered for every publication of it, so a message is published at least once, and once if
//! it has an ID and is repeated within the time that idempotency keys are kept.
//!
//! `session` is the seam: each kind of broker is one folder or file that implements it.

pub mod counters;
pub mod decode;
pub mod feed;
pub mod message;
pub mod order;
// A build without any kind of feed runs none.
#[cfg_attr(not(feature = "rabbitmq"), allow(dead_code))]
mod pump;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg_attr(not(feature = "rabbitmq"), allow(dead_code))]
mod runner;
pub mod session;
#[cfg_attr(not(feature = "rabbitmq"), allow(dead_code, unused_imports))]
pub mod start;
