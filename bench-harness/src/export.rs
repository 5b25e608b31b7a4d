//! The command `export`: the plot of a result file, and its histograms for other tools.
//!
//! Owns the names of the exported files. Never changes a result file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::compare::recorded;
use crate::environment::Environment;
use crate::histogram_text::hgrm;
use crate::plot::{self, Plot, Series};
use crate::run::{Latency, Run};

/// Names of the exported plots: latencies, and values over time.
const PLOT: &str = "plot.svg";
const OVER_TIME: &str = "over-time.svg";
/// Nanoseconds per microsecond, the unit of exported .hgrm files.
const NS_PER_US: f64 = 1000.0;

/// A run with more series gets one plot per group, the part of a name before the first comma.
const LINES_PER_PLOT: usize = 12;

/// Flags of `export`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Result file of a scenario.
    pub run: PathBuf,
    /// Folder for the plot and the histograms.
    #[arg(long)]
    pub out: PathBuf,
}

/// Writes the files and prints their paths.
pub fn run(options: &Options) -> Result<()> {
    for path in write(&Run::read(&options.run)?, &options.out)? {
        println!("{}", path.display());
    }
    Ok(())
}

/// Writes plot.svg with a .hgrm (in us) and a .hlog (in ns) per latency series, and over-time.svg
/// if the scenario sampled the server.
fn write(run: &Run, out: &Path) -> Result<Vec<PathBuf>> {
    ensure!(
        !run.latency.is_empty() || !run.timelines.is_empty(),
        "the scenario {} records no latency and no values over time",
        run.scenario
    );
    let mut files = Vec::new();
    if !run.latency.is_empty() {
        files.push((PLOT.to_owned(), svg(run)?));
    }
    if !run.timelines.is_empty() {
        files.push((OVER_TIME.to_owned(), over_time(run)?));
    }
    for entry in &run.latency {
        let name = file_name(&entry.series);
        let histograms = recorded::histograms(entry)?;
        files.push((format!("{name}-us.hgrm"), hgrm(histograms.total(), NS_PER_US)));
        files.push((format!("{name}.hlog"), entry.hlog_text()));
    }
    for (nth, (name, _)) in files.iter().enumerate() {
        let twin = files[..nth].iter().any(|(other, _)| other == name);
        ensure!(!twin, "two series of {} would be written to {name}", run.scenario);
    }
    let context = || format!("cannot write to {}", out.display());
    fs::create_dir_all(out).with_context(context)?;
    let mut paths = Vec::new();
    for (name, text) in files {
        paths.push(out.join(name));
        fs::write(&paths[paths.len() - 1], text).with_context(context)?;
    }
    Ok(paths)
}

/// The plot of all latency series of a run, as an SVG document.
pub fn svg(run: &Run) -> Result<String> {
    let mut plots: Vec<Plot> = Vec::new();
    let many = run.latency.len() > LINES_PER_PLOT;
    for entry in &run.latency {
        let name = entry.series.as_str();
        let (group, name) = name.split_once(", ").filter(|_| many).unwrap_or(("", name));
        let title = match group {
            "" => run.title.clone(),
            group => format!("{}: {group}", run.title),
        };
        let series = series(name, entry)?;
        match plots.iter_mut().find(|plot| plot.title == title) {
            Some(plot) => plot.series.push(series),
            None => {
                plots.push(Plot { title, subtitle: subtitle(run), series: vec![series] });
            }
        }
    }
    for later in plots.iter_mut().skip(1) {
        later.subtitle.clear();
    }
    plot::stack(&plots)
}

/// The values of a run over time, as an SVG document.
pub fn over_time(run: &Run) -> Result<String> {
    plot::over_time(&run.title, &subtitle(run), &run.timelines)
}

fn subtitle(run: &Run) -> String {
    let Environment { commit, kernel, .. } = &run.environment;
    format!("{}\ncommit {commit} · {kernel}", run.load)
}

