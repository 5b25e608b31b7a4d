//! Families of the store of durable channels.
//!
//! Owns no number: the threads of the store write them.

use std::sync::Arc;

use super::Source;
use super::family::{Family, FamilyKind};
use super::names::{Metric, Names};
use crate::base::histogram::{DURATIONS, Histogram, HistogramSnapshot, Layout, NUMBERS};
use crate::base::metrics::MetricKind;
use crate::base::store_metrics::StoreMetrics;

/// The source of the families of a store.
pub fn source(store: Arc<StoreMetrics>) -> Source {
    Box::new(move |names| families(&store, names))
}

fn families(store: &StoreMetrics, names: &Names) -> Vec<Family> {
    let total = |name, help, value| Metric { name, help, kind: MetricKind::Total, value };
    let numbers = [
        Metric {
            name: "store_accepts_writes",
            help: "1 while the store accepts writes, otherwise 0.",
            kind: MetricKind::Gauge,
            value: store.accepts.get(),
        },
        Metric {
            name: "store_longest_commit_micros",
            help: "Duration of the store's longest commit since the start, in microseconds.",
            kind: MetricKind::Largest,
            value: store.longest_commit_micros.get(),
        },
        Metric {
            name: "store_stored_bytes",
            help: "Bytes of durable publications, as the last walk found; 0 without store.max_bytes.",
            kind: MetricKind::Gauge,
            value: store.stored_bytes.get(),
        },
        total("store_batches", "Batches that the store wrote and synced.", store.batches.get()),
        total("store_writes", "Changes of streams in these batches.", store.writes.get()),
        total(
            "store_publications",
            "Publications that the store wrote and synced.",
            store.publications.get(),
        ),
        total("store_bytes", "Bytes of keys and values in these batches.", store.bytes.get()),
        total(
            "store_refused_writes",
            "Changes of streams that the store did not keep: refused, or in a failed batch.",
            store.refused_writes.get(),
        ),
        total("store_reads", "Questions about streams that the store answered.", store.reads.get()),
        total(
            "store_refused_reads",
            "Questions about streams that the store refused or could not answer.",
            store.refused_reads.get(),
        ),
        total("store_failures", "Times that the store became unavailable.", store.failures.get()),
    ];
    let histogram = |name, help, layout: &'static Layout, values: &Histogram| {
        let found = HistogramSnapshot::of(layout, [values]);
        Family::new(names.full(name), help, FamilyKind::Histogram, &[])
            .with_histograms([(Vec::new(), found)])
    };
    let mut families = names.families(&numbers);
    families.push(histogram(
        "store_commit_duration_seconds",
        "Duration of the store's commits, with the sync.",
        &DURATIONS,
        &store.commit_micros,
    ));
    families.push(histogram(
        "store_batch_writes",
        "Number of changes per batch of the store.",
        &NUMBERS,
        &store.batch_sizes,
    ));
    families
}
