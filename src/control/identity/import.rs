//! Fills the identity table from the PLC directory's export, so that a relay can start without
//! asking for each account.
//!
//! The export is all operations of all DIDs in the order of time, a page at a time, each line a JSON
//! object. The last operation of a DID that still counts says what its document says. How far the
//! import has come is kept in the store with what it brought: it goes on there after whatever stopped
//! it, and a page taken twice does no harm.

use std::{collections::HashMap, time::Duration};

use protocol::{
    did_doc::Endpoint,
    key,
    syntax::{did, handle},
};
use serde_json::{Map, Value};
use tokio::time::sleep;

use super::fetch::unix_now;
use crate::{
    dial::{FetchError, Fetched, HttpClient, Reach},
    store::{Store, StoreError, StoredIdentity},
};

/// The store's setting with the place to go on behind.
const PLACE: &str = "plc_import_after";
/// A page of 1000 operations is about half a megabyte.
const PAGE_BYTES_MAX: usize = 64 << 20;
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);

#[derive(Clone, Debug)]
pub struct ImportConfig {
    /// The directory's URL.
    pub plc_url: String,
    /// Operations a page; a directory gives 1000 at most.
    pub page: usize,
    /// Between two requests, so that the directory has time for others.
    pub pace: Duration,
    /// Once all is there: go on with what comes new, asked for at this interval.
    pub follow: Option<Duration>,
    pub timeout: Duration,
    /// Failures in a row after which the import gives up; following never does.
    pub failures_max: u32,
}

impl ImportConfig {
    pub fn new(plc_url: &str) -> Self {
        Self {
            plc_url: plc_url.to_owned(),
            page: 1000,
            pace: Duration::ZERO,
            follow: None,
            timeout: Duration::from_mins(1),
            failures_max: 10,
        }
    }
}

/// How far an import is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportProgress {
    /// Operations read and identities stored, by this run.
    pub operations: u64,
    pub identities: u64,
    /// Lines that were no operation.
    pub malformed: u64,
    /// The place in the export: a sequence number, or a time.
    pub after: Option<String>,
    /// All that the directory had a moment ago is there.
    pub caught_up: bool,
    /// Why the last request came to nothing; it is made again.
    pub trouble: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Http(#[from] FetchError),
    #[error("the directory does not give its export: {0}")]
    Directory(String),
}

/// Imports until all is there, or for ever if it is to follow.
///
/// `tell` is called after each page and each failure.
///
/// # Cancel-safety
/// Dropping the future stops the import; the next one goes on behind the last page that was stored.
pub async fn import(
    config: &ImportConfig,
    store: &Store,
    mut tell: impl FnMut(&ImportProgress),
) -> Result<ImportProgress, ImportError> {
    let client = HttpClient::new(Reach::Trusted, config.timeout, PAGE_BYTES_MAX)?;
    let mut progress =
        ImportProgress { after: store.setting(PLACE).await?, ..ImportProgress::default() };
    let mut failures = 0;
    loop {
        let page = match fetch(&client, config, progress.after.as_deref()).await {
            Ok(page) => page,
            Err(failure) => {
                failures += 1;
                if failures >= config.failures_max && !progress.caught_up {
                    return Err(ImportError::Directory(failure.reason));
                }
                progress.trouble = Some(failure.reason.clone());
                tell(&progress);
                sleep(failure.pause(failures)).await;
                continue;
            }
        };
        failures = 0;
        take(&page, store, &mut progress).await?;
        // A page that brings nothing new can't be followed by another one.
        progress.caught_up = page.lines < config.page || !page.moves(&progress);
        if let (Some(place), true) = (&page.last, page.moves(&progress)) {
            store.set_setting(PLACE, place.clone()).await?;
            progress.after = Some(place.clone());
        }
        tell(&progress);
        match (progress.caught_up, config.follow) {
            (false, _) => sleep(config.pace).await,
            (true, Some(interval)) => sleep(interval).await,
            (true, None) => return Ok(progress),
        }
    }
}

async fn take(page: &Page, store: &Store, progress: &mut ImportProgress) -> Result<(), StoreError> {
    let batch: Vec<_> =
        page.identities.iter().map(|(did, identity)| (did.clone(), identity.clone())).collect();
    progress.trouble = None;
    progress.operations += page.lines as u64 - page.malformed;
    progress.malformed += page.malformed;
    progress.identities += batch.len() as u64;
    if !batch.is_empty() {
        store.identities_import(batch).await?;
    }
    Ok(())
}

struct Failure {
    reason: String,
    retry_after: Option<Duration>,
}

