//! The latency series of a result file.
//!
//! Owns decoding the histograms of a result file. Never reads a file. Invariant: a decoded
//! histogram agrees with the count and the maximum that the result file states.

use anyhow::{Context, Result, bail, ensure};

use super::hlog::{self, Tag};
use super::measured::{Measured, Unit};

use crate::run::Latency;

/// Decodes the histograms of a series, in ns.
pub fn histograms(entry: &Latency) -> Result<Tag> {
    let context = || format!("the histograms of series \"{}\" are damaged", entry.series);
    let log = hlog::read(&entry.hlog_text()).with_context(context)?;
    let Ok([tag]) = <[Tag; 1]>::try_from(log.tags) else {
        bail!("{}: the interval log has several tags", context());
    };
    let stated = &entry.percentiles;
    let (count, max) = (tag.total().len(), tag.total().max());
    ensure!(
        count == stated.count && (max as f64 / stated.max as f64 - 1.0).abs() < 0.01,
        "{}: they hold {count} latencies of at most {max} ns, and the percentiles beside them \
         were taken of {} latencies of at most {} ns; run the scenario again",
        context(),
        stated.count,
        stated.max
    );
    Ok(tag)
}

/// Decodes a series for a comparison or a plot.
pub fn series(entry: &Latency) -> Result<Measured> {
    let distribution = histograms(entry)?.distribution(Unit::Ns)?;
    let (name, lost) = (entry.series.clone(), Some(entry.deliveries.lost()));
    Ok(Measured { name, distribution, lost })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::input::tests::result_file;
    use crate::run::Run;

    #[test]
    fn histograms_that_disagree_with_the_stated_numbers_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = result_file(root.path(), "latency", 7, &["drumline"]);
        let run = Run::read(&path).unwrap();
        let whole = &run.latency[0];
        assert_eq!(histograms(whole).unwrap().total().len(), 1000);
        let refused = |change: &dyn Fn(&mut Latency), part: &str| {
            let mut entry = whole.clone();
            change(&mut entry);
            let error = format!("{:#}", histograms(&entry).unwrap_err());
            assert!(error.contains(part) && error.contains("\"drumline\""), "{error}");
        };
        refused(&|entry| drop(entry.hlog.pop()), "were taken of 1000 latencies");
        refused(&|entry| entry.percentiles.max *= 2, "run the scenario again");
        refused(&|entry| entry.hlog.clear(), "has no interval");
        let cut = |entry: &mut Latency| {
            let last = entry.hlog.last_mut().unwrap();
            last.truncate(last.len() - 9);
        };
        refused(&cut, "cannot be read");
        let tagged = |entry: &mut Latency| {
            let last = entry.hlog.last_mut().unwrap();
            *last = format!("Tag=other,{last}");
        };
        refused(&tagged, "several tags");
    }
}
