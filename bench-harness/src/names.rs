//! Names of rows, columns and titles that earlier versions of the harness wrote, as they read now.
//!
//! Owns the list. Never changes a number. Results that are already kept have the old names; the
//! report, and the files of causes and cliffs, know only the new ones.

use crate::files::Run;
use crate::grid::KERNEL_BASELINE;

/// Old phrase, new phrase. A phrase that contains another stands before it.
const RENAMED: &[(&str, &str)] = &[
    ("CPU a publish nobody hears", "CPU per publish without subscribers"),
    ("user memory a connection", "user memory per connection"),
    ("kernel memory a connection", "kernel memory per connection"),
    ("slab a connection above the limit", "slab per connection above the kernel baseline"),
    ("slab a connection", "slab per connection"),
    ("user memory a member", "user memory per member"),
    ("Memory a connection", "Memory per connection"),
    ("connects a second", "connects per second"),
    ("pings a connection", "pings per connection"),
    ("CPU a delivery against the limit", "CPU per delivery against the kernel baseline"),
    ("CPU a delivery", "CPU per delivery"),
    ("CPU a publish", "CPU per publish"),
    ("CPU a publication", "CPU per publication"),
    ("CPU a send, limit", "CPU per send, kernel baseline"),
    ("CPU a send", "CPU per send"),
    ("deliveries a second", "deliveries per second"),
    ("publications a second", "publications per second"),
    ("pings a second", "pings per second"),
    ("CPU a ping against the limit's", "CPU per ping against the kernel baseline"),
    ("HS256, a second of one processor", "HS256, per second of one processor"),
    ("one broadcast against the limit", "one broadcast against the kernel baseline"),
    ("limit: time", "kernel baseline: time"),
    ("limit: slab", "kernel baseline: slab"),
    ("limit: one broadcast", "kernel baseline: one broadcast"),
    ("limit: cores", "kernel baseline: cores"),
    ("drumline against limit", "drumline against kernel-baseline"),
    ("The way out under load", "Graceful shutdown under load"),
    ("All cut, all back at once", "All connections cut, all back at once"),
    ("Publications by the HTTP API", "Publications through the HTTP API"),
];

/// The current wording of a name.
fn current(name: &str) -> String {
    RENAMED.iter().fold(name.to_owned(), |name, (old, new)| name.replace(old, new))
}

/// Gives the rows, columns and titles of a run their current names.
pub fn update(run: &mut Run) {
    run.title = current(&run.title);
    run.load = current(&run.load);
    for row in &mut run.rows {
        row.what = current(&row.what);
        row.note = row.note.as_deref().map(current);
    }
    for note in &mut run.notes {
        *note = current(note);
    }
    for table in &mut run.tables {
        table.load = current(&table.load);
        for column in &mut table.columns {
            column.name = current(&column.name);
        }
        for line in table.lines.iter_mut().filter(|line| line.target == "limit") {
            line.target = KERNEL_BASELINE.to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_read_as_current_ones() {
        for (old, new) in [
            (
                "fanout, CPU a delivery: drumline against limit",
                "fanout, CPU per delivery: drumline against kernel-baseline",
            ),
            ("slab a connection above the limit", "slab per connection above the kernel baseline"),
            (
                "limit: slab a connection, both ends",
                "kernel baseline: slab per connection, both ends",
            ),
            ("rooms: p50", "rooms: p50"),
        ] {
            assert_eq!(current(old), new);
            assert_eq!(current(new), new, "a current name stays");
        }
    }
}
