//! From a delivery of AMQP to a message, and from a message to a dead letter.
//!
//! Owns the names of the headers of dead letters. Never sends. The invariant: a header whose value
//! cannot be written as text is absent from the message.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

use crate::feeds::message::Message;

/// Header of every delivery of a stream.
const STREAM_OFFSET: &str = "x-stream-offset";
/// Headers of a dead letter: the feed that set it aside, why, and where it came from.
const FEED: &str = "x-drumline-consumer";
const CAUSE: &str = "x-drumline-cause";
const EXCHANGE: &str = "x-drumline-exchange";
const ROUTING_KEY: &str = "x-drumline-routing-key";

/// The message of a delivery, without its body's copy.
pub fn message(delivery: &mut Delivery) -> Message {
    let properties = &delivery.properties;
    let id = properties.message_id().as_ref().map_or("", ShortString::as_str);
    let headers = properties.headers().as_ref().map(|table| {
        let texts = table
            .into_iter()
            .filter_map(|(name, value)| text(value).map(|value| (name.as_str().to_owned(), value)));
        texts.collect()
    });
    Message {
        id: id.to_owned(),
        routing_key: delivery.routing_key.as_str().to_owned(),
        exchange: delivery.exchange.as_str().to_owned(),
        headers: headers.unwrap_or_default(),
        body: std::mem::take(&mut delivery.data),
    }
}

/// A header's value as text.
fn text(value: &AMQPValue) -> Option<String> {
    let utf8 = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    match value {
        AMQPValue::LongString(text) => utf8(text.as_bytes()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        AMQPValue::ByteArray(bytes) => utf8(bytes.as_slice()),
        AMQPValue::Boolean(value) => Some(value.to_string()),
        AMQPValue::ShortShortInt(value) => Some(value.to_string()),
        AMQPValue::ShortShortUInt(value) => Some(value.to_string()),
        AMQPValue::ShortInt(value) => Some(value.to_string()),
        AMQPValue::ShortUInt(value) => Some(value.to_string()),
        AMQPValue::LongInt(value) => Some(value.to_string()),
        AMQPValue::LongUInt(value) => Some(value.to_string()),
        AMQPValue::LongLongInt(value) => Some(value.to_string()),
        AMQPValue::Timestamp(value) => Some(value.to_string()),
        AMQPValue::Float(value) => Some(value.to_string()),
        AMQPValue::Double(value) => Some(value.to_string()),
        _ => None,
    }
}

/// Whether the delivery comes from a stream.
pub fn is_of_stream(delivery: &Delivery) -> bool {
    let headers = delivery.properties.headers().as_ref();
    headers.is_some_and(|headers| headers.contains_key(STREAM_OFFSET))
}

/// The properties of a dead letter: those of the message, with the cause.
pub fn dead_letter(
    properties: &BasicProperties,
    message: &Message,
    feed: &str,
    cause: &str,
) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    for (name, value) in [
        (FEED, feed),
        (CAUSE, cause),
        (EXCHANGE, &message.exchange),
        (ROUTING_KEY, &message.routing_key),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(LongString::from(value.as_bytes())));
    }
    properties.clone().with_headers(headers)
}

/// The arguments of a queue: whole numbers and booleans as such, other values as strings.
pub fn arguments<'a>(values: impl Iterator<Item = (&'a str, &'a str)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in values {
        let value = match (value, value.parse::<i64>()) {
            ("true", _) => AMQPValue::Boolean(true),
            ("false", _) => AMQPValue::Boolean(false),
            (_, Ok(number)) => AMQPValue::LongLongInt(number),
            _ => AMQPValue::LongString(LongString::from(value.as_bytes())),
        };
        // The check of the configuration refuses longer names.
        if let Ok(name) = ShortString::try_new(name) {
            table.insert(name, value);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_become_text_and_dead_letters_keep_the_properties() {
        let mut delivery = Delivery::mock(1, "e".into(), "a.b".into(), false, b"body".to_vec());
        let mut headers = arguments([("n", "7"), ("yes", "true"), ("text", "x")].into_iter());
        headers.insert("double".into(), AMQPValue::Double(1.5));
        headers.insert("void".into(), AMQPValue::Void);
        headers.insert("bytes".into(), AMQPValue::LongString(LongString::from(vec![0xff])));
        delivery.properties =
            BasicProperties::default().with_message_id("m1".into()).with_headers(headers);
        let read = message(&mut delivery);
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let expected = [("double", "1.5"), ("n", "7"), ("text", "x"), ("yes", "true")].map(own);
        assert_eq!(read.headers, expected);
        assert_eq!((&*read.id, &*read.routing_key, &*read.exchange), ("m1", "a.b", "e"));
        assert_eq!(read.body, b"body");
        assert!(!is_of_stream(&delivery));
        let dead = dead_letter(&delivery.properties, &read, "prices", "refused");
        assert_eq!(dead.message_id(), delivery.properties.message_id());
        let headers = dead.headers().as_ref().unwrap();
        for name in [FEED, CAUSE, EXCHANGE, ROUTING_KEY, "n", "void"] {
            assert!(headers.contains_key(name), "{name}");
        }
    }
}
