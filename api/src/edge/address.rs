//! Whose request it is, by network address: the peer's, or what trusted proxies say.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use axum::extract::Request;
use axum::http::HeaderMap;
use serde::{Deserialize, Deserializer};

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The other end of the connection; in a request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// A network: an address and how many of its leading bits count (`10.0.0.0/8`); without `/`, one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Everything as IPv6, IPv4 mapped.
    bits: u128,
    mask: u128,
}

/// A text that is no network.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no network such as 10.0.0.0/8 or fd00::/8")]
pub struct InvalidNetwork(String);

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => {
                (address, Some(length.parse::<u32>().map_err(|_no_number| invalid())?))
            }
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_no_address| invalid())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let host_bits = width
            - length
                .filter(|length| *length <= width)
                .or(length.is_none().then_some(width))
                .ok_or_else(invalid)?;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Ok(Self { bits: bits(address) & mask, mask })
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.bits
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What one customer's connection has: an IPv4 address, or the /64 of an IPv6 address (whoever has one has all of it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Block(u128);

impl Block {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(bits(IpAddr::V4(address))),
            IpAddr::V6(address) => Self(address.to_bits() & (u128::MAX << 64)),
        }
    }
}

fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

fn peer(request: &Request) -> IpAddr {
    // Without a connection there is nobody else: a test inside this process.
    request.extensions().get().map_or(IpAddr::V6(Ipv6Addr::LOCALHOST), |Peer(peer)| peer.to_canonical())
}

/// The client's address: the peer's, or, if that is a trusted proxy, the right-most address of `X-Forwarded-For` that
/// is none. What stands left of it anybody could have written.
pub(crate) fn client(request: &Request, trusted: &[Network]) -> IpAddr {
    forwarded(peer(request), request.headers(), trusted)
}

fn forwarded(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let mut client = peer;
    if trusted.is_empty() || !is_trusted(peer, trusted) {
        return client;
    }
    for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for hop in line.as_bytes().rsplit(|byte| *byte == b',') {
            let Some(address) = address_of(hop) else { return client };
            client = address;
            if !is_trusted(address, trusted) {
                return client;
            }
        }
    }
    client
}

/// An address, maybe with a port.
fn address_of(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let address =
        text.parse().or_else(|_no_address| text.parse().map(|socket: std::net::SocketAddr| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// Whether the client speaks TLS to a trusted proxy in front of this node.
pub(crate) fn came_by_tls(request: &Request, trusted: &[Network]) -> bool {
    !trusted.is_empty()
        && is_trusted(peer(request), trusted)
        && request.headers().get(X_FORWARDED_PROTO).is_some_and(|scheme| scheme == "https")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn seen(peer: &str, lines: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        forwarded(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        let proxies = ["10.0.0.0/8", "fd00::/8"];
        for (peer, lines, expected) in [
            ("203.0.113.9", vec!["1.1.1.1"], "203.0.113.9"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec!["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", vec!["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", vec!["1.1.1.1, 203.0.113.9, 10.2.3.4"], "203.0.113.9"),
            ("fd00::1", vec!["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", vec!["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", vec!["1.1.1.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", vec!["1.1.1.1, unknown, 10.9.9.9"], "10.9.9.9"),
        ] {
            assert_eq!(seen(peer, &lines, &proxies), expected, "{peer} {lines:?}");
        }
        assert_eq!(seen("10.0.0.1", &["1.1.1.1"], &[]), "10.0.0.1");
    }

    #[test]
    fn a_network_has_as_many_bits_as_its_kind() {
        for bad in ["", "10.0.0.0/33", "fd00::/129", "10.0.0.0/-1", "10.0.0/8", "x"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("203.0.113.9".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
        let one: Network = "10.0.0.1".parse().unwrap();
        assert!(
            one.contains("::ffff:10.0.0.1".parse().unwrap()) && !one.contains("10.0.0.2".parse().unwrap())
        );
    }

    #[test]
    fn neighbours_of_an_ipv6_network_share_one_count_and_those_of_ipv4_do_not() {
        let block = |text: &str| Block::of(text.parse().unwrap());
        assert_eq!(block("2001:db8::1"), block("2001:db8::ffff:1"));
        assert_ne!(block("2001:db8::1"), block("2001:db8:0:1::1"));
        assert_ne!(block("203.0.113.9"), block("203.0.113.10"));
        assert_eq!(block("203.0.113.9"), block("::ffff:203.0.113.9"));
    }
}
