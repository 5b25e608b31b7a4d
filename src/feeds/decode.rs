//! From a message to what the node does: the two payload modes.
//!
//! Owns the options of the modes. Never publishes. The invariant: a message that is not what the
//! mode expects is refused with the cause, and nothing of it is published.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::message::{Message, Refusal};
use crate::config::PublicationDataMode;
use crate::link::publishing::Draft;
use crate::model::channel_template::{ChannelTemplate, TemplateFields};
use crate::model::duplicate_guard::{DuplicateGuard, VERSION_EPOCH_MAX};
use crate::model::publication::PublicationExtra;
use crate::wire::lenient_json;
use crate::wire::protocol::json;

/// What the node does with a message.
#[derive(Debug)]
pub enum Work {
    /// Publishes to the channels.
    Publish {
        /// The channels, each once.
        channels: Vec<Arc<str>>,
        /// The publication.
        draft: Draft,
    },
    /// Runs an API command that does not publish.
    Command {
        /// Name of the method.
        method: String,
        /// Request of the method, as JSON.
        request: Vec<u8>,
    },
}

/// Result of an API command that a feed runs.
pub type CommandResult<'a> = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>>;

/// The API commands that a feed can run.
pub trait Commands: Send + Sync {
    /// Reads the request of a method. Commands that publish become publications.
    fn read(&self, method: &str, request: &[u8]) -> Result<Work, Refusal>;

    /// Runs a command that does not publish.
    fn run<'a>(&'a self, method: &'a str, request: &'a [u8]) -> CommandResult<'a>;
}

/// How the messages of a feed are read.
#[derive(Clone, Debug)]
pub enum Decoder {
    /// The message is an API command. The header with this name contains its method.
    Commands {
        /// Name of the header.
        method_header: String,
    },
    /// The body of the message is the data of a publication.
    Publications {
        /// Names of the headers.
        mode: PublicationDataMode,
        /// Channel of messages without the channels header.
        template: Option<ChannelTemplate>,
    },
}

/// An API command with its method.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "lenient_json::text")]
    method: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "lenient_json::payload")]
    payload: Option<&'a RawValue>,
}

impl Decoder {
    /// The decoder for these options.
    pub fn new(method_header: &str, mode: &PublicationDataMode) -> Self {
        if !mode.enabled {
            return Decoder::Commands { method_header: method_header.to_owned() };
        }
        // The configuration was checked, so the template can be parsed.
        let template = (!mode.channel_template.is_empty())
            .then(|| ChannelTemplate::parse(&mode.channel_template).ok())
            .flatten();
        Decoder::Publications { mode: mode.clone(), template }
    }

    /// Reads a message. Its ID becomes the idempotency key, unless the message has one.
    ///
    /// # Errors
    /// The message is not what the mode expects.
    pub fn read(&self, message: &Message, commands: &dyn Commands) -> Result<Work, Refusal> {
        let mut work = match self {
            Decoder::Commands { method_header } => command(message, method_header, commands)?,
            Decoder::Publications { mode, template } => {
                publication(message, mode, template.as_ref())?
            }
        };
        if let Work::Publish { channels, draft } = &mut work {
            drop_repeated(channels);
            if !message.id.is_empty() {
                let guard = draft.guard.get_or_insert_default();
                if guard.key.is_empty() {
                    guard.key = message.id.as_str().into();
                }
            }
        }
        Ok(work)
    }
}

/// Keeps the first of equal channels.
fn drop_repeated(channels: &mut Vec<Arc<str>>) {
    let mut at = 1;
    while at < channels.len() {
        if channels[..at].contains(&channels[at]) {
            channels.remove(at);
        } else {
            at += 1;
        }
    }
}

fn command(
    message: &Message,
    method_header: &str,
    commands: &dyn Commands,
) -> Result<Work, Refusal> {
    if let Some(method) = message.header(method_header).filter(|method| !method.is_empty()) {
        return commands.read(method, &message.body);
    }
    let envelope: Envelope<'_> = lenient_json::read_object(&message.body)
        .map_err(|_| Refusal::unreadable("the body is not an object with method and payload"))?;
    if envelope.method.is_empty() {
        return Err(Refusal::unreadable("the message names no method"));
    }
    let payload = envelope.payload.map_or("{}", RawValue::get);
    // Some sources write the payload as a string that contains JSON.
    match serde_json::from_str::<String>(payload) {
        Ok(text) => commands.read(&envelope.method, text.as_bytes()),
        Err(_) => commands.read(&envelope.method, payload.as_bytes()),
    }
}

