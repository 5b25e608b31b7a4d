//! The cases, by what they are about.

pub mod all_with_tls;
pub mod delivery;
pub mod end_to_end;
pub mod lost;
pub mod modes;
pub mod order;
pub mod poison;
pub mod refused;

use serde_json::{Value, json};

use crate::broker::Broker;

/// Options of a consumer whose messages name their channel by the routing key.
pub fn options(broker: &Broker, queue: &str, more: Value) -> Value {
    let mut options = json!({
        "url": broker.url(),
        "queue": queue,
        "heartbeat": "1s",
        "publication_data_mode": {"enabled": true, "channel_template": "{routing_key}"},
    });
    merge(&mut options, more);
    options
}

/// Sets values of a table.
fn merge(table: &mut Value, more: Value) {
    match more {
        Value::Object(more) => {
            for (name, value) in more {
                merge(&mut table[name], value);
            }
        }
        value => *table = value,
    }
}
