//! The arguments of `compare`: inputs, their labels, and the units of files that state none.
//!
//! Owns the syntax `[NAME=]PATH[:SERIES]`. Never guesses a unit. Invariant: two inputs never have
//! the same label.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::measured::Unit;
use crate::run::EXTENSION;

/// Units of files that do not state their own, from `--unit`.
#[derive(Debug, Default)]
pub struct Units {
    all: Option<Unit>,
    /// Units of single files.
    pub by_file: Vec<(PathBuf, Unit)>,
}

impl Units {
    /// Parses `UNIT`, which holds for all such files, and `FILE=UNIT`.
    pub fn parse(flags: &[String]) -> Result<Self> {
        let mut units = Units::default();
        for flag in flags {
            match flag.rsplit_once('=') {
                Some((path, unit)) => units.by_file.push((PathBuf::from(path), Unit::named(unit)?)),
                None => {
                    ensure!(
                        units.all.is_none(),
                        "--unit is given twice: for one file of several \
                         write --unit FILE=UNIT"
                    );
                    units.all = Some(Unit::named(flag)?);
                }
            }
        }
        Ok(units)
    }

    /// The unit of a file; `stated` is the unit that the file itself states.
    pub fn of(&self, path: &Path, stated: Option<Unit>) -> Result<Unit> {
        let flag = self.by_file.iter().find(|(of, _)| of == path).map(|(_, unit)| *unit);
        match (flag, stated) {
            (Some(flag), Some(stated)) if flag != stated => bail!(
                "mixes units: --unit says {flag}, and the file itself {stated}; leave the flag out"
            ),
            (_, Some(unit)) | (Some(unit), None) => Ok(unit),
            (None, None) => self.all.context(
                "does not state the unit of its latencies: add --unit ns, us, ms or s (or --unit \
                 FILE=UNIT where files differ)",
            ),
        }
    }
}

/// An input argument, split: `[NAME=]PATH[:SERIES]`.
#[derive(Debug, PartialEq)]
pub struct Argument {
    name: Option<String>,
    /// The file or folder.
    pub path: PathBuf,
    /// The only series to take from the file.
    pub series: Option<String>,
}

impl Argument {
    /// Splits an argument where the longest existing path ends.
    pub fn parse(text: &str) -> Result<Self> {
        let named = text.split_once('=').filter(|(name, _)| !name.contains('/'));
        let readings = [Some((None, text)), named.map(|(name, path)| (Some(name), path))];
        for (name, rest) in readings.into_iter().flatten() {
            let ends = rest.match_indices(':').map(|(at, _)| at).chain([rest.len()]);
            let mut paths: Vec<usize> =
                ends.filter(|end| Path::new(&rest[..*end]).exists()).collect();
            if let Some(end) = paths.pop() {
                let series = rest[end..].strip_prefix(':').map(str::to_owned);
                let name = name.map(str::to_owned);
                return Ok(Argument { name, path: PathBuf::from(&rest[..end]), series });
            }
        }
        bail!("{text}: no such file; give a result file (.json), a .hgrm or a .hlog")
    }
}

/// The shortest path ends that differ from each other. Inputs that are given twice get a number.
pub fn labels(arguments: &[Argument]) -> Vec<String> {
    let parts: Vec<Vec<String>> = arguments.iter().map(|one| components(&one.path)).collect();
    let of_length = |length: usize| -> Vec<String> {
        arguments.iter().zip(&parts).map(|(one, parts)| label(one, parts, length)).collect()
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

fn label(argument: &Argument, parts: &[String], length: usize) -> String {
    if let Some(name) = &argument.name {
        return name.clone();
    }
    let end = parts[parts.len().saturating_sub(length)..].join("/");
    match &argument.series {
        Some(series) => format!("{end}: {series}"),
        None => end,
    }
}

/// The components of the whole path; a result file loses its extension.
fn components(path: &Path) -> Vec<String> {
    let mut whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if whole.extension().is_some_and(|extension| extension == EXTENSION) {
        whole.set_extension("");
    }
    whole.iter().map(|part| part.to_string_lossy().into_owned()).collect()
}
