//! Patterns of texts: `*` any sequence, `?` any character, `[a-z]` and `[!a-z]` a class, `{a,b}`
//! alternatives, `\` before a character takes it literally.
//!
//! Owns no state. The work of a match is at most the product of both lengths, whatever the pattern.

/// Maximum length of a pattern with other special characters than `*`.
const LENGTH_MAX: usize = 1024;
/// Maximum depth of alternatives in alternatives.
const DEPTH_MAX: usize = 8;

/// One part of a pattern.
enum Part {
    Any,
    One,
    Literal(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
    Alternatives(Vec<Vec<Part>>),
}

/// Whether `glob` is a pattern.
pub fn is_glob(glob: &str) -> bool {
    is_plain(glob) || parse(glob).is_some()
}

/// Whether all of `text` matches `glob`. Nothing matches a text that is not a pattern.
pub fn glob_matches(glob: &str, text: &str) -> bool {
    if is_plain(glob) {
        return plain_matches(glob, text);
    }
    let text: Vec<char> = text.chars().collect();
    let mut starts = vec![false; text.len() + 1];
    starts[0] = true;
    parse(glob).is_some_and(|parts| run(&parts, &text, starts).last() == Some(&true))
}

fn is_plain(glob: &str) -> bool {
    !glob.contains(['?', '[', ']', '{', '}', '\\'])
}

fn plain_matches(glob: &str, text: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else { return glob == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

fn parse(glob: &str) -> Option<Vec<Part>> {
    if glob.len() > LENGTH_MAX {
        return None;
    }
    let mut rest = glob.chars();
    let parts = sequence(&mut rest, 0)?;
    rest.as_str().is_empty().then_some(parts)
}

/// Reads parts until the end, or until the `,` or `}` that ends an alternative, which it leaves.
fn sequence(rest: &mut std::str::Chars<'_>, depth: usize) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    loop {
        let mut ahead = rest.clone();
        let Some(next) = ahead.next() else { return Some(parts) };
        if depth > 0 && matches!(next, ',' | '}') {
            return Some(parts);
        }
        *rest = ahead;
        parts.push(match next {
            '*' => Part::Any,
            '?' => Part::One,
            '[' => class(rest)?,
            '{' => alternatives(rest, depth + 1)?,
            '\\' => Part::Literal(rest.next()?),
            ']' | '}' => return None,
            literal => Part::Literal(literal),
        });
    }
}

/// Reads a class after its `[`.
fn class(rest: &mut std::str::Chars<'_>) -> Option<Part> {
    let negated = rest.as_str().starts_with('!');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        match rest.next()? {
            ']' if ranges.is_empty() => return None,
            ']' => return Some(Part::Class { negated, ranges }),
            first if rest.as_str().starts_with('-') => {
                rest.next();
                let last = rest.next().filter(|last| *last != ']' && first <= *last)?;
                ranges.push((first, last));
            }
            one => ranges.push((one, one)),
        }
    }
}

/// Reads alternatives after their `{`.
fn alternatives(rest: &mut std::str::Chars<'_>, depth: usize) -> Option<Part> {
    if depth > DEPTH_MAX {
        return None;
    }
    let mut found = Vec::new();
    loop {
        found.push(sequence(rest, depth)?);
        if rest.next()? == '}' {
            return Some(Part::Alternatives(found));
        }
    }
}

/// The places of `text` where a match of `parts` can end that begins at one of `starts`.
fn run(parts: &[Part], text: &[char], mut starts: Vec<bool>) -> Vec<bool> {
    for part in parts {
        starts = match part {
            Part::Any => {
                let mut reached = false;
                let reach = |start: bool| {
                    reached |= start;
                    reached
                };
                starts.into_iter().map(reach).collect()
            }
            Part::One => step(text, &starts, |_| true),
            Part::Literal(literal) => step(text, &starts, |given| given == *literal),
            Part::Class { negated, ranges } => step(text, &starts, |given| {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&given)) != *negated
            }),
            Part::Alternatives(all) => {
                let mut ends = vec![false; starts.len()];
                for one in all {
                    for (end, found) in ends.iter_mut().zip(run(one, text, starts.clone())) {
                        *end |= found;
                    }
                }
                ends
            }
        };
    }
    starts
}

/// Moves each place past one character that `takes` accepts.
fn step(text: &[char], starts: &[bool], takes: impl Fn(char) -> bool) -> Vec<bool> {
    let moved = text.iter().zip(starts).map(|(given, start)| *start && takes(*given));
    std::iter::once(false).chain(moved).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_texts() {
        let check = |glob, text, expected| assert_eq!(glob_matches(glob, text), expected, "{glob}");
        check("*", "anything", true);
        check("https://*.example.com", "https://a.example.com", true);
        check("https://*.example.com", "https://example.org", false);
        check("a*b*c", "aXbYc", true);
        check("a*b*c", "ac", false);
        check("ab*b", "ab", false);
        check("plain", "plain", true);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("é?", "éß", true);
        check("x-[0-9a]", "x-7", true);
        check("x-[0-9a]", "x-b", false);
        check("x-[!0-9]", "x-b", true);
        check("x-[!0-9]", "x-5", false);
        check("{a,bc}*{,d}", "bcXd", true);
        check("{a,b{c,d}}", "bd", true);
        check("{a,b}", "c", false);
        check("\\*?", "*x", true);
        check("\\*?", "xx", false);
    }

    #[test]
    fn broken_and_long_patterns_match_nothing() {
        let deep = format!("{}a{}", "{".repeat(9), "}".repeat(9));
        for glob in ["[", "[]", "[a", "[z-a]", "{a", "a}", "a]", "\\", &deep, &"?".repeat(1025)] {
            assert!(!is_glob(glob), "{glob}");
            assert!(!glob_matches(glob, glob), "{glob}");
        }
        assert!(is_glob(&"?".repeat(1024)) && is_glob("a,b*"));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let glob = format!("{}?b", "*a".repeat(200));
        assert!(!glob_matches(&glob, &"a".repeat(2000)));
    }
}
