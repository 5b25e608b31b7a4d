//! Sections about consumers: sources of messages, such as RabbitMQ, that the node publishes.
//!
//! Owns the keys of `consumers`. Never connects to a broker.

use std::collections::BTreeMap;

use crate::base::secret::{Address, Secret};

use super::section::{section, tables};
use crate::config::duration::ConfigDuration;

section! {
    /// A consumer: it takes messages from a broker and publishes them.
    Consumer {
        /// Name of the consumer, which logs and metrics show.
        name: String = String::new(),
        /// Run this consumer.
        enabled: bool = false,
        /// Kind of the broker: `rabbitmq`.
        r#type: String = String::new(),
        /// Options of a consumer of type `rabbitmq`.
        rabbitmq: RabbitMq = RabbitMq::default(),
    }
}

section! {
    /// A queue of RabbitMQ.
    RabbitMq {
        /// URL of the broker (amqp or amqps). It may contain the user, the password and, as its
        /// path, the virtual host. Without a path the virtual host is `/`.
        url: Address = Address::from("amqp://127.0.0.1:5672"),
        /// User for the broker. Empty: the user of `url`, or `guest`.
        user: String = String::new(),
        /// Password for the broker. Empty: the password of `url`, or `guest`.
        password: Secret = Secret::default(),
        /// Virtual host. Empty: the path of `url`.
        vhost: String = String::new(),
        /// Name of the queue to consume.
        queue: String = String::new(),
        /// Type of the queue: `classic` or `quorum`. Empty: the virtual host's default. A stream
        /// cannot be consumed, because the server cannot keep the position in it.
        queue_type: String = String::new(),
        /// Declare the queue, the exchange and the bindings at every connect. If false, all of them
        /// must exist, and the server only checks for the queue.
        declare: bool = true,
        /// Declare the queue and the exchange as durable: they survive a restart of the broker.
        durable: bool = true,
        /// Arguments of the queue, such as `x-delivery-limit`, as a map of names to values. `true`,
        /// `false` and whole numbers are sent as such, other values as strings.
        queue_arguments: BTreeMap<String, Secret> = BTreeMap::new(),
        /// Exchange to declare and to bind the queue to. Empty: the queue gets the messages that
        /// the broker's default exchange routes to it by its name.
        exchange: String = String::new(),
        /// Type of the exchange: `topic`, `direct`, `fanout` or `headers`.
        exchange_type: String = "topic".to_owned(),
        /// Routing keys that bind the queue to the exchange. Empty: bound once, with an empty key.
        bindings: Vec<String> = Vec::new(),
        /// Maximum number of messages that the broker sends ahead of their acknowledgements, from 1
        /// to 65535.
        prefetch: u16 = 500,
        /// Maximum memory of the messages that wait for their acknowledgement, in bytes, at least
        /// 65536. Above it the consumer stops reading from the broker until messages are published.
        /// Raise it if `drumline_consumers_pauses_total` grows and memory is free.
        prefetch_bytes: usize = 64 << 20,
        /// Heartbeat interval. The consumer reconnects when the broker is silent for two intervals.
        heartbeat: ConfigDuration = ConfigDuration::seconds(10),
        /// Maximum time to connect, including TLS and the declarations.
        connect_timeout: ConfigDuration = ConfigDuration::seconds(5),
        /// Header that contains the API method. The body is then the method's request. Messages
        /// without the header are objects with `method` and `payload`.
        method_header: String = "centrifugo-method".to_owned(),
        /// Raw publications, addressed by headers or by the routing key.
        publication_data_mode: PublicationDataMode = PublicationDataMode::default(),
        /// Messages that the consumer cannot publish.
        dead_letter: DeadLetter = DeadLetter::default(),
        /// TLS options, for amqps.
        tls: FeedTls = FeedTls::default(),
    }
}

section! {
    /// Raw publications: the body of a message is the data of the publication.
    PublicationDataMode {
        /// Publish the body of each message as it is, instead of running it as an API command.
        enabled: bool = false,
        /// Header with the channels, separated by commas.
        channels_header: String = "centrifugo-channels".to_owned(),
        /// Channel for messages without the channels header. It may contain `{routing_key}`,
        /// `{routing_key.0}` (the first word between the dots), `{exchange}` and `{header.NAME}`.
        /// Empty: a message without the header is refused.
        channel_template: String = String::new(),
        /// Header with the idempotency key. Without the header it is the message ID.
        idempotency_key_header: String = "centrifugo-idempotency-key".to_owned(),
        /// Header that requests deltas: `true` or `false`.
        delta_header: String = "centrifugo-delta".to_owned(),
        /// Header with the version of the data.
        version_header: String = "centrifugo-version".to_owned(),
        /// Header with the epoch of the version.
        version_epoch_header: String = "centrifugo-version-epoch".to_owned(),
        /// Prefix of headers that become tags of the publication.
        tags_header_prefix: String = "centrifugo-tag-".to_owned(),
    }
}

section! {
    /// What happens to a message that the consumer cannot publish.
    DeadLetter {
        /// Number of attempts to publish a message that the node refuses, at least 1. A message
        /// that cannot be read gets no further attempt.
        attempts: u16 = 3,
        /// Time between two attempts.
        delay: ConfigDuration = ConfigDuration::seconds(1),
        /// What happens after the last attempt: `log` logs and acknowledges the message, `exchange`
        /// publishes it to `exchange`, `reject` leaves it to the dead-letter policy of the queue.
        action: String = "log".to_owned(),
        /// Exchange for the action `exchange`, which must exist. Empty: the default exchange.
        exchange: String = String::new(),
        /// Routing key for the action `exchange`. Empty: the message's own.
        routing_key: String = String::new(),
    }
}

section! {
    /// TLS options of a connection to a broker.
    FeedTls {
        /// Certificates of the authority that signs the broker's certificate, as PEM text or the
        /// path of a PEM file. Empty: the authorities that browsers trust.
        server_ca_pem: String = String::new(),
        /// Certificate of the client, as PEM text or the path of a PEM file. Empty: none.
        cert_pem: String = String::new(),
        /// Key of the client's certificate, as PEM text or the path of a PEM file.
        key_pem: Secret = Secret::default(),
        /// Name in the broker's certificate. Empty: the host of `url`.
        server_name: String = String::new(),
        /// Accept any certificate of the broker. For tests only: whoever is between server and
        /// broker can read and change messages.
        insecure_skip_verify: bool = false,
    }
}

tables!(Consumer);
