//! Publishers to a RabbitMQ broker: persistent messages with publisher confirms.
//!
//! Owns a thread with a tokio runtime, because the client of AMQP needs one. Never declares
//! anything at the broker. Invariant: a message counts as confirmed only after the broker has
//! confirmed that a queue has it.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
};

use super::api::Amqp;
use super::load::Load;
use super::published::Published;
use super::running::Running;
use crate::clock::RunClock;

/// Delivery mode of a persistent message.
const PERSISTENT: u8 = 2;
/// Maximum wait for a confirm.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the publisher on a thread of its own.
pub(super) fn start(load: Load, clock: RunClock, amqp: Amqp) -> Result<Running<Published>> {
    Running::on_thread("amqp-publisher", move || {
        // The client's tasks have a thread of their own, because this one sleeps.
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build();
        runtime.context("cannot make a runtime")?.block_on(publish(&load, clock, &amqp))
    })
}

/// The confirms that the broker still owes.
struct Unconfirmed {
    confirms: VecDeque<PublisherConfirm>,
    confirmed: u64,
    refusal: Option<String>,
}

impl Unconfirmed {
    /// Waits until at most `most` confirms are open.
    async fn wait(&mut self, most: usize) -> Result<()> {
        while self.confirms.len() > most {
            let Some(confirm) = self.confirms.pop_front() else { return Ok(()) };
            let confirm = tokio::time::timeout(PATIENCE, confirm).await;
            let confirm = confirm.map_err(|_| anyhow!("no confirm within {PATIENCE:?}"))?;
            match confirm.context("the broker ended the publisher")? {
                Confirmation::Ack(None) => self.confirmed += 1,
                Confirmation::Ack(Some(_)) => self.refuse("no queue has a message"),
                _ => self.refuse("the broker did not take a message"),
            }
        }
        Ok(())
    }

    fn refuse(&mut self, cause: &str) {
        self.refusal.get_or_insert(cause.to_owned());
    }
}

async fn publish(load: &Load, clock: RunClock, amqp: &Amqp) -> Result<Published> {
    let connected = Connection::connect(&amqp.url, ConnectionProperties::default()).await;
    let connection = connected.context("cannot connect to the broker")?;
    let channel = connection.create_channel().await.context("cannot open a channel")?;
    let confirms = channel.confirm_select(ConfirmSelectOptions::default()).await;
    confirms.context("the broker offers no publisher confirms")?;
    let mut published = Published::new(&clock)?;
    let mut open = Unconfirmed { confirms: VecDeque::new(), confirmed: 0, refusal: None };
    let mut payload = Vec::new();
    for index in 0..load.messages {
        let message = load.message(index);
        // Timers of tokio have steps of a millisecond.
        std::thread::sleep(clock.until(message.stamp.due_ns));
        open.wait(amqp.window.saturating_sub(1)).await?;
        payload.clear();
        load.data.write(&message.stamp, &mut payload);
        published.note(&clock, message.stamp.due_ns)?;
        open.confirms.push_back(one(&channel, &amqp.exchange, &message.channel, &payload).await?);
    }
    open.wait(0).await?;
    (published.confirmed, published.refusal) = (open.confirmed, open.refusal);
    connection.close(200, "OK".into()).await.context("cannot close the connection")?;
    Ok(published)
}

/// Publishes a message whose routing key is the channel.
async fn one(
    channel: &Channel,
    exchange: &str,
    key: &str,
    payload: &[u8],
) -> Result<PublisherConfirm> {
    let (exchange, key) = (ShortString::from(exchange), ShortString::from(key));
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let sent = channel.basic_publish(exchange, key, options, payload, properties).await;
    sent.context("cannot publish to the broker")
}
