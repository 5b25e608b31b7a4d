//! The book in `docs`: its table of contents lists every page, and every link leads somewhere.
//!
//! Owns the reading of the Markdown. `scripts/test.sh book` builds the book with mdBook itself.

use std::collections::BTreeSet;

use super::{File, files, planted, report, root};

const SUMMARY: &str = "docs/src/SUMMARY.md";

/// The targets of the links of a page, without those inside code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        let words: String = line.split('`').step_by(2).collect();
        let targets = words.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        found.extend(targets.map(|(target, _)| target.to_owned()));
    }
    found
}

/// The anchor that mdBook gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        letter if letter.is_alphanumeric() || "-_".contains(letter) => {
            Some(letter.to_ascii_lowercase())
        }
        _ => None,
    });
    kept.collect()
}

fn has_anchor(page: &File, wanted: &str) -> bool {
    let headings = page.text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).any(|found| found == wanted)
}

/// Links of pages to pages or headings that do not exist, and pages that the summary omits.
/// `exists` knows the files outside of the book.
fn faults(pages: &[File], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let page_at = |name: &str| pages.iter().find(|page| page.name == format!("docs/src/{name}"));
    let mut offences = Vec::new();
    let mut listed = BTreeSet::from([SUMMARY.to_owned()]);
    for page in pages {
        for link in links(&page.text).iter().filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { Some(page) } else { page_at(path) };
            if page.name == SUMMARY {
                listed.insert(format!("docs/src/{path}"));
            }
            match target {
                Some(target) if heading.is_empty() || has_anchor(target, heading) => {}
                Some(_) => {
                    offences.push(format!("{}: {path} has no heading #{heading}", page.name))
                }
                None if exists(&format!("docs/src/{path}")) => {}
                None => offences.push(format!("{}: {link} does not exist", page.name)),
            }
        }
    }
    let omitted = pages.iter().filter(|page| !listed.contains(&page.name));
    offences.extend(omitted.map(|page| format!("{SUMMARY} omits {}", page.name)));
    offences
}

#[test]
fn the_book_lists_every_page_and_every_link_leads_somewhere() {
    let pages = files(&["docs/src"], "md");
    assert!(pages.len() > 10, "{} pages", pages.len());
    let offences = faults(&pages, |path| root().join(path).exists());
    report("pages and links of docs/src are whole", &offences);
}

#[test]
fn a_broken_link_and_an_omitted_page_are_found() {
    let pages = [
        planted(SUMMARY, "- [A](a.md)\n- [Gone](gone.md)\n"),
        planted("docs/src/a.md", "# Big `a`: one\n[x](b.md#two) [y](#big-a-one) [z](#no)\n"),
        planted("docs/src/b.md", "`[code](none.md)` [web](https://a.b)\n```\n[c](d.md)\n```\n"),
    ];
    let wanted = [
        "docs/src/SUMMARY.md: gone.md does not exist",
        "docs/src/a.md: b.md has no heading #two",
        "docs/src/a.md:  has no heading #no",
        "docs/src/SUMMARY.md omits docs/src/b.md",
    ];
    assert_eq!(faults(&pages, |_| false), wanted);
}
