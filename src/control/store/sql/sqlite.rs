//! SQLite: the library is in the program, the database is a file.

use std::{path::Path, time::Duration};

use rusqlite::{
    Connection, OpenFlags, Statement, ToSql,
    types::{ToSqlOutput, ValueRef},
};

use super::{Columns, Durability, HISTORY, Row, VERSION, Value, refuse_newer};
use crate::store::StoreError;

/// How long a statement waits for another process (a backup, the sqlite3 tool) that holds a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Where nothing is joined to the rows.
const FROM_ROWS: &str = " FROM {rows} WHERE ";
/// More than there are statements in the store.
const STATEMENTS: usize = 256;
/// So many pages come together in the write-ahead log before they are written to the database file,
/// with the waits for the disk that this takes. (The library's default is a sixteenth.)
const CHECKPOINT_PAGES: i64 = 16_000;

mod embedded {
    #![allow(unreachable_pub, reason = "the macro makes the module public")]
    refinery::embed_migrations!("store/migrations/sqlite");
}

pub(in crate::store) struct Sqlite {
    connection: Connection,
    /// What the last query cost, in steps of the library's machine: the same wherever it runs.
    #[cfg(test)]
    pub(in crate::store) steps: i32,
}

impl Sqlite {
    pub(super) fn memory(cache_bytes: u64) -> Result<Self, StoreError> {
        Self::prepare(Connection::open_in_memory()?, cache_bytes)
    }

    pub(super) fn file(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|source| StoreError::Directory {
                path: parent.display().to_string(),
                source,
            })?;
        }
        Self::prepare(Connection::open(path)?, cache_bytes)
    }

    /// Beside a connection that writes, of a database that is there.
    pub(super) fn reader(path: &Path) -> Result<Self, StoreError> {
        // It takes part in the locks of the write-ahead log, so the file is not opened as read-only.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Self {
            connection,
            #[cfg(test)]
            steps: 0,
        })
    }

    fn prepare(mut connection: Connection, cache_bytes: u64) -> Result<Self, StoreError> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        // In KiB if it is negative.
        let cache = i64::try_from(cache_bytes / 1024).unwrap_or(i64::MAX);
        connection.pragma_update(None, "cache_size", -cache)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let runner = embedded::migrations::runner();
        if connection.table_exists(None, HISTORY)? {
            let found = connection.query_row(VERSION, [], |row| row.get(0))?;
            refuse_newer(found, &runner)?;
        }
        runner.run(&mut connection)?;
        let mut sqlite = Self {
            connection,
            #[cfg(test)]
            steps: 0,
        };
        sqlite.set_durability(Durability::Disk)?;
        Ok(sqlite)
    }

    pub(super) fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, StoreError> {
        let mut result = Vec::new();
        let mut statement = self.connection.prepare_cached(sql)?;
        read(&mut statement, params, &mut result)?;
        #[cfg(test)]
        {
            self.steps = statement.reset_status(rusqlite::StatementStatus::VmStep);
        }
        Ok(result)
    }

    pub(super) fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.execute(rusqlite::params_from_iter(params))? as u64)
    }

    pub(super) fn query_rows(
        &mut self,
        sql: &str,
        columns: &Columns,
        rows: &[Vec<Value>],
    ) -> Result<Vec<Row>, StoreError> {
        let mut result = Vec::new();
        let mut statement = self.connection.prepare_cached(&one_row(sql, columns))?;
        for row in rows {
            read(&mut statement, row, &mut result)?;
        }
        Ok(result)
    }

    pub(super) fn execute_rows(
        &mut self,
        sql: &str,
        columns: &Columns,
        rows: &[Vec<Value>],
    ) -> Result<u64, StoreError> {
        let mut changed = 0;
        let mut statement = self.connection.prepare_cached(&one_row(sql, columns))?;
        for row in rows {
            changed += statement.execute(rusqlite::params_from_iter(row))? as u64;
        }
        Ok(changed)
    }

    /// Whether the end of a transaction waits for the disk.
    fn set_durability(&mut self, durability: Durability) -> Result<(), StoreError> {
        // NORMAL syncs at checkpoints only, and a power loss takes the last transactions.
        let synchronous = match durability {
            Durability::Disk => "FULL",
            Durability::Log => "NORMAL",
        };
        Ok(self.connection.pragma_update(None, "synchronous", synchronous)?)
    }

    pub(super) fn begin(&mut self, durability: Durability) -> Result<(), StoreError> {
        self.set_durability(durability)?;
        let begun = self.execute("BEGIN IMMEDIATE", &[]);
        if begun.is_err() {
            self.set_durability(Durability::Disk)?;
        }
        begun.map(drop)
    }

    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        let done = self.execute("COMMIT", &[]);
        if done.is_err() && !self.connection.is_autocommit() {
            self.rollback()?;
        }
        // Statements outside of a transaction are changes that somebody was told of.
        self.set_durability(Durability::Disk)?;
        done.map(drop)
    }

    pub(super) fn rollback(&mut self) -> Result<(), StoreError> {
        // Some errors (a full disk) have ended the transaction already.
        if !self.connection.is_autocommit() {
            self.execute("ROLLBACK", &[])?;
        }
        self.set_durability(Durability::Disk)
    }

    /// Empties the write-ahead log into the database file.
    pub(super) fn checkpoint(&mut self) -> Result<(), StoreError> {
        Ok(self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_row| Ok(()))?)
    }
}

