//! Settings, and lists of domains.

use super::{
    Database, StoreError,
    sql::{FromValue, values},
};

impl Database {
    pub(super) fn setting(&mut self, name: &str) -> Result<Option<String>, StoreError> {
        self.value("SELECT value FROM setting WHERE name = ?1", &values![name])
    }

    pub(super) fn set_setting(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        self.sql.execute(
            "INSERT INTO setting (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            &values![name, value],
        )?;
        Ok(())
    }

    pub(super) fn domain_bans(&mut self) -> Result<Vec<String>, StoreError> {
        self.column("SELECT domain FROM domain_ban ORDER BY domain")
    }

    pub(super) fn ban_domain(&mut self, domain: &str, now: u64) -> Result<bool, StoreError> {
        let changed = self.sql.execute(
            "INSERT INTO domain_ban (id, domain, created_at)
             VALUES ((SELECT coalesce(max(id), 0) + 1 FROM domain_ban), ?1, ?2)
             ON CONFLICT (domain) DO NOTHING",
            &values![domain, now],
        )?;
        Ok(changed == 1)
    }

    pub(super) fn unban_domain(&mut self, domain: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM domain_ban WHERE domain = ?1";
        Ok(self.sql.execute(sql, &values![domain])? == 1)
    }

    pub(super) fn trusted_domains(&mut self) -> Result<Vec<String>, StoreError> {
        self.column("SELECT domain FROM trusted_domain ORDER BY domain")
    }

    pub(super) fn trust_domain(&mut self, domain: &str, now: u64) -> Result<bool, StoreError> {
        let changed = self.sql.execute(
            "INSERT INTO trusted_domain (domain, created_at) VALUES (?1, ?2)
             ON CONFLICT (domain) DO NOTHING",
            &values![domain, now],
        )?;
        Ok(changed == 1)
    }

    pub(super) fn untrust_domain(&mut self, domain: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM trusted_domain WHERE domain = ?1";
        Ok(self.sql.execute(sql, &values![domain])? == 1)
    }

    fn column<T: FromValue>(&mut self, sql: &str) -> Result<Vec<T>, StoreError> {
        self.sql.query(sql, &[])?.iter().map(|row| row.get(0)).collect()
    }
}
