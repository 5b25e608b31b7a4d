//! compare.html: the whole comparison in one self-contained file.
//!
//! Owns the page. The page needs no other file and no script. Invariant:
//! every text from a file is escaped.

use std::fmt::Write;

use anyhow::Result;

use super::comparison::{Comparison, Group, plot_of};
use super::input::Input;
use super::table::{self, Cell};
use crate::plot::escape;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#2b2f36;--soft:#5d6570;--ground:#fff;--rule:#dfe3e8}\
@media (prefers-color-scheme:dark){\
:root{--ink:#e4e7eb;--soft:#a3abb6;--ground:#16191d;--rule:#333940}}\
body{margin:2rem auto;padding:0 1rem;max-width:68rem;color:var(--ink);background:var(--ground);\
font:15px/1.5 system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}\
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.5rem}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
caption{text-align:left;color:var(--soft);padding-bottom:.4rem}\
th,td{padding:.35rem .7rem;border-bottom:1px solid var(--rule);vertical-align:top}\
th{text-align:left;font-weight:600}.numbers td,.numbers thead th{text-align:right}\
.numbers thead th:first-child{text-align:left}\
td{white-space:nowrap}.facts td{white-space:normal;overflow-wrap:anywhere}\
small{display:block;color:var(--soft)}code{font-size:.9em}svg{width:100%;height:auto}\
figure{margin:1rem 0}figcaption{color:var(--soft)}";

/// Renders the page. Writing to a string cannot fail, so this file drops the results of `write!`.
pub fn render(comparison: &Comparison<'_>) -> Result<String> {
    let labels: Vec<&str> = comparison.inputs.iter().map(|i| i.label.as_str()).collect();
    let title = escape(&format!("Latencies: {}", labels.join(", ")));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n"
    );
    notes(&mut out, &comparison.notes);
    for group in &comparison.groups {
        section(&mut out, group)?;
    }
    out.push_str("<h2>Where these were measured</h2>\n");
    facts(&mut out, comparison.inputs);
    out.push_str("</main>\n</body>\n</html>\n");
    Ok(out)
}

fn notes(out: &mut String, notes: &[String]) {
    if notes.is_empty() {
        return;
    }
    out.push_str("<ul>\n");
    for note in notes {
        let _ = writeln!(out, "<li>{}</li>", escape(note));
    }
    out.push_str("</ul>\n");
}

fn section(out: &mut String, group: &Group<'_>) -> Result<()> {
    let name = group.name.unwrap_or("Latencies");
    let _ = writeln!(out, "<section>\n<h2>{}</h2>", escape(name));
    let first = group.lines.first().map_or("", |line| line.label.as_str());
    let _ = writeln!(
        out,
        "<div class=\"wide\">\n<table class=\"numbers\">\n\
         <caption>Below each value is its ratio to the value of {}.</caption>",
        escape(first)
    );
    out.push_str("<thead><tr><th scope=\"col\">series</th>");
    for column in table::columns() {
        let _ = write!(out, "<th scope=\"col\">{column}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for line in &group.lines {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(&line.label));
        for Cell { value, ratio } in table::cells(line, group) {
            let _ = write!(out, "<td>{}<small>{}</small></td>", escape(&value), escape(&ratio));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
    let svg = plot_of(group, "").svg()?;
    let _ = writeln!(
        out,
        "<figure>\n{svg}<figcaption>Above: latency by percentile; x is 1/(1-percentile) on a log \
         axis. Below: the highest latency of each second, counted from the first delivery of each \
         series, for files with times.</figcaption>\n</figure>\n\
         </section>"
    );
    Ok(())
}

/// The table of inputs and of the environments of their runs.
fn facts(out: &mut String, inputs: &[Input]) {
    out.push_str("<div class=\"wide\">\n<table class=\"facts\">\n<thead><tr>");
    for name in ["input", "load", "commit", "kernel", "machine", "command"] {
        let _ = write!(out, "<th scope=\"col\">{name}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for input in inputs {
        let path = escape(&input.path.display().to_string());
        let _ =
            write!(out, "<tr><th scope=\"row\">{}<small>{path}</small></th>", escape(&input.label));
        match &input.run {
            Some(run) => {
                let environment = &run.environment;
                let commit = format!("{}, {}", environment.commit, environment.date);
                let load = format!("{}: {}", run.scenario, run.load);
                for text in [&load, &commit, &environment.kernel, &environment.machine()] {
                    let _ = write!(out, "<td>{}</td>", escape(text));
                }
                let _ = write!(out, "<td><code>{}</code></td>", escape(&environment.command));
            }
            None => {
                let unknown = table::UNKNOWN;
                let _ = write!(out, "<td colspan=\"5\">{unknown}: this is not a result file</td>");
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
}
