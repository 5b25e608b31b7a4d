//! The Origin header of a request: the page that a browser sends it for.
//!
//! Owns nothing. Never decides which origins are allowed.

/// The Origin headers of a request name no one page: there are several, or one is no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnclearOrigin;

/// Which page a request comes from, by the values of its Origin headers; `None`: it comes from no
/// page. An empty value is none, as in Centrifugo.
pub fn origin<'a>(
    mut values: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<&'a str>, UnclearOrigin> {
    let Some(value) = values.next() else { return Ok(None) };
    let origin = std::str::from_utf8(value).map_err(|_| UnclearOrigin)?;
    let origin = origin.trim_matches([' ', '\t']);
    match values.next() {
        None => Ok(Some(origin).filter(|origin| !origin.is_empty())),
        Some(_) => Err(UnclearOrigin),
    }
}

/// Whether a page of `origin` is one of the server itself, which it calls `host`.
pub fn is_own_page(origin: &str, host: &str) -> bool {
    origin.split_once("://").is_some_and(|(_, own)| own.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_that_name_no_one_page_are_none_to_go_by() {
        let check = |values: &[&[u8]], expected| {
            assert_eq!(origin(values.iter().copied()), expected, "{values:?}");
        };
        check(&[], Ok(None));
        check(&[b""], Ok(None));
        check(&[b" \t"], Ok(None));
        check(&[b"https://a"], Ok(Some("https://a")));
        check(&[b"https://a\xff"], Err(UnclearOrigin));
        check(&[b"https://a", b"https://a"], Err(UnclearOrigin));
        check(&[b"", b"https://a"], Err(UnclearOrigin));
        check(&[b"https://a", b""], Err(UnclearOrigin));
    }
}
