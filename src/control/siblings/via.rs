//! The `Via` header of changes that relays pass on to each other.
//!
//! A change that began here is sent as `1.1 atproto-relay-ID (change N)`; each relay that passes it on
//! adds itself behind. The first name and its number make the change one of a kind, whichever way it
//! comes; the names show a way that closes on itself. Other relays know a forwarded request by the
//! words `atproto-relay` in the same header (or in `User-Agent`) and pass it on no further.

use std::fmt::{self, Write as _};

use http::{HeaderMap, header};

/// How all relays of this protocol name themselves.
const RELAY_WORD: &str = "atproto-relay";
/// Relays that a change may pass, the one where it began included.
pub(crate) const HOPS_MAX: usize = 8;
/// More of the header is not looked at.
const HEADER_BYTES_MAX: usize = 4096;

/// Which relay: random, made at the first start, kept in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RelayId(pub(crate) u64);

impl RelayId {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 16 && text.bytes().all(hex))
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
    }
}

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The way of a change so far: where it began, its number there, and who passed it on since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) origin: RelayId,
    pub(crate) number: u64,
    behind: Vec<RelayId>,
}

impl Way {
    /// A change that begins here.
    pub(crate) fn begin(origin: RelayId, number: u64) -> Self {
        Self { origin, number, behind: Vec::new() }
    }

    pub(crate) fn contains(&self, relay: RelayId) -> bool {
        self.origin == relay || self.behind.contains(&relay)
    }

    /// The way with one more relay; `None` if it is long enough.
    pub(crate) fn extended(&self, relay: RelayId) -> Option<Self> {
        let mut way = self.clone();
        way.behind.push(relay);
        (way.behind.len() < HOPS_MAX).then_some(way)
    }
}

/// The value of the header.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.1 {RELAY_WORD}-{} (change {})", self.origin, self.number)?;
        for relay in &self.behind {
            write!(f, ", 1.1 {RELAY_WORD}-{relay}")?;
        }
        Ok(())
    }
}

/// Where a request comes from, as its headers tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// From a person or a tool.
    Local,
    /// From a relay that numbers nothing, or whose number was lost on the way: not passed on.
    Foreign,
    /// From a sibling that numbers its changes.
    Relayed(Way),
}

impl Arrival {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut text = String::new();
        for value in headers.get_all(header::VIA) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{},", String::from_utf8_lossy(value.as_bytes()));
        }
        if text.len() > HEADER_BYTES_MAX {
            return Self::Foreign;
        }
        if let Some(way) = parse(&text) {
            return Self::Relayed(way);
        }
        let agent = headers.get(header::USER_AGENT).map(http::HeaderValue::as_bytes);
        let agent = String::from_utf8_lossy(agent.unwrap_or_default());
        if text.contains(RELAY_WORD) || agent.contains(RELAY_WORD) {
            return Self::Foreign;
        }
        Self::Local
    }
}

/// Reads the way out of a header, in which proxies may have put themselves as well.
fn parse(text: &str) -> Option<Way> {
    let mut way: Option<Way> = None;
    for hop in hops(text) {
        let mut words = hop.split_ascii_whitespace();
        let Some(name) = words.nth(1) else { continue };
        let Some(id) = name.strip_prefix(RELAY_WORD).and_then(|rest| rest.strip_prefix('-')) else {
            continue;
        };
        let relay = RelayId::parse(id)?;
        match &mut way {
            None => {
                let number = words.collect::<Vec<_>>().join(" ");
                let number = number.strip_prefix("(change ")?.strip_suffix(')')?.parse().ok()?;
                way = Some(Way::begin(relay, number));
            }
            Some(way) => way.behind.push(relay),
        }
    }
    way.filter(|way| way.behind.len() < HOPS_MAX)
}

/// The elements of the list; a comma in a comment does not divide.
fn hops(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|hop| !hop.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arrival(via: &[&str], agent: Option<&str>) -> Arrival {
        let mut headers = HeaderMap::new();
        for value in via {
            headers.append(header::VIA, value.parse().unwrap());
        }
        if let Some(agent) = agent {
            headers.insert(header::USER_AGENT, agent.parse().unwrap());
        }
        Arrival::of(&headers)
    }

    #[test]
    fn a_way_is_read_as_it_was_written_with_proxies_between() {
        let way = Way::begin(RelayId(0xabc), 42).extended(RelayId(7)).unwrap();
        let text = way.to_string();
        assert_eq!(
            text,
            "1.1 atproto-relay-0000000000000abc (change 42), 1.1 atproto-relay-0000000000000007"
        );
        assert_eq!(arrival(&[&text], None), Arrival::Relayed(way.clone()));
        let (first, second) = text.split_once(", ").unwrap();
        let proxied = ["1.0 fred (a proxy, old)", first, "1.1 nginx", second, "HTTP/1.1 caddy"];
        assert_eq!(arrival(&proxied, Some("curl/8")), Arrival::Relayed(way.clone()));
        assert!(way.contains(RelayId(7)) && way.contains(RelayId(0xabc)));
        assert!(!way.contains(RelayId(8)));
    }

    #[test]
    fn other_relays_are_known_and_people_too() {
        assert_eq!(arrival(&["HTTP/1.1 atproto-relay"], None), Arrival::Foreign);
        assert_eq!(arrival(&[], Some("indigo-relay/1 (atproto-relay)")), Arrival::Foreign);
        assert_eq!(arrival(&["1.1 nginx"], Some("goat/0.2.1")), Arrival::Local);
        assert_eq!(arrival(&[], None), Arrival::Local);
        for broken in [
            "1.1 atproto-relay-0000000000000abc",
            "1.1 atproto-relay-0000000000000abc (change x)",
            "1.1 atproto-relay-0000000000000ABC (change 1)",
            "1.1 atproto-relay-abc (change 1)",
        ] {
            assert_eq!(arrival(&[broken], None), Arrival::Foreign, "{broken}");
        }
    }

    #[test]
    fn a_way_ends_after_so_many_relays() {
        let mut way = Way::begin(RelayId(0), 1);
        for relay in 1..HOPS_MAX as u64 {
            way = way.extended(RelayId(relay)).unwrap();
        }
        assert_eq!(way.extended(RelayId(99)), None);
        assert_eq!(arrival(&[&way.to_string()], None), Arrival::Relayed(way.clone()));
        let longer = format!("{way}, 1.1 atproto-relay-0000000000000063");
        assert_eq!(arrival(&[&longer], None), Arrival::Foreign);
    }

    proptest! {
        #[test]
        fn any_way_survives_the_header(
            origin: u64, number: u64, behind in proptest::collection::vec(any::<u64>(), 0..HOPS_MAX)
        ) {
            let behind = behind.into_iter().map(RelayId).collect();
            let way = Way { origin: RelayId(origin), number, behind };
            prop_assert_eq!(parse(&way.to_string()), Some(way));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[ -~]{0,200}") {
            let _ = parse(&text);
        }
    }
}
