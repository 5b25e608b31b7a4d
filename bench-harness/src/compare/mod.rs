//! The command `compare`: compares latencies in tables, a plot and a page.
//!
//! Owns the flags and the written files. Never measures.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::arguments::Units;
use self::comparison::{Comparison, compare, plot_of};
use crate::plot::{self, Plot};

mod arguments;
mod comparison;
mod hgrm;
mod hlog;
mod input;
mod load;
mod measured;
mod page;
pub(crate) mod recorded;
mod table;

/// Names of the files that `--out` adds.
const DRAWING: &str = "compare.svg";
const PAGE: &str = "compare.html";

/// Flags of `compare`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Result files (.json), .hgrm or .hlog files, or outputs of wrk2 --latency. All others are
    /// compared with the first. `PATH:SERIES` takes one series of a file (or one tag of a .hlog);
    /// `NAME=PATH` names the input.
    #[arg(required = true)]
    pub inputs: Vec<String>,
    /// Folder for compare.svg and compare.html.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Unit of files that state no unit: ns, us, ms or s; FILE=UNIT for a single file.
    #[arg(long)]
    pub unit: Vec<String>,
    /// Compare inputs with different loads.
    #[arg(long)]
    pub despite_load: bool,
}

/// Compares, prints the tables and writes the files.
pub fn run(options: &Options) -> Result<()> {
    let inputs = input::read_all(&options.inputs, &Units::parse(&options.unit)?)?;
    let comparison = compare(&inputs, options.despite_load)?;
    if let Some(out) = &options.out {
        write(&comparison, out)?;
    }
    print!("{}", text(&comparison));
    if let Some(out) = &options.out {
        println!("\nWrote {0}/{DRAWING} and {0}/{PAGE}", out.display());
    }
    Ok(())
}

/// All tables and notes.
fn text(comparison: &Comparison<'_>) -> String {
    let tables: Vec<String> = comparison.groups.iter().map(table::render).collect();
    let mut out = tables.join("\n");
    for note in &comparison.notes {
        out.push_str(&format!("  {note}\n"));
    }
    out
}

fn write(comparison: &Comparison<'_>, out: &Path) -> Result<()> {
    let context = || format!("cannot write {}", out.display());
    let mut plots: Vec<Plot> = comparison
        .groups
        .iter()
        .map(|group| plot_of(group, group.name.unwrap_or("Latencies compared")))
        .collect();
    if let Some(first) = plots.first_mut() {
        first.subtitle = comparison.notes.join("\n");
    }
    let files = [(DRAWING, plot::stack(&plots)?), (PAGE, page::render(comparison)?)];
    fs::create_dir_all(out).with_context(context)?;
    for (name, text) in files {
        fs::write(out.join(name), text).with_context(context)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::input::tests::{inputs, result_file};
    use super::*;
    use crate::histogram_text::hgrm;
    use crate::run::Run;

    #[test]
    fn the_page_holds_every_series_and_loads_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = result_file(root.path(), "slow", 7, &["readers", "probes <b>"]);
        let table = root.path().join("theirs-us.hgrm");
        let readers = recorded::histograms(&Run::read(&path).unwrap().latency[0]).unwrap();
        fs::write(&table, hgrm(readers.total(), 1000.0)).unwrap();
        let two = inputs(&[&path, &table]);
        let comparison = compare(&two, false).unwrap();
        assert!(
            comparison.notes.iter().any(|note| note.contains("load of these inputs is unknown")),
            "{comparison:?}"
        );
        let out = root.path().join("out");
        write(&comparison, &out).unwrap();
        let page = fs::read_to_string(out.join(PAGE)).unwrap();
        for part in ["src=", "href=", "url(", "@import", "<script", "<b>"] {
            assert!(!page.contains(part), "{part}");
        }
        for part in [
            "lang=\"en\"",
            "71965af00",
            "Linux 6.18.0",
            "Some CPU",
            "drumline-bench idle",
            "probes &lt;b&gt;",
            "not known",
            "prefers-color-scheme",
        ] {
            assert!(page.contains(part), "{part}");
        }
        let drawing = fs::read_to_string(out.join(DRAWING)).unwrap();
        assert_eq!(drawing.matches("<polyline").count(), 5, "a .hgrm has no seconds");
        assert!(page.contains("<svg") && !drawing.contains("NaN"));
        let text = text(&comparison);
        assert!(text.contains("theirs-us.hgrm") && text.contains("slow: probes <b>"), "{text}");
    }
}
