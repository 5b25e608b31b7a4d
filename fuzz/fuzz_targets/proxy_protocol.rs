//! Headers of the PROXY protocol: never a panic, and the same answer however the bytes arrive.
#![no_main]

use drumline::wire::proxy_protocol::{HEADER_MAX, ProxyHeader, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = parse(input);
    if let ProxyHeader::Complete { used, .. } = whole {
        assert!(used <= input.len() && used <= HEADER_MAX);
        assert_eq!(parse(&input[..used]), whole);
        assert_eq!(parse(&input[..used - 1]), ProxyHeader::Partial);
    }
    assert!(whole != ProxyHeader::Partial || input.len() < HEADER_MAX);
    for cut in (0..input.len()).take(256) {
        let part = parse(&input[..cut]);
        assert!(part == ProxyHeader::Partial || part == whole);
    }
});
