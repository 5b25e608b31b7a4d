//! Counters of a feed, under Centrifugo's names where it has them.
//!
//! Owns the numbers. Never prints them. The invariant: counters only grow; gauges show the present.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::metrics::MetricKind;

/// Declares the counters with their names in metrics.
macro_rules! counters {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident, $name:literal;)*) => {
        /// Counters of one feed.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $help])+ pub $field: Count,)*
        }

        impl Counters {
            /// Every counter: name without prefix and suffix, help text, kind and value.
            pub fn list(&self) -> Vec<(&'static str, &'static str, MetricKind, u64)> {
                vec![$((
                    $name,
                    concat!($($help),+).trim_ascii(),
                    MetricKind::$kind,
                    self.$field.get(),
                )),*]
            }
        }
    };
}

counters! {
    /// Messages whose handling has ended: published, run or set aside.
    processed: Total, "consumers_messages_processed";
    /// Errors: refused messages, lost connections and failed connects.
    errors: Total, "consumers_errors";
    /// Messages received from the broker, with those that it sent again.
    received: Total, "consumers_messages_received";
    /// Messages that the broker marked as sent before.
    redelivered: Total, "consumers_messages_redelivered";
    /// Publications that a channel accepted, or had accepted before.
    published: Total, "consumers_publications";
    /// Attempts that failed and were repeated.
    retried: Total, "consumers_attempts_retried";
    /// Messages that were set aside because the node could not publish them.
    set_aside: Total, "consumers_messages_set_aside";
    /// Connections to the broker after the first.
    reconnects: Total, "consumers_reconnects";
    /// Pauses of reading because messages of `prefetch_bytes` waited.
    pauses: Total, "consumers_pauses";
    /// Messages that are being handled.
    in_flight: Gauge, "consumers_messages_in_flight";
    /// Whether the consumer receives from the broker: 1 or 0.
    up: Gauge, "consumers_up";
}

/// A number that one task writes and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to the number.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Sets the number.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
