//! One way to speak SQL to both databases.
//!
//! Statements are written once: parameters are `?1`, `?2`, … and a statement that works on many rows
//! at once names them `{rows}`, which becomes arrays on PostgreSQL and is run row by row on SQLite.
//! Only what both databases understand may stand in a statement.

mod postgres;
mod sqlite;
mod tls;
mod value;

use std::time::Duration;

use tokio::sync::watch;

pub(super) use self::value::{FromValue, Row, Value};
use self::{
    postgres::{Postgres, Role},
    sqlite::Sqlite,
};
use super::{DatabaseUrl, StoreConfig, StoreError};

/// The values of a statement's parameters.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        [$($crate::store::sql::Value::from($value)),*]
    };
}
pub(super) use values;

/// What a column of `{rows}` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Int,
    Text,
    Bytes,
}

/// Name and type of each column of `{rows}`.
pub(super) type Columns = [(&'static str, Type)];

/// Whether a transaction is on disk when it has been committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// The event log holds it too: the next start makes good what a power loss takes.
    Log,
    Disk,
}

/// Where the migration library keeps what it has done.
const HISTORY: &str = "refinery_schema_history";
/// Versions of the tables that were made or migrated, if any were.
const VERSION: &str = "SELECT CAST(max(version) AS BIGINT) FROM refinery_schema_history";

/// Tables of a newer program are left alone.
fn refuse_newer(found: Option<i64>, runner: &refinery::Runner) -> Result<(), StoreError> {
    let known = runner.get_migrations().iter().map(|step| i64::from(step.version())).max();
    match (found, known.unwrap_or(0)) {
        (Some(found), known) if found > known => Err(StoreError::Newer { found, known }),
        _ => Ok(()),
    }
}

/// A connection to either database, which is made anew after it broke.
pub(super) enum Sql {
    Sqlite(Sqlite),
    Postgres(Box<Postgres>),
}

impl Sql {
    /// Connects, and makes or migrates the tables.
    pub(super) fn open(
        url: &DatabaseUrl,
        config: StoreConfig,
        gives_up: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        Ok(match url {
            DatabaseUrl::Memory => Self::Sqlite(Sqlite::memory(config.cache_bytes)?),
            DatabaseUrl::File(path) => Self::Sqlite(Sqlite::file(path, config.cache_bytes)?),
            DatabaseUrl::Postgres(url) => {
                let role = if config.alone { Role::Alone } else { Role::Beside };
                let mut postgres = Postgres::new(url, role, gives_up)?;
                postgres.session()?;
                Self::Postgres(Box::new(postgres))
            }
        })
    }

    /// A connection that only reads, to a database that is open already. A server is connected to when
    /// there is something to ask.
    pub(super) fn reader(
        url: &DatabaseUrl,
        gives_up: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        Ok(match url {
            DatabaseUrl::Memory => Self::Sqlite(Sqlite::memory(0)?),
            DatabaseUrl::File(path) => Self::Sqlite(Sqlite::reader(path)?),
            DatabaseUrl::Postgres(url) => {
                Self::Postgres(Box::new(Postgres::new(url, Role::Reader, gives_up)?))
            }
        })
    }

    /// Grows each time a connection is made: what was committed last may be gone since.
    pub(super) fn epoch(&self) -> u64 {
        match self {
            Self::Sqlite(_) => 0,
            Self::Postgres(postgres) => postgres.epoch(),
        }
    }

    pub(super) fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.query(sql, params),
            Self::Postgres(postgres) => postgres.query(sql, params),
        }
    }

    /// The first row, if there is one.
    pub(super) fn query_row(
        &mut self,
        sql: &str,
        params: &[Value],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, params)?.into_iter().next())
    }

    /// The first column of the first row.
    pub(super) fn query_value<T: FromValue>(
        &mut self,
        sql: &str,
        params: &[Value],
    ) -> Result<Option<T>, StoreError> {
        self.query_row(sql, params)?.map(|row| row.get(0)).transpose()
    }

    /// Returns how many rows were changed.
    pub(super) fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.execute(sql, params),
            Self::Postgres(postgres) => postgres.execute(sql, params),
        }
    }

    /// A query whose `{rows}` are these. The order of the result is the database's.
    pub(super) fn query_rows(
        &mut self,
        sql: &str,
        columns: &Columns,
        rows: &[Vec<Value>],
    ) -> Result<Vec<Row>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Self::Sqlite(sqlite) => sqlite.query_rows(sql, columns, rows),
            Self::Postgres(postgres) => postgres.query_rows(sql, columns, rows),
        }
    }

    /// A statement whose `{rows}` are these; no row of a table may be hit by two of them. Returns how
    /// many rows were changed. Within a transaction, or it is not one step on SQLite.
    pub(super) fn execute_rows(
        &mut self,
        sql: &str,
        columns: &Columns,
        rows: &[Vec<Value>],
    ) -> Result<u64, StoreError> {
        if rows.is_empty() {
            return Ok(0);
        }
        match self {
            Self::Sqlite(sqlite) => sqlite.execute_rows(sql, columns, rows),
            Self::Postgres(postgres) => postgres.execute_rows(sql, columns, rows),
        }
    }

    /// Runs `work` in a transaction: all of it is done, or nothing.
    pub(super) fn transaction<T>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.begin(durability)?,
            Self::Postgres(postgres) => postgres.begin(durability)?,
        }
        let done = work(self);
        let ended = match (&done, &mut *self) {
            (Ok(_), Self::Sqlite(sqlite)) => sqlite.commit(),
            (Ok(_), Self::Postgres(postgres)) => postgres.commit(),
            (Err(_), Self::Sqlite(sqlite)) => sqlite.rollback(),
            (Err(_), Self::Postgres(postgres)) => postgres.rollback(),
        };
        let value = done?;
        ended?;
        Ok(value)
    }

    /// From now on only reads, all as of this moment, whatever others write.
    pub(super) fn freeze(&mut self) -> Result<(), StoreError> {
        match self {
            // The first statement behind it takes the snapshot.
            Self::Sqlite(sqlite) => sqlite.execute("BEGIN", &[]).map(drop),
            Self::Postgres(postgres) => postgres.begin_snapshot(),
        }
    }

    /// Before the process ends: SQLite's write-ahead log goes into the database file.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.checkpoint(),
            Self::Postgres(postgres) => {
                postgres.close();
                Ok(())
            }
        }
    }

    /// How long a statement may take before the connection is given up; `None`: as long as it likes.
    pub(super) fn set_patience(&mut self, patience: Option<Duration>) {
        if let Self::Postgres(postgres) = self {
            postgres.set_patience(patience);
        }
    }
}
