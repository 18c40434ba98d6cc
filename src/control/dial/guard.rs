//! Which addresses the relay connects to on the word of a stranger.
//!
//! Host names come from requestCrawl, DID documents and did:web: whoever sends one chooses where the
//! relay connects. The guard looks at the *resolved* address, right before the connect, so that
//! neither a redirect nor a name that resolves anew leads into the operator's own network.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::DialPolicy;

/// Networks that are not the public internet: (address, prefix length).
const IPV4_REFUSED: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// Parts of 2000::/3 that are not the public internet: (first two words, prefix length).
/// Protocol assignments with Teredo (2001::/23), documentation (2001:db8::/32, 3fff::/20).
const IPV6_REFUSED: [(u32, u32); 3] = [(0x2001_0000, 23), (0x2001_0db8, 32), (0x3fff_0000, 20)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardRefusal {
    /// A private, loopback, link-local, reserved or otherwise not public address.
    Address(IpAddr),
    /// Another port than 80 and 443.
    Port(u16),
}

impl fmt::Display for GuardRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address} is not a public address"),
            Self::Port(port) => write!(f, "port {port} is not allowed"),
        }
    }
}

impl std::error::Error for GuardRefusal {}

/// May the relay connect to this address for the host `name` (without port)?
pub fn check(policy: &DialPolicy, name: &str, address: SocketAddr) -> Result<(), GuardRefusal> {
    check_ip(policy, name, address.ip())?;
    match address.port() {
        80 | 443 => Ok(()),
        _ if policy.allow_insecure_hosts => Ok(()),
        port => Err(GuardRefusal::Port(port)),
    }
}

/// The part of [`check`] that looks at the address only.
pub fn check_ip(policy: &DialPolicy, name: &str, ip: IpAddr) -> Result<(), GuardRefusal> {
    let unmapped = ip.to_canonical();
    let allowed = policy.private_hosts.iter().any(|net| net.contains(&unmapped))
        // Only the name itself: a public name that resolves to loopback is an attack.
        || policy.allow_insecure_hosts && name == "localhost" && unmapped.is_loopback();
    if allowed || is_public(ip) { Ok(()) } else { Err(GuardRefusal::Address(ip)) }
}

/// Whether the address is reachable over the public internet, and is nothing else in disguise.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let bits = u32::from(ip);
    !IPV4_REFUSED.iter().any(|(net, len)| (bits ^ u32::from_be_bytes(*net)) >> (32 - len) == 0)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    if let Some(inner) = embedded_v4(ip) {
        return is_public_v4(inner);
    }
    let top = (u128::from(ip) >> 96) as u32;
    let global_unicast = top >> 29 == 1;
    global_unicast && !IPV6_REFUSED.iter().any(|(net, len)| (top ^ net) >> (32 - len) == 0)
}

/// The IPv4 address that packets to this IPv6 address really go to: mapped (::ffff:0:0/96),
/// NAT64 (64:ff9b::/96) and 6to4 (2002::/16).
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_pass() {
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ];
        for text in public {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn nothing_else_passes_in_whatever_form() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::808:808",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "1fff::1",
            "100::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for text in refused {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn ports_loopback_and_allow_list_follow_the_settings() {
        let closed = DialPolicy::default();
        let insecure = DialPolicy { allow_insecure_hosts: true, ..DialPolicy::default() };
        let lab = DialPolicy {
            private_hosts: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..DialPolicy::default()
        };
        let passes = |policy: &DialPolicy, name: &str, address: &str| {
            check(policy, name, address.parse().unwrap()).is_ok()
        };
        assert!(passes(&closed, "a.com", "8.8.8.8:443"));
        assert!(passes(&closed, "a.com", "8.8.8.8:80"));
        assert!(!passes(&closed, "a.com", "8.8.8.8:22"));
        assert!(passes(&insecure, "a.com", "8.8.8.8:8080"));
        assert!(!passes(&closed, "localhost", "127.0.0.1:80"));
        assert!(passes(&insecure, "localhost", "127.0.0.1:2583"));
        assert!(passes(&insecure, "localhost", "[::1]:2583"));
        assert!(!passes(&insecure, "rebound.com", "127.0.0.1:2583"));
        assert!(!passes(&insecure, "rebound.com", "10.1.2.3:80"));
        assert!(passes(&lab, "pds.internal", "10.1.2.3:443"));
        assert!(passes(&lab, "pds.internal", "[::ffff:10.1.2.3]:443"));
        assert!(passes(&lab, "pds.internal", "[fd00::1]:443"));
        assert!(!passes(&lab, "pds.internal", "10.2.0.1:443"));
        assert!(!passes(&lab, "pds.internal", "10.1.2.3:8080"));
    }
}
