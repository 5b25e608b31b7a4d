//! The protobuf format of Prometheus (`io.prometheus.client.MetricFamily`, delimited by lengths),
//! the only one that carries native histograms.
//!
//! Owns the messages of the format. Never reads a counter.

use prost::Message;

use super::family::{Family, FamilyKind, Value};
use crate::base::histogram::{HistogramSnapshot, SCHEMA};

/// Type of the content.
pub const CONTENT_TYPE: &str = "application/vnd.google.protobuf; \
    proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Empty native buckets between two spans from which a new span is shorter than zeros.
const GAP_MAX: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    /// 0: counter, 1: gauge, 2: summary, 4: histogram.
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "4")]
    summary: Option<SummaryMessage>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<HistogramMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

/// The value of a gauge or counter.
#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryMessage {
    #[prost(uint64, optional, tag = "1")]
    sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    quantiles: Vec<Quantile>,
}

#[derive(Clone, PartialEq, Message)]
struct Quantile {
    #[prost(double, optional, tag = "1")]
    quantile: Option<f64>,
    #[prost(double, optional, tag = "2")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct HistogramMessage {
    #[prost(uint64, optional, tag = "1")]
    sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    buckets: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    positive_spans: Vec<Span>,
    /// Count of each bucket of the spans, less that of the bucket before.
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_deltas: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
}

/// Neighbouring native buckets.
#[derive(Clone, PartialEq, Message)]
struct Span {
    /// Buckets between the end of the span before and this one; the index of the first.
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

/// Writes families; those without series are left out. Without `classic`, histograms have native
/// buckets alone.
pub fn write(families: &[Family], classic: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32 * 1024);
    for family in families.iter().filter(|family| !family.series.is_empty()) {
        let message = MetricFamily {
            name: Some(family.name.clone()),
            help: Some(family.help.clone()),
            kind: Some(match family.kind {
                FamilyKind::Counter => 0,
                FamilyKind::Gauge => 1,
                FamilyKind::Summary => 2,
                FamilyKind::Histogram => 4,
            }),
            metrics: family.series.iter().map(|series| metric(family, series, classic)).collect(),
        };
        // Writing to memory cannot fail.
        _ = message.encode_length_delimited(&mut bytes);
    }
    bytes
}

fn metric(family: &Family, (values, value): &(Vec<String>, Value), classic: bool) -> Metric {
    let pair = |(name, value): (&&str, &String)| LabelPair {
        name: Some((*name).to_owned()),
        value: Some(value.clone()),
    };
    let mut metric = Metric {
        labels: family.labels.iter().zip(values).map(pair).collect(),
        ..Metric::default()
    };
    match value {
        Value::Number(number) => {
            let number = Some(Number { value: Some(*number) });
            match family.kind {
                FamilyKind::Counter => metric.counter = number,
                _ => metric.gauge = number,
            }
        }
        Value::Histogram(found) => metric.histogram = Some(histogram(found, classic)),
        Value::Summary(found) => {
            let quantile = |(share, value): &(f64, f64)| Quantile {
                quantile: Some(*share),
                value: Some(*value),
            };
            metric.summary = Some(SummaryMessage {
                sample_count: Some(found.count),
                sample_sum: Some(found.sum),
                quantiles: found.quantiles.iter().map(quantile).collect(),
            });
        }
    }
    metric
}

fn histogram(found: &HistogramSnapshot, classic: bool) -> HistogramMessage {
    let bucket =
        |(bound, count)| Bucket { cumulative_count: Some(count), upper_bound: Some(bound) };
    let native = found.native();
    let mut message = HistogramMessage {
        sample_count: Some(found.count()),
        sample_sum: Some(found.sum()),
        buckets: if classic { found.classic().map(bucket).collect() } else { Vec::new() },
        schema: Some(SCHEMA),
        zero_threshold: Some(found.zero_threshold()),
        zero_count: Some(native.zeros),
        positive_spans: Vec::new(),
        positive_deltas: Vec::new(),
    };
    let (mut next, mut before) = (0, 0);
    let mut push = |message: &mut HistogramMessage, count: i64| {
        if let Some(Span { length: Some(length), .. }) = message.positive_spans.last_mut() {
            *length += 1;
        }
        message.positive_deltas.push(count - before);
        before = count;
    };
    for (index, count) in native.counts {
        let gap = index - next;
        if message.positive_spans.is_empty() || gap > GAP_MAX {
            message.positive_spans.push(Span { offset: Some(gap), length: Some(0) });
        } else {
            (0..gap).for_each(|_| push(&mut message, 0));
        }
        push(&mut message, count as i64);
        next = index + 1;
    }
    if message.positive_spans.is_empty() {
        // A span without buckets tells an empty native histogram from a classic one.
        message.positive_spans.push(Span { offset: Some(0), length: Some(0) });
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::histogram::{Histogram, NUMBERS};

    fn family(values: &[u64]) -> Family {
        let histogram = Histogram::default();
        for value in values {
            histogram.observe(&NUMBERS, *value, 1);
        }
        let found = HistogramSnapshot::of(&NUMBERS, [&histogram]);
        let family = Family::new("h".into(), "H.", FamilyKind::Histogram, &["kind"]);
        family.with_histograms([(vec!["k".to_owned()], found)])
    }

    fn read(families: &[Family], classic: bool) -> Vec<MetricFamily> {
        let bytes = write(families, classic);
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            found.push(MetricFamily::decode_length_delimited(&mut rest).unwrap());
        }
        found
    }

    #[test]
    fn native_buckets_are_spans_and_deltas() {
        // Indexes 8 (2), 13 (3), 16 (4) twice, 19 (5) and 27 (10).
        let read = read(&[family(&[0, 1, 2, 3, 4, 4, 5, 10])], true);
        let histogram = read[0].metrics[0].histogram.as_ref().unwrap();
        assert_eq!((histogram.schema, histogram.zero_count), (Some(3), Some(2)));
        let spans: Vec<_> =
            histogram.positive_spans.iter().map(|s| (s.offset(), s.length())).collect();
        assert_eq!(spans, [(8, 1), (4, 7), (7, 1)]);
        assert_eq!(histogram.positive_deltas, [1, 0, -1, 0, 2, -2, 0, 1, 0]);
        let total: i64 = histogram
            .positive_deltas
            .iter()
            .scan(0, |count, delta| {
                *count += delta;
                Some(*count)
            })
            .sum();
        assert_eq!(total as u64 + histogram.zero_count(), histogram.sample_count());
        assert_eq!(histogram.buckets.len(), 15);
        assert_eq!(read[0].kind, Some(4));
        assert_eq!(read[0].metrics[0].labels[0].value(), "k");
    }

    #[test]
    fn an_empty_histogram_is_native_too() {
        let read = read(&[family(&[])], false);
        let histogram = read[0].metrics[0].histogram.as_ref().unwrap();
        assert_eq!(histogram.positive_spans.len(), 1);
        assert!(histogram.buckets.is_empty() && histogram.positive_deltas.is_empty());
    }

    #[test]
    fn numbers_that_are_zero_are_written() {
        let families = [FamilyKind::Counter, FamilyKind::Gauge]
            .map(|kind| Family::new("n".into(), "", kind, &[]).with_number(0.0));
        let read = read(&families, true);
        assert_eq!(read[0].metrics[0].counter, Some(Number { value: Some(0.0) }));
        assert_eq!(read[1].metrics[0].gauge, Some(Number { value: Some(0.0) }));
    }
}
