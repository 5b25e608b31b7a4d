//! Publishers, probes, and clients that join and leave: tasks on a thread of their own that use an
//! independent WebSocket implementation.
//!
//! Owns schedules and their outcome. Never waits for an answer before the next message is due (open
//! loop). Invariant: a message carries its scheduled time as its stamp, so a late publisher adds to
//! the latency, and its lateness is reported too.

use std::time::Duration;

use anyhow::Result;

use crate::clock::RunClock;

mod amqp;
mod api;
mod churn;
mod http;
mod load;
mod pace;
mod pipeline;
mod probe;
mod published;
mod pusher;
mod running;
mod socket;
mod stream;
mod websocket;

pub use api::{Amqp, Api, Feed, Post};
pub use churn::Churn;
pub(crate) use http::whole_answer;
pub use load::Load;
pub use probe::{ProbePlan, Probed, probe};
pub use published::Published;
pub use pusher::PusherApp;
pub use running::Running;
use running::each;
pub(crate) use running::spawn;

impl Load {
    /// Starts the publishers on a thread of their own.
    pub fn start(self, clock: RunClock) -> Result<Running<Published>> {
        if let Api::Amqp(amqp) = &self.api {
            let amqp = amqp.clone();
            return amqp::start(self, clock, amqp);
        }
        spawn("publishers", move || async move {
            let first_ns = self.first_ns;
            let mut published = match &self.api {
                Api::WebSocket | Api::Amqp(_) => each(self, clock, websocket::one).await,
                Api::Http(post) if post.in_flight > 1 => each(self, clock, pipeline::one).await,
                Api::Http(_) => each(self, clock, http::one).await,
                Api::Stream(_) => each(self, clock, stream::one).await,
            }?;
            published.took = Duration::from_nanos(clock.now_ns().saturating_sub(first_ns));
            Ok(published)
        })
    }
}
