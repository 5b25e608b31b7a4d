//! What is compared: results folders, and files of this harness or of anyone.
//!
//! Owns finding out what an argument is, and the account of a series from summary.json. Never
//! guesses a unit, and never passes over a series. Invariant: an error is one sentence that names
//! the file, the cause and the cure.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::measured::{Distribution, Unit};
use super::{hgrm, hlog};
use crate::files::{Latency, Run, SUMMARY};

/// One argument, read.
#[derive(Debug)]
pub struct Input {
    /// Its name in tables, unlike all others'.
    pub label: String,
    /// Where it was read from.
    pub path: PathBuf,
    /// The run that it belongs to, if there is a summary.json.
    pub run: Option<Run>,
    /// Its series; at least one.
    pub series: Vec<Measured>,
}

/// One series of an input.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The series, the tag, or the file.
    pub name: String,
    /// Its latencies.
    pub distribution: Distribution,
    /// Deliveries that never came; `None` where nothing tells.
    pub lost: Option<u64>,
}

/// Units of files that don't state their own.
#[derive(Debug, Default)]
pub struct Units {
    all: Option<Unit>,
    of: Vec<(PathBuf, Unit)>,
}

impl Units {
    /// From `UNIT`, for all such files, and `FILE=UNIT`.
    pub fn parse(told: &[String]) -> Result<Self> {
        let mut units = Units::default();
        for one in told {
            match one.rsplit_once('=') {
                Some((path, unit)) => units.of.push((PathBuf::from(path), Unit::named(unit)?)),
                None => {
                    ensure!(
                        units.all.is_none(),
                        "--unit is given twice: for one file of several \
                         write --unit FILE=UNIT"
                    );
                    units.all = Some(Unit::named(one)?);
                }
            }
        }
        Ok(units)
    }

    /// The unit of a file that states `stated`.
    fn of(&self, path: &Path, stated: Option<Unit>) -> Result<Unit> {
        let own = self.of.iter().find(|(of, _)| of == path).map(|(_, unit)| *unit);
        match (own, stated) {
            (Some(own), Some(stated)) if own != stated => bail!(
                "mixes units: --unit says {own}, and the file itself {stated}; leave the flag out"
            ),
            (_, Some(unit)) | (Some(unit), None) => Ok(unit),
            (None, None) => self.all.context(
                "does not state the unit of its latencies: add --unit ns, us, ms or s (or --unit \
                 FILE=UNIT where files differ)",
            ),
        }
    }
}

/// An argument taken apart: `[NAME=]PATH[:SERIES]`.
#[derive(Debug, PartialEq)]
struct Place {
    name: Option<String>,
    path: PathBuf,
    series: Option<String>,
}

impl Place {
    fn find(told: &str) -> Result<Self> {
        let named = told.split_once('=').filter(|(name, _)| !name.contains('/'));
        let readings = [Some((None, told)), named.map(|(name, path)| (Some(name), path))];
        for (name, rest) in readings.into_iter().flatten() {
            let ends = rest.match_indices(':').map(|(at, _)| at).chain([rest.len()]);
            let mut paths: Vec<usize> =
                ends.filter(|end| Path::new(&rest[..*end]).exists()).collect();
            if let Some(end) = paths.pop() {
                let series = rest[end..].strip_prefix(':').map(str::to_owned);
                let name = name.map(str::to_owned);
                return Ok(Place { name, path: PathBuf::from(&rest[..end]), series });
            }
        }
        bail!("{told}: there is no such file or folder; give a results folder, a .hgrm or a .hlog")
    }
}

/// Reads every argument. An error names the one that cannot be compared.
pub fn read_all(arguments: &[String], units: &Units) -> Result<Vec<Input>> {
    let places: Vec<Place> =
        arguments.iter().map(|told| Place::find(told)).collect::<Result<_>>()?;
    for (path, _) in &units.of {
        let known = places.iter().any(|place| place.path == *path);
        ensure!(known, "--unit names {}, which is not compared", path.display());
    }
    let labels = labels(&places);
    places.into_iter().zip(labels).map(|(place, label)| read(place, label, units)).collect()
}

