//! Feeds from RabbitMQ by AMQP 0-9-1.
//!
//! Owns the options of one consumer. Never publishes to the node. The invariant: opening a session
//! takes at most `connect_timeout` and leaves nothing behind if it fails.

mod connect;
mod dead_letters;
mod faults;
mod gate;
mod headers;
mod ledger;
mod session;
mod tls;
mod topology;
mod transport;

use std::sync::Arc;

use tokio::time::timeout;
use tracing::Level;

use self::connect::Broker;
use self::dead_letters::DeadLetters;
use self::faults::Step;
use self::session::{RabbitSession, SessionOptions, SetAside};
use self::tls::Tls;
use super::decode::Decoder;
use super::feed::{FeedOptions, FeedState};
use super::message::Fault;
use super::session::Source;
use crate::config::{BrokerUrl, RabbitMq};

/// A queue of RabbitMQ.
pub struct RabbitSource {
    options: RabbitMq,
    session: SessionOptions,
}

/// The source of a consumer, and how its messages are handled.
///
/// # Errors
/// The configuration cannot work: a certificate or key cannot be read.
pub fn source(
    state: &Arc<FeedState>,
    options: &RabbitMq,
) -> Result<(RabbitSource, FeedOptions), Fault> {
    let url = BrokerUrl::of(options)
        .map_err(|refused| Fault::misconfigured(refused.cause, refused.cure))?;
    let tls = url.tls.then(|| Tls::new(&options.tls)).transpose();
    let tls = tls.map_err(|refused| Fault::misconfigured(refused.cause, refused.cure))?;
    if options.tls.insecure_skip_verify {
        state.log(
            Level::WARN,
            "tls.insecure_skip_verify is set: whoever is between server and broker can read and \
             change messages",
        );
    }
    let heartbeat = options.heartbeat.millis().div_ceil(1000);
    let broker = Arc::new(Broker {
        url,
        tls,
        heartbeat: u16::try_from(heartbeat).unwrap_or(u16::MAX),
        connect_timeout: options.connect_timeout.0,
        name: format!("drumline consumer {}", state.name),
    });
    let dead = &options.dead_letter;
    let set_aside = match dead.action.as_str() {
        "reject" => SetAside::Reject,
        "exchange" => SetAside::Publish(Arc::new(DeadLetters::new(
            &broker,
            &dead.exchange,
            &dead.routing_key,
            state.clone(),
        ))),
        _ => SetAside::Log,
    };
    let feed = FeedOptions {
        decoder: Decoder::new(&options.method_header, &options.publication_data_mode),
        attempts: dead.attempts,
        delay: dead.delay.0,
    };
    let session = SessionOptions {
        broker,
        queue: options.queue.clone(),
        bytes_max: options.prefetch_bytes,
        state: state.clone(),
        set_aside,
    };
    Ok((RabbitSource { options: options.clone(), session }, feed))
}

impl Source for RabbitSource {
    type Session = RabbitSession;

    async fn open(&self) -> Result<RabbitSession, Fault> {
        let broker = &self.session.broker;
        let open = async {
            let link = broker.connect().await?;
            let channel = link.connection.create_channel().await;
            let channel =
                channel.map_err(|error| faults::of(&broker.url, &Step::Connect, &error))?;
            let consumer = topology::consume(broker, &self.options, &channel).await?;
            Ok(RabbitSession::new(self.session.clone(), link, channel, consumer))
        };
        let opened = timeout(broker.connect_timeout, open).await;
        opened.unwrap_or_else(|_| {
            Err(faults::timed_out(&broker.url, broker.connect_timeout, "connecting"))
        })
    }
}
