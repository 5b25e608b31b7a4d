//! Options of traces, from the standard variables of OpenTelemetry.
//!
//! Owns the names of the variables. The invariant: values of headers are never shown.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::base::failure::Failure;
use crate::base::secret::Address;
use crate::control::backend::endpoint::Endpoint;

/// Default address of a receiver.
const ENDPOINT: &str = "http://localhost:4318";

/// Which spans without a recorded parent are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sampler {
    /// Spans with a parent are recorded if their parent is.
    pub(super) follows_parent: bool,
    /// Share of the other traces, from 0 to 1.
    pub(super) share: f64,
}

/// Options of traces.
pub struct TraceOptions {
    pub(super) endpoint: Endpoint,
    pub(super) headers: HeaderMap,
    /// Time limit of one request to the receiver.
    pub(super) timeout: Duration,
    /// Attributes of the process.
    pub(super) resource: Vec<(String, String)>,
    pub(super) sampler: Sampler,
    /// Time after which spans are sent though the batch is not full.
    pub(super) delay: Duration,
    /// Number of spans that may wait.
    pub(super) queue: usize,
    /// Number of spans per request.
    pub(super) batch: usize,
}

impl TraceOptions {
    /// Reads the variables; `get` returns the value of a variable.
    ///
    /// # Errors
    /// The value of a variable is invalid.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        // The variable for traces overrides the one for all signals.
        let of_traces = |name: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
            let common = format!("OTEL_EXPORTER_OTLP_{name}");
            get(&own).map(|value| (own, value)).or_else(|| Some((common.clone(), get(&common)?)))
        };
        if let Some((name, protocol)) = of_traces("PROTOCOL")
            && protocol != "http/protobuf"
        {
            return Err(invalid(&name, "this exporter speaks http/protobuf only"));
        }
        let address = match of_traces("ENDPOINT") {
            Some((name, address)) if name.contains("TRACES") => (name, address),
            Some((name, base)) => (name, format!("{}/v1/traces", base.trim_end_matches('/'))),
            None => ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), format!("{ENDPOINT}/v1/traces")),
        };
        let endpoint = Endpoint::new(&Address::from(&*address.1));
        let endpoint = endpoint.ok().filter(|endpoint| is_http(&endpoint.uri().to_string()));
        let headers = of_traces("HEADERS").map(|(name, text)| headers(&name, &text)).transpose()?;
        let number = |name: &str, default: u64| match get(name) {
            Some(text) => text
                .trim()
                .parse::<u64>()
                .ok()
                .filter(|number| (1..=1 << 20).contains(number))
                .ok_or_else(|| invalid(name, "use a whole number from 1 to 1048576")),
            None => Ok(default),
        };
        let timeout = match of_traces("TIMEOUT") {
            Some((name, _)) => number(&name, 10_000)?,
            None => 10_000,
        };
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)? as usize;
        let batch = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)? as usize;
        Ok(TraceOptions {
            endpoint: endpoint.ok_or_else(|| invalid(&address.0, "use an http or https URL"))?,
            headers: headers.unwrap_or_default(),
            timeout: Duration::from_millis(timeout),
            resource: resource(get("OTEL_SERVICE_NAME"), get("OTEL_RESOURCE_ATTRIBUTES"))?,
            sampler: sampler(get("OTEL_TRACES_SAMPLER"), get("OTEL_TRACES_SAMPLER_ARG"))?,
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", 5000)?),
            queue,
            batch: batch.min(queue),
        })
    }
}

fn invalid(name: &str, cure: &str) -> Failure {
    Failure::new(format!("the variable {name} has an invalid value"), cure)
}

fn is_http(address: &str) -> bool {
    address.starts_with("http://") || address.starts_with("https://")
}

/// Pairs of `name=value`, separated by commas. Values are percent-encoded.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned()))
    };
    parts.map(pair).collect()
}

