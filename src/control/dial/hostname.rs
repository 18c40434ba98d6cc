//! Host names as strangers write them, brought into the one form that the relay stores.
//!
//! `pds.example.com`, `HTTPS://PDS.Example.com/`, `wss://pds.example.com.` are one host. Anything that
//! is not plainly a public DNS name (an address, a port, a path, a single label) is refused rather
//! than repaired: two spellings must never become two connections to one host.

use std::fmt;

use super::DialPolicy;

/// Longest DNS name in text form.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
/// Longest text that is looked at: a name, a scheme and some room.
const INPUT_BYTES_MAX: usize = 512;

/// Top-level domains that never lead to a public host (RFC 2606, 6761, 6762, 7686, 9476).
const RESERVED_TLDS: [&str; 9] =
    ["alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test"];

/// A host in normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostAddress {
    /// `name`, or `localhost:port`; lower case, no trailing dot.
    pub hostname: String,
    pub tls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostnameError {
    Empty,
    TooLong,
    Scheme,
    UserInfo,
    Path,
    Port,
    /// `localhost` without a port.
    LocalhostPort,
    /// Not a DNS name of two labels or more.
    Syntax,
    /// A top-level domain that is reserved for other uses.
    Reserved,
    /// `localhost:port` where insecure hosts are not allowed.
    Localhost,
    /// `http://` or `ws://` where insecure hosts are not allowed.
    Insecure,
}

impl fmt::Display for HostnameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "hostname is empty",
            Self::TooLong => "hostname is too long",
            Self::Scheme => "scheme must be https or wss (or http, ws where the relay allows it)",
            Self::UserInfo => "hostname must not carry user information",
            Self::Path => "hostname must not carry a path, query or fragment",
            Self::Port => "hostname must not carry a port",
            Self::LocalhostPort => "localhost needs a port",
            Self::Syntax => "hostname must be a DNS name of two labels or more, not an address",
            Self::Reserved => {
                "the top-level domain is reserved and not reachable from the internet"
            }
            Self::Localhost => "this relay does not allow hosts on localhost",
            Self::Insecure => "this relay requires TLS of its hosts",
        })
    }
}

impl std::error::Error for HostnameError {}

impl HostAddress {
    /// Normalises a bare name or a URL. What the relay's settings allow is not looked at:
    /// see [`HostAddress::check`].
    pub fn parse(input: &str) -> Result<Self, HostnameError> {
        if input.is_empty() {
            return Err(HostnameError::Empty);
        }
        if input.len() > INPUT_BYTES_MAX {
            return Err(HostnameError::TooLong);
        }
        let (tls, rest) = match input.split_once("://") {
            Some((scheme, rest)) => (scheme_tls(scheme)?, rest),
            None => (!starts_with_localhost_port(input), input),
        };
        let authority = authority(rest)?;
        let hostname = normalise(authority)?;
        Ok(Self { hostname, tls })
    }

    /// Whether the relay's settings allow this host. `admin` may add hosts without TLS, as only the
    /// operator can know that they are reachable no other way.
    pub fn check(&self, policy: &DialPolicy, admin: bool) -> Result<(), HostnameError> {
        if self.is_localhost() {
            return if policy.allow_insecure_hosts {
                Ok(())
            } else {
                Err(HostnameError::Localhost)
            };
        }
        if is_reserved(&self.hostname) && policy.private_hosts.is_empty() {
            return Err(HostnameError::Reserved);
        }
        if !self.tls && !policy.allow_insecure_hosts && !admin {
            return Err(HostnameError::Insecure);
        }
        Ok(())
    }

    /// `localhost:port`, the only form that carries a port.
    pub fn is_localhost(&self) -> bool {
        self.hostname.starts_with("localhost:")
    }

    /// The name without a port.
    pub fn name(&self) -> &str {
        self.hostname.split_once(':').map_or(self.hostname.as_str(), |(name, _)| name)
    }

    pub fn port(&self) -> u16 {
        let default = if self.tls { 443 } else { 80 };
        self.hostname.split_once(':').map_or(default, |(_, port)| port.parse().unwrap_or(default))
    }

    /// `https://name` or `http://name`, to put a path behind.
    pub fn http_origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.hostname)
    }
}

/// Whether the name's last label is reserved. The name must be in normal form.
pub fn is_reserved(name: &str) -> bool {
    let tld = name.rsplit_once('.').map_or(name, |(_, tld)| tld);
    RESERVED_TLDS.contains(&tld)
}

fn scheme_tls(scheme: &str) -> Result<bool, HostnameError> {
    match scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => Ok(true),
        "http" | "ws" => Ok(false),
        _ => Err(HostnameError::Scheme),
    }
}

fn starts_with_localhost_port(input: &str) -> bool {
    input.get(..10).is_some_and(|head| head.eq_ignore_ascii_case("localhost:"))
}

/// Takes the authority off; behind it only one slash may stand.
fn authority(rest: &str) -> Result<&str, HostnameError> {
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if authority.contains('@') {
        return Err(HostnameError::UserInfo);
    }
    if !matches!(tail, "" | "/") {
        return Err(HostnameError::Path);
    }
    if authority.is_empty() { Err(HostnameError::Empty) } else { Ok(authority) }
}

fn normalise(authority: &str) -> Result<String, HostnameError> {
    let (name, port) = match authority.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (authority, None),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if name == "localhost" {
        let port = port.ok_or(HostnameError::LocalhostPort)?;
        return Ok(format!("localhost:{}", parse_port(port).ok_or(HostnameError::Port)?));
    }
    if authority.starts_with('[') {
        return Err(HostnameError::Syntax);
    }
    if port.is_some() {
        return Err(HostnameError::Port);
    }
    check_name(&name)?;
    Ok(name)
}