/// The statement for one row: its columns are parameters, and it takes no table to name them.
fn one_row(sql: &str, columns: &Columns) -> String {
    if !sql.contains(FROM_ROWS) {
        // Joined to a table.
        let list: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(index, (name, _))| format!("?{} AS {name}", index + 1))
            .collect();
        return sql.replace("{rows}", &format!("(SELECT {}) AS r", list.join(", ")));
    }
    let mut text = String::with_capacity(sql.len());
    let bare = sql.replace(FROM_ROWS, " WHERE ");
    let mut rest = bare.as_str();
    while let Some(at) = rest.find("r.") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        let length = after.find(|c: char| !is_of_name(c)).unwrap_or(after.len());
        let column = columns.iter().position(|(name, _)| *name == &after[..length]);
        text.push_str(before);
        match column.filter(|_| !before.ends_with(is_of_name)) {
            Some(index) => {
                text.push('?');
                text.push_str(&(index + 1).to_string());
                rest = &after[length..];
            }
            None => {
                text.push_str("r.");
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn read(
    statement: &mut Statement<'_>,
    params: &[Value],
    result: &mut Vec<Row>,
) -> Result<(), StoreError> {
    let count = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(params))?;
    while let Some(row) = rows.next()? {
        let values: Result<_, rusqlite::Error> =
            (0..count).map(|index| row.get_ref(index).map(value)).collect();
        result.push(Row(values?));
    }
    Ok(())
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        // No column holds one.
        ValueRef::Real(number) => Value::Int(number as i64),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::Type;

    #[test]
    fn statements_are_rewritten_for_one_row() {
        let columns = [("id", Type::Int), ("a", Type::Text)];
        let sql = "UPDATE t SET a = coalesce(r.a, t.a), ar.b = ar.a FROM {rows} WHERE t.id = r.id";
        assert_eq!(
            one_row(sql, &columns),
            "UPDATE t SET a = coalesce(?2, t.a), ar.b = ar.a WHERE t.id = ?1"
        );
        let sql = "SELECT t.b, r.id FROM {rows} JOIN t ON t.a = r.a";
        assert_eq!(
            one_row(sql, &columns),
            "SELECT t.b, r.id FROM (SELECT ?1 AS id, ?2 AS a) AS r JOIN t ON t.a = r.a"
        );
    }
}
