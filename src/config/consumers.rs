//! Checks of consumers: what can be known without their brokers.
//!
//! Owns the rules and the names of the types. Never connects to a broker. The invariant: a consumer
//! that passes the check has every option that its type needs.

use crate::model::channel_template::ChannelTemplate;

use super::broker_url::BrokerUrl;
use super::duration::ConfigDuration;
use super::error::{Error, error};
use super::sections::{Config, Consumer, DeadLetter, PublicationDataMode, RabbitMq};

/// Types of consumers that Centrifugo has and this server does not.
const FOREIGN_TYPES: [&str; 7] = [
    "kafka",
    "nats_jetstream",
    "redis_stream",
    "postgresql",
    "google_pub_sub",
    "aws_sqs",
    "azure_service_bus",
];

/// Whether this build has consumers of type `rabbitmq`.
const HAS_RABBITMQ: bool = cfg!(feature = "rabbitmq");

/// Maximum length of a name in AMQP, in bytes.
const AMQP_NAME_MAX: usize = 255;

/// Minimum of `prefetch_bytes`: one read of the socket.
const PREFETCH_BYTES_MIN: usize = 65_536;

/// Whether a path within a consumer belongs to a type that Centrifugo has and this server does not.
pub(super) fn is_foreign_section(path: &str) -> bool {
    FOREIGN_TYPES.contains(&path.split('.').next().unwrap_or_default())
}

/// Returns an error unless the condition holds.
fn must(holds: bool, cause: impl Into<String>, cure: impl Into<String>) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(error(cause, cure)) }
}

impl Config {
    /// Checks every consumer that is enabled, and the type of the others.
    pub(super) fn check_consumers(&self) -> Result<(), Error> {
        for (at, consumer) in self.consumers.iter().enumerate() {
            let place = format!("consumers[{at}] {:?}", consumer.name);
            check_type(&place, consumer)?;
            if consumer.enabled {
                check_rabbitmq(&format!("{place}: rabbitmq"), &consumer.rabbitmq)?;
            }
        }
        Ok(())
    }

    /// The consumers that are enabled.
    pub fn enabled_consumers(&self) -> impl Iterator<Item = &Consumer> {
        self.consumers.iter().filter(|consumer| consumer.enabled)
    }
}

