//! Changes that an operator makes here, and requests to crawl, passed on to sibling relays.
//!
//! *Takes* a change once it has been made here; it is in the database before the caller gets an
//! answer. *Gives* it to every sibling, in the order in which changes were made, each again and again
//! with growing pauses until the sibling has made it or refused it. *Limits*: so many changes wait for
//! a sibling at most; requests of strangers fill a small part of that. *Invariants*: a change is made
//! once at each relay, whichever way it comes (see [`via`]); a sibling that is down holds up no other,
//! and nothing at home.

mod address;
mod change;
mod outcome;
mod pace;
mod sender;
mod via;

use std::{
    collections::HashMap,
    hash::BuildHasher as _,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::Notify;

pub(crate) use self::via::{Arrival, RelayId, Way};
pub use self::{
    address::SiblingAddress,
    change::{Change, Kind},
    pace::PaceConfig,
};
use crate::{
    dial::FetchError,
    store::{NewSiblingChange, SiblingPush, Store, StoreError},
};

/// Changes waiting for one sibling at most.
const QUEUE_MAX: u64 = 10_000;
/// Of these, requests to crawl by strangers.
const CRAWLS_MAX: u64 = 100;
/// A stranger's request is not passed on again within this time.
const CRAWL_REPEAT_MIN: Duration = Duration::from_mins(10);
/// Requests that are remembered for that.
const CRAWLS_REMEMBERED_MAX: usize = 1024;
/// Name of a setting in the store.
const RELAY_ID: &str = "relay_id";
/// A sibling looks at the host of a request to crawl before it answers.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
pub struct SiblingsConfig {
    pub addresses: Vec<SiblingAddress>,
    /// For siblings whose address has no key: theirs is the same as ours.
    pub key: Option<String>,
    pub pace: PaceConfig,
}

impl SiblingsConfig {
    /// Without repetitions of an address.
    pub fn new(addresses: impl IntoIterator<Item = SiblingAddress>, key: Option<String>) -> Self {
        let mut unique: Vec<SiblingAddress> = Vec::new();
        for address in addresses {
            if unique.iter().all(|known| known.origin() != address.origin()) {
                unique.push(address);
            }
        }
        Self { addresses: unique, key, pace: PaceConfig::default() }
    }
}

/// One sibling as operators see it. Times are Unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiblingState {
    pub sibling: String,
    /// Changes that wait.
    pub queued: u64,
    /// When the oldest of these was made.
    pub oldest_at: Option<u64>,
    pub delivered: u64,
    /// Changes that the sibling would not make.
    pub refused: u64,
    /// Changes lost because too many waited, since the start.
    pub dropped: u64,
    /// Attempts in a row that failed.
    pub failures: u32,
    pub last_ok_at: Option<u64>,
    pub last_error: Option<String>,
    pub last_error_at: Option<u64>,
    /// When the next attempt is made, if it has to wait.
    pub next_attempt_at: Option<u64>,
}

/// A handle to all siblings. Clones share it.
#[derive(Clone, Debug)]
pub struct Siblings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: RelayId,
    store: Store,
    lanes: Vec<Lane>,
    /// Held while a change is made here and queued, so that siblings get changes in the order in which
    /// they were made.
    order: tokio::sync::Mutex<()>,
    memory: Mutex<Memory>,
}

/// What is not to be done twice.
#[derive(Debug)]
struct Memory {
    /// The number of the last change of each relay where changes begin, this one included.
    taken: HashMap<RelayId, u64>,
    /// Requests to crawl that strangers made, and when.
    crawls: HashMap<String, Instant>,
}

/// One sibling's part.
#[derive(Debug)]
struct Lane {
    state: Mutex<SiblingState>,
    /// A change has been queued.
    queued: Notify,
    /// The operator wants the next attempt now.
    hurried: Notify,
}

impl Siblings {
    /// Goes on with what was queued before. Call it on a Tokio runtime.
    pub async fn start(config: SiblingsConfig, store: Store) -> Result<Self, SiblingsError> {
        let id = relay_id(&store).await?;
        let rows = store.sibling_states().await?;
        let mut lanes = Vec::new();
        for address in &config.addresses {
            let sibling = address.origin().to_owned();
            let row = rows.iter().find(|row| row.sibling == sibling);
            let state =
                row.cloned().unwrap_or_else(|| SiblingState { sibling, ..SiblingState::default() });
            let state = Mutex::new(state);
            lanes.push(Lane { state, queued: Notify::new(), hurried: Notify::new() });
        }
        for row in rows.iter().filter(|row| row.queued > 0) {
            if lanes.iter().all(|lane| lane.lock().sibling != row.sibling) {
                tracing::warn!(
                    sibling = row.sibling,
                    queued = row.queued,
                    "changes wait for a relay that is no sibling any more; they stay until it is one"
                );
            }
        }
        let origins = store.sibling_origins().await?;
        let taken = origins.into_iter().map(|(origin, number)| (RelayId(origin), number)).collect();
        let memory = Memory { taken, crawls: HashMap::new() };
        let inner = Inner {
            id,
            store,
            lanes,
            order: tokio::sync::Mutex::new(()),
            memory: Mutex::new(memory),
        };
        let siblings = Self(Arc::new(inner));
        sender::start(&siblings, &config)?;
        Ok(siblings)
    }

    pub fn is_empty(&self) -> bool {
        self.0.lanes.is_empty()
    }