impl Failure {
    fn pause(&self, failures: u32) -> Duration {
        let doubled = PAUSE_FIRST.saturating_mul(1 << failures.min(10)) / 2;
        self.retry_after.unwrap_or(doubled.min(PAUSE_MAX))
    }
}

async fn fetch(
    client: &HttpClient,
    config: &ImportConfig,
    after: Option<&str>,
) -> Result<Page, Failure> {
    let base = config.plc_url.trim_end_matches('/');
    let mut url = format!("{base}/export?count={}", config.page);
    if let Some(after) = after {
        url.push_str("&after=");
        url.push_str(&after.replace('+', "%2B"));
    }
    let refused = |reason: String, retry_after| Failure { reason, retry_after };
    let reply: Fetched =
        client.get(&url).await.map_err(|error| refused(error.to_string(), None))?;
    if !reply.is_success() {
        return Err(refused(format!("HTTP status {}", reply.status), reply.retry_after));
    }
    let text = String::from_utf8(reply.body)
        .map_err(|_| refused("the export is not UTF-8".to_owned(), None))?;
    let page = Page::parse(&text);
    if page.lines > 0 && page.last.is_none() {
        return Err(refused("the export is not JSON lines of operations".to_owned(), None));
    }
    Ok(page)
}

/// What a page of the export says, the last word on each DID.
#[derive(Debug, Default)]
struct Page {
    identities: HashMap<String, StoredIdentity>,
    lines: usize,
    malformed: u64,
    /// The place of the last line.
    last: Option<String>,
}

impl Page {
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            page.lines += 1;
            match serde_json::from_str::<Map<String, Value>>(line).ok().and_then(Operation::read) {
                Some(operation) => page.add(operation),
                None => page.malformed += 1,
            }
        }
        page
    }

    fn add(&mut self, operation: Operation) {
        self.last = Some(operation.place);
        if let Some(identity) = operation.identity {
            self.identities.insert(operation.did, identity);
        }
    }

    /// Whether it leads on from where the import is.
    fn moves(&self, progress: &ImportProgress) -> bool {
        self.last.is_some() && self.last != progress.after
    }
}

struct Operation {
    did: String,
    place: String,
    /// `None`: the operation has been struck out by a later one.
    identity: Option<StoredIdentity>,
}

impl Operation {
    fn read(line: Map<String, Value>) -> Option<Self> {
        let did = line.get("did")?.as_str().filter(|did| did::is_plc(did))?.to_owned();
        // Directories of today number their operations; older ones are paged by time.
        let place = match line.get("seq").and_then(Value::as_u64) {
            Some(seq) => seq.to_string(),
            None => line.get("createdAt")?.as_str()?.to_owned(),
        };
        let operation = line.get("operation")?.as_object()?;
        let struck_out = line.get("nullified").and_then(Value::as_bool).unwrap_or(false);
        let identity = (!struck_out).then(|| identity(operation));
        Some(Self { did, place, identity })
    }
}

/// What the document says after an operation. Of a tombstone, and of what can't be understood,
/// nothing: no key and no PDS.
fn identity(operation: &Map<String, Value>) -> StoredIdentity {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let (signing_key, pds, name) = match text("type") {
        Some("plc_operation") => (
            operation.get("verificationMethods").and_then(|keys| keys.get("atproto")?.as_str()),
            operation.get("services").and_then(pds_url),
            operation.get("alsoKnownAs").and_then(claimed_handle),
        ),
        // The form of the first years.
        Some("create") => (text("signingKey"), text("service"), text("handle")),
        _ => (None, None, None),
    };
    let pds = pds.and_then(Endpoint::parse);
    StoredIdentity {
        key: signing_key.and_then(|text| key::parse_did_key(text).ok()),
        pds_tls: pds.as_ref().is_none_or(|pds| pds.tls),
        pds: pds.map(|pds| pds.host),
        handle: name.filter(|name| handle::check(name)).map(str::to_ascii_lowercase),
        fetched_at: unix_now(),
    }
}

fn pds_url(services: &Value) -> Option<&str> {
    let service = services.get("atproto_pds")?;
    let is_pds = service.get("type")?.as_str()? == "AtprotoPersonalDataServer";
    service.get("endpoint")?.as_str().filter(|_| is_pds)
}

fn claimed_handle(names: &Value) -> Option<&str> {
    let mut names = names.as_array()?.iter().filter_map(Value::as_str);
    names.find_map(|name| name.strip_prefix("at://"))
}

#[cfg(test)]
mod tests;
