//! Rows on a terminal, aligned.
//!
//! Owns the layout in plain text. Never formats a number by itself. Invariant: one line per row,
//! and every row has its line.

use anyhow::Result;

use crate::rows::{self, Row};

/// The rows as an aligned table with a heading, followed by their notes. An error if a row is
/// invalid.
pub fn render(title: &str, rows: &[Row]) -> Result<String> {
    rows::check(rows)?;
    let mut cells = vec![["", "measured", "target", "verdict"].map(str::to_owned)];
    for row in rows {
        let what = row.what.clone();
        cells.push([what, row.measured_text(), row.target_text(), row.verdict_text()]);
    }
    let width = |i: usize| cells.iter().map(|c| c[i].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let mut out = format!("{title}\n");
    for [what, measured, target, verdict] in &cells {
        let [a, b, c, _] = widths;
        let line = format!("  {what:<a$}  {measured:>b$}  {target:<c$}  {verdict}");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    for row in rows {
        if let Some(note) = &row.note {
            out.push_str(&format!("  {}: {note}\n", row.what));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [
            Row::new("memory per connection", 203.0, "bytes").at_most(200.0).note("PSS"),
            Row::new("p99", 5_500_000.0, "ns"),
        ];
        let wanted = "\
idle
                          measured  target             verdict
  memory per connection  203 bytes  at most 200 bytes  missed by 1.5%
  p99                      5.50 ms  -                  -
  memory per connection: PSS
";
        assert_eq!(render("idle", &rows).unwrap(), wanted);
        assert!(render("idle", &[]).is_err());
    }
}
