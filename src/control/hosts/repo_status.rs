//! Asking a host what it says of an account: `com.atproto.sync.getRepoStatus`.
//!
//! A commit of an account that its host had called inactive is the reason. Hosts are asked at a pace
//! and few requests at a time, so that whoever sends such commits gains nothing by it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ports::{HostId, StatusWord, UpstreamStatus};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::gate::Gate;
use crate::dial::{Dialer, FetchError, Fetched, HostAddress, HttpClient, Reach};

const BYTES_MAX: usize = 16 * 1024;
/// For one host: so many at once, and one in an interval.
const HOST_BURST: u32 = 100;
const HOST_INTERVAL: Duration = Duration::from_millis(100);
/// For one account.
const ACCOUNT_BURST: u32 = 5;
const ACCOUNT_INTERVAL: Duration = Duration::from_secs(15);
const KEYS_MAX: usize = 16_384;
/// Requests under way, to all hosts and to one: a host that answers slowly holds up nobody else.
const IN_FLIGHT_MAX: usize = 64;
const OF_HOST_MAX: usize = 4;

#[derive(Debug)]
struct Gates {
    hosts: Gate<HostId>,
    accounts: Gate<Box<str>>,
    /// Of the hosts that have been asked.
    slots: HashMap<HostId, Arc<Semaphore>>,
}

/// Clones share the pace.
#[derive(Clone, Debug)]
pub(super) struct RepoStatuses {
    client: HttpClient,
    gates: Arc<Mutex<Gates>>,
    slots: Arc<Semaphore>,
}

impl RepoStatuses {
    pub(super) fn new(dialer: &Dialer, timeout: Duration) -> Result<Self, FetchError> {
        let now = Instant::now();
        let gates = Gates {
            hosts: Gate::new(HOST_BURST, HOST_INTERVAL, KEYS_MAX, now),
            accounts: Gate::new(ACCOUNT_BURST, ACCOUNT_INTERVAL, KEYS_MAX, now),
            slots: HashMap::new(),
        };
        Ok(Self {
            client: HttpClient::new(Reach::Guarded(dialer.clone()), timeout, BYTES_MAX)?,
            gates: Arc::new(Mutex::new(gates)),
            slots: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
        })
    }

    /// # Cancel-safety
    /// Dropping the future ends the request.
    pub(super) async fn ask(
        &self,
        host: HostId,
        hostname: &str,
        tls: bool,
        did: &str,
    ) -> Option<UpstreamStatus> {
        let slots_of_host = self.admit(host, did)?;
        let _slot_of_host = slots_of_host.acquire().await.ok()?;
        let _slot = self.slots.acquire().await.ok()?;
        let address = HostAddress { hostname: hostname.to_owned(), tls };
        let origin = address.http_origin();
        let url = format!("{origin}/xrpc/com.atproto.sync.getRepoStatus?did={}", encode(did));
        let reply = self.client.get(&url).await;
        let status = reply.as_ref().ok().and_then(|reply| judge(reply, did));
        tracing::debug!(host = host.0, did, ?status, "asked the host for its word on an account");
        status
    }

    /// The host's slots, if it may be asked.
    fn admit(&self, host: HostId, did: &str) -> Option<Arc<Semaphore>> {
        let now = Instant::now();
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.accounts.pass(did.into(), now).ok()?;
        gates.hosts.pass(host, now).ok()?;
        let slots = gates.slots.entry(host);
        Some(Arc::clone(slots.or_insert_with(|| Arc::new(Semaphore::new(OF_HOST_MAX)))))
    }
}

/// Of the characters of a DID only these could be taken for something else in a query.
fn encode(did: &str) -> String {
    did.replace('%', "%25").replace(':', "%3A")
}

fn judge(reply: &Fetched, did: &str) -> Option<UpstreamStatus> {
    if !reply.is_success() {
        return None;
    }
    let status: Map<String, Value> = serde_json::from_slice(&reply.body).ok()?;
    let word = status.get("status").and_then(Value::as_str);
    let word = word.map_or(StatusWord::None, StatusWord::parse);
    let active = status.get("active")?.as_bool()?;
    (status.get("did")? == did).then_some(UpstreamStatus { active, word })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::{
        DialConfig, DialPolicy,
        fake::{FakeHttp, Reply},
    };

    const DID: &str = "did:plc:aaaabbbbccccddddeeeeffff";

    fn statuses() -> RepoStatuses {
        let policy = DialPolicy { allow_insecure_hosts: true, ..DialPolicy::default() };
        let dialer = Dialer::new(DialConfig { policy, ..DialConfig::default() });
        RepoStatuses::new(&dialer, Duration::from_secs(5)).unwrap()
    }

    #[tokio::test]
    async fn a_host_s_word_is_taken_if_it_is_one() {
        let check = async |body: &'static str, expected: Option<UpstreamStatus>| {
            let host = FakeHttp::start(move |path| {
                let did = "did%3Aplc%3Aaaaabbbbccccddddeeeeffff";
                assert_eq!(path, format!("/xrpc/com.atproto.sync.getRepoStatus?did={did}"));
                Reply::json(body)
            })
            .await;
            let said = statuses().ask(HostId(1), &host.hostname(), false, DID).await;
            assert_eq!(said, expected, "{body}");
        };
        let active = Some(UpstreamStatus::ACTIVE);
        check(r#"{"did":"did:plc:aaaabbbbccccddddeeeeffff","active":true,"rev":"x"}"#, active)
            .await;
        let gone = UpstreamStatus { active: false, word: StatusWord::Deactivated };
        check(
            r#"{"did":"did:plc:aaaabbbbccccddddeeeeffff","active":false,"status":"deactivated"}"#,
            Some(gone),
        )
        .await;
        check(r#"{"did":"did:plc:other","active":true}"#, None).await;
        check(r#"{"active":true}"#, None).await;
        check("<html>", None).await;
    }

    #[tokio::test]
    async fn one_account_and_one_host_are_asked_for_at_a_pace() {
        let host = FakeHttp::start(|_| Reply::status(400)).await;
        let statuses = statuses();
        for _ in 0..20 {
            assert_eq!(statuses.ask(HostId(1), &host.hostname(), false, DID).await, None);
        }
        assert_eq!(host.requests(), ACCOUNT_BURST as usize);
    }
}