fn series(name: &str, entry: &Latency) -> Result<Series> {
    let distribution = recorded::series(entry)?.distribution;
    Ok(Series {
        name: name.to_owned(),
        percentiles: distribution.curve,
        worst: distribution.worst,
        step: distribution.step,
    })
}

/// A series name as a file name: each run of characters other than letters, digits and dots
/// becomes one dash.
pub fn file_name(series: &str) -> String {
    let mut out = String::new();
    for c in series.chars() {
        if c.is_ascii_alphanumeric() || c == '.' {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    let trimmed = out.trim_matches(['-', '.']);
    if trimmed.is_empty() { "latency".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram_text::{self, tests::recorder};
    use crate::run::tests::run;

    #[test]
    fn an_export_holds_the_plot_and_both_formats_of_each_series() {
        let root = tempfile::tempdir().unwrap();
        let series =
            [("Drumline, 10k/s".to_owned(), recorder(1)), ("peer".to_owned(), recorder(3))];
        let mut run = run();
        run.write(root.path(), &series).unwrap();
        let out = root.path().join("out");
        let paths = write(&run, &out).unwrap();
        let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(
            names,
            [PLOT, "drumline-10k-s-us.hgrm", "drumline-10k-s.hlog", "peer-us.hgrm", "peer.hlog"]
        );
        let text = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(text("peer.hlog"), histogram_text::hlog(&series[1].1).unwrap());
        // The last line is the memory layout of the histogram, which decoding makes smaller.
        let rows = |text: &str| text[..text.rfind("#[Buckets").unwrap()].to_owned();
        let recorded = hgrm(series[1].1.total().unwrap(), NS_PER_US);
        assert_eq!(rows(&text("peer-us.hgrm")), rows(&recorded));
        assert_eq!(
            text(PLOT).matches("<polyline").count(),
            4,
            "a lone second after a silent one is a dot"
        );
        for (names, part) in [
            (vec!["a b", "a-b"], "two series of unicast would be written to a-b-us.hgrm"),
            (vec![], "records no latency and no values over time"),
        ] {
            let series: Vec<_> =
                names.into_iter().map(|name| (name.to_owned(), recorder(1))).collect();
            run.write(root.path(), &series).unwrap();
            let error = write(&run, &out).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_run_that_only_sampled_the_server_exports_its_values_over_time() {
        use crate::timeline::{Timeline, TimelineLine};
        let (values, name) = (vec![60.0, 61.0], "RssAnon".to_owned());
        let lines = vec![TimelineLine { name, first: 0.0, step: 1.0, values }];
        let mut run = run();
        run.timelines = vec![Timeline { title: "memory".into(), unit: "MiB".into(), lines }];
        let root = tempfile::tempdir().unwrap();
        let path = run.write(root.path(), &[]).unwrap();
        let paths = write(&Run::read(&path).unwrap(), &root.path().join("out")).unwrap();
        assert_eq!(paths, [root.path().join("out").join(OVER_TIME)]);
        let text = fs::read_to_string(&paths[0]).unwrap();
        assert!(text.contains(">memory<") && text.contains(">MiB<"), "{text}");
    }

    #[test]
    fn many_series_are_drawn_by_groups() {
        let root = tempfile::tempdir().unwrap();
        let series = |count: usize| -> Vec<(String, crate::latency::Recorder)> {
            let name =
                |i: usize| format!("{} shards, load {i}", if i < count / 2 { 2 } else { 60 });
            (0..count).map(|i| (name(i), recorder(1))).collect()
        };
        let mut run = run();
        run.write(root.path(), &series(LINES_PER_PLOT)).unwrap();
        let one = svg(&run).unwrap();
        assert!(one.contains(">Unicast</text>") && one.contains(">2 shards, load 0</text>"));
        run.write(root.path(), &series(LINES_PER_PLOT + 1)).unwrap();
        let two = svg(&run).unwrap();
        for part in [">Unicast: 2 shards</text>", ">Unicast: 60 shards</text>", ">load 12</text>"] {
            assert_eq!(two.matches(part).count(), 1, "{part}");
        }
    }
}
