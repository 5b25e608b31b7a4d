//! Percentile tables: .hgrm files, wrk2's printed spectrum and HdrHistogram's CSV.
//!
//! Owns parsing a table and interpolating a percentile between its rows. Never guesses a unit: the
//! caller gives the unit of a table that states none. Invariant: a table that is cut off, out of
//! order or in conflict with its footer is refused.

use anyhow::{Context, Result, bail, ensure};

use super::measured::{Distribution, PERCENTILES, Reading, Unit};

/// Rows of one table, in the file's unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// Name of the table in the text before it, as in wrk2's output.
    pub name: Option<String>,
    /// The unit, if the text states one.
    pub unit: Option<Unit>,
    rows: Vec<Row>,
    max: f64,
    count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    value: f64,
    quantile: f64,
    /// Number of samples up to and including this row.
    count: u64,
    /// 1/(1-percentile); infinite in the last row of a complete table.
    x: f64,
}

/// Returns whether the line is the heading of a percentile table.
pub fn is_heading(line: &str) -> bool {
    ["Value", "Percentile", "TotalCount"].iter().all(|word| line.contains(word))
}

/// Reads all tables of a text and skips the text around them.
pub fn read(text: &str) -> Result<Vec<Spectrum>> {
    let mut found = Vec::new();
    let mut before = Before::default();
    let mut lines = text.lines().enumerate();
    while let Some((_, line)) = lines.next() {
        if !is_heading(line) {
            before.take(line);
            continue;
        }
        let table = Table { csv: line.contains(','), ..Table::default() };
        found.push(table.read(&mut lines)?.finish(std::mem::take(&mut before))?);
    }
    ensure!(
        !found.is_empty(),
        "holds no percentile table (Value, Percentile, TotalCount, 1/(1-Percentile)): give a \
         .hgrm file, or wrk2's output with --latency"
    );
    Ok(found)
}

/// The text before a table in wrk2's output.
#[derive(Debug, Default)]
struct Before {
    name: Option<String>,
    /// The largest latency with its unit, in ns.
    max_ns: Option<f64>,
}

impl Before {
    fn take(&mut self, line: &str) {
        if let Some((_, name)) = line.split_once("HdrHistogram - ") {
            self.name = name.split(['(', ')']).next().map(|name| name.trim().to_owned());
        }
        if let Some(time) = line.trim().strip_prefix("100.000%") {
            self.max_ns = time_ns(time.trim());
        }
    }
}

/// Parses wrk2's times, such as `12.50ms`, to ns.
fn time_ns(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let factor = match &text[digits..] {
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    };
    Some(text[..digits].parse::<f64>().ok()? * factor)
}

/// A table while it is read.
#[derive(Debug, Default)]
struct Table {
    csv: bool,
    rows: Vec<Row>,
    /// Largest value and number of samples from the footer.
    footer: Option<(f64, u64)>,
}

impl Table {
    /// Reads the rows up to the footer.
    fn read<'a>(mut self, lines: &mut impl Iterator<Item = (usize, &'a str)>) -> Result<Self> {
        for (number, line) in lines {
            let context =
                || format!("line {} is cut off or damaged, write the file again", number + 1);
            if line.trim_start().starts_with("#[Max") {
                self.footer = Some(footer(line).with_context(context)?);
                break;
            }
            if !line.trim().is_empty() && !line.trim_start().starts_with('#') {
                let row = row(line).with_context(context)?;
                self.check_order(row).with_context(context)?;
                self.rows.push(row);
            }
        }
        Ok(self)
    }

    fn check_order(&self, row: Row) -> Result<()> {
        let Some(last) = self.rows.last() else { return Ok(()) };
        ensure!(
            row.value >= last.value && row.quantile >= last.quantile && row.count >= last.count,
            "it is lower than the row before it"
        );
        Ok(())
    }

    /// Returns the spectrum if the table is complete and consistent.
    fn finish(self, before: Before) -> Result<Spectrum> {
        let last = *self.rows.last().context(
            "is cut off or empty: its percentile table has no rows; write the file again",
        )?;
        let whole = last.quantile >= 1.0;
        let (max, count) = match self.footer {
            Some(footer) => footer,
            None if self.csv && whole => (last.value, last.count),
            None => bail!(
                "is cut off: its percentile table lacks the footer with maximum and count; write \
                 the file again"
            ),
        };
        ensure!(
            count > 0,
            "is an empty run: no latency was recorded, so there is nothing to compare"
        );
        ensure!(
            last.count <= count && (!whole || last.count == count),
            "is damaged: its rows count {} latencies and its footer {count}; write it again",
            last.count
        );
        // One significant digit, the coarsest a histogram can be, is off by less than that.
        let agree = last.value <= max * 1.5 && (!whole || max <= last.value * 1.5);
        ensure!(
            agree,
            "mixes units: its largest row is {} and the maximum in its footer {max}; write it \
             again in one unit",
            last.value
        );
        let unit = before.max_ns.map(|ns| stated_unit(ns, max)).transpose()?;
        Ok(Spectrum { name: before.name, unit, rows: self.rows, max, count })
    }
}

