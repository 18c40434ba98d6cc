//! The SQL store: hosts, accounts, identities, bans and settings, in SQLite on a thread of its own.
//!
//! The event log is the write-ahead log of the account rows: [`Store::follow`] folds the log's
//! records into them and notes in the same transaction how far it got (`log_seq`), so that a crash
//! costs nothing but reading the rest of the index again. Nothing that moves events waits for this
//! thread; those who ask it are tasks of the control thread.

mod account;
mod database;
mod follow;
mod host;
mod row;
mod setting;
#[cfg(test)]
mod tests;
mod url;

use std::{
    collections::HashMap,
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ports::{AccountState, HostId, HostProgress, HostSeq, LogTail, RelaySeq};
use tokio::sync::oneshot;

use self::database::Database;
pub use self::{
    row::{AccountRow, HostMemory, HostPatch, HostRow, HostStatus, NewHost, StoredIdentity},
    url::DatabaseUrl,
};

/// How often the account rows follow the log while the relay runs.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);
/// How long a statement waits for another process (a backup, the sqlite3 tool) that holds a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("database migration: {0}")]
    Migration(#[from] refinery::Error),
    #[error("database URL {url:?}: {problem}")]
    Url { url: String, problem: &'static str },
    #[error("cannot make the directory {path} for the database: {source}")]
    Directory { path: String, source: std::io::Error },
    #[error("reading the event log's index: {0}")]
    Log(#[from] std::io::Error),
    #[error("there is no host with number {0}")]
    NoSuchHost(HostId),
    #[error("the store has been closed")]
    Closed,
}

/// What the log told at start beyond the account rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// For each host, events above its cursor that are in the log already, ascending.
    pub emitted: HashMap<HostId, Vec<HostSeq>>,
    /// Records read to bring the account rows up to the log.
    pub records: u64,
}

type Command = Box<dyn FnOnce(&mut Database) + Send>;

/// A handle to the store's thread. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    commands: mpsc::Sender<Command>,
}

impl Store {
    /// Opens the database, makes or migrates its tables, and starts the thread `store`.
    pub fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let mut database = Database::open(url)?;
        let (commands, receiver) = mpsc::channel::<Command>();
        thread::Builder::new().name("store".into()).spawn(move || run(&mut database, &receiver))?;
        Ok(Self { commands })
    }

    /// Runs a closure on the store's thread.
    ///
    /// # Cancel-safety
    /// A dropped call still takes effect; only its result is lost.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, result) = oneshot::channel();
        let command: Command = Box::new(move |database| {
            // The asker may have gone; the work is done all the same.
            let _ = reply.send(work(database));
        });
        self.commands.send(command).map_err(|_gone| StoreError::Closed)?;
        result.await.map_err(|_gone| StoreError::Closed)?
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.call(|database| database.ping()).await
    }

    /// Brings the account rows up to the end of the log, and goes on doing so every half second.
    ///
    /// Returns once the rows are as of the newest synced event.
    pub async fn follow(&self, tail: Box<dyn LogTail>) -> Result<Recovery, StoreError> {
        self.call(move |database| database.start_following(tail)).await
    }

    /// The event of the log that the account rows are as of.
    pub async fn log_seq(&self) -> Result<RelaySeq, StoreError> {
        self.call(|database| database.log_seq()).await
    }

    /// The same, for threads without a runtime.
    pub fn log_seq_blocking(&self) -> Result<RelaySeq, StoreError> {
        let (reply, result) = mpsc::sync_channel(1);
        let command: Command = Box::new(move |database| {
            // The asker waits for it below.
            let _ = reply.send(database.log_seq());
        });
        self.commands.send(command).map_err(|_gone| StoreError::Closed)?;
        result.recv().map_err(|_gone| StoreError::Closed)?
    }

    pub async fn hosts(&self) -> Result<Vec<HostRow>, StoreError> {
        self.call(|database| database.hosts()).await
    }

    /// Inserts a host with status `active`, or returns the row that has this name already.
    pub async fn insert_host(&self, host: NewHost) -> Result<HostRow, StoreError> {
        self.call(move |database| database.insert_host(&host, unix_now())).await
    }

    /// The same, unless the public has added that many hosts since: then `None`. In one step, so
    /// that requests at once do not exceed the limit together.
    pub async fn insert_host_within(
        &self,
        host: NewHost,
        since: u64,
        limit: u64,
    ) -> Result<Option<HostRow>, StoreError> {
        self.call(move |database| {
            if database.hosts_added_since(since)? >= limit {
                return Ok(None);
            }
            database.insert_host(&host, unix_now()).map(Some)
        })
        .await
    }

    pub async fn host(&self, id: HostId) -> Result<HostRow, StoreError> {
        self.call(move |database| database.host(id)).await
    }

    /// Changes a host and returns the row as it is then.
    pub async fn update_host(&self, id: HostId, patch: HostPatch) -> Result<HostRow, StoreError> {
        self.call(move |database| database.update_host(id, &patch, unix_now())).await
    }

    /// How many hosts were added since, other than by an operator.
    pub async fn hosts_added_since(&self, unix_seconds: u64) -> Result<u64, StoreError> {
        self.call(move |database| database.hosts_added_since(unix_seconds)).await
    }

    /// Stores the cursors of hosts that moved.
    pub async fn save_progress(&self, progress: Vec<HostProgress>) -> Result<(), StoreError> {
        self.call(move |database| database.save_progress(&progress)).await
    }

    pub async fn account_by_did(
        &self,
        did: &str,
    ) -> Result<Option<(AccountState, Option<StoredIdentity>)>, StoreError> {
        let did = did.to_owned();
        self.call(move |database| database.account_by_did(&did)).await
    }

    /// Makes an account which its host calls active, or returns the one that is there.
    pub async fn create_account(
        &self,
        did: &str,
        host: HostId,
    ) -> Result<AccountState, StoreError> {
        let did = did.to_owned();
        self.call(move |database| database.create_account(&did, host)).await
    }

    /// Accounts with a repository (or any, if `all`) above an id, in the order of ids.
    pub async fn accounts_after(
        &self,
        after: u64,
        count: usize,
    ) -> Result<Vec<AccountRow>, StoreError> {
        self.call(move |database| database.accounts_after(after, count)).await
    }

    /// Keeps what a DID document says, for accounts that have a row. Written behind, in batches.
    pub fn save_identity(&self, did: &str, identity: StoredIdentity) {
        let did = did.to_owned();
        let command: Command = Box::new(move |database| database.keep_identity(did, identity));
        // A store that has been closed needs no cache any more.
        let _ = self.commands.send(command);
    }

    pub async fn setting(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.call(move |database| database.setting(name)).await
    }

    pub async fn set_setting(&self, name: &'static str, value: String) -> Result<(), StoreError> {
        self.call(move |database| database.set_setting(name, &value)).await
    }

    /// Banned domains in alphabetical order. A ban holds for the domain and all names below it.
    pub async fn domain_bans(&self) -> Result<Vec<String>, StoreError> {
        self.call(|database| database.domain_bans()).await
    }

    /// Whether the ban is new.
    pub async fn ban_domain(&self, domain: &str) -> Result<bool, StoreError> {
        let domain = domain.to_owned();
        self.call(move |database| database.ban_domain(&domain, unix_now())).await
    }

    /// Whether there was such a ban.
    pub async fn unban_domain(&self, domain: &str) -> Result<bool, StoreError> {
        let domain = domain.to_owned();
        self.call(move |database| database.unban_domain(&domain)).await
    }

    /// Follows the log to its end, writes all that is held back, and ends the thread.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.call(Database::close).await
    }
}

/// The store's thread: commands as they come, and the log every half second.
fn run(database: &mut Database, commands: &mpsc::Receiver<Command>) {
    let mut next_follow = Instant::now() + FOLLOW_INTERVAL;
    while !database.closed() {
        let wait = next_follow.saturating_duration_since(Instant::now());
        match commands.recv_timeout(wait) {
            Ok(command) => command(database),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        if Instant::now() >= next_follow {
            if let Err(error) = database.follow_batch() {
                tracing::error!(%error, "the account rows could not follow the log; trying again");
            }
            // A batch that was full says that there is more: commands first, then the next one.
            let pause = if database.behind() { Duration::ZERO } else { FOLLOW_INTERVAL };
            next_follow = Instant::now() + pause;
        }
    }
}

/// Unix seconds.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