/// Digits only, so that `+80` and `080` are not further spellings of one port.
fn parse_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().ok() } else { None }
}

/// The handle syntax of the protocol, which is that of a public DNS name. The name is in lower case.
pub(crate) fn check_name(name: &str) -> Result<(), HostnameError> {
    if name.is_empty() {
        return Err(HostnameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(HostnameError::TooLong);
    }
    let mut labels = 0;
    let mut last = "";
    for label in name.split('.') {
        let bytes = label.as_bytes();
        let plain =
            bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        let edges = label.starts_with('-') || label.ends_with('-');
        if bytes.is_empty() || bytes.len() > LABEL_BYTES_MAX || !plain || edges {
            return Err(HostnameError::Syntax);
        }
        labels += 1;
        last = label;
    }
    if labels < 2 || !last.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(HostnameError::Syntax);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(input: &str, expect: Result<(&str, bool), HostnameError>) {
        let got = HostAddress::parse(input);
        let got = got.as_ref().map(|host| (host.hostname.as_str(), host.tls)).map_err(|e| *e);
        assert_eq!(got, expect, "{input:?}");
    }

    #[test]
    fn one_host_has_one_spelling() {
        for input in [
            "pds.example.com",
            "PDS.Example.COM",
            "pds.example.com.",
            "https://pds.example.com",
            "HTTPS://pds.example.com/",
            "wss://pds.example.com./",
        ] {
            check(input, Ok(("pds.example.com", true)));
        }
        check("http://pds.example.com", Ok(("pds.example.com", false)));
        check("ws://pds.example.com", Ok(("pds.example.com", false)));
        check("https://service.local", Ok(("service.local", true)));
        check("localhost:8080", Ok(("localhost:8080", false)));
        check("LocalHost:8080", Ok(("localhost:8080", false)));
        check("https://localhost:8080", Ok(("localhost:8080", true)));
        check("xn--bcher-kva.example.com", Ok(("xn--bcher-kva.example.com", true)));
    }

    #[test]
    fn what_is_not_a_public_name_is_refused() {
        use HostnameError::*;
        check("", Err(Empty));
        check("https://", Err(Empty));
        check("asdf", Err(Syntax));
        check("https://internal", Err(Syntax));
        check("localhost", Err(LocalhostPort));
        check("https://localhost", Err(LocalhostPort));
        check("localhost.:80", Ok(("localhost:80", true)));
        check("localhost:0", Err(Port));
        check("localhost:080", Err(Port));
        check("localhost:+80", Err(Port));
        check("localhost:65536", Err(Port));
        check("https://8.8.8.8", Err(Syntax));
        check("0x7f.1", Err(Syntax));
        check("2130706433", Err(Syntax));
        check("https://[::1]", Err(Syntax));
        check("[::ffff:127.0.0.1]", Err(Syntax));
        check("at://pds.example.com", Err(Scheme));
        check("ftp://pds.example.com", Err(Scheme));
        check("pds.example.com:443", Err(Port));
        check("pds.example.com:", Err(Port));
        check("https://pds.example.com:443/", Err(Port));
        check("https://user:pw@pds.example.com", Err(UserInfo));
        check("https://pds.example.com/xrpc", Err(Path));
        check("https://pds.example.com//", Err(Path));
        check("pds.example.com?x", Err(Path));
        check("pds.example.com#x", Err(Path));
        check("https:\\\\pds.example.com", Err(Path));
        check("pds..example.com", Err(Syntax));
        check("pds.example.com..", Err(Syntax));
        check(".example.com", Err(Syntax));
        check("-a.example.com", Err(Syntax));
        check("a_b.example.com", Err(Syntax));
        check(" pds.example.com", Err(Syntax));
        check("pds.example.com\n", Err(Syntax));
        check("pds\u{3002}example.com", Err(Syntax));
        check("p\u{0501}s.example.com", Err(Syntax));
        check(&format!("{}.com", "a".repeat(64)), Err(Syntax));
        check(&format!("{}com", "a.".repeat(126)), Err(TooLong));
        check(&"a".repeat(600), Err(TooLong));
    }

    #[test]
    fn settings_decide_over_reserved_names_localhost_and_plain_http() {
        let closed = DialPolicy::default();
        let insecure = DialPolicy { allow_insecure_hosts: true, ..DialPolicy::default() };
        let private =
            DialPolicy { private_hosts: vec!["10.0.0.0/8".parse().unwrap()], ..closed.clone() };
        let verdict = |input: &str, policy: &DialPolicy, admin| {
            HostAddress::parse(input).unwrap().check(policy, admin).err()
        };
        assert_eq!(verdict("pds.bsky.network", &closed, false), None);
        assert_eq!(verdict("pds.internal", &closed, true), Some(HostnameError::Reserved));
        assert_eq!(verdict("a.localhost", &insecure, true), Some(HostnameError::Reserved));
        assert_eq!(verdict("pds.internal", &private, false), None);
        assert_eq!(verdict("localhost:99", &closed, true), Some(HostnameError::Localhost));
        assert_eq!(verdict("localhost:99", &insecure, false), None);
        assert_eq!(verdict("http://pds.a.com", &closed, false), Some(HostnameError::Insecure));
        assert_eq!(verdict("http://pds.a.com", &closed, true), None);
        assert_eq!(verdict("http://pds.a.com", &insecure, false), None);
    }

    proptest! {
        #[test]
        fn normal_form_is_stable(input in "\\PC{0,80}") {
            if let Ok(host) = HostAddress::parse(&input) {
                let again = HostAddress::parse(&host.http_origin());
                prop_assert_eq!(again, Ok(host));
            }
        }
    }
}
