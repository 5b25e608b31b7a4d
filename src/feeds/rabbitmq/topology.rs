//! What a feed declares at its broker: exchange, queue, bindings and the consumer.
//!
//! Owns no state. The invariant: nothing is declared if `declare` is false, and a queue is never
//! deleted or emptied.

use std::sync::Arc;

use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer, ExchangeKind};

use super::connect::Broker;
use super::faults::{self, Step};
use super::headers::arguments;
use crate::config::RabbitMq;
use crate::feeds::message::Fault;

/// A name of AMQP. The check of the configuration refuses names that are too long.
pub fn short(name: &str) -> ShortString {
    ShortString::try_new(name).unwrap_or_default()
}

/// Declares what the feed needs and begins to consume.
///
/// # Errors
/// The broker refuses a part of it.
pub async fn consume(
    broker: &Arc<Broker>,
    options: &RabbitMq,
    channel: &Channel,
) -> Result<Consumer, Fault> {
    let queue = &options.queue;
    let failed = |step: Step| move |error| faults::of(&broker.url, &step, &error);
    if options.declare {
        declare(broker, options, channel).await?;
    } else {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(short(queue), passive, FieldTable::default()).await;
        found.map_err(failed(Step::FindQueue(queue.clone())))?;
    }
    let limited = channel.basic_qos(options.prefetch, BasicQosOptions::default()).await;
    limited.map_err(failed(Step::Consume(queue.clone())))?;
    // The default priority: classic and quorum queues take the argument, and streams refuse it. So
    // a stream is found without taking a message from the queue.
    let mut refused_by_streams = FieldTable::default();
    refused_by_streams.insert("x-priority".into(), AMQPValue::LongInt(0));
    let consumer = channel
        .basic_consume(
            short(queue),
            ShortString::default(),
            BasicConsumeOptions::default(),
            refused_by_streams,
        )
        .await;
    consumer.map_err(failed(Step::Consume(queue.clone())))
}

async fn declare(broker: &Arc<Broker>, options: &RabbitMq, channel: &Channel) -> Result<(), Fault> {
    let (queue, exchange) = (&options.queue, &options.exchange);
    let failed = |step: Step| move |error| faults::of(&broker.url, &step, &error);
    if !exchange.is_empty() {
        let kind = match options.exchange_type.as_str() {
            "direct" => ExchangeKind::Direct,
            "fanout" => ExchangeKind::Fanout,
            "headers" => ExchangeKind::Headers,
            _ => ExchangeKind::Topic,
        };
        let durable = ExchangeDeclareOptions {
            durable: options.durable,
            ..ExchangeDeclareOptions::default()
        };
        let declared =
            channel.exchange_declare(short(exchange), kind, durable, FieldTable::default()).await;
        declared.map_err(failed(Step::Exchange(exchange.clone())))?;
    }
    let own = options.queue_arguments.iter();
    let own = own.map(|(name, value)| (name.as_str(), value.reveal()));
    let kind = Some(("x-queue-type", options.queue_type.as_str()));
    let kind = kind.filter(|(_, kind)| !kind.is_empty());
    let durable =
        QueueDeclareOptions { durable: options.durable, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(short(queue), durable, arguments(own.chain(kind))).await;
    declared.map_err(failed(Step::Queue(queue.clone())))?;
    if exchange.is_empty() {
        return Ok(());
    }
    let unkeyed = [String::new()];
    let keys = if options.bindings.is_empty() { &unkeyed[..] } else { &options.bindings };
    for key in keys {
        let bound = channel
            .queue_bind(
                short(queue),
                short(exchange),
                short(key),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await;
        bound.map_err(failed(Step::Bind(queue.clone(), exchange.clone())))?;
    }
    Ok(())
}