fn headers(variable: &str, text: &str) -> Result<HeaderMap, Failure> {
    let header = |(name, value): (String, String)| {
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name).ok()?, value))
    };
    let found = pairs(text).and_then(|pairs| pairs.into_iter().map(header).collect());
    found.ok_or_else(|| invalid(variable, "use name=value,name=value with encoded values"))
}

/// Attributes of the process: its name and version, and those of the operator.
fn resource(
    name: Option<String>,
    attributes: Option<String>,
) -> Result<Vec<(String, String)>, Failure> {
    const VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let given = pairs(attributes.as_deref().unwrap_or_default());
    let mut given = given.ok_or_else(|| invalid(VARIABLE, "use name=value,name=value"))?;
    let defaults = [
        ("service.name", "drumline".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    if let Some(name) = name {
        given.retain(|(key, _)| key != "service.name");
        given.push(("service.name".to_owned(), name));
    }
    for (key, value) in defaults {
        if !given.iter().any(|(known, _)| known == key) {
            given.push((key.to_owned(), value));
        }
    }
    Ok(given)
}

fn sampler(name: Option<String>, argument: Option<String>) -> Result<Sampler, Failure> {
    let ratio = || match argument.as_deref().map(|text| text.trim().parse::<f64>()) {
        None => Ok(1.0),
        Some(Ok(share)) if (0.0..=1.0).contains(&share) => Ok(share),
        Some(_) => Err(invalid("OTEL_TRACES_SAMPLER_ARG", "use a number from 0 to 1")),
    };
    let name = name.unwrap_or_else(|| "parentbased_always_on".to_owned());
    let own = name.strip_prefix("parentbased_");
    let share = match own.unwrap_or(&name) {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio()?,
        _ => {
            let cure = "use always_on, always_off or traceidratio, each also with parentbased_";
            return Err(invalid("OTEL_TRACES_SAMPLER", cure));
        }
    };
    Ok(Sampler { follows_parent: own.is_some(), share })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<TraceOptions, Failure> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        TraceOptions::read(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    fn address(variables: &[(&str, &str)]) -> String {
        read(variables).unwrap_or_else(|e| panic!("{e:?}")).endpoint.uri().to_string()
    }

    #[test]
    fn the_address_is_made_as_the_specification_says() {
        assert_eq!(address(&[]), "http://localhost:4318/v1/traces");
        let common = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://a:1/base/");
        assert_eq!(address(&[common]), "https://a:1/base/v1/traces");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b/own");
        assert_eq!(address(&[common, own]), "http://b/own");
        assert_eq!(address(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), address(&[]));
    }

    #[test]
    fn invalid_values_are_refused_without_showing_them() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=hunter2"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_RESOURCE_ATTRIBUTES", "hunter2"),
        ] {
            let refused = read(&[(name, value)]).err().unwrap_or_else(|| panic!("{name}={value}"));
            assert!(refused.cause.contains(name) && !refused.cause.contains("hunter2"));
        }
        let sampler = ("OTEL_TRACES_SAMPLER", "traceidratio");
        assert!(read(&[sampler, ("OTEL_TRACES_SAMPLER_ARG", "2")]).is_err());
    }

    #[test]
    fn headers_resource_and_sampler_are_read() {
        let options = read(&[
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x = y"),
            ("OTEL_SERVICE_NAME", "edge"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,zone=eu"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
        ]);
        let options = options.unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(
            (&options.headers["api-key"], &options.headers["x"]),
            (&HeaderValue::from_static("a b"), &HeaderValue::from_static("y"))
        );
        assert!(options.headers["x"].is_sensitive());
        let of = |key: &str| {
            let found = options.resource.iter().filter(|(known, _)| known == key);
            found.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        assert_eq!((of("service.name"), of("zone")), (vec!["edge"], vec!["eu"]));
        assert_eq!(of("service.version"), [env!("CARGO_PKG_VERSION")]);
        assert_eq!(options.sampler, Sampler { follows_parent: true, share: 0.25 });
        assert_eq!((options.queue, options.batch), (10, 10));
    }
}