fn read(place: Place, label: String, units: &Units) -> Result<Input> {
    let path = place.path;
    let told = if path.is_dir() { folder(&path) } else { file(&path, units) };
    let chosen = told.and_then(|(run, series)| Ok((run, choose(series, place.series.as_deref())?)));
    let (run, series) = chosen.map_err(|error| anyhow!("{}: {error:#}", path.display()))?;
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

type Told = (Option<Run>, Vec<Measured>);

fn folder(path: &Path) -> Result<Told> {
    let summary = path.join(SUMMARY);
    if !summary.exists() {
        bail!("has no {SUMMARY}: {}", instead(path));
    }
    let run = Run::read(&summary)
        .map_err(|error| anyhow!("cannot be compared: {error:#}; run the scenario again"))?;
    ensure!(
        !run.latency.is_empty(),
        "has no latencies: the scenario {} measures none; give a folder with a .hlog",
        run.scenario
    );
    let series = run.latency.iter().map(|entry| of_folder(path, entry));
    let series = series.collect::<Result<_>>()?;
    Ok((Some(run), series))
}

/// What may be given in place of a folder without a summary.
fn instead(path: &Path) -> String {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut scenarios: Vec<String> = entries
        .filter(|entry| entry.path().join(SUMMARY).exists())
        .map(|entry| entry.path().display().to_string())
        .collect();
    scenarios.sort();
    if scenarios.is_empty() {
        "it is no results folder, or its run was not finished; run the scenario again".to_owned()
    } else {
        format!("give a scenario's folder: {}", scenarios.join(" or "))
    }
}

/// A series of a folder: the histogram from its log, held against the summary.
fn of_folder(path: &Path, entry: &Latency) -> Result<Measured> {
    let told = || format!("cannot be compared: its {}", entry.hlog);
    let text = text(&path.join(&entry.hlog)).with_context(told)?;
    let log = hlog::read(&text).with_context(told)?;
    let [tag] = &log.tags[..] else { bail!("{} has several tags, of one series", told()) };
    let distribution = tag.distribution(log.unit.unwrap_or(Unit::Ns)).with_context(told)?;
    of_summary(entry, distribution).with_context(told)
}

/// A series with the account of its summary, if that tells of the same latencies.
fn of_summary(entry: &Latency, distribution: Distribution) -> Result<Measured> {
    let told = &entry.percentiles;
    ensure!(
        distribution.count == told.count,
        "holds {} latencies and {SUMMARY} tells of {}: one of the two is cut off or of another \
         run; run the scenario again",
        distribution.count,
        told.count
    );
    ensure!(
        (distribution.max_ns / told.max as f64 - 1.0).abs() < 0.01,
        "has a maximum of {} ns and {SUMMARY} tells of {}: they mix units or runs; run the \
         scenario again",
        distribution.max_ns,
        told.max
    );
    let (name, lost) = (entry.series.clone(), Some(entry.deliveries.lost()));
    Ok(Measured { name, distribution, lost })
}

fn text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).context("cannot be read")?;
    ensure!(!bytes.is_empty(), "is empty: write the file again");
    let foreign = "is no text and so no histogram file: give a .hgrm, a .hlog or a results folder";
    String::from_utf8(bytes).map_err(|_| anyhow!(foreign))
}

