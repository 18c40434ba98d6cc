//! Settings and domain bans.

use rusqlite::OptionalExtension;

use super::{Database, StoreError};

impl Database {
    pub(super) fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT value FROM setting WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    }

    pub(super) fn set_setting(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO setting (name, value) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )?
            .execute([name, value])?;
        Ok(())
    }

    pub(super) fn domain_bans(&self) -> Result<Vec<String>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT domain FROM domain_ban ORDER BY domain")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn ban_domain(&self, domain: &str, now: u64) -> Result<bool, StoreError> {
        let changed = self
            .connection
            .prepare_cached(
                "INSERT OR IGNORE INTO domain_ban (domain, created_at) VALUES (?1, ?2)",
            )?
            .execute((domain, now as i64))?;
        Ok(changed == 1)
    }

    pub(super) fn unban_domain(&self, domain: &str) -> Result<bool, StoreError> {
        let changed = self
            .connection
            .prepare_cached("DELETE FROM domain_ban WHERE domain = ?1")?
            .execute([domain])?;
        Ok(changed == 1)
    }
}