fn publication(
    message: &Message,
    mode: &PublicationDataMode,
    template: Option<&ChannelTemplate>,
) -> Result<Work, Refusal> {
    let header = |name: &str| message.header(name).unwrap_or_default();
    let listed = header(&mode.channels_header).split(',').map(str::trim);
    let mut channels: Vec<Arc<str>> =
        listed.filter(|name| !name.is_empty()).map(Arc::from).collect();
    if channels.is_empty() {
        let template = template.ok_or_else(|| {
            let name = &mode.channels_header;
            Refusal::unreadable(format!("the message has no header {name} with its channels"))
        })?;
        let name = template.render(message).map_err(|missing| {
            Refusal::unreadable(format!("{missing}, which channel_template needs"))
        })?;
        channels.push(name.into());
    }
    let delta = match header(&mode.delta_header) {
        "" => false,
        text => flag(text).ok_or_else(|| not_a(&mode.delta_header, "true or false"))?,
    };
    let version = match header(&mode.version_header) {
        "" => 0,
        text => text.parse().map_err(|_| not_a(&mode.version_header, "a whole number"))?,
    };
    let guard = DuplicateGuard {
        key: header(&mode.idempotency_key_header).into(),
        version,
        version_epoch: header(&mode.version_epoch_header).into(),
    };
    if guard.version_epoch.len() > VERSION_EPOCH_MAX {
        let expected = format!("at most {VERSION_EPOCH_MAX} bytes long");
        return Err(not_a(&mode.version_epoch_header, &expected));
    }
    let extra = PublicationExtra { info: None, tags: tags(message, mode), version };
    let data: Box<[u8]> = message.body.as_slice().into();
    let draft = Draft {
        is_json: json::is_json(&data),
        data,
        extra: (extra != PublicationExtra::default()).then(|| Arc::new(extra)),
        guard: (guard != DuplicateGuard::default()).then(|| Box::new(guard)),
        skip_history: false,
        delta,
    };
    Ok(Work::Publish { channels, draft })
}

/// The tags of a message, sorted by name.
fn tags(message: &Message, mode: &PublicationDataMode) -> Box<[(Box<str>, Box<str>)]> {
    let prefix = mode.tags_header_prefix.as_str();
    if prefix.is_empty() {
        return Box::default();
    }
    let named = message.headers.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix(prefix).filter(|name| !name.is_empty())?;
        Some((Box::from(name), Box::from(value.as_str())))
    });
    let sorted: BTreeMap<Box<str>, Box<str>> = named.collect();
    sorted.into_iter().collect()
}

