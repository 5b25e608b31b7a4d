//! Headers and query parameters of a request.
//!
//! Owns no state. Never decides how a request is served.

use std::mem::MaybeUninit;

use super::request::HEADERS_MOST;
use super::status::Status;

/// Room for the headers of a request.
pub(super) type Headers<'a> = [MaybeUninit<httparse::Header<'a>>; HEADERS_MOST];

pub(super) fn no_headers<'a>() -> Headers<'a> {
    [const { MaybeUninit::uninit() }; HEADERS_MOST]
}

/// The value of the Origin header. Several or invalid Origin headers are refused with status 403.
pub(super) fn origin<'a>(request: &httparse::Request<'_, 'a>) -> Result<Option<&'a str>, Status> {
    let is_origin = |header: &&httparse::Header<'a>| header.name.eq_ignore_ascii_case("origin");
    super::origin::origin(request.headers.iter().filter(is_origin).map(|header| header.value))
        .map_err(|_| Status::Forbidden)
}

/// Number of headers that have one of these names.
pub(super) fn count(request: &httparse::Request<'_, '_>, names: &[&str]) -> usize {
    let matches = |name: &str| names.iter().any(|other| name.eq_ignore_ascii_case(other));
    request.headers.iter().filter(|header| matches(header.name)).count()
}

/// The value of the first header of that name; `None` if there is none or it is not UTF-8.
pub(super) fn header<'a>(request: &httparse::Request<'_, 'a>, name: &str) -> Option<&'a str> {
    let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok().map(trim)
}

/// Removes spaces and tabs, the only white space of HTTP headers. Other white space belongs to the
/// value.
fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// The values of all headers of that name, without those that are not UTF-8.
pub(super) fn headers<'a>(
    request: &httparse::Request<'_, 'a>,
    name: &str,
) -> impl Iterator<Item = &'a str> {
    request
        .headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .filter_map(|header| std::str::from_utf8(header.value).ok())
}

/// The elements of a comma-separated header, across all headers of that name.
pub(super) fn tokens<'a>(
    request: &httparse::Request<'_, 'a>,
    name: &str,
) -> impl Iterator<Item = &'a str> {
    headers(request, name).flat_map(|value| value.split(',')).map(trim)
}

/// Whether a comma-separated header contains `token`, in any case.
pub(super) fn has_token(request: &httparse::Request<'_, '_>, name: &str, token: &str) -> bool {
    tokens(request, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// The percent-decoded value of a query parameter; `None` if it is absent or not UTF-8.
pub fn query_value(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| percent_decode(value))
}

/// Decodes `%XX` and `+`; `None` if the result is not UTF-8 or an escape is malformed.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        bytes.push(match first {
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                rest = tail;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            b'+' => b' ',
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}
