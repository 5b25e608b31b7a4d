//! The inputs of a comparison: result files, and histogram files of any tool.
//!
//! Owns the recognition of file formats. Never passes over a series. Invariant: an error is one
//! sentence that names the file, the cause and the remedy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::arguments::{self, Argument, Units};
use super::measured::{Measured, Unit};
use super::{hgrm, hlog, recorded};
use crate::run::{EXTENSION, Run};

/// One input with its series.
#[derive(Debug)]
pub struct Input {
    /// Name in tables, different from all others.
    pub label: String,
    /// The file.
    pub path: PathBuf,
    /// The run, if the file is a result file.
    pub run: Option<Run>,
    /// Series of the file; at least one.
    pub series: Vec<Measured>,
}

/// Reads every input. An error names the input that cannot be compared.
pub fn read_all(inputs: &[String], units: &Units) -> Result<Vec<Input>> {
    let parsed: Vec<Argument> =
        inputs.iter().map(|text| Argument::parse(text)).collect::<Result<_>>()?;
    for (path, _) in &units.by_file {
        let known = parsed.iter().any(|argument| argument.path == *path);
        ensure!(known, "--unit names {}, which is not compared", path.display());
    }
    let labels = arguments::labels(&parsed);
    parsed.into_iter().zip(labels).map(|(one, label)| read(one, label, units)).collect()
}

fn read(argument: Argument, label: String, units: &Units) -> Result<Input> {
    let path = argument.path;
    let (run, series) = file(&path, units)
        .and_then(|(run, all)| Ok((run, choose(all, argument.series.as_deref())?)))
        .map_err(|error| anyhow!("{}: {error:#}", path.display()))?;
    Ok(Input { label, path, run, series })
}

fn choose(all: Vec<Measured>, wanted: Option<&str>) -> Result<Vec<Measured>> {
    let Some(wanted) = wanted else { return Ok(all) };
    let names: Vec<String> = all.iter().map(|one| format!("\"{}\"", one.name)).collect();
    let chosen: Vec<Measured> = all.into_iter().filter(|one| one.name == wanted).collect();
    ensure!(
        !chosen.is_empty(),
        "has no series \"{wanted}\": write one of {} behind the colon",
        names.join(", ")
    );
    Ok(chosen)
}

fn is_result_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// The series of a file, and the run if it is a result file.
fn file(path: &Path, units: &Units) -> Result<(Option<Run>, Vec<Measured>)> {
    if path.is_dir() {
        bail!("is a folder: {}", instead(path));
    }
    if is_result_file(path) {
        let run = Run::read(path)?;
        ensure!(
            !run.latency.is_empty(),
            "has no latencies: the scenario {} measures none",
            run.scenario
        );
        let series = run.latency.iter().map(recorded::series).collect::<Result<_>>()?;
        return Ok((Some(run), series));
    }
    let text = text(path)?;
    let series = if text.lines().any(hlog::is_log_line) {
        of_log(path, &text, units)?
    } else {
        of_table(path, &text, units)?
    };
    Ok((None, series))
}

/// What to give in place of a folder.
fn instead(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<String> = entries
        .map(|entry| entry.path())
        .filter(|path| is_result_file(path))
        .map(|path| path.display().to_string())
        .collect();
    files.sort();
    if files.is_empty() {
        format!("give a file; the folder holds no result file (.{EXTENSION})")
    } else {
        format!("give a result file: {}", files.join(" or "))
    }
}

fn text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).context("cannot be read")?;
    ensure!(!bytes.is_empty(), "is empty: write the file again");
    let binary = "is not text: give a result file (.json), a .hgrm or a .hlog";
    String::from_utf8(bytes).map_err(|_| anyhow!(binary))
}

fn of_log(path: &Path, text: &str, units: &Units) -> Result<Vec<Measured>> {
    let log = hlog::read(text)?;
    let unit = units.of(path, log.unit)?;
    let read = |tag: &hlog::Tag| {
        let name = tag.name.clone().unwrap_or_else(|| stem(path));
        let distribution = tag.distribution(unit).map_err(|error| match &tag.name {
            Some(tag) => anyhow!("with tag {tag} {error}"),
            None => error,
        })?;
        Ok(Measured { name, distribution, lost: None })
    };
    log.tags.iter().map(read).collect()
}

