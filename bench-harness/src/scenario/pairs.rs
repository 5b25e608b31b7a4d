//! Measurements in pairs: one condition against another, in turn, within one run.
//!
//! Owns the number of pairs, the interval of a median, and the load that pairs share. Never
//! measures. Invariant: an interval holds the median with a probability of at least 95%, whatever
//! the distribution.

use anyhow::{Result, ensure};

use super::{Burst, SECOND_NS};
use crate::dense::Channels;
use crate::publish::{Api, Post};
use crate::server::API_KEY;
use crate::wire::Data;

/// Least number of pairs.
pub const PAIRS_MIN: usize = 9;
/// The pairs end once every interval is narrower than this.
pub const INTERVAL_MAX: f64 = 0.10;
/// Bytes of data in a publication.
const BYTES: usize = 128;
/// Publications per second.
pub const UNICAST_RATE: u64 = 2_000;

/// Publications to one channel after the other, for so many seconds, by so many kept-alive HTTP
/// connections.
pub fn unicast(seconds: u64, publishers: u64, channels: Channels) -> Burst {
    Burst {
        api: Api::Http(Post::drumline(API_KEY)),
        publishers,
        channels,
        data: Data::Filled(BYTES),
        messages: UNICAST_RATE * seconds,
        interval_ns: SECOND_NS / UNICAST_RATE,
        per_frame: 1,
    }
}

/// The ends of an interval that holds the median with a probability of at least 95%, whatever the
/// distribution: two order statistics, by the binomial distribution. An error below six values.
pub fn interval(mut values: Vec<f64>) -> Result<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    // The probability that at most `cut` of the values lie below the median.
    let mut tail = 0.5f64.powi(count as i32);
    let mut term = tail;
    ensure!(2.0 * tail <= 0.05, "an interval of {count} values cannot be told");
    let mut cut = 0;
    loop {
        term *= (count - cut) as f64 / (cut + 1) as f64;
        if 2.0 * (tail + term) > 0.05 {
            break;
        }
        tail += term;
        cut += 1;
    }
    Ok((values[cut], values[count - 1 - cut]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_tables_for_the_sign_test() {
        // Ranks (from 1) of the ends, from printed tables of the 95% interval of a median.
        for (count, low, high) in
            [(6, 1, 6), (9, 2, 8), (10, 2, 9), (12, 3, 10), (20, 6, 15), (25, 8, 18), (40, 14, 27)]
        {
            let values: Vec<f64> = (1..=count).rev().map(f64::from).collect();
            assert_eq!(interval(values).unwrap(), (f64::from(low), f64::from(high)), "{count}");
        }
        assert!(interval(vec![1.0; 5]).is_err());
    }
}
