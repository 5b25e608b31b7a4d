//! A message as a broker delivers it, and the failures of a feed.
//!
//! Owns the types that every kind of feed shares. Never knows a broker.

use std::borrow::Cow;
use std::fmt;

use crate::model::channel_template::TemplateFields;

/// Memory of a message without its texts and of its place in the feed, in bytes.
const MESSAGE: usize = 512;
/// Memory of a header without its texts, in bytes.
const ENTRY: usize = 2 * size_of::<String>();

/// A message of a broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// ID that the publisher gave the message; empty: none.
    pub id: String,
    /// Routing key.
    pub routing_key: String,
    /// Exchange that the message was published to; empty: the default exchange.
    pub exchange: String,
    /// Headers whose value can be written as text: names and values.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Message {
    /// Memory of the message in bytes, with the copy of its body that becomes a publication.
    pub fn cost(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len() + ENTRY);
        let texts = self.id.len() + self.routing_key.len() + self.exchange.len();
        MESSAGE + texts + 2 * self.body.len() + headers.sum::<usize>()
    }

    /// The message as logs name it.
    pub fn shown(&self) -> String {
        let Message { id, routing_key, .. } = self;
        if id.is_empty() {
            format!("a message without an ID and with the routing key {routing_key:?}")
        } else {
            format!("message {id:?}")
        }
    }
}

impl TemplateFields for Message {
    fn routing_key(&self) -> &str {
        &self.routing_key
    }

    fn exchange(&self) -> &str {
        &self.exchange
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Why a message was not published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The cause, for logs.
    pub cause: Cow<'static, str>,
    /// Whether a later attempt may succeed.
    pub retry: Retry,
}

/// Whether another attempt to publish a message may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The node is overloaded: repeat until it takes the message.
    Always,
    /// The node refuses the message: repeat a few times.
    FewTimes,
    /// The message cannot be read: never repeat.
    Never,
}

impl Refusal {
    /// The message cannot be read.
    pub fn unreadable(cause: impl Into<Cow<'static, str>>) -> Self {
        Refusal { cause: cause.into(), retry: Retry::Never }
    }

    /// The node answered an API error with this code.
    pub fn of_code(code: u32, cause: impl Into<Cow<'static, str>>) -> Self {
        let retry = if code == 100 { Retry::Always } else { Retry::FewTimes };
        Refusal { cause: cause.into(), retry }
    }
}

/// Why a feed has no connection to its broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The cause, without credentials.
    pub cause: String,
    /// What the operator can do.
    pub cure: String,
    /// Whether the configuration contradicts the broker, so that waiting cannot help. At the start
    /// such a fault ends the process.
    pub is_misconfigured: bool,
}

impl Fault {
    /// A fault that time may cure.
    pub fn passing(cause: impl Into<String>, cure: impl Into<String>) -> Self {
        Fault { cause: cause.into(), cure: cure.into(), is_misconfigured: false }
    }

    /// A fault that only a change of the configuration or of the broker can cure.
    pub fn misconfigured(cause: impl Into<String>, cure: impl Into<String>) -> Self {
        Fault { is_misconfigured: true, ..Fault::passing(cause, cure) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.cure)
    }
}