fn of_table(path: &Path, text: &str, units: &Units) -> Result<Vec<Measured>> {
    let spectra = hgrm::read(text)?;
    let suffix = suffix(path);
    let read = |spectrum: &hgrm::Spectrum| {
        let unit = units.of(path, spectrum.unit.or(suffix))?;
        let name = spectrum.name.clone().filter(|_| spectra.len() > 1);
        let distribution = spectrum.distribution(unit);
        Ok(Measured { name: name.unwrap_or_else(|| stem(path)), distribution, lost: None })
    };
    spectra.iter().map(read).collect()
}

/// The unit in a file name, as in exported files: `latency-us.hgrm`.
fn suffix(path: &Path) -> Option<Unit> {
    let stem = path.file_stem()?.to_str()?;
    let (_, last) = stem.rsplit_once('-')?;
    Unit::named(last).ok().filter(|unit| *unit != Unit::S)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::histogram_text;
    use crate::latency::Recorder;
    use crate::rows::Row;
    use crate::run::tests::environment;
    use std::time::SystemTime;

    const TABLE: &str = "Value Percentile TotalCount 1/(1-Percentile)\n\
        1.0 0.5 2 2.00\n3.0 1.0 4\n#[Max     =        3.000, Total count    =            4]\n";

    /// Writes the result file of a run with these series, of 1,000 deliveries each, one lost.
    pub(crate) fn result_file(root: &Path, scenario: &str, load: u64, series: &[&str]) -> PathBuf {
        let day = format!("2026-11-{:02}T10:00:00Z", 1 + load % 28);
        let mut run = Run::new(
            scenario,
            "A run",
            &format!("{load} connections, 2 shards"),
            environment(&day, "71965af00"),
        );
        run.parameters.insert("connections".to_owned(), load.into());
        run.parameters.insert("shards".to_owned(), 2.into());
        run.rows.push(Row::new("p99", 1.0, "ns"));
        let recorded: Vec<(String, Recorder)> = series
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let mut recorder = Recorder::new(SystemTime::UNIX_EPOCH).unwrap();
                recorder.expect(1001);
                for nth in 1..=1000 {
                    recorder.record(nth * 5_000_000, nth * 1000 * (i as u64 + 1)).unwrap();
                }
                ((*name).to_owned(), recorder)
            })
            .collect();
        run.write(root, &recorded).unwrap()
    }

    pub(crate) fn inputs(paths: &[&Path]) -> Vec<Input> {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        read_all(&paths, &Units::default()).unwrap()
    }

    fn read_with(inputs: &[String], units: &[&str]) -> Result<Vec<Input>> {
        let units: Vec<String> = units.iter().map(|unit| (*unit).to_owned()).collect();
        read_all(inputs, &Units::parse(&units)?)
    }

    fn refused(path: &Path, units: &[&str], part: &str) {
        let name = path.display().to_string();
        let error = format!("{:#}", read_with(std::slice::from_ref(&name), units).unwrap_err());
        assert!(error.contains(part) && error.contains(&name), "\"{part}\" not in: {error}");
        assert!(!error.contains('\n'), "one sentence: {error}");
    }

    #[test]
    fn a_result_file_and_its_exported_histograms_read_alike() {
        let root = tempfile::tempdir().unwrap();
        let path = result_file(root.path(), "latency", 7, &["drumline"]);
        let run = Run::read(&path).unwrap();
        let (log, table) = (root.path().join("x.hlog"), root.path().join("x-us.hgrm"));
        let histogram = recorded::histograms(&run.latency[0]).unwrap();
        fs::write(&log, run.latency[0].hlog_text()).unwrap();
        fs::write(&table, histogram_text::hgrm(histogram.total(), 1000.0)).unwrap();
        let read = inputs(&[&path, &log, &table]);
        let stated = run.latency[0].percentiles;
        let wanted = [stated.p50, stated.p90, stated.p99, stated.p99_9, stated.p99_99];
        for input in &read {
            let one = &input.series[0];
            assert_eq!(one.distribution.count, 1000);
            for (reading, wanted) in one.distribution.percentiles.iter().zip(wanted) {
                let off = reading.unwrap().ns / wanted as f64 - 1.0;
                assert!(off.abs() < 0.002, "{reading:?} {wanted}");
            }
            assert!((one.distribution.max_ns / stated.max as f64 - 1.0).abs() < 1e-3);
        }
        assert_eq!(read[0].series[0].distribution, read[1].series[0].distribution);
        assert_eq!(read[0].series[0].distribution.worst.len(), 6);
        let names: Vec<_> = read.iter().map(|input| &input.series[0].name).collect();
        assert_eq!(names, ["drumline", "x", "x-us"]);
        let lost: Vec<_> = read.iter().map(|input| input.series[0].lost).collect();
        assert_eq!(lost, [Some(1), None, None], "only a result file counts losses");
        assert!(read[0].run.as_ref() == Some(&run) && read[1].run.is_none());
    }

    #[test]
    fn an_argument_chooses_one_series_or_names_an_input() {
        let root = tempfile::tempdir().unwrap();
        let folder = result_file(root.path(), "slow", 7, &["readers", "probes, alone"]);
        let text = folder.display().to_string();
        let arguments = [format!("{text}:probes, alone"), text.clone(), format!("old={text}")];
        let read = read_with(&arguments, &[]).unwrap();
        assert_eq!(read[0].series.len(), 1);
        assert_eq!(read[0].series[0].name, "probes, alone");
        assert_eq!(read[1].series.len(), 2);
        let labels: Vec<&str> = read.iter().map(|input| input.label.as_str()).collect();
        assert_eq!(labels, ["slow: probes, alone", "slow", "old"]);
        let error = read_with(&[format!("{text}:other")], &[]).unwrap_err().to_string();
        assert!(error.contains("write one of \"readers\", \"probes, alone\""), "{error}");
    }

    #[test]
    fn labels_are_the_shortest_that_differ() {
        let root = tempfile::tempdir().unwrap();
        let folders = [7, 8].map(|load| result_file(root.path(), "latency", load, &["drumline"]));
        let read = inputs(&[&folders[0], &folders[1]]);
        assert_eq!(read[0].label, "2026-11-08-71965af00/latency");
        assert_eq!(read[1].label, "2026-11-09-71965af00/latency");
        let twins = inputs(&[&folders[0], &folders[0]]);
        assert!(twins[0].label.ends_with("latency (1)") && twins[1].label.ends_with("latency (2)"));
    }

    #[test]
    fn units_come_from_the_file_or_from_a_flag() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = root.path().join(name);
            fs::write(&path, TABLE).unwrap();
            path
        };
        let (foreign, ours) = (file("theirs.hgrm"), file("latency-us.hgrm"));
        refused(&foreign, &[], "does not state the unit of its latencies: add --unit");
        let text = |path: &Path| path.display().to_string();
        let max = |path: &Path, units: &[&str]| {
            read_with(&[text(path)], units).unwrap()[0].series[0].distribution.max_ns
        };
        assert_eq!(max(&foreign, &["ms"]), 3e6);
        assert_eq!(max(&ours, &["ms"]), 3e3, "a file that states its unit keeps it");
        let own = format!("{}=s", text(&foreign));
        assert_eq!(max(&foreign, &["us", &own]), 3e9);
        refused(&ours, &[&format!("{}=ms", text(&ours))], "mixes units: --unit says ms");
        for (units, part) in [
            (vec!["minutes"], "not a unit of time"),
            (vec!["us", "ms"], "given twice"),
            (vec!["other.hgrm=us"], "other.hgrm, which is not compared"),
        ] {
            let error = read_with(&[text(&foreign)], &units).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn files_without_histograms_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = root.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        refused(&root.path().join("nothing"), &[], "no such file");
        refused(&file("empty.hgrm", b""), &[], "is empty");
        refused(&file("picture.hlog", b"\xff\xd8\xff"), &[], "is not text");
        refused(&file("other.txt", b"p99 is 3 ms\n"), &[], "holds no percentile table");
        refused(&file("cut.hgrm", &TABLE.as_bytes()[..70]), &["us"], "cut off");
        refused(&file("cut.hlog", b"0.000,1.000,4.358,HISTFAAAAcJ4nDW"), &["ns"], "line 1");
    }

    #[test]
    fn folders_and_result_files_without_latencies_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = result_file(root.path(), "latency", 7, &["drumline"]);
        refused(path.parent().unwrap(), &[], &format!("give a result file: {}", path.display()));
        refused(root.path(), &[], "the folder holds no result file");
        refused(
            &result_file(root.path(), "memory", 7, &[]),
            &[],
            "the scenario memory measures none",
        );
        let mut run = Run::read(&path).unwrap();
        run.latency[0].hlog.pop();
        fs::write(&path, serde_json::to_string(&run).unwrap()).unwrap();
        refused(&path, &[], "percentiles beside them were taken of 1000 latencies");
        fs::write(&path, "{\"format\":").unwrap();
        refused(&path, &[], "cannot read the result file");
    }
}
