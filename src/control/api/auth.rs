//! Who may call the admin API: those who know one of the keys.
//!
//! Wrong keys are counted by the client's address: above a pace at which nobody guesses a key, no
//! more are looked at for a while, not even the right one. A request without a key is no guess.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, StatusCode, header};

use super::{
    Shared,
    client::{self, Client},
    reply::ApiError,
};

/// Wrong keys of one client in one [`FAILURE_WINDOW`].
const FAILURES_MAX: u32 = 30;
const FAILURE_WINDOW: Duration = Duration::from_mins(1);
/// Clients that are counted one by one; all others share one count.
const CLIENTS_MAX: usize = 10_000;

/// Which key a request came with, by its place in the configuration: what the audit log tells of who
/// it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyNumber(pub(crate) usize);

/// The keys that the operator configured. Never printed.
#[derive(Clone)]
pub struct AdminKeys(Vec<String>);

impl AdminKeys {
    /// Empty keys are left out: they would let everyone in.
    pub fn new(keys: impl IntoIterator<Item = String>) -> Self {
        Self(keys.into_iter().filter(|key| !key.is_empty()).collect())
    }

    /// `Bearer KEY`, or `Basic` with user `admin` and the key as password.
    pub(crate) fn allow(&self, headers: &HeaderMap) -> Option<KeyNumber> {
        let value = headers.get(header::AUTHORIZATION)?;
        let (scheme, rest) = split_scheme(value.as_bytes())?;
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.matches(rest);
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return None;
        }
        let decoded = BASE64_STANDARD.decode(rest).ok()?;
        decoded.strip_prefix(b"admin:").and_then(|key| self.matches(key))
    }

    /// Compares with every key, so that the time taken tells nothing of which one was near.
    fn matches(&self, candidate: &[u8]) -> Option<KeyNumber> {
        let mut found = None;
        for (index, key) in self.0.iter().enumerate() {
            if equal(key.as_bytes(), candidate) {
                found = Some(KeyNumber(index + 1));
            }
        }
        found
    }
}

impl std::fmt::Debug for AdminKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AdminKeys({})", self.0.len())
    }
}

fn split_scheme(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(space);
    Some((scheme, rest.trim_ascii()))
}

/// Equality in a time that depends on the candidate's length alone.
fn equal(key: &[u8], candidate: &[u8]) -> bool {
    let mut difference = key.len() ^ candidate.len();
    for (index, byte) in candidate.iter().enumerate() {
        let other = key.get(index % key.len()).copied().unwrap_or(0);
        difference |= usize::from(std::hint::black_box(byte ^ other));
    }
    difference == 0
}

/// Wrong keys of late.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<HashMap<Option<IpAddr>, Failed>>);

#[derive(Clone, Copy, Debug)]
struct Failed {
    since: Instant,
    count: u32,
}

impl Failures {
    /// How long the client has to wait before another key of it is looked at.
    fn wait(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        let clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = clients.get(&Some(client)).or_else(|| clients.get(&None))?;
        let over = failed.since + FAILURE_WINDOW;
        (failed.count >= FAILURES_MAX && now < over).then(|| over - now)
    }

    fn note(&self, client: IpAddr, now: Instant) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = Some(client);
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&key) {
            clients.retain(|_, failed| now < failed.since + FAILURE_WINDOW);
            if clients.len() >= CLIENTS_MAX {
                key = None;
            }
        }
        let failed = clients.entry(key).or_insert(Failed { since: now, count: 0 });
        if now >= failed.since + FAILURE_WINDOW {
            *failed = Failed { since: now, count: 0 };
        }
        failed.count = failed.count.saturating_add(1);
    }
}

/// Lets a request to an admin route through, or answers 401.
pub(crate) async fn require_key(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if !request.headers().contains_key(header::AUTHORIZATION) {
        return Err(unauthorized());
    }
    let Client(address) = client::of(&shared, request.extensions(), request.headers())?;
    let (holder, now) = (client::holder(address), Instant::now());
    if let Some(wait) = shared.failures.wait(holder, now) {
        return Err(ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "RateLimitExceeded",
            "too many wrong keys came from this address; wait before you send another",
        )
        .retry_after(wait.as_secs() + 1));
    }
    let Some(key) = shared.keys.allow(request.headers()) else {
        shared.failures.note(holder, now);
        metrics::counter!("relayered_api_wrong_keys_total").increment(1);
        tracing::warn!(%address, path = request.uri().path(), "a wrong admin key");
        return Err(unauthorized());
    };
    request.extensions_mut().insert(key);
    Ok(next.run(request).await)
}

fn unauthorized() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "AuthenticationRequired",
        "send the admin key as \"Authorization: Bearer KEY\", or as the password of user admin",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(value: &str) -> Option<KeyNumber> {
        let keys = AdminKeys::new(["first".to_owned(), "second".to_owned(), String::new()]);
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        keys.allow(&headers)
    }

    #[test]
    fn bearer_and_basic_with_any_key() {
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        for (good, number) in [
            ("Bearer first", 1),
            ("bearer second", 2),
            (&basic("admin:first"), 1),
            (&basic("admin:second"), 2),
        ] {
            assert_eq!(allowed(good), Some(KeyNumber(number)), "{good}");
        }
        for bad in [
            "Bearer firs",
            "Bearer firstfirst",
            "Bearer ",
            "Bearer",
            "first",
            "Basic first",
            "Digest first",
            &basic("root:first"),
            &basic("admin:"),
            &basic("admin"),
        ] {
            assert_eq!(allowed(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_guesses_has_to_wait_and_others_do_not() {
        let failures = Failures::default();
        let start = Instant::now();
        let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(number));
        for _ in 0..FAILURES_MAX {
            assert_eq!(failures.wait(address(1), start), None);
            failures.note(address(1), start);
        }
        let wait = failures.wait(address(1), start).unwrap();
        assert_eq!(wait, FAILURE_WINDOW);
        assert_eq!(failures.wait(address(2), start), None);
        assert_eq!(failures.wait(address(1), start + wait), None);
        failures.note(address(1), start + wait);
        assert_eq!(failures.wait(address(1), start + wait), None);
    }

    #[test]
    fn a_crowd_that_guesses_takes_no_more_memory() {
        let failures = Failures::default();
        let start = Instant::now();
        for number in 0..3 * CLIENTS_MAX as u32 {
            failures.note(std::net::Ipv4Addr::from_bits(number).into(), start);
        }
        assert_eq!(failures.0.lock().unwrap().len(), CLIENTS_MAX + 1);
        let stranger = std::net::Ipv4Addr::BROADCAST.into();
        assert!(failures.wait(stranger, start).is_some());
        failures.note(stranger, start + FAILURE_WINDOW);
        assert_eq!(failures.0.lock().unwrap().len(), 1);
    }
}