fn check_type(place: &str, Consumer { enabled, r#type: kind, .. }: &Consumer) -> Result<(), Error> {
    let (is_foreign, is_ours) = (FOREIGN_TYPES.contains(&kind.as_str()), kind == "rabbitmq");
    let nothing = kind.is_empty() && !enabled;
    must(
        is_ours || is_foreign || nothing,
        format!("{place}: type {kind:?} is unknown"),
        "set type to \"rabbitmq\"",
    )?;
    must(
        !enabled || !is_foreign,
        format!("{place}: this server has no consumers of type {kind:?}, so it would get nothing"),
        "set enabled to false, or move the messages to RabbitMQ and set type to \"rabbitmq\"",
    )?;
    must(
        !enabled || !is_ours || HAS_RABBITMQ,
        format!("{place}: this build has no consumers of type \"rabbitmq\""),
        "build the server with the cargo feature `rabbitmq`, which is on by default",
    )
}

fn check_rabbitmq(place: &str, options: &RabbitMq) -> Result<(), Error> {
    let url = BrokerUrl::of(options)
        .map_err(|refused| error(format!("{place}.{}", refused.cause), refused.cure))?;
    check_queue(place, options)?;
    check_exchange(place, options)?;
    let names = [
        ("queue", &options.queue),
        ("exchange", &options.exchange),
        ("dead_letter.exchange", &options.dead_letter.exchange),
        ("dead_letter.routing_key", &options.dead_letter.routing_key),
    ];
    let names = names.into_iter().chain(options.bindings.iter().map(|key| ("bindings", key)));
    let arguments = options.queue_arguments.keys().map(|name| ("queue_arguments", name));
    for (key, name) in names.chain(arguments) {
        must(
            name.len() <= AMQP_NAME_MAX,
            format!("{place}.{key}: a name of {} bytes", name.len()),
            format!("use at most {AMQP_NAME_MAX} bytes"),
        )?;
    }
    must(
        options.prefetch > 0,
        format!("{place}.prefetch is 0, which means no limit in AMQP"),
        "use a number from 1 to 65535",
    )?;
    must(
        options.prefetch_bytes >= PREFETCH_BYTES_MIN,
        format!("{place}.prefetch_bytes is {}", options.prefetch_bytes),
        format!("use at least {PREFETCH_BYTES_MIN}"),
    )?;
    check_time(place, "heartbeat", options.heartbeat, 1_000, 3_600_000)?;
    check_time(place, "connect_timeout", options.connect_timeout, 100, 600_000)?;
    check_mode(&format!("{place}.publication_data_mode"), &options.publication_data_mode)?;
    check_dead_letter(&format!("{place}.dead_letter"), &options.dead_letter)?;
    let tls = &options.tls;
    must(
        url.tls || *tls == super::sections::FeedTls::default(),
        format!("{place}.tls is set, but url does not begin with amqps://, so TLS is not used"),
        "write url with amqps://, or remove the section tls",
    )?;
    must(
        tls.cert_pem.is_empty() == tls.key_pem.is_empty(),
        format!("{place}.tls: only one of cert_pem and key_pem is set"),
        "set both or neither",
    )
}

fn check_queue(place: &str, options: &RabbitMq) -> Result<(), Error> {
    must(
        !options.queue.is_empty(),
        format!("{place}.queue is empty"),
        "name the queue to consume",
    )?;
    let arguments = &options.queue_arguments;
    let by_argument = arguments.get("x-queue-type").map(|kind| kind.reveal());
    let kind = options.queue_type.as_str();
    must(
        kind != "stream" && by_argument != Some("stream"),
        format!("{place}: the queue {:?} is a stream", options.queue),
        STREAM_CURE,
    )?;
    must(
        ["", "classic", "quorum"].contains(&kind),
        format!("{place}.queue_type {kind:?} is unknown"),
        "use classic or quorum, or leave it empty",
    )?;
    must(
        by_argument.is_none(),
        format!("{place}.queue_arguments contains x-queue-type"),
        "set queue_type instead",
    )?;
    must(
        kind != "quorum" || options.durable || !options.declare,
        format!("{place}: a quorum queue is durable, but durable is false"),
        "set durable to true, or queue_type to classic",
    )
}

/// What to do about a queue that is a stream.
pub const STREAM_CURE: &str = "consume a classic or quorum queue: the broker keeps no position of \
                               a stream's consumer, and the server cannot keep it yet, so messages \
                               would be lost or repeated";

fn check_exchange(place: &str, options: &RabbitMq) -> Result<(), Error> {
    let kind = options.exchange_type.as_str();
    must(
        ["topic", "direct", "fanout", "headers"].contains(&kind),
        format!("{place}.exchange_type {kind:?} is unknown"),
        "use topic, direct, fanout or headers; for another type create exchange and bindings \
         yourself and set declare to false",
    )?;
    must(
        !options.exchange.is_empty() || options.bindings.is_empty(),
        format!("{place}.bindings is set, but exchange is empty"),
        "name the exchange to bind the queue to",
    )?;
    let needs_keys = options.declare && !options.exchange.is_empty();
    must(
        !needs_keys || !options.bindings.is_empty() || ["fanout", "headers"].contains(&kind),
        format!("{place}.bindings is empty, so the {kind} exchange would send no message"),
        "list routing keys, for example [\"#\"] for every message of a topic exchange",
    )
}

fn check_time(
    place: &str,
    key: &str,
    time: ConfigDuration,
    least: u64,
    most: u64,
) -> Result<(), Error> {
    must(
        (least..=most).contains(&time.millis()),
        format!("{place}.{key} is {time}"),
        format!("use a duration from {least}ms to {}s", most / 1000),
    )
}

fn check_mode(place: &str, mode: &PublicationDataMode) -> Result<(), Error> {
    let template = &mode.channel_template;
    ChannelTemplate::parse(template).map_err(|cause| {
        error(format!("{place}.channel_template {template:?}: {cause}"), "correct the template")
    })?;
    must(
        mode.enabled || template.is_empty(),
        format!("{place}.channel_template is set, but enabled is false"),
        "set enabled to true: API commands name their channels themselves",
    )?;
    must(
        !mode.enabled || !template.is_empty() || !mode.channels_header.is_empty(),
        format!("{place}: neither channels_header nor channel_template is set"),
        "set one of them, so that messages have a channel",
    )
}

fn check_dead_letter(place: &str, options: &DeadLetter) -> Result<(), Error> {
    let action = options.action.as_str();
    must(
        ["log", "exchange", "reject"].contains(&action),
        format!("{place}.action {action:?} is unknown"),
        "use log, exchange or reject",
    )?;
    must(options.attempts > 0, format!("{place}.attempts is 0"), "use a number from 1 to 65535")?;
    must(
        action == "exchange" || (options.exchange.is_empty() && options.routing_key.is_empty()),
        format!("{place}.exchange or routing_key is set, but action is {action:?}"),
        "set action to \"exchange\", or remove them",
    )?;
    must(
        action != "exchange" || !options.exchange.is_empty() || !options.routing_key.is_empty(),
        format!("{place}: the action \"exchange\" would publish each message to its own queue"),
        "set exchange, or for the default exchange set routing_key to the name of a queue",
    )?;
    check_time(place, "delay", options.delay, 0, 600_000)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::config::{Error, Loaded, Sources, load};

    fn load_consumers(json: &str) -> Result<Loaded, Error> {
        let flags = vec![("consumers".to_owned(), json.to_owned())];
        load(&Sources { file: Some(PathBuf::from("/dev/null")), flags, ..Sources::default() })
    }

    /// Loads one enabled consumer of RabbitMQ with these options, written as JSON.
    fn load_rabbitmq(options: &str) -> Result<Loaded, Error> {
        load_consumers(&format!(
            r#"[{{"name":"prices","enabled":true,"type":"rabbitmq","rabbitmq":{{{options}}}}}]"#
        ))
    }

    #[test]
    fn a_consumer_loads_from_flags_files_and_variables() {
        let text = r#"[{"name":"prices","type":"rabbitmq","rabbitmq":{"queue":"q"}}]"#;
        let variables = [
            ("DRUMLINE_CONSUMERS_PRICES_ENABLED", "true"),
            ("DRUMLINE_CONSUMERS_PRICES_RABBITMQ_PASSWORD", "hunter2"),
            ("DRUMLINE_CONSUMERS_PRICES_RABBITMQ_PUBLICATION_DATA_MODE_ENABLED", "true"),
            ("CENTRIFUGO_CONSUMERS_PRICES_RABBITMQ_BINDINGS", "a.# b.#"),
            ("DRUMLINE_CONSUMERS_PRICES_RABBITMQ_EXCHANGE", "stocks"),
        ];
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let folder = tempfile::tempdir().unwrap();
        for (name, file) in [
            ("config.json", format!(r#"{{"consumers":{text}}}"#)),
            ("config.yaml", format!("consumers: {text}")),
            (
                "config.toml",
                "[[consumers]]\nname = \"prices\"\ntype = \"rabbitmq\"\n\
                 [consumers.rabbitmq]\nqueue = \"q\"\n"
                    .to_owned(),
            ),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, file).unwrap();
            let environment = variables.iter().map(own).collect();
            let sources = Sources { file: Some(path), environment, ..Sources::default() };
            let loaded = load(&sources).unwrap_or_else(|told| panic!("{name}: {told}"));
            let [consumer] = &loaded.config.consumers[..] else { panic!("{name}") };
            assert!(consumer.enabled && consumer.rabbitmq.publication_data_mode.enabled, "{name}");
            assert_eq!(consumer.rabbitmq.bindings, ["a.#", "b.#"], "{name}");
            assert_eq!(consumer.rabbitmq.password.reveal(), "hunter2", "{name}");
            assert!(!format!("{:?}", loaded.config).contains("hunter2"), "{name}");
            assert!(!loaded.has_unknown, "{name}: {:?}", loaded.warnings);
        }
    }

    #[test]
    fn types_of_centrifugo_are_refused_if_enabled() {
        for kind in super::FOREIGN_TYPES {
            let of = |enabled: bool| {
                load_consumers(&format!(
                    r#"[{{"name":"a_b","enabled":{enabled},"type":"{kind}",
                        "{kind}":{{"brokers":["a"],"tls":{{"enabled":true}}}}}}]"#
                ))
            };
            let refused = of(true).unwrap_err();
            assert!(refused.cause.contains("no consumers of type"), "{refused}");
            assert!(!of(false).unwrap().has_unknown, "{kind}");
        }
        let refused = load_consumers(r#"[{"name":"ab","type":"rabbit"}]"#).unwrap_err();
        assert!(refused.cause.contains("\"rabbit\" is unknown"), "{refused}");
        let refused = load_consumers(r#"[{"name":"ab","enabled":true}]"#).unwrap_err();
        assert!(refused.cause.contains("type \"\" is unknown"), "{refused}");
        let twice = r#"[{"name":"ab"},{"name":"ab"}]"#;
        assert!(load_consumers(twice).unwrap_err().cause.contains("same name"));
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        assert!(load_rabbitmq(r#""queue":"q""#).is_ok());
        let long = format!(r#""queue":"{}""#, "q".repeat(256));
        for (options, cause) in [
            ("", "queue is empty"),
            (long.as_str(), "a name of 256 bytes"),
            (r#""queue":"q","queue_type":"stream""#, "is a stream"),
            (r#""queue":"q","queue_arguments":{"x-queue-type":"stream"}"#, "is a stream"),
            (r#""queue":"q","queue_arguments":{"x-queue-type":"quorum"}"#, "x-queue-type"),
            (r#""queue":"q","queue_type":"lazy""#, "queue_type \"lazy\" is unknown"),
            (r#""queue":"q","queue_type":"quorum","durable":false"#, "durable is false"),
            (r#""queue":"q","exchange":"e","exchange_type":"x""#, "exchange_type \"x\" is unk"),
            (r#""queue":"q","exchange":"e""#, "bindings is empty"),
            (r#""queue":"q","bindings":["a"]"#, "exchange is empty"),
            (r#""queue":"q","prefetch":0"#, "prefetch is 0"),
            (r#""queue":"q","prefetch_bytes":65535"#, "prefetch_bytes is 65535"),
            (r#""queue":"q","heartbeat":"0s""#, "heartbeat is 0s"),
            (r#""queue":"q","url":"amqp://u:hunter2@""#, "names no host"),
            (r#""queue":"q","tls":{"server_name":"a"}"#, "TLS is not used"),
            (r#""queue":"q","url":"amqps://a","tls":{"cert_pem":"a"}"#, "only one of"),
            (r#""queue":"q","publication_data_mode":{"channel_template":"a"}"#, "enabled is false"),
            (
                r#""queue":"q","publication_data_mode":{"enabled":true,"channel_template":"{"}"#,
                "has no `}`",
            ),
            (
                r#""queue":"q","publication_data_mode":{"enabled":true,"channels_header":""}"#,
                "neither channels_header",
            ),
            (r#""queue":"q","dead_letter":{"action":"drop"}"#, "action \"drop\" is unknown"),
            (r#""queue":"q","dead_letter":{"action":"exchange"}"#, "its own queue"),
            (r#""queue":"q","dead_letter":{"exchange":"e"}"#, "action is \"log\""),
            (r#""queue":"q","dead_letter":{"attempts":0}"#, "attempts is 0"),
        ] {
            let refused = load_rabbitmq(options).unwrap_err();
            assert!(refused.cause.contains(cause), "{options}: {refused}");
            assert!(refused.cause.contains("consumers[0] \"prices\""), "{refused}");
            assert!(!refused.to_string().contains("hunter2"), "{refused}");
        }
    }
}
