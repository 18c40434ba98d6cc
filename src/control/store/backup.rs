//! A copy of the database, taken beside a running relay.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{DatabaseUrl, StoreError, copy::copy_beside};

/// Copies a database as of one moment into a new SQLite file, which a relay can run on as well.
pub fn copy_to_file(from: &DatabaseUrl, to: &Path) -> Result<(), StoreError> {
    match from {
        DatabaseUrl::File(path) => copy_sqlite(path, to),
        DatabaseUrl::Memory | DatabaseUrl::Postgres(_) => {
            copy_beside(from, &DatabaseUrl::File(to.to_owned())).map(drop)
        }
    }
}

fn copy_sqlite(from: &Path, to: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(from, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    connection.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    Ok(())
}
