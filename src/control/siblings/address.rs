//! A sibling relay as the operator names it.

use std::fmt;

use reqwest::Url;

/// Where a sibling is, and the key to it if it is not our own.
#[derive(Clone, PartialEq, Eq)]
pub struct SiblingAddress {
    /// `https://host` or `http://host:port`; names the sibling in the database, metrics and replies.
    origin: String,
    key: Option<String>,
}

impl SiblingAddress {
    /// `relay.example.com`, `https://relay.example.com`, `http://10.0.0.2:2470`; a key may stand
    /// before the host as in `https://admin:KEY@relay.example.com`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |problem: &str| Err(format!("{}: {problem}", without_secret(text)));
        let text = text.trim();
        let text = text.strip_suffix('/').unwrap_or(text);
        let local = text.starts_with("localhost:");
        let scheme = if local { "http" } else { "https" };
        let url = if text.contains(":/") { text.to_owned() } else { format!("{scheme}://{text}") };
        // The parser would step over slashes before a name.
        let parsed = if text.starts_with('/') { None } else { Url::parse(&url).ok() };
        let Some(url) = parsed else { return wrong("is not a host name or URL") };
        if !matches!(url.scheme(), "http" | "https") {
            return wrong("a sibling is reached by https:// or http://");
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return wrong("a sibling is named without a path");
        }
        let Some(host) = url.host_str() else { return wrong("there is no host name in it") };
        let origin = match url.port() {
            Some(port) => format!("{}://{host}:{port}", url.scheme()),
            None => format!("{}://{host}", url.scheme()),
        };
        let key = url.password().map(decode).filter(|key| !key.is_empty());
        Ok(Self { origin, key })
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

/// The key is not shown.
impl fmt::Debug for SiblingAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

/// What may stand in a message: not what is before an `@`.
fn without_secret(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, host)| host)
}

/// Percent-encoding taken off, as in a form but that a plus is a plus.
fn decode(text: &str) -> String {
    let escaped = text.replace('+', "%2B");
    Url::parse(&format!("http://form/?k={escaped}"))
        .ok()
        .and_then(|url| url.query_pairs().next().map(|(_, value)| value.into_owned()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_urls_lead_to_one_origin() {
        for (text, origin, key) in [
            ("relay.example.com", "https://relay.example.com", None),
            ("https://Relay.Example.com/", "https://relay.example.com", None),
            ("https://relay.example.com:443", "https://relay.example.com", None),
            ("localhost:2470", "http://localhost:2470", None),
            ("http://10.0.0.2:2470", "http://10.0.0.2:2470", None),
            ("http://[::1]:2470", "http://[::1]:2470", None),
            ("https://admin:s3cret@relay.example.com", "https://relay.example.com", Some("s3cret")),
            ("https://admin:a%2Fb+c@relay.example.com", "https://relay.example.com", Some("a/b+c")),
        ] {
            let address = SiblingAddress::parse(text).unwrap();
            assert_eq!((address.origin(), address.key()), (origin, key), "{text}");
            assert!(!format!("{address:?}").contains("s3cret"));
        }
    }

    #[test]
    fn what_is_no_relay_is_refused_without_the_secret() {
        for text in ["", "wss://a.example", "https://a.example/admin", "https://", "a b", "/x"] {
            assert!(SiblingAddress::parse(text).is_err(), "{text}");
        }
        let error = SiblingAddress::parse("ftp://admin:s3cret@a.example").unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
