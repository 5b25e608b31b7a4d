//! The text format of Prometheus, version 0.0.4. The well-kept libraries either add `_total` to the
//! names of all counters, which Centrifugo's counters lack, or have no native histograms.
//!
//! Owns no state.

use std::fmt::Write as _;

use super::family::{Family, Summary, Value};
use crate::base::histogram::HistogramSnapshot;

/// Type of the content.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes families; those without series are left out. Without `classic`, histograms have no
/// buckets.
pub fn write(families: &[Family], classic: bool) -> String {
    let mut text = String::with_capacity(32 * 1024);
    for family in families.iter().filter(|family| !family.series.is_empty()) {
        let Family { name, help, kind, labels, series } = family;
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
        for (values, value) in series {
            let mut joined = String::new();
            for (label, value) in labels.iter().zip(values) {
                let separator = if joined.is_empty() { "" } else { "," };
                _ = write!(joined, "{separator}{label}=\"{}\"", escaped(value));
            }
            match value {
                Value::Number(number) => sample(&mut text, name, &joined, *number),
                Value::Histogram(found) => histogram(&mut text, name, &joined, found, classic),
                Value::Summary(found) => summary(&mut text, name, &joined, found),
            }
        }
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

/// A number as Go writes it: large and small ones with an exponent.
fn number(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if size == 0.0 || (1e-4..1e21).contains(&size) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn sample(text: &mut String, name: &str, labels: &str, value: f64) {
    let value = number(value);
    _ = match labels {
        "" => writeln!(text, "{name} {value}"),
        _ => writeln!(text, "{name}{{{labels}}} {value}"),
    };
}

/// Labels with one more at the end.
fn with_label(labels: &str, name: &str, value: f64) -> String {
    let separator = if labels.is_empty() { "" } else { "," };
    format!("{labels}{separator}{name}=\"{}\"", number(value))
}

fn histogram(
    text: &mut String,
    name: &str,
    labels: &str,
    found: &HistogramSnapshot,
    classic: bool,
) {
    if classic {
        let buckets = found.classic().chain([(f64::INFINITY, found.count())]);
        for (bound, count) in buckets {
            let labels = with_label(labels, "le", bound);
            sample(text, &format!("{name}_bucket"), &labels, count as f64);
        }
    }
    sample(text, &format!("{name}_sum"), labels, found.sum());
    sample(text, &format!("{name}_count"), labels, found.count() as f64);
}

fn summary(text: &mut String, name: &str, labels: &str, found: &Summary) {
    for (share, quantile) in &found.quantiles {
        sample(text, name, &with_label(labels, "quantile", *share), *quantile);
    }
    sample(text, &format!("{name}_sum"), labels, found.sum);
    sample(text, &format!("{name}_count"), labels, found.count as f64);
}

#[cfg(test)]
mod tests {
    use super::super::family::FamilyKind;
    use super::*;
    use crate::base::histogram::{COMMANDS, Histogram};

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        let cases = [
            (1e-6, "1e-06"),
            (5e-5, "5e-05"),
            (0.00025, "0.00025"),
            (2.5, "2.5"),
            (10.0, "10"),
            (1e21, "1e+21"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn label_values_and_help_are_escaped() {
        let family = Family::new("a".into(), "one\ntwo\\", FamilyKind::Gauge, &["name"]);
        let family = family.with_numbers([(vec!["q\"\\\n".to_owned()], 1.5)]);
        let expected = "# HELP a one\\ntwo\\\\\n# TYPE a gauge\na{name=\"q\\\"\\\\\\n\"} 1.5\n";
        assert_eq!(write(&[family], true), expected);
    }

    #[test]
    fn a_histogram_has_its_buckets_unless_they_are_native_only() {
        let histogram = Histogram::default();
        histogram.observe(&COMMANDS, 300, 2);
        let found = HistogramSnapshot::of(&COMMANDS, [&histogram]);
        let family = Family::new("h".into(), "H.", FamilyKind::Histogram, &["method"]);
        let families = [family.with_histograms([(vec!["rpc".to_owned()], found)])];
        let text = write(&families, true);
        assert!(text.contains("\nh_bucket{method=\"rpc\",le=\"0.00025\"} 0\n"), "{text}");
        assert!(text.contains("\nh_bucket{method=\"rpc\",le=\"0.0005\"} 2\n"), "{text}");
        assert!(text.contains("\nh_bucket{method=\"rpc\",le=\"+Inf\"} 2\n"), "{text}");
        assert!(text.ends_with("\nh_sum{method=\"rpc\"} 0.0006\nh_count{method=\"rpc\"} 2\n"));
        assert!(!write(&families, false).contains("bucket"));
    }
}
