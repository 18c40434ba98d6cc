//! Fetching DID documents: one request, judged.

use std::time::{SystemTime, UNIX_EPOCH};

use protocol::{
    did_doc::{self, DidDocError},
    syntax::did,
};

use super::desk::{Document, FetchOutcome, Method};
use crate::dial::{self, DialPolicy, FetchError, Fetched, HttpClient};

/// Where documents come from.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    /// To the configured directory.
    pub(super) plc: HttpClient,
    /// The directory's URL without a slash at its end.
    pub(super) plc_url: String,
    /// To the hosts that did:web names, through the guard.
    pub(super) web: HttpClient,
    pub(super) policy: DialPolicy,
}

impl Fetcher {
    /// # Cancel-safety
    /// Dropping the future ends the request.
    pub(super) async fn fetch(&self, did: &str, method: Method) -> FetchOutcome {
        let reply = match method {
            Method::Plc => self.plc.get(&format!("{}/{did}", self.plc_url)).await,
            Method::Web => match web_url(did, &self.policy) {
                Some(url) => self.web.get(&url).await,
                None => return FetchOutcome::NotFound,
            },
        };
        judge(did, method, reply)
    }
}

/// The document's address, if the settings allow to ask there.
fn web_url(did: &str, policy: &DialPolicy) -> Option<String> {
    let (host, port) = did::web_authority(did)?;
    let host = host.to_ascii_lowercase();
    let path = "/.well-known/did.json";
    if host == "localhost" {
        // Development only, and then without TLS.
        let port = port.filter(|_| policy.allow_insecure_hosts)?;
        return Some(format!("http://localhost:{port}{path}"));
    }
    let reserved = dial::is_reserved(&host) && policy.private_hosts.is_empty();
    if port.is_some() || reserved || dial::check_name(&host).is_err() {
        return None;
    }
    Some(format!("https://{host}{path}"))
}

fn judge(did: &str, method: Method, reply: Result<Fetched, FetchError>) -> FetchOutcome {
    // The directory is one and trusted: what it can't say now it says later. A did:web server is its
    // owner's: what it says is the answer.
    let nonsense = match method {
        Method::Plc => FetchOutcome::Unavailable { retry_after: None },
        Method::Web => FetchOutcome::NotFound,
    };
    let reply = match reply {
        Ok(reply) => reply,
        Err(FetchError::TooLarge(_) | FetchError::Refused(_)) => return nonsense,
        Err(FetchError::Timeout | FetchError::Transport(_)) => {
            return FetchOutcome::Unavailable { retry_after: None };
        }
    };
    match reply.status {
        200..=299 => match did_doc::parse(&reply.body, did) {
            Ok(document) => FetchOutcome::Found(Document {
                key: document.key,
                pds: document.pds,
                handle: document.handle.map(String::into_boxed_str),
                fetched_at: unix_now(),
            }),
            // A proxy's error page, perhaps.
            Err(DidDocError::Json) => nonsense,
            Err(DidDocError::Id) => FetchOutcome::NotFound,
        },
        400 | 404 | 410 => FetchOutcome::NotFound,
        429 | 500..=599 => FetchOutcome::Unavailable { retry_after: reply.retry_after },
        _ => nonsense,
    }
}

pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn did_web_names_a_public_host_and_nothing_else() {
        let closed = DialPolicy::default();
        let insecure = DialPolicy { allow_insecure_hosts: true, ..DialPolicy::default() };
        let check = |did: &str, policy: &DialPolicy, expect: Option<&str>| {
            assert_eq!(web_url(did, policy).as_deref(), expect, "{did}");
        };
        check("did:web:a.com", &closed, Some("https://a.com/.well-known/did.json"));
        check("did:web:A.com", &closed, Some("https://a.com/.well-known/did.json"));
        check("did:web:a.com:user", &closed, None);
        check("did:web:a.com%3A8443", &closed, None);
        check("did:web:a.com%3A8443", &insecure, None);
        check("did:web:a.com%2Fx", &closed, None);
        check("did:web:10.0.0.1", &closed, None);
        check("did:web:a", &closed, None);
        check("did:web:a.internal", &closed, None);
        check("did:web:a.test", &closed, None);
        check("did:web:localhost%3A99", &closed, None);
        check("did:web:localhost", &insecure, None);
        let local = Some("http://localhost:99/.well-known/did.json");
        check("did:web:localhost%3A99", &insecure, local);
    }
}