/// The series of a file, as those of a run if a summary.json beside it names the file.
fn file(path: &Path, units: &Units) -> Result<Told> {
    let text = text(path)?;
    let found = if text.lines().any(hlog::is_log_line) {
        of_log(path, &text, units)?
    } else {
        of_table(path, &text, units)?
    };
    match (beside(path), &found[..]) {
        (Some((run, entry)), [one]) => {
            let series = of_summary(&entry, one.distribution.clone())?;
            Ok((Some(run), vec![series]))
        }
        _ => Ok((None, found)),
    }
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

/// The unit that a file's name states, as ours do: `latency-us.hgrm`.
fn suffix(path: &Path) -> Option<Unit> {
    let stem = path.file_stem()?.to_str()?;
    let (_, last) = stem.rsplit_once('-')?;
    Unit::named(last).ok().filter(|unit| *unit != Unit::S)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The run and the series whose file this is. A summary.json of anything else is not ours to read.
fn beside(path: &Path) -> Option<(Run, Latency)> {
    let run = Run::read(&path.parent()?.join(SUMMARY)).ok()?;
    let name = path.file_name()?.to_str()?;
    let mut entries = run.latency.iter();
    let entry = entries.find(|entry| entry.hgrm == name || entry.hlog == name)?.clone();
    Some((run, entry))
}

/// The shortest ends of the paths that tell all apart; what is given twice is numbered.
fn labels(places: &[Place]) -> Vec<String> {
    let parts: Vec<Vec<String>> = places.iter().map(|place| components(&place.path)).collect();
    let of_length = |length: usize| -> Vec<String> {
        places.iter().zip(&parts).map(|(place, parts)| label(place, parts, length)).collect()
    };
    let distinct = |length: &usize| of_length(*length).into_iter().collect::<HashSet<_>>().len();
    let longest = parts.iter().map(Vec::len).max().unwrap_or(1);
    let most = distinct(&longest);
    let labels = of_length((1..longest).find(|length| distinct(length) == most).unwrap_or(longest));
    let numbered = |(i, label): (usize, &String)| {
        let nth = labels[..=i].iter().filter(|other| *other == label).count();
        let alone = labels.iter().filter(|other| *other == label).count() == 1;
        if alone { label.clone() } else { format!("{label} ({nth})") }
    };
    labels.iter().enumerate().map(numbered).collect()
}

fn label(place: &Place, parts: &[String], length: usize) -> String {
    if let Some(name) = &place.name {
        return name.clone();
    }
    let end = parts[parts.len().saturating_sub(length)..].join("/");
    match &place.series {
        Some(series) => format!("{end}: {series}"),
        None => end,
    }
}

fn components(path: &Path) -> Vec<String> {
    let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    whole.iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::files::tests::environment;
    use crate::latency::Recorder;
    use crate::rows::Row;
    use std::time::SystemTime;

    const TABLE: &str = "Value Percentile TotalCount 1/(1-Percentile)\n\
        1.0 0.5 2 2.00\n3.0 1.0 4\n#[Max     =        3.000, Total count    =            4]\n";

    /// A finished run of `scenario` with these series, of 1,000 deliveries each, one lost.
    pub(crate) fn results(root: &Path, scenario: &str, load: u64, series: &[&str]) -> PathBuf {
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

    pub(crate) fn inputs(told: &[&Path]) -> Vec<Input> {
        let told: Vec<String> = told.iter().map(|path| path.display().to_string()).collect();
        read_all(&told, &Units::default()).unwrap()
    }

    fn read_with(told: &[String], units: &[&str]) -> Result<Vec<Input>> {
        let units: Vec<String> = units.iter().map(|unit| (*unit).to_owned()).collect();
        read_all(told, &Units::parse(&units)?)
    }

    fn refused(told: &Path, units: &[&str], part: &str) {
        let name = told.display().to_string();
        let error = format!("{:#}", read_with(std::slice::from_ref(&name), units).unwrap_err());
        assert!(error.contains(part) && error.contains(&name), "\"{part}\" not in: {error}");
        assert!(!error.contains('\n'), "one sentence: {error}");
    }

    #[test]
    fn a_folder_and_its_files_tell_the_same() {
        let root = tempfile::tempdir().unwrap();
        let folder = results(root.path(), "latency", 7, &["drumline"]);
        let (log, table) = (folder.join("drumline.hlog"), folder.join("drumline-us.hgrm"));
        let read = inputs(&[&folder, &log, &table]);
        for input in &read {
            let one = &input.series[0];
            assert_eq!((one.name.as_str(), one.lost), ("drumline", Some(1)));
            assert_eq!(one.distribution.count, 1000);
            let summary = input.run.as_ref().unwrap().latency[0].percentiles;
            let wanted = [summary.p50, summary.p90, summary.p99, summary.p99_9, summary.p99_99];
            for (reading, wanted) in one.distribution.percentiles.iter().zip(wanted) {
                let off = reading.unwrap().ns / wanted as f64 - 1.0;
                assert!(off.abs() < 0.002, "{reading:?} {wanted}");
            }
            assert!((one.distribution.max_ns / summary.max as f64 - 1.0).abs() < 1e-3);
        }
        assert_eq!(read[0].series[0].distribution, read[1].series[0].distribution);
        assert_eq!(read[0].series[0].distribution.worst.len(), 6);
        assert_eq!([&read[1].label, &read[2].label], ["drumline.hlog", "drumline-us.hgrm"]);
    }

    #[test]
    fn one_series_of_several_and_names() {
        let root = tempfile::tempdir().unwrap();
        let folder = results(root.path(), "slow", 7, &["readers", "probes, alone"]);
        let told = folder.display().to_string();
        let arguments = [format!("{told}:probes, alone"), told.clone(), format!("old={told}")];
        let read = read_with(&arguments, &[]).unwrap();
        assert_eq!(read[0].series.len(), 1);
        assert_eq!(read[0].series[0].name, "probes, alone");
        assert_eq!(read[1].series.len(), 2);
        let labels: Vec<&str> = read.iter().map(|input| input.label.as_str()).collect();
        assert_eq!(labels, ["slow: probes, alone", "slow", "old"]);
        let error = read_with(&[format!("{told}:nobody")], &[]).unwrap_err().to_string();
        assert!(error.contains("write one of \"readers\", \"probes, alone\""), "{error}");
    }

    #[test]
    fn labels_are_as_short_as_they_can_be() {
        let root = tempfile::tempdir().unwrap();
        let folders = [7, 8].map(|load| results(root.path(), "latency", load, &["drumline"]));
        let read = inputs(&[&folders[0], &folders[1]]);
        assert_eq!(read[0].label, "2026-11-08-71965af00/latency");
        assert_eq!(read[1].label, "2026-11-09-71965af00/latency");
        let twins = inputs(&[&folders[0], &folders[0]]);
        assert!(twins[0].label.ends_with("latency (1)") && twins[1].label.ends_with("latency (2)"));
    }

    #[test]
    fn units_are_stated_or_told() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = root.path().join(name);
            fs::write(&path, TABLE).unwrap();
            path
        };
        let (foreign, ours) = (file("theirs.hgrm"), file("latency-us.hgrm"));
        refused(&foreign, &[], "does not state the unit of its latencies: add --unit");
        let told = |path: &Path| path.display().to_string();
        let max = |path: &Path, units: &[&str]| {
            read_with(&[told(path)], units).unwrap()[0].series[0].distribution.max_ns
        };
        assert_eq!(max(&foreign, &["ms"]), 3e6);
        assert_eq!(max(&ours, &["ms"]), 3e3, "a file that states its unit keeps it");
        let own = format!("{}=s", told(&foreign));
        assert_eq!(max(&foreign, &["us", &own]), 3e9);
        refused(&ours, &[&format!("{}=ms", told(&ours))], "mixes units: --unit says ms");
        for (units, part) in [
            (vec!["minutes"], "no unit of time"),
            (vec!["us", "ms"], "given twice"),
            (vec!["other.hgrm=us"], "other.hgrm, which is not compared"),
        ] {
            let error = read_with(&[told(&foreign)], &units).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = root.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        refused(&root.path().join("nothing"), &[], "there is no such file or folder");
        refused(&file("empty.hgrm", b""), &[], "is empty");
        refused(&file("picture.hlog", b"\xff\xd8\xff"), &[], "is no text");
        refused(&file("other.txt", b"p99 is 3 ms\n"), &[], "holds no percentile table");
        refused(&file("cut.hgrm", &TABLE.as_bytes()[..70]), &["us"], "cut off");
        refused(&file("cut.hlog", b"0.000,1.000,4.358,HISTFAAAAcJ4nDW"), &["ns"], "line 1");
        refused(root.path(), &[], "has no summary.json: it is no results folder");
    }

    #[test]
    fn folders_that_cannot_be_told_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = results(root.path(), "latency", 7, &["drumline"]);
        refused(folder.parent().unwrap(), &[], "give a scenario's folder: ");
        refused(&results(root.path(), "memory", 7, &[]), &[], "the scenario memory measures none");
        let log = folder.join("drumline.hlog");
        let text = fs::read_to_string(&log).unwrap();
        let fewer = &text[..text.trim_end().rfind('\n').unwrap() + 1];
        fs::write(&log, fewer).unwrap();
        refused(&folder, &[], "summary.json tells of 1000");
        refused(&log, &[], "summary.json tells of 1000");
        fs::write(&log, &text[..text.len() - 9]).unwrap();
        refused(&folder, &[], "its drumline.hlog: line ");
        fs::remove_file(&log).unwrap();
        refused(&folder, &[], "its drumline.hlog: cannot be read");
        let summary = folder.join(SUMMARY);
        let text = fs::read_to_string(&summary).unwrap();
        fs::write(&summary, &text[..text.len() / 2]).unwrap();
        refused(&folder, &[], "summary.json is no complete summary of a run");
    }
}
