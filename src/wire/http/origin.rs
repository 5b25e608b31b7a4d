//! The Origin header of a request: the origin of the page that sent it.
//!
//! Owns no state. Never decides which origins are allowed.

/// The request has several Origin headers, or one that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnclearOrigin;

/// The origin that the Origin headers of a request name; `None` if the request has no Origin header
/// or an empty one, as in Centrifugo.
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

/// Whether `origin` is the server's own: its host equals `host`, the request's Host header.
pub fn is_own_page(origin: &str, host: &str) -> bool {
    origin.split_once("://").is_some_and(|(_, own)| own.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_or_invalid_origin_headers_are_unclear() {
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
