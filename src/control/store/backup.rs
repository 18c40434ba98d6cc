//! A copy of the database, taken beside a running relay.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// Copies a SQLite database as of one moment into a new file.
pub fn copy_sqlite(from: &Path, to: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(from, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    connection.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    Ok(())
}