/// The unit in which `max` equals the maximum in the text before the table.
fn stated_unit(max_ns: f64, max: f64) -> Result<Unit> {
    let near = |unit: &Unit| (max * unit.ns() / max_ns - 1.0).abs() < 0.02;
    match Unit::ALL.into_iter().find(near) {
        Some(unit) => Ok(unit),
        None => bail!(
            "mixes runs or units: the maximum in its table is {max}, and the text before it says \
             {} ms; keep the output of one run in one file",
            max_ns / 1e6
        ),
    }
}

fn row(line: &str) -> Result<Row> {
    let fields: Vec<&str> =
        line.split([',', ' ', '\t']).filter(|field| !field.is_empty()).collect();
    let ([value, quantile, count] | [value, quantile, count, _]) = fields[..] else {
        bail!("\"{}\" is not a row of a percentile table", line.trim());
    };
    let (value, quantile) = (number(value)?, number(quantile)?);
    ensure!((0.0..=1.0).contains(&quantile), "percentile {quantile} is not between 0 and 1");
    let count = count.parse().with_context(|| format!("\"{count}\" is not a count"))?;
    // The last column keeps digits that the percentile of a long run has lost.
    let stated = fields.get(3).and_then(|x| x.parse::<f64>().ok()).filter(|x| *x >= 100.0);
    let x = stated.unwrap_or(1.0 / (1.0 - quantile));
    Ok(Row { value, quantile, count, x })
}

fn number(text: &str) -> Result<f64> {
    let number: f64 = text.parse().with_context(|| format!("\"{text}\" is not a number"))?;
    ensure!(
        number.is_finite() && number >= 0.0,
        "\"{text}\" is neither a latency nor a percentile"
    );
    Ok(number)
}

/// Parses maximum and count of `#[Max     =        3.001, Total count    =            4]`.
fn footer(line: &str) -> Result<(f64, u64)> {
    let context = || format!("\"{}\" is not a complete footer", line.trim());
    let (max, count) = line.split_once(',').with_context(context)?;
    let (_, max) = max.split_once('=').with_context(context)?;
    let (_, count) = count.split_once('=').with_context(context)?;
    let count = count.trim().strip_suffix(']').with_context(context)?;
    // Python's port prints the count with decimals.
    Ok((number(max.trim())?, number(count.trim())? as u64))
}

impl Spectrum {
    /// The distribution, if the values of the table are in `unit`.
    pub fn distribution(&self, unit: Unit) -> Distribution {
        let finite = self.rows.iter().filter(|row| row.x.is_finite());
        let mut curve: Vec<(f64, f64)> = finite.map(|row| (row.x, row.value * unit.ns())).collect();
        if self.rows.last().is_some_and(|last| last.quantile >= 1.0) {
            let x = curve.last().map_or(1.0, |point| point.0).max(self.count as f64);
            curve.push((x, self.max * unit.ns()));
        }
        Distribution {
            percentiles: PERCENTILES.map(|(_, quantile)| self.at(quantile, unit)),
            max_ns: self.max * unit.ns(),
            count: self.count,
            curve,
            worst: Vec::new(),
            step: 1.0,
        }
    }

