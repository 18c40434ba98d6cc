//! Identities: which key signs for a DID, and which host holds its repository.
//!
//! Shards ask through [`Resolver::answer`]. One task owns cache and queues: one look-up at a time for
//! a DID, bounded ones in all, in turn by the host that caused them, at a pace that the directory
//! bears. While the directory is in trouble, what was known goes on to hold.

mod desk;
mod fetch;
pub mod import;

mod queue;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use ports::{AccountAnswer, AccountLookup, HostId, Identity, IdentityAnswer, LookupWhy};
use protocol::did_doc::Endpoint;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, sleep_until},
};

pub use desk::Document;

use crate::{
    dial::{Dialer, FetchError, HttpClient, Reach},
    hosts::HostNames,
    store::{Store, StoreError, StoredAccount, StoredIdentity},
};
use desk::{Answer, AnswerResult, Ask, Desk, FetchOutcome, Need};
use fetch::{Fetcher, unix_now};

/// Pause before a database that is away is asked again; doubles each time.
const STORE_RETRY_FIRST: Duration = Duration::from_millis(500);
const STORE_RETRY_MAX: Duration = Duration::from_secs(8);

#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// The PLC directory. Trusted: it may be on loopback and without TLS.
    pub plc_url: String,
    pub cache_entries_max: usize,
    pub ttl_found: Duration,
    pub ttl_not_found: Duration,
    pub ttl_failed: Duration,
    /// A DID is not fetched anew within this time, whoever insists: they wait.
    pub fresh_gap: Duration,
    /// So many fresh fetches of one DID may come at once before the gap is kept.
    pub fresh_burst: u32,
    pub fetch_timeout: Duration,
    pub document_bytes_max: usize,
    /// How often the directory is asked at most; one on loopback is the operator's own and is not
    /// spared.
    pub plc_requests_per_second: u32,
    pub plc_in_flight_max: usize,
    pub web_in_flight_max: usize,
    pub queue_per_sender_max: usize,
    pub queue_max: usize,
    /// Who waits longer than this for their turn is told that there is no answer now.
    pub queue_wait_max: Duration,
    /// The same for those who hope for a newer document, failures of the directory included.
    pub newer_wait_max: Duration,
    /// And for those whom what is known will not do.
    pub other_wait_max: Duration,
    /// So long an account waits for a did:web server of which nothing was ever heard.
    pub web_wait_max: Duration,
    /// So long after its time an old document is still used while it is being renewed; later only
    /// if it can't be.
    pub stale_max: Duration,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            plc_url: "https://plc.directory".to_owned(),
            cache_entries_max: 5_000_000,
            ttl_found: Duration::from_hours(24),
            ttl_not_found: Duration::from_mins(2),
            ttl_failed: Duration::from_secs(1),
            fresh_gap: Duration::from_secs(3),
            fresh_burst: 5,
            fetch_timeout: Duration::from_secs(10),
            document_bytes_max: 256 * 1024,
            plc_requests_per_second: 500,
            plc_in_flight_max: 64,
            web_in_flight_max: 32,
            queue_per_sender_max: 2_000,
            queue_max: 50_000,
            queue_wait_max: Duration::from_secs(30),
            newer_wait_max: Duration::from_secs(10),
            other_wait_max: Duration::from_mins(10),
            web_wait_max: Duration::from_secs(45),
            stale_max: Duration::from_hours(6 * 24),
        }
    }
}

/// For metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityStats {
    /// Questions answered from the cache.
    pub hits: u64,
    /// Questions that joined one under way.
    pub joined: u64,
    /// Questions without a place in the queue, or that waited too long in it.
    pub turned_away: u64,
    pub found: u64,
    pub not_found: u64,
    pub unavailable: u64,
    /// As of now.
    pub cached: u64,
    pub queued: u64,
    pub in_flight: u64,
    pub directory_in_trouble: bool,
}

enum Command {
    Ask {
        did: Box<str>,
        sender: HostId,
        need: Need,
        stored: Option<(Document, Duration)>,
        reply: oneshot::Sender<Answer>,
    },
    Stats(oneshot::Sender<IdentityStats>),
}

