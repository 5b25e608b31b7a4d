//! Addresses of key sets with `{{name}}`, which a named group of `issuer_regex` or
//! `audience_regex` replaces.
//!
//! Owns the rules. The values come from claims that nobody has verified yet: they decide where the
//! keys are fetched that verify them. So the invariants: a group that an address names is a list of
//! fixed values, unless the operator switches the check off; a value never changes the path above
//! it.

use regex_syntax::ast::{Ast, GroupKind, parse::Parser};

use super::settings::TokenSettings;

/// The beginning and the end of a name in an address.
const MARKS: (&str, &str) = ("{{", "}}");

/// The names in an address.
pub(super) fn names(address: &str) -> impl Iterator<Item = &str> {
    address.split(MARKS.0).skip(1).filter_map(|rest| rest.split_once(MARKS.1).map(|found| found.0))
}

/// Whether an address contains names.
pub fn is_template(address: &str) -> bool {
    names(address).next().is_some()
}

/// Checks the patterns whose groups the address of the key set names.
pub(super) fn check(settings: &TokenSettings) -> Result<(), String> {
    let address = &settings.jwks_public_endpoint;
    if !is_template(address) {
        return Ok(());
    }
    let patterns =
        [("issuer_regex", &settings.issuer_regex), ("audience_regex", &settings.audience_regex)];
    let mut defined = Vec::new();
    for (key, pattern) in patterns {
        // Other checks refuse a pattern that cannot be read.
        let Ok(ast) = Parser::new().parse(pattern) else { continue };
        let mut groups = Vec::new();
        let has_classes = walk(&ast, &mut groups);
        if !settings.insecure_skip_jwks_endpoint_safety_check {
            if has_classes {
                return Err(format!(
                    "{key} contains a class of characters, and jwks_public_endpoint contains names: \
                     list the permitted values, as in (?P<tenant>one|two)"
                ));
            }
            let open = groups
                .iter()
                .find(|(name, fixed)| !fixed && names(address).any(|wanted| wanted == *name));
            if let Some((name, _)) = open {
                return Err(format!(
                    "{key}: jwks_public_endpoint contains the group {name:?}, which must be a list \
                     of permitted values, as in (?P<{name}>one|two)"
                ));
            }
        }
        defined.extend(groups.into_iter().map(|(name, _)| name.to_owned()));
    }
    match names(address).find(|name| !defined.iter().any(|defined| defined == name)) {
        Some(name) => Err(format!(
            "jwks_public_endpoint: no group of issuer_regex or audience_regex has the name {name:?}"
        )),
        None => Ok(()),
    }
}

/// Adds the named groups of a pattern, and whether each is a list of fixed values. Returns whether
/// the pattern contains a class of characters.
fn walk<'a>(ast: &'a Ast, groups: &mut Vec<(&'a str, bool)>) -> bool {
    match ast {
        Ast::ClassBracketed(_) | Ast::ClassPerl(_) | Ast::ClassUnicode(_) => true,
        Ast::Group(group) => {
            if let GroupKind::CaptureName { name, .. } = &group.kind {
                groups.push((&name.name, is_fixed(&group.ast)));
            }
            walk(&group.ast, groups)
        }
        Ast::Repetition(repetition) => walk(&repetition.ast, groups),
        Ast::Alternation(all) => all.asts.iter().fold(false, |has, ast| walk(ast, groups) | has),
        Ast::Concat(all) => all.asts.iter().fold(false, |has, ast| walk(ast, groups) | has),
        _ => false,
    }
}

/// Whether a pattern matches only a finite list of texts.
fn is_fixed(ast: &Ast) -> bool {
    match ast {
        Ast::Empty(_) | Ast::Flags(_) | Ast::Literal(_) => true,
        Ast::Group(group) => is_fixed(&group.ast),
        Ast::Alternation(all) => all.asts.iter().all(is_fixed),
        Ast::Concat(all) => all.asts.iter().all(is_fixed),
        _ => false,
    }
}