    /// The latency below which a `quantile` of the samples lies, from the counts of the rows.
    fn at(&self, quantile: f64, unit: Unit) -> Option<Reading> {
        // The subtraction only hides the error of the product.
        let rank = (quantile * self.count as f64 - 1e-6).ceil().max(1.0);
        let i = self.rows.iter().position(|row| row.count as f64 >= rank)?;
        let row = self.rows[i];
        let below = if i == 0 { row } else { self.rows[i - 1] };
        let between = row.value - below.value;
        let exact = i == 0 || row.count as f64 == rank || between <= row.value * 0.001;
        if exact {
            return Some(Reading { ns: row.value * unit.ns(), estimated: false });
        }
        let part = (rank - below.count as f64) / (row.count - below.count) as f64;
        Some(Reading { ns: (below.value + between * part) * unit.ns(), estimated: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n";
    const ROWS: &str = "\
       1.000 0.000000000000       2000           1.00
       1.000 0.500000000000       2000           2.00
       2.000 0.750000000000       3000           4.00
       4.000 0.950000000000       3800          20.00
       8.000 0.998000000000       3992         500.00
       9.000 0.999800000000       4000        5000.00
";
    const END: &str = "       9.000 1.000000000000       4000\n";
    const FOOTER: &str = "\
#[Mean    =        1.750, StdDeviation   =        0.829]
#[Max     =        9.000, Total count    =         4000]
#[Buckets =           27, SubBuckets     =         2048]
";

    fn whole() -> String {
        format!("{HEADING}{ROWS}{END}{FOOTER}")
    }

    fn refused(text: &str, part: &str) {
        let error = format!("{:#}", read(text).unwrap_err());
        assert!(error.contains(part), "\"{part}\" not in: {error}");
    }

    fn readings(text: &str, unit: Unit) -> Vec<Option<(f64, bool)>> {
        let [spectrum] = &read(text).unwrap()[..] else { panic!("one table") };
        let found = spectrum.distribution(unit).percentiles;
        found.iter().map(|one| one.map(|one| (one.ns.round(), one.estimated))).collect()
    }

    #[test]
    fn percentiles_come_from_the_counts_of_rows() {
        // 3,600 of 4,000 lie 600/800 of the way from 2 to 4; 3,960 lie 160/192 from 4 to 8.
        let wanted = [
            Some((1000.0, false)),
            Some((3500.0, true)),
            Some((7333.0, true)),
            Some((8500.0, true)),
            Some((9000.0, false)),
        ];
        assert_eq!(readings(&whole(), Unit::Us), wanted);
        let [spectrum] = &read(&whole()).unwrap()[..] else { panic!("one table") };
        let found = spectrum.distribution(Unit::Ms);
        assert_eq!((found.max_ns, found.count, spectrum.unit), (9e6, 4000, None));
        assert_eq!(found.curve.last(), Some(&(5000.0, 9e6)));
        assert!(found.curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
    }

    #[test]
    fn percentiles_beyond_the_last_row_are_unknown() {
        let short: String = ROWS.lines().take(4).map(|line| format!("{line}\n")).collect();
        let found = readings(&format!("{HEADING}{short}{FOOTER}"), Unit::Us);
        assert_eq!(found[1], Some((3500.0, true)));
        assert_eq!(found[2..], [None, None, None]);
    }

    #[test]
    fn tables_of_other_writers_are_read() {
        let csv = "\"Value\",\"Percentile\",\"TotalCount\",\"1/(1-Percentile)\"\n\
                   1.000,0.500000000000,2,2.00\n3.000,1.000000000000,4,Infinity\n";
        let found = readings(csv, Unit::Us);
        assert_eq!((found[0], found[4]), (Some((1000.0, false)), Some((3000.0, false))));
        let python = whole().replace("Total count    =         4000", "TotalCount     = 4000.000");
        assert_eq!(readings(&python, Unit::Us), readings(&whole(), Unit::Us));
        let c = whole().replace("4000\n#[Mean", "4000          inf\n#[Mean");
        assert_eq!(readings(&c, Unit::Us), readings(&whole(), Unit::Us));
        assert_eq!(readings(&whole().replace('\n', "\r\n"), Unit::Us)[0], Some((1000.0, false)));
    }

    fn wrk2(name: &str, max: &str) -> String {
        format!(
            "Running 30s test @ http://127.0.0.1:80/index.html\n  2 threads and 100 connections\n  \
             Latency Distribution (HdrHistogram - {name})\n 50.000%    1.00ms\n100.000%    {max}\n\n  \
             Detailed Percentile spectrum:\n{}----------------\n  4000 requests in 30.00s\n",
            whole()
        )
    }

    #[test]
    fn wrk2_states_its_unit() {
        let [spectrum] = &read(&wrk2("Recorded Latency", "9.00ms")).unwrap()[..] else { panic!() };
        assert_eq!(spectrum.unit, Some(Unit::Ms));
        assert_eq!(spectrum.name.as_deref(), Some("Recorded Latency"));
        let both =
            wrk2("Recorded Latency", "9.00ms") + &wrk2("Uncorrected Latency (raw)", "9.01ms");
        let both = read(&both).unwrap();
        assert_eq!(both[1].name.as_deref(), Some("Uncorrected Latency"));
        refused(&wrk2("Recorded Latency", "9.00m"), "mixes runs or units");
        assert_eq!(time_ns("1.50m"), Some(90e9));
        assert_eq!(time_ns("12"), None);
    }

    #[test]
    fn tables_that_are_cut_off_or_damaged_are_refused() {
        let whole = whole();
        refused("hello\n", "holds no percentile table");
        refused(HEADING, "has no rows");
        refused(&format!("{HEADING}{ROWS}"), "lacks the footer");
        refused(&format!("{HEADING}{ROWS}{END}"), "lacks the footer");
        let at = whole.find("Total count").unwrap();
        refused(&whole[..at + 20], "is not a complete footer");
        refused(&whole[..whole.find("0.998").unwrap() + 4], "is not a row");
        refused(&whole.replace("3992", "399x"), "\"399x\" is not a count");
        refused(
            &whole.replace("3992", "99"),
            "write the file again: it is lower than the row before it",
        );
        refused(&whole.replace("  4.000", "  0,921"), "is not a");
        refused(&whole.replace("=         4000", "=         4100"), "its footer 4100");
    }

    #[test]
    fn a_table_without_samples_is_refused() {
        let text = "       0.000 1.000000000000          0\n\
                    #[Max     =        0.000, Total count    =            0]\n";
        refused(&format!("{HEADING}{text}"), "is an empty run");
    }

    #[test]
    fn a_maximum_in_another_unit_is_refused() {
        refused(
            &whole().replace("#[Max     =        9.000", "#[Max     =     9000.000"),
            "mixes units",
        );
    }
}