/// A handle to the task that owns the identities. Clones share it.
#[derive(Clone, Debug)]
pub struct Resolver {
    // Unbounded, as the task never waits: a shard has one question for a DID at a time, and only so
    // many parked events.
    commands: mpsc::UnboundedSender<Command>,
    store: Store,
    names: HostNames,
}

impl Resolver {
    /// Starts the task; within a Tokio runtime.
    pub fn start(
        config: IdentityConfig,
        store: Store,
        dialer: &Dialer,
        names: HostNames,
    ) -> Result<Self, FetchError> {
        let mut config = config;
        if is_loopback(&config.plc_url) {
            config.plc_requests_per_second = u32::MAX;
        }
        let client =
            |reach| HttpClient::new(reach, config.fetch_timeout, config.document_bytes_max);
        let fetcher = Fetcher {
            plc: client(Reach::Trusted)?,
            plc_url: config.plc_url.trim_end_matches('/').to_owned(),
            web: client(Reach::Guarded(dialer.clone()))?,
            policy: dialer.policy().clone(),
        };
        let (commands, inbox) = mpsc::unbounded_channel();
        tokio::spawn(run(Desk::new(config, Instant::now()), fetcher, inbox));
        Ok(Self { commands, store, names })
    }

    /// Answers a shard's question. Makes the account if it is wanted, unknown, and its document names
    /// the host that sent the event.
    ///
    /// # Cancel-safety
    /// Dropping the future loses the answer; a fetch under way still fills the cache.
    ///
    /// While the database is away there is no answer: the account's events wait in the shard.
    pub async fn answer(&self, lookup: AccountLookup) -> AccountAnswer {
        let mut pause = STORE_RETRY_FIRST;
        loop {
            match self.try_answer(&lookup).await {
                Ok(answer) => return answer,
                Err(error) if error.is_passing() => sleep(pause).await,
                Err(error) => {
                    tracing::error!(%error, "an account could not be looked up in the store");
                    return no_answer(&lookup);
                }
            }
            pause = (pause * 2).min(STORE_RETRY_MAX);
        }
    }

    async fn try_answer(&self, lookup: &AccountLookup) -> Result<AccountAnswer, StoreError> {
        let did = &*lookup.did;
        let StoredAccount { mut state, identity: stored } = if lookup.state_wanted {
            self.store.account_as_of(did, lookup.as_of).await?
        } else {
            StoredAccount::default()
        };
        let answer = self.ask(did, lookup.sender, need_of(lookup), stored).await;
        let identity = self.identity_answer(&answer.result);
        if let IdentityAnswer::Found(found) = &identity
            && lookup.state_wanted
            && state.is_none()
            && found.host == Some(lookup.sender)
        {
            state = Some(self.store.create_account(did, lookup.sender).await?);
        }
        if let AnswerResult::Found(document) = &answer.result
            && answer.fresh
        {
            // Kept by the store for accounts that have a row by now.
            self.store.save_identity(did, to_stored(document));
        }
        Ok(AccountAnswer {
            did: lookup.did.clone(),
            state,
            identity,
            fresh: answer.fresh,
            host_status: None,
        })
    }

    /// The identity alone, for questions from the API. `fresh` bypasses the cache within limits.
    pub async fn identity(&self, did: &str, fresh: bool) -> IdentityAnswer {
        let answer = self.ask(did, HostId::RELAY, need(fresh), None).await;
        self.identity_answer(&answer.result)
    }

    /// The DID's document, if there is one.
    pub async fn document(&self, did: &str, fresh: bool) -> Option<Document> {
        match self.ask(did, HostId::RELAY, need(fresh), None).await.result {
            AnswerResult::Found(document) => Some(document.as_ref().clone()),
            AnswerResult::NotFound | AnswerResult::Unavailable => None,
        }
    }

    pub async fn stats(&self) -> IdentityStats {
        let (reply, answer) = oneshot::channel();
        // A task that has ended counts nothing.
        let _ = self.commands.send(Command::Stats(reply));
        answer.await.unwrap_or_default()
    }