/// The address with values in place of its names. A name without a value is left out. `None`: the
/// values lead to another place of the path than the address does.
pub fn resolve(address: &str, values: &[(String, String)]) -> Option<String> {
    let mut pieces = address.split(MARKS.0);
    let mut resolved = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let Some((name, rest)) = piece.split_once(MARKS.1) else {
            resolved.push_str(MARKS.0);
            resolved.push_str(piece);
            continue;
        };
        let value = values.iter().rfind(|(found, _)| found == name).map(|(_, value)| value);
        resolved.push_str(value.map_or("", String::as_str));
        resolved.push_str(rest);
    }
    let (_, behind_scheme) = resolved.split_once("://")?;
    let end = behind_scheme.find(['?', '#']).unwrap_or(behind_scheme.len());
    let path = behind_scheme.get(..end)?.split_once('/').map_or("", |(_, path)| path);
    let path = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/");
    let is_plain = path.is_empty() || path.split('/').all(|part| !["", ".", ".."].contains(&part));
    is_plain.then_some(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(address: &str, issuer: &str, audience: &str) -> TokenSettings {
        TokenSettings {
            jwks_public_endpoint: address.to_owned(),
            issuer_regex: issuer.to_owned(),
            audience_regex: audience.to_owned(),
            ..TokenSettings::default()
        }
    }

    #[test]
    fn a_group_that_an_address_names_must_be_a_list() {
        let address = "https://keys/{{realm}}/certs";
        let table = [
            ("^https://id/(?P<realm>one|two)$", "", ""),
            ("^https://id/(?<realm>on(e|ce)|)$", "", ""),
            ("(?P<realm>(?i)one)", "", ""),
            ("", "(?P<realm>one)", ""),
            ("^.*(?P<realm>one)\\[x\\]$", "", ""),
            ("(?P<other>.+)(?P<realm>one)", "", ""),
            ("(?P<realm>.+)", "", "must be a list"),
            ("(?P<realm>one*)", "", "must be a list"),
            ("(?P<realm>a(?:b.)c)", "", "must be a list"),
            ("(?P<realm>[ab])", "", "a class of characters"),
            ("[ab](?P<realm>a)", "", "a class of characters"),
            ("(?P<realm>a)", "\\d", "a class of characters"),
            ("(?P<realm>a)\\pL", "", "a class of characters"),
            ("one", "", "no group"),
            ("(?P<real>one)", "", "no group"),
        ];
        for (issuer, audience, expected) in table {
            let given = settings(address, issuer, audience);
            let cause = check(&given).err().unwrap_or_default();
            let fits =
                if expected.is_empty() { cause.is_empty() } else { cause.contains(expected) };
            assert!(fits, "{issuer} {audience}: {cause}");
            let skips = TokenSettings { insecure_skip_jwks_endpoint_safety_check: true, ..given };
            assert_eq!(check(&skips).is_err(), expected == "no group", "{issuer}");
        }
        assert_eq!(check(&settings("https://keys/a", ".*", "[a]")), Ok(()));
    }

    #[test]
    fn values_replace_names_and_never_leave_their_place() {
        let values = [("a".to_owned(), "one".to_owned()), ("b".to_owned(), "two".to_owned())];
        let table = [
            ("https://{{a}}.host/{{b}}/x", Some("https://one.host/two/x")),
            ("https://host/{{a}}{{b}}?q=//{{a}}", Some("https://host/onetwo?q=//one")),
            ("https://host", Some("https://host")),
            ("https://host/", Some("https://host/")),
            ("https://host/{{c}}/x", None),
            ("https://host/{{a}}/../x", None),
            ("https://host/%2E%2e/x", None),
            ("https://host/a%2f../x", None),
            ("https://host/{{a", Some("https://host/{{a")),
        ];
        for (address, expected) in table {
            assert_eq!(resolve(address, &values).as_deref(), expected, "{address}");
        }
        let outside = [("a".to_owned(), "../admin".to_owned())];
        assert_eq!(resolve("https://host/{{a}}/keys", &outside), None);
    }
}
