//! Whose request it is, behind proxies or without.
//!
//! A proxy tells in a header for whom it asks. Anybody can write such a header, so it counts only as
//! far as it was written by proxies that the operator trusts (`--trusted-proxies`): the client is the
//! last address in the chain that is not one of them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::{extract::FromRequestParts, http::request::Parts};
use http::{Extensions, HeaderMap, HeaderValue, header, header::GetAll};
use ipnet::IpNet;

use super::{Shared, reply::ApiError, server::Peer};

/// Entries of the header that are looked at, from its end.
const HOPS_MAX: usize = 32;

/// The networks whose word about their clients counts.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        for hop in hops(headers).into_iter().rev().take(HOPS_MAX) {
            // What is no address ("unknown", "_hidden") says no more than who sent it.
            let Some(address) = hop.and_then(address) else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

/// The chain as the headers tell it, nearest last. `X-Forwarded-For` goes first, as most proxies
/// append to that one and let a client's `Forwarded` pass.
fn hops(headers: &HeaderMap) -> Vec<Option<&str>> {
    let plain = headers.get_all("x-forwarded-for");
    if plain.iter().next().is_some() {
        return items(plain).map(Some).collect();
    }
    items(headers.get_all(header::FORWARDED)).map(forwarded_for).collect()
}

fn items(lines: GetAll<'_, HeaderValue>) -> impl Iterator<Item = &str> {
    // A line that is not text names no address, and what stands before it is not believed.
    lines
        .into_iter()
        .flat_map(|line| line.to_str().unwrap_or("unreadable").split(','))
        .map(str::trim)
}

/// The value of `for=` in an element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    Some(node.trim().trim_matches('"'))
}

/// An address, with or without port and brackets.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let parsed = match bare {
        Some(inner) => inner.parse().ok(),
        None => hop.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|at| at.ip())),
    };
    parsed.map(|address: IpAddr| address.to_canonical())
}

/// Whom an address stands for in limits: an IPv6 subscriber has a /64 at least.
pub(crate) fn holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// The client's address, for handlers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client(pub(crate) IpAddr);

impl FromRequestParts<Shared> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, ApiError> {
        of(shared, &parts.extensions, &parts.headers)
    }
}

pub(crate) fn of(
    shared: &Shared,
    extensions: &Extensions,
    headers: &HeaderMap,
) -> Result<Client, ApiError> {
    let Some(Peer(peer)) = extensions.get::<Peer>() else {
        tracing::error!("a request without the address of its connection");
        return Err(ApiError::internal());
    };
    Ok(Client(shared.proxies.client(peer.ip(), headers)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, lines: &[(&'static str, &str)]) -> String {
        let networks = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        TrustedProxies::new(networks).client(peer.parse().unwrap(), &headers).to_string()
    }

    const XFF: &str = "x-forwarded-for";

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        for peer in ["127.0.0.1", "10.0.0.1", "192.0.2.1", "::1"] {
            assert_eq!(client(&[], peer, &[(XFF, "203.0.113.9")]), peer);
            let trusted = &["198.51.100.0/24"];
            assert_eq!(client(trusted, peer, &[("forwarded", "for=203.0.113.9")]), peer);
        }
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxy() {
        let trusted = &["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"];
        for (lines, expected) in [
            (&[][..], "127.0.0.1"),
            (&[(XFF, "203.0.113.9")], "203.0.113.9"),
            // The first entry was made up by the client.
            (&[(XFF, "8.8.8.8, 203.0.113.9, 10.1.1.1")], "203.0.113.9"),
            (&[(XFF, "8.8.8.8"), (XFF, "203.0.113.9"), (XFF, "10.1.1.1")], "203.0.113.9"),
            (&[(XFF, "203.0.113.9:4711,[fd00::1]:80")], "203.0.113.9"),
            (&[(XFF, "[2001:db8::7]")], "2001:db8::7"),
            (&[(XFF, "2001:db8::7")], "2001:db8::7"),
            (&[(XFF, "::ffff:203.0.113.9")], "203.0.113.9"),
            (&[(XFF, "10.2.2.2")], "10.2.2.2"),
            // What stands before something that can't be read is not believed.
            (&[(XFF, "8.8.8.8, unknown, 10.2.2.2")], "10.2.2.2"),
            (&[(XFF, "8.8.8.8, , 10.2.2.2")], "10.2.2.2"),
            (&[(XFF, "")], "127.0.0.1"),
            (&[("forwarded", "for=192.0.2.60;proto=http;by=203.0.113.43")], "192.0.2.60"),
            (
                &[("forwarded", "for=8.8.8.8, For=\"[2001:db8:cafe::17]:4711\", for=10.1.1.1")],
                "2001:db8:cafe::17",
            ),
            (&[("forwarded", "for=_hidden, for=10.3.3.3")], "10.3.3.3"),
            (&[("forwarded", "proto=http")], "127.0.0.1"),
            // A proxy that appends to one header lets the other one pass.
            (&[("forwarded", "for=8.8.8.8"), (XFF, "203.0.113.9")], "203.0.113.9"),
        ] {
            assert_eq!(client(trusted, "127.0.0.1", lines), expected, "{lines:?}");
        }
        assert_eq!(client(trusted, "::ffff:127.0.0.1", &[(XFF, "203.0.113.9")]), "203.0.113.9");
    }

    #[test]
    fn endless_chains_end() {
        let long = vec!["10.0.0.1"; 1000].join(",") + ",10.0.0.2";
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.3", &[(XFF, &long)]), "10.0.0.1");
    }
}
