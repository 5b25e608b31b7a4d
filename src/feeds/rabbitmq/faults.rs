//! Faults of a broker's connection: cause and cure from the errors of lapin.
//!
//! Owns the texts. Never shows credentials: the errors of lapin and of the broker contain none. The
//! invariant: a fault that waiting cannot cure is marked as such.

use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};

use crate::config::{BrokerUrl, STREAM_CURE};
use crate::feeds::message::Fault;

/// What the client was doing.
#[derive(Clone, Debug)]
pub enum Step {
    /// Connecting and authenticating.
    Connect,
    /// Declaring the exchange.
    Exchange(String),
    /// Declaring the queue.
    Queue(String),
    /// Looking for the queue.
    FindQueue(String),
    /// Binding the queue to an exchange: queue and exchange.
    Bind(String, String),
    /// Consuming the queue.
    Consume(String),
    /// Receiving messages of the queue.
    Receive(String),
    /// Publishing to this exchange.
    DeadLetter(String),
}

impl Step {
    fn shown(&self) -> String {
        match self {
            Step::Connect => "connect".to_owned(),
            Step::Exchange(name) => format!("declare the exchange {name:?}"),
            Step::Queue(name) => format!("declare the queue {name:?}"),
            Step::FindQueue(name) => format!("find the queue {name:?}"),
            Step::Bind(queue, exchange) => {
                format!("bind the queue {queue:?} to the exchange {exchange:?}")
            }
            Step::Consume(name) => format!("consume the queue {name:?}"),
            Step::Receive(name) => format!("receive from the queue {name:?}"),
            Step::DeadLetter(name) => format!("publish to the exchange {name:?}"),
        }
    }
}

/// The broker did not answer in time.
pub fn timed_out(broker: &BrokerUrl, limit: Duration, step: &str) -> Fault {
    let cause = format!("{}: no answer within {limit:?} ({step})", broker.shown());
    Fault::passing(cause, "check that the broker runs and that the network delivers to it")
}

/// The broker has been silent for too long.
pub fn silent(broker: &BrokerUrl, silence: Duration) -> Fault {
    let seconds = silence.as_secs_f64();
    let cause = format!("{}: the broker has been silent for {seconds:.1} s", broker.shown());
    Fault::passing(cause, "check the broker's host and the network; heartbeats are missing")
}

/// The connection or its channel has ended.
pub fn lost(broker: &BrokerUrl) -> Fault {
    let cause = format!("{}: the connection has ended", broker.shown());
    Fault::passing(cause, "check that the broker runs; see its log")
}

/// The broker cancelled the consumer.
pub fn cancelled(broker: &BrokerUrl, queue: &str) -> Fault {
    let cause = format!("{}: the queue {queue:?} was deleted or moved", broker.shown());
    Fault::passing(cause, "create the queue again, or set declare to true")
}

/// The queue is a stream.
pub fn stream(broker: &BrokerUrl, queue: &str) -> Fault {
    Fault::misconfigured(
        format!("{}: the queue {queue:?} is a stream", broker.shown()),
        STREAM_CURE,
    )
}

/// The fault of an error during a step.
pub fn of(broker: &BrokerUrl, step: &Step, error: &Error) -> Fault {
    let place = format!("{}: cannot {}", broker.shown(), step.shown());
    let ErrorKind::ProtocolError(refused) = error.kind() else {
        return of_connection(broker, &place, error);
    };
    let cause = format!("{place}: {}", refused.get_message());
    let passing = |cure: &str| Fault::passing(cause.clone(), cure);
    let misconfigured = |cure: &str| Fault::misconfigured(cause.clone(), cure);
    match (refused.kind(), step) {
        (AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), Step::Connect) => {
            misconfigured("correct user and password, or create the user at the broker")
        }
        (AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), _) => misconfigured(
            "give the user the permission (rabbitmqctl set_permissions), or set declare to false",
        ),
        (AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED), Step::Connect) => {
            passing("create the virtual host and give the user its permissions, or correct vhost")
        }
        (AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND), Step::Bind(..)) => {
            passing("create the exchange, or set declare to true")
        }
        (AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND), _) => {
            passing("create it at the broker, or set declare to true")
        }
        (AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED), Step::Receive(_)) => {
            passing("if messages wait for the node too long, raise consumer_timeout of the broker")
        }
        (
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED),
            Step::Queue(queue) | Step::Consume(queue),
        ) if is_about_stream(refused.get_message().as_str()) => stream(broker, queue),
        (AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED), Step::Exchange(_)) => {
            misconfigured("set exchange_type and durable as the exchange has them")
        }
        (AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED), _) => misconfigured(
            "set queue_type, durable and queue_arguments as the queue has them, or set declare to \
             false",
        ),
        (AMQPErrorKind::Hard(AMQPHardError::COMMANDINVALID), Step::Exchange(_)) => {
            misconfigured("use another exchange_type: the broker does not know this one")
        }
        (AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED), _) => {
            passing("the broker shuts down, or an operator closed the connection")
        }
        (AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED), _) => {
            passing("another client uses the queue exclusively; end it, or consume another queue")
        }
        _ => passing("see the log of the broker"),
    }
}

/// Whether the broker says that a queue is a stream.
fn is_about_stream(message: &str) -> bool {
    ["queue type rabbit_stream_queue", "current is 'stream'", "current is the value 'stream'"]
        .iter()
        .any(|part| message.contains(part))
}

/// The fault of an error that is not the broker's answer.
fn of_connection(broker: &BrokerUrl, place: &str, error: &Error) -> Fault {
    match error.kind() {
        ErrorKind::InvalidProtocolVersion(version) => Fault::misconfigured(
            format!("{place}: the broker speaks AMQP {version}, not AMQP 0-9-1"),
            "use a broker and port that speak AMQP 0-9-1, such as RabbitMQ's 5672",
        ),
        ErrorKind::IOError(cause) if is_of_tls(cause) => Fault::misconfigured(
            format!("{place}: {cause}"),
            "set tls.server_ca_pem to the authority of the broker's certificate, and \
             tls.server_name to the name in it",
        ),
        ErrorKind::IOError(cause) => Fault::passing(
            format!("{place}: {cause}"),
            if broker.tls {
                "check that the broker runs and that url has its port for TLS"
            } else {
                "check that the broker runs and that url has its address"
            },
        ),
        ErrorKind::ParsingError(_) => Fault::passing(
            format!("{place}: the answer is not AMQP"),
            "check that url has the port of AMQP, and the scheme amqps for TLS",
        ),
        _ => Fault::passing(format!("{place}: {error}"), "see the log of the broker"),
    }
}

/// Whether an error says that a certificate is not trusted. Others may come from a broken network.
fn is_of_tls(error: &std::io::Error) -> bool {
    use rustls::Error as TlsError;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    matches!(inner, Some(TlsError::InvalidCertificate(_)))
}