    /// All siblings in the order in which they were configured.
    pub fn state(&self) -> Vec<SiblingState> {
        self.0.lanes.iter().map(|lane| lane.lock().clone()).collect()
    }

    /// Tries a sibling now instead of later; all of them without a name. Returns how many that are.
    pub fn retry(&self, sibling: Option<&str>) -> usize {
        let chosen = |lane: &&Lane| sibling.is_none_or(|name| lane.lock().sibling == name);
        self.0.lanes.iter().filter(chosen).map(|lane| lane.hurried.notify_one()).count()
    }

    /// Whether the change began here, or is known: it is not made again.
    pub(crate) fn is_known(&self, way: &Way) -> bool {
        let taken = self.0.memory().taken.get(&way.origin).copied();
        way.contains(self.0.id) || taken.is_some_and(|taken| way.number <= taken)
    }

    /// To be held while a change is made here and passed on.
    pub(crate) async fn in_order(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.order.lock().await
    }

    /// Queues a change that was made here, for all siblings; it is in the database when this returns.
    /// `way`: how it came, unless it began here.
    pub(crate) async fn pass_on(
        &self,
        change: Change,
        way: Option<&Way>,
    ) -> Result<(), StoreError> {
        let inner = &*self.0;
        let Some(plan) = inner.plan(&change, way) else { return Ok(()) };
        let Plan { change: row, siblings, origin } = plan;
        let pushed = inner.store.sibling_push(row, siblings, origin).await;
        let pushed = pushed.inspect_err(|_| inner.forget(origin))?;
        for (lane, pushed) in inner.lanes.iter().zip(pushed) {
            lane.handle_pushed(pushed, change.kind);
        }
        Ok(())
    }
}

/// What is written for a change.
struct Plan {
    change: NewSiblingChange,
    /// None if the way is long enough: then only the origin is noted.
    siblings: Vec<String>,
    /// Where the change began, and its number there.
    origin: (u64, u64),
}

/// The random number by which this relay is known to its siblings.
async fn relay_id(store: &Store) -> Result<RelayId, StoreError> {
    if let Some(id) = store.setting(RELAY_ID).await?.as_deref().and_then(RelayId::parse) {
        return Ok(id);
    }
    let id = RelayId(foldhash::fast::RandomState::default().hash_one(unix_micros()));
    store.set_setting(RELAY_ID, id.to_string()).await?;
    Ok(id)
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic anywhere ends the process.
        self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// `None`: nothing is to be done.
    fn plan(&self, change: &Change, way: Option<&Way>) -> Option<Plan> {
        let mut memory = self.memory();
        let way_on = if let Some(way) = way {
            let taken = memory.taken.entry(way.origin).or_default();
            if way.number <= *taken {
                // The same change came another way meanwhile.
                return None;
            }
            *taken = way.number;
            way.extended(self.id)
        } else {
            if self.lanes.is_empty() || change.kind == Kind::Crawl && memory.is_repeated(change) {
                return None;
            }
            // Ever growing, also over a loss of the database.
            let number = memory.taken.entry(self.id).or_default();
            *number = unix_micros().max(*number + 1);
            Some(Way::begin(self.id, *number))
        };
        let origin = way.or(way_on.as_ref()).map(|way| (way.origin.0, way.number))?;
        let siblings = match &way_on {
            Some(_) => self.lanes.iter().map(|lane| lane.lock().sibling.clone()).collect(),
            None => Vec::new(),
        };
        let row = NewSiblingChange {
            method: "POST".to_owned(),
            path: change.path.clone(),
            body: change.body.clone(),
            via: way_on.map_or_else(String::new, |way| way.to_string()),
            queue_max: if change.kind == Kind::Crawl { CRAWLS_MAX } else { QUEUE_MAX },
        };
        Some(Plan { change: row, siblings, origin })
    }

    /// The change could not be written down: it may be made again.
    fn forget(&self, (origin, number): (u64, u64)) {
        let mut memory = self.memory();
        if let Some(taken) =
            memory.taken.get_mut(&RelayId(origin)).filter(|taken| **taken == number)
        {
            *taken = number - 1;
        }
    }
}

impl Memory {
    /// Whether somebody asked for the same a moment ago; notes that it was asked for.
    fn is_repeated(&mut self, change: &Change) -> bool {
        let now = Instant::now();
        self.crawls.retain(|_, at| now.duration_since(*at) < CRAWL_REPEAT_MIN);
        let key = format!("{} {}", change.path, change.body);
        if self.crawls.contains_key(&key) || self.crawls.len() >= CRAWLS_REMEMBERED_MAX {
            return true;
        }
        self.crawls.insert(key, now);
        false
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, SiblingState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn handle_pushed(&self, pushed: SiblingPush, kind: Kind) {
        let mut state = self.lock();
        match pushed {
            SiblingPush::Queued { at } => {
                state.queued += 1;
                state.oldest_at.get_or_insert(at);
                drop(state);
                self.queued.notify_one();
            }
            SiblingPush::Full => {
                state.dropped += 1;
                metrics::counter!("relayered_siblings_dropped_total", "sibling" => state.sibling.clone())
                    .increment(1);
                if kind == Kind::Admin {
                    tracing::error!(
                        sibling = state.sibling,
                        queued = state.queued,
                        "ALARM: too many changes wait for a sibling; this one it will not get"
                    );
                }
            }
        }
    }
}

fn unix_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as u64)
}

#[derive(Debug, thiserror::Error)]
pub enum SiblingsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Http(#[from] FetchError),
}

#[cfg(test)]
mod tests;
