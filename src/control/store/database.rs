//! The connection, and what belongs to no single table.

use rusqlite::Connection;

use super::{BUSY_TIMEOUT, DatabaseUrl, StoreError, StoredIdentity, follow::Follower};

mod embedded {
    #![allow(unreachable_pub, reason = "the macro makes the module public")]
    refinery::embed_migrations!("store/migrations");
}

/// Owned by the store's thread.
pub(super) struct Database {
    pub(super) connection: Connection,
    pub(super) follower: Option<Follower>,
    /// Identities not yet written.
    pub(super) identities: Vec<(String, StoredIdentity)>,
    closed: bool,
}

impl Database {
    pub(super) fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let mut connection = match url {
            DatabaseUrl::Memory => Connection::open_in_memory()?,
            DatabaseUrl::File(path) => {
                if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
                {
                    std::fs::create_dir_all(parent).map_err(|source| StoreError::Directory {
                        path: parent.display().to_string(),
                        source,
                    })?;
                }
                Connection::open(path)?
            }
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // A lost tail after power loss is made good from the event log, so a transaction needs no
        // sync of its own: NORMAL syncs at checkpoints.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "cache_size", -64 * 1024)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.set_prepared_statement_cache_capacity(64);
        embedded::migrations::runner().run(&mut connection)?;
        Ok(Self { connection, follower: None, identities: Vec::new(), closed: false })
    }

    pub(super) fn ping(&self) -> Result<(), StoreError> {
        Ok(self.connection.query_row("SELECT 1", [], |_row| Ok(()))?)
    }

    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// Writes all that is held back, and empties the write-ahead log into the database file.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        self.closed = true;
        self.follow_to_end()?;
        self.flush_identities()?;
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_row| Ok(()))?;
        Ok(())
    }

    pub(super) fn meta(&self, name: &str) -> Result<u64, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get::<_, i64>(0))? as u64)
    }
}