/// A boolean as Go writes and reads it.
fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn not_a(header: &str, expected: &str) -> Refusal {
    Refusal::unreadable(format!("the header {header} is not {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows one method, whose request it returns as a command.
    struct Echo;

    impl Commands for Echo {
        fn read(&self, method: &str, request: &[u8]) -> Result<Work, Refusal> {
            match method {
                "echo" => Ok(Work::Command { method: method.into(), request: request.into() }),
                "publish" => {
                    let draft = Draft { data: request.into(), ..Draft::default() };
                    Ok(Work::Publish { channels: vec!["c".into()], draft })
                }
                _ => Err(Refusal::unreadable("unknown")),
            }
        }

        fn run<'a>(&'a self, _: &'a str, _: &'a [u8]) -> CommandResult<'a> {
            Box::pin(async { Ok(()) })
        }
    }

    fn message(id: &str, headers: &[(&str, &str)], body: &str) -> Message {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Message {
            id: id.into(),
            routing_key: "price.ACME".into(),
            exchange: "stocks".into(),
            headers: headers.iter().map(own).collect(),
            body: body.into(),
        }
    }

    fn publications(template: &str) -> Decoder {
        let mode = PublicationDataMode {
            enabled: true,
            channel_template: template.into(),
            ..PublicationDataMode::default()
        };
        Decoder::new("m", &mode)
    }

    #[test]
    fn api_commands_come_in_an_envelope_or_with_their_method_in_a_header() {
        let decoder = Decoder::new("m", &PublicationDataMode::default());
        for (headers, body, expected) in [
            (&[][..], r#"{"method":"echo","payload":{"a":1}}"#, Ok(r#"{"a":1}"#)),
            (&[], r#"{"method":"echo","payload":"{\"a\":1}"}"#, Ok(r#"{"a":1}"#)),
            (&[], r#"{"method":"echo"}"#, Ok("{}")),
            (&[("m", "echo")], "anything", Ok("anything")),
            (&[("m", "")], r#"{"method":"echo","payload":1}"#, Ok("1")),
            (&[("m", "other")], "{}", Err("unknown")),
            (&[], r#"{"method":"other"}"#, Err("unknown")),
            (&[], r#"{"payload":{}}"#, Err("names no method")),
            (&[], r#"{"method":null}"#, Err("names no method")),
            (&[], r#"{"method":1}"#, Err("not an object")),
            (&[], r#"["echo",{}]"#, Err("not an object")),
            (&[], "", Err("not an object")),
            (&[], "null", Err("not an object")),
        ] {
            match (decoder.read(&message("", headers, body), &Echo), expected) {
                (Ok(Work::Command { request, .. }), Ok(expected)) => {
                    assert_eq!(request, expected.as_bytes(), "{body}");
                }
                (Err(refusal), Err(cause)) => {
                    assert!(refusal.cause.contains(cause), "{body}: {refusal:?}");
                    assert_eq!(refusal.retry, super::super::message::Retry::Never);
                }
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_message_id_is_the_idempotency_key_unless_there_is_another() {
        let key = |decoder: &Decoder, message: &Message| {
            let Ok(Work::Publish { draft, .. }) = decoder.read(message, &Echo) else { panic!() };
            draft.guard.map(|guard| guard.key.to_string())
        };
        let commands = Decoder::new("m", &PublicationDataMode::default());
        let publish = [("m", "publish")];
        assert_eq!(key(&commands, &message("id", &publish, "1")).as_deref(), Some("id"));
        assert_eq!(key(&commands, &message("", &publish, "1")), None);
        let raw = publications("a");
        assert_eq!(key(&raw, &message("id", &[], "1")).as_deref(), Some("id"));
        assert_eq!(key(&raw, &message("", &[], "1")), None);
        let own = [("centrifugo-idempotency-key", "own")];
        assert_eq!(key(&raw, &message("id", &own, "1")).as_deref(), Some("own"));
    }

    #[test]
    fn raw_publications_are_addressed_by_headers_or_template() {
        for (template, headers, expected) in [
            ("", &[("centrifugo-channels", "a")][..], Ok("a")),
            ("", &[("centrifugo-channels", " a , b,,a")], Ok("a b")),
            ("t:{routing_key.1}", &[], Ok("t:ACME")),
            ("t:{routing_key.1}", &[("centrifugo-channels", "a")], Ok("a")),
            ("t:{routing_key.1}", &[("centrifugo-channels", " , ")], Ok("t:ACME")),
            ("{exchange}/{header.x}", &[("x", "y")], Ok("stocks/y")),
            ("", &[], Err("no header centrifugo-channels")),
            ("{header.x}", &[], Err("no header x, which channel_template needs")),
            ("{routing_key.2}", &[], Err("no word 2")),
            ("a", &[("centrifugo-delta", "yes")], Err("centrifugo-delta is not true or false")),
            ("a", &[("centrifugo-version", "1.5")], Err("centrifugo-version is not a whole")),
        ] {
            match (publications(template).read(&message("", headers, "1"), &Echo), expected) {
                (Ok(Work::Publish { channels, .. }), Ok(expected)) => {
                    assert_eq!(channels.join(" "), expected, "{template} {headers:?}");
                }
                (Err(refusal), Err(cause)) => {
                    assert!(refusal.cause.contains(cause), "{template}: {refusal:?}");
                }
                other => panic!("{template} {headers:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn headers_of_a_raw_publication_set_version_delta_and_tags() {
        let headers = [
            ("centrifugo-version", "7"),
            ("centrifugo-version-epoch", "e"),
            ("centrifugo-delta", "T"),
            ("centrifugo-tag-b", "2"),
            ("centrifugo-tag-a", "1"),
            ("centrifugo-tag-", "nameless"),
            ("other", "ignored"),
        ];
        let read = publications("a").read(&message("", &headers, "{}"), &Echo);
        let Ok(Work::Publish { draft, .. }) = read else { panic!("{read:?}") };
        let extra = draft.extra.unwrap();
        let tags: Vec<(&str, &str)> =
            extra.tags.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!((tags, extra.version), (vec![("a", "1"), ("b", "2")], 7));
        let guard = draft.guard.unwrap();
        assert_eq!((&*guard.version_epoch, guard.version, &*guard.key), ("e", 7, ""));
        assert!(draft.delta && draft.is_json && !draft.skip_history);
        let binary = publications("a").read(&message("", &[], "no json"), &Echo);
        let Ok(Work::Publish { draft, .. }) = binary else { panic!("{binary:?}") };
        assert!(!draft.is_json && draft.extra.is_none() && draft.guard.is_none());
    }

    #[test]
    fn a_version_epoch_of_a_raw_publication_is_bounded() {
        let read = |length: usize| {
            let headers = [("centrifugo-version-epoch", &*"e".repeat(length))];
            publications("a").read(&message("", &headers, "{}"), &Echo)
        };
        assert!(read(VERSION_EPOCH_MAX).is_ok());
        let Err(refusal) = read(VERSION_EPOCH_MAX + 1) else { panic!("it is refused") };
        assert!(format!("{refusal:?}").contains("at most 256 bytes long"), "{refusal:?}");
    }
}
