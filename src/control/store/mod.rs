//! The SQL store: hosts, accounts, identities, settings and all else that outlives the process, in
//! SQLite or PostgreSQL, on a thread of its own.
//!
//! The event log is the write-ahead log of the account rows: [`Store::follow`] folds the log's
//! records into them and notes in the same transaction how far it got (`log_seq`), so that a crash
//! costs nothing but reading the rest of the index again. Nothing that moves events waits for this
//! thread; those who ask it are tasks of the control thread. A database that is away is tried again
//! and again; meanwhile calls fail with [`StoreError::Unreachable`], and the rows follow later.

mod account;
mod audit;
pub mod backup;
mod calls;
mod collection;
mod copy;
mod database;
mod discovery;
mod fold;
mod follow;
mod host;
mod local;
mod readers;
mod row;
mod setting;
mod sibling;
mod sql;
#[cfg(test)]
mod tests;
mod thread;
mod url;

use std::{collections::HashMap, sync::mpsc};

use ports::{AccountState, HostId, HostSeq, RelaySeq};
use tokio::sync::{oneshot, watch};

pub use self::{
    audit::{AuditEntry, AuditRow},
    copy::{CopyProgress, copy},
    discovery::{Discovery, RefusedHost},
    local::{LocalChange, LocalSet},
    row::{
        AccountCounts, AccountRow, HostFilter, HostMemory, HostPatch, HostRow, HostStatus, NewHost,
        StoredAccount, StoredIdentity,
    },
    sibling::{NewSiblingChange, SiblingChange, SiblingPush},
    url::{DatabaseUrl, PostgresUrl},
};
use self::{database::Database, readers::Readers};
pub(crate) use crate::unix_now;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("database: {0}")]
    Postgres(String),
    /// A statement for many askers failed.
    #[error("{0}")]
    Failed(String),
    /// The database can't be asked now, but may be later.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    #[error(
        "another relay uses this database ({0}). Stop it, or give each relay a database of its own"
    )]
    Taken(String),
    #[error("TLS to the database: {0}")]
    Tls(String),
    #[error("database: column {column} holds no {wanted}")]
    Column { column: usize, wanted: &'static str },
    #[error(
        "a newer version of this program has written the database: its tables are of version {found}, \
         and this program knows them up to version {known}. Start the newer one, or restore a backup"
    )]
    Newer { found: i64, known: i64 },
    #[error("database migration: {0}")]
    Migration(#[from] refinery::Error),
    #[error("database URL {url:?}: {problem}")]
    Url { url: String, problem: String },
    #[error("cannot make the directory {path} for the database: {source}")]
    Directory { path: String, source: std::io::Error },
    #[error("reading the event log's index: {0}")]
    Log(#[from] std::io::Error),
    #[error("copying the database: {0}")]
    Copy(String),
    #[error("there is no host with number {0}")]
    NoSuchHost(HostId),
    #[error("the store has been closed")]
    Closed,
}

impl StoreError {
    /// Whether the same may succeed later without anybody changing anything here.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Taken(_))
    }
}

/// How the store uses its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Pages that SQLite keeps in memory.
    pub cache_bytes: u64,
    /// Whether no other relay may use the server's database meanwhile. (A file stands beside an event
    /// log, which has a lock.)
    pub alone: bool,
    /// One writes, the others read, as many as are needed at once.
    pub connections_max: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20, alone: false, connections_max: 4 }
    }
}

/// What the log told at start beyond the account rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// For each host, events above its cursor that are in the log already, ascending.
    pub emitted: HashMap<HostId, Vec<HostSeq>>,
    /// Records read to bring the account rows up to the log.
    pub records: u64,
}

type Work = Box<dyn FnOnce(&mut Database) + Send>;
type FollowedWork = Box<dyn FnOnce(Result<&mut Database, StoreError>) + Send>;
type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the store's thread is asked to do. Look-ups and creations have their own kinds, as many of
/// them that wait together are done in one go.
enum Command {
    Work(Work),
    /// Done once the account rows are as of the event that is the newest now.
    Followed(FollowedWork),
    Find {
        did: String,
        as_of: RelaySeq,
        reply: Reply<StoredAccount>,
    },
    Create {
        did: String,
        host: HostId,
        reply: Reply<AccountState>,
    },
}

/// A handle to the store's threads. Clones share them.
#[derive(Clone)]
pub struct Store {
    commands: mpsc::Sender<Command>,
    /// `None`: who writes reads too.
    readers: Option<Readers>,
    /// `true` ends all waiting for the server.
    given_up: watch::Sender<bool>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the database, makes or migrates its tables, and starts the thread `store`.
    pub fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        Self::open_with(url, StoreConfig::default())
    }

    pub fn open_with(url: &DatabaseUrl, config: StoreConfig) -> Result<Self, StoreError> {
        let (commands, receiver) = mpsc::channel::<Command>();
        let (given_up, gives_up) = watch::channel(false);
        thread::start(url.clone(), config, gives_up.clone(), receiver)?;
        let count = match url {
            // Another connection would have a database of its own.
            DatabaseUrl::Memory => 0,
            DatabaseUrl::File(_) => {
                thread::processors().min(config.connections_max.saturating_sub(1))
            }
            DatabaseUrl::Postgres(_) => config.connections_max.saturating_sub(1),
        };
        let readers = (count > 0).then(|| Readers::new(url, count, gives_up));
        Ok(Self { commands, readers, given_up })
    }

    /// From now on a server that does not answer at once counts as unreachable.
    pub fn give_up(&self) {
        self.given_up.send_replace(true);
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
        let work = move |database: &mut Database| {
            // The asker may have gone; the work is done all the same.
            let _ = reply.send(work(database));
        };
        self.commands.send(Command::Work(Box::new(work))).map_err(|_gone| StoreError::Closed)?;
        result.await.map_err(|_gone| StoreError::Closed)?
    }

    /// Runs a closure that writes nothing beside the store's thread: the account rows may be behind
    /// the log by half a second, all else is as it was written last.
    ///
    /// # Cancel-safety
    /// A dropped call still reads.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(readers) = &self.readers else { return self.call(work).await };
        let (reply, result) = oneshot::channel();
        readers.submit(Box::new(move |database| {
            // The asker may have gone.
            let _ = reply.send(database.and_then(work));
        }))?;
        result.await.map_err(|_gone| StoreError::Closed)?
    }

    /// Runs a closure on the store's thread once the account rows are as of the newest synced event.
    ///
    /// # Cancel-safety
    /// A dropped call still takes effect; only its result is lost.
    async fn call_followed<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, result) = oneshot::channel();
        let work = move |database: Result<&mut Database, StoreError>| {
            // The asker may have gone; the work is done all the same.
            let _ = reply.send(database.and_then(work));
        };
        self.commands
            .send(Command::Followed(Box::new(work)))
            .map_err(|_gone| StoreError::Closed)?;
        result.await.map_err(|_gone| StoreError::Closed)?
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, result) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_gone| StoreError::Closed)?;
        result.await.map_err(|_gone| StoreError::Closed)?
    }
}
