//! Addresses of clients: as one address of each family, as the group that a limit counts, and as
//! proxies in front of the server report them.
//!
//! Owns no state. Never resolves a name. The invariants: an IPv4 address inside IPv6 counts as
//! IPv4; an address that a client wrote itself is never taken for the client's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An address in its own family: `::ffff:192.0.2.1` is 192.0.2.1.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The group of addresses that a limit counts as one: an IPv4 address, or a /64 of IPv6, which is
/// what one customer gets.
pub fn group(address: IpAddr) -> u64 {
    /// High bits of the groups of IPv4: a multicast network, from which no client connects.
    const IPV4: u64 = 0xffff_ffff << 32;
    match canonical(address) {
        IpAddr::V4(address) => IPV4 | u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

/// Networks of proxies whose reports are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedNetworks(Vec<(IpAddr, u8)>);

impl TrustedNetworks {
    /// Reads addresses and networks such as `10.0.0.0/8`; `Err` names the text that is neither.
    pub fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let network = |text: &str| {
            let (address, bits) = match text.split_once('/') {
                Some((address, bits)) => (address, Some(bits)),
                None => (text, None),
            };
            let written: IpAddr = address.parse().ok()?;
            let width = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
            let mut bits: u8 = match bits {
                Some(bits) => bits.parse().ok().filter(|bits| *bits <= width(written))?,
                None => width(written),
            };
            let address = canonical(written);
            if address.is_ipv4() && written.is_ipv6() {
                // A network of IPv4 addresses inside IPv6.
                bits = bits.checked_sub(96)?;
            }
            Some((address, bits))
        };
        let networks = texts.into_iter().map(|text| network(text).ok_or_else(|| text.to_owned()));
        networks.collect::<Result<_, _>>().map(TrustedNetworks)
    }

    /// Whether no network is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address belongs to one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        let is_same = |one: u128, other: u128, width: u32, bits: u8| {
            bits == 0 || (one ^ other) >> (width - u32::from(bits)) == 0
        };
        self.0.iter().any(|(network, bits)| match (network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let [one, other] = [*network, address].map(|one: Ipv4Addr| one.to_bits().into());
                is_same(one, other, 32, *bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                is_same(network.to_bits(), address.to_bits(), 128, *bits)
            }
            _ => false,
        })
    }

    /// The client of a request that a trusted peer has passed on, by the values of its
    /// X-Forwarded-For headers in their order. Each proxy appends the address of its peer, so the
    /// walk goes from the right past trusted proxies: the first other address is the client's.
    /// `None`: the headers name no address that can be believed.
    pub fn client<'a>(&self, values: impl DoubleEndedIterator<Item = &'a [u8]>) -> Option<IpAddr> {
        let mut last_trusted = None;
        for text in values.rev().flat_map(|value| value.rsplit(|byte| *byte == b',')) {
            let Ok(text) = std::str::from_utf8(text) else { return last_trusted };
            let text = text.trim_matches([' ', '\t']);
            if text.is_empty() {
                continue;
            }
            let Some(address) = reported(text) else { return last_trusted };
            if !self.contains(address) {
                return Some(address);
            }
            last_trusted = Some(address);
        }
        last_trusted
    }
}

/// An address as proxies write it: with or without a port, and in brackets.
fn reported(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = text.parse::<IpAddr>().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|found| found.ip()));
    let address = address.or_else(|| bracketed?.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6));
    address.map(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn trusted(texts: &[&str]) -> TrustedNetworks {
        TrustedNetworks::read(texts.iter().copied()).unwrap()
    }

    #[test]
    fn ipv4_inside_ipv6_counts_as_ipv4_and_ipv6_by_its_network() {
        assert_eq!(group(ip("::ffff:127.0.0.1")), group(ip("127.0.0.1")));
        assert_ne!(group(ip("::ffff:127.0.0.1")), group(ip("::ffff:127.0.0.2")));
        assert_eq!(group(ip("2001:db8:1:2::1")), group(ip("2001:db8:1:2:ffff::9")));
        assert_ne!(group(ip("2001:db8:1:2::1")), group(ip("2001:db8:1:3::1")));
        assert_ne!(group(ip("::1")), group(ip("0.0.0.1")));
    }

    #[test]
    fn networks_match_both_forms_of_ipv4() {
        let networks = trusted(&["127.0.0.0/8", "::ffff:10.1.0.0/112", "2001:db8::/32", "fd00::1"]);
        let table = [
            ("127.0.0.1", true),
            ("::ffff:127.9.9.9", true),
            ("128.0.0.1", false),
            ("10.1.255.1", true),
            ("10.2.0.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("fd00::1", true),
            ("fd00::2", false),
        ];
        for (address, expected) in table {
            assert_eq!(networks.contains(ip(address)), expected, "{address}");
        }
        assert!(trusted(&["0.0.0.0/0"]).contains(ip("9.9.9.9")));
        assert!(!trusted(&["0.0.0.0/0"]).contains(ip("::1")));
        assert!(!trusted(&[]).contains(ip("127.0.0.1")) && trusted(&[]).is_empty());
        for text in ["", "here", "1.2.3.4/33", "::1/129", "1.2.3.4/", "::ffff:1.2.3.4/95"] {
            assert_eq!(TrustedNetworks::read([text]), Err(text.to_owned()));
        }
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_wrote_about_another() {
        let networks = trusted(&["10.0.0.0/8", "fd00::/8"]);
        let table: &[(&[&str], Option<&str>)] = &[
            (&["9.9.9.9, 1.2.3.4:5678"], Some("1.2.3.4")),
            (&["9.9.9.9, [2001:db8::1]:443"], Some("2001:db8::1")),
            (&["9.9.9.9, [2001:db8::1]"], Some("2001:db8::1")),
            (&["9.9.9.9, 2001:db8::1"], Some("2001:db8::1")),
            (&["9.9.9.9, 1.2.3.4, 10.0.0.1, fd00::7"], Some("1.2.3.4")),
            (&["9.9.9.9, 1.2.3.4", "10.0.0.1"], Some("1.2.3.4")),
            (&["9.9.9.9", "1.2.3.4"], Some("1.2.3.4")),
            (&["1.2.3.4, unknown"], None),
            (&["1.2.3.4, unknown, 10.0.0.1"], Some("10.0.0.1")),
            (&["10.0.0.2, 10.0.0.1"], Some("10.0.0.2")),
            (&["::ffff:1.2.3.4,"], Some("1.2.3.4")),
            (&["1.2.3.4,,  ,\t10.0.0.1"], Some("1.2.3.4")),
            (&["1.2.3.4:x"], None),
            (&["1.2.3.4:99999"], None),
            (&["_hidden"], None),
            (&[""], None),
            (&[], None),
        ];
        for (values, expected) in table {
            let found = networks.client(values.iter().map(|value| value.as_bytes()));
            assert_eq!(found, expected.map(ip), "{values:?}");
        }
    }
}
