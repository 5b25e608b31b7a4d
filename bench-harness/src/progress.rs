//! Progress of a long ramp, on standard error.
//!
//! Owns the bar, and the plain lines where there is no terminal. Never writes to standard output.
//! Invariant: without a terminal at most one line every few seconds, and always the last one.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::rows::number;

/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress toward a number of connections (or of anything else that is counted).
pub struct Progress {
    bar: Option<ProgressBar>,
    plain: RefCell<Plain>,
}

impl Progress {
    /// Progress of `what` (a plural noun) toward `total`; a bar on a terminal, lines elsewhere.
    pub fn new(what: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(what, total));
        Progress { bar, plain: RefCell::new(Plain::new(what, total, Instant::now())) }
    }

    /// Shows that `done` are done.
    pub fn set(&self, done: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None => {
                if let Some(line) = self.plain.borrow_mut().at(Instant::now(), done) {
                    eprintln!("{line}");
                }
            }
        }
    }

    /// Shows the last count and ends the progress.
    pub fn finish(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.abandon();
        } else {
            eprintln!("{}", self.plain.borrow().line(Instant::now(), done));
        }
    }
}

fn bar(what: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(4));
    let template = "{msg} {wide_bar} {human_pos}/{human_len}  {per_sec}  {elapsed}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what.to_owned())
}

struct Plain {
    what: String,
    total: u64,
    started: Instant,
    last: Instant,
}

impl Plain {
    fn new(what: &str, total: u64, now: Instant) -> Self {
        Plain { what: what.to_owned(), total, started: now, last: now }
    }

    fn at(&mut self, now: Instant, done: u64) -> Option<String> {
        if now.duration_since(self.last) < LINE_EVERY {
            return None;
        }
        self.last = now;
        Some(self.line(now, done))
    }

    fn line(&self, now: Instant, done: u64) -> String {
        let seconds = now.duration_since(self.started).as_secs();
        let (done, total) = (number(done as f64), number(self.total as f64));
        format!("{done} of {total} {} after {seconds} s", self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_come_at_most_every_five_seconds() {
        let start = Instant::now();
        let mut plain = Plain::new("connections", 1_000_000, start);
        let lines: Vec<String> = (0..12u64)
            .filter_map(|s| plain.at(start + Duration::from_secs(s), s * 20_000))
            .collect();
        let wanted = [
            "100,000 of 1,000,000 connections after 5 s",
            "200,000 of 1,000,000 connections after 10 s",
        ];
        assert_eq!(lines, wanted);
    }
}