    async fn ask(
        &self,
        did: &str,
        sender: HostId,
        need: Need,
        stored: Option<StoredIdentity>,
    ) -> Answer {
        let stored = stored.map(from_stored);
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Ask { did: did.into(), sender, need, stored, reply });
        let gone = Answer { result: AnswerResult::Unavailable, fresh: false };
        answer.await.unwrap_or(gone)
    }

    /// Names the host by its row. Done for each answer, as hosts are added while documents are
    /// cached.
    fn identity_answer(&self, result: &AnswerResult) -> IdentityAnswer {
        let document = match result {
            AnswerResult::Found(document) => document,
            AnswerResult::NotFound => return IdentityAnswer::NotFound,
            AnswerResult::Unavailable => return IdentityAnswer::Unavailable,
        };
        let Some(pds) = &document.pds else { return IdentityAnswer::NotFound };
        IdentityAnswer::Found(Identity {
            key: document.key,
            host: self.names.id(&pds.host),
            handle: document.handle.clone(),
            fetched_at: document.fetched_at,
        })
    }
}

/// There is no answer now: the shard asks again.
fn no_answer(lookup: &AccountLookup) -> AccountAnswer {
    AccountAnswer {
        did: lookup.did.clone(),
        state: None,
        identity: IdentityAnswer::Unavailable,
        fresh: false,
        host_status: None,
    }
}

fn need(fresh: bool) -> Need {
    if fresh { Need::Newer } else { Need::Any }
}

/// A key or host that does not fit the event must be another by now, or the event is refused. All
/// else goes on with what is known.
fn need_of(lookup: &AccountLookup) -> Need {
    let misfit = match lookup.why {
        LookupWhy::Key | LookupWhy::Host => true,
        LookupWhy::State => lookup.state_wanted,
        LookupWhy::Announced | LookupWhy::Old | LookupWhy::Inactive => false,
    };
    match (lookup.fresh, misfit) {
        (false, _) => Need::Any,
        (true, false) => Need::Newer,
        (true, true) => Need::Other,
    }
}

fn is_loopback(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or(authority);
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

async fn run(
    mut desk: Desk<oneshot::Sender<Answer>>,
    fetcher: Fetcher,
    mut inbox: mpsc::UnboundedReceiver<Command>,
) {
    let mut fetches: JoinSet<(Box<str>, FetchOutcome)> = JoinSet::new();
    loop {
        let now = Instant::now();
        desk.handle_timeout(now);
        while let Some((did, method)) = desk.poll_fetch(now) {
            let fetcher = fetcher.clone();
            fetches.spawn(async move {
                let outcome = fetcher.fetch(&did, method).await;
                (did, outcome)
            });
        }
        while let Some((reply, answer)) = desk.poll_answer() {
            // The asker may have gone.
            let _ = reply.send(answer);
        }
        let due = desk.next_timeout(now);
        tokio::select! {
            command = inbox.recv() => match command {
                Some(Command::Ask { did, sender, need, stored, reply }) => {
                    let ask = Ask { did: &did, sender, need, stored };
                    desk.handle_ask(ask, reply, Instant::now());
                }
                Some(Command::Stats(reply)) => {
                    let _ = reply.send(desk.stats());
                }
                None => return,
            },
            Some(fetched) = fetches.join_next() => match fetched {
                Ok((did, outcome)) => {
                    tracing::debug!(%did, ?outcome, "identity fetched");
                    desk.handle_fetched(&did, outcome, Instant::now());
                }
                Err(error) => tracing::error!(%error, "an identity fetch failed"),
            },
            () = sleep_until(due.unwrap_or(now).into()), if due.is_some() => {}
        }
    }
}

fn from_stored(stored: StoredIdentity) -> (Document, Duration) {
    let age = Duration::from_secs(unix_now().saturating_sub(stored.fetched_at));
    let document = Document {
        key: stored.key,
        pds: stored.pds.map(|host| Endpoint { tls: stored.pds_tls, host }),
        handle: stored.handle.map(String::into_boxed_str),
        fetched_at: stored.fetched_at,
    };
    (document, age)
}

fn to_stored(document: &Document) -> StoredIdentity {
    StoredIdentity {
        key: document.key,
        pds: document.pds.as_ref().map(|pds| pds.host.clone()),
        pds_tls: document.pds.as_ref().is_none_or(|pds| pds.tls),
        handle: document.handle.as_deref().map(str::to_owned),
        fetched_at: document.fetched_at,
    }
}
