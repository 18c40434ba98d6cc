//! What the store's thread owns, and what belongs to no single table.

use ports::RelaySeq;
use tokio::sync::watch;

use super::{
    DatabaseUrl, StoreConfig, StoreError, StoredIdentity,
    collection::CollectionNames,
    follow::Follower,
    sql::{FromValue, Sql, Value, values},
};

/// Owned by the store's thread, which alone writes to the database.
pub(super) struct Database {
    pub(super) sql: Sql,
    pub(super) follower: Option<Follower>,
    /// Identities not yet written.
    pub(super) identities: Vec<(String, StoredIdentity)>,
    pub(super) collections: CollectionNames,
    /// The number that the next account gets. Here and not in the database, so that a number is never
    /// given twice while the relay runs, even if the database has forgotten what it was told last.
    next_account: u64,
    /// The connection as of which the two above hold.
    epoch: u64,
    closed: bool,
}

impl Database {
    /// A server is no longer waited for once `gives_up` is true.
    pub(super) fn open(
        url: &DatabaseUrl,
        config: StoreConfig,
        gives_up: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        let mut database = Self::new(Sql::open(url, config, gives_up)?);
        database.load()?;
        Ok(database)
    }

    /// For reading alone; what is held back from being written is not there.
    pub(super) fn reader(
        url: &DatabaseUrl,
        gives_up: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        Ok(Self::new(Sql::reader(url, gives_up)?))
    }

    fn new(sql: Sql) -> Self {
        Self {
            sql,
            follower: None,
            identities: Vec::new(),
            collections: CollectionNames::default(),
            next_account: 1,
            epoch: 0,
            closed: false,
        }
    }

    /// After the connection was made anew: a database that has crashed may have forgotten what it was
    /// told last, so what is known of it is read again.
    pub(super) fn refresh(&mut self) -> Result<(), StoreError> {
        self.ping()?;
        if self.sql.epoch() == self.epoch { Ok(()) } else { self.load() }
    }

    fn load(&mut self) -> Result<(), StoreError> {
        let newest: Option<u64> = self.value("SELECT coalesce(max(id), 0) FROM account", &[])?;
        self.next_account = self.next_account.max(newest.unwrap_or(0) + 1);
        let log_seq = RelaySeq(self.meta("log_seq")?);
        if let Some(follower) = &mut self.follower {
            follower.handle_reload(log_seq);
        }
        self.epoch = self.sql.epoch();
        Ok(())
    }

    pub(super) fn ping(&mut self) -> Result<(), StoreError> {
        self.sql.query("SELECT 1", &[]).map(drop)
    }

    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// Writes all that is held back and ends the connection.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        self.closed = true;
        self.follow_to_end()?;
        self.flush_identities()?;
        self.sql.close()
    }

    /// A number for a new account.
    pub(super) fn number_account(&mut self) -> u64 {
        let number = self.next_account;
        self.next_account += 1;
        number
    }

    /// An account has this number.
    pub(super) fn note_number(&mut self, number: u64) {
        self.next_account = self.next_account.max(number + 1);
    }

    /// The first column of the first row.
    pub(super) fn value<T: FromValue>(
        &mut self,
        sql: &str,
        params: &[Value],
    ) -> Result<Option<T>, StoreError> {
        self.sql.query_value(sql, params)
    }

    pub(super) fn meta(&mut self, name: &str) -> Result<u64, StoreError> {
        let value = self.value("SELECT value FROM meta WHERE name = ?1", &values![name])?;
        Ok(value.unwrap_or(0))
    }
}
