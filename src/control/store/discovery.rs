//! Relays whose hosts are looked through, and hosts that were refused.

use super::{
    Database, StoreError,
    sql::{Row, values},
};

/// The last look through the hosts of another relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Its base URL.
    pub relay: String,
    /// Unix seconds.
    pub last_at: u64,
    pub hosts_seen: u64,
    pub hosts_added: u64,
    pub last_error: Option<String>,
}

/// A host that was refused, and is not tried again before a time. Times are Unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedHost {
    pub hostname: String,
    pub reason: String,
    pub refused_at: u64,
    pub retry_at: u64,
    /// How often it has been refused.
    pub times: u64,
}

impl Database {
    pub(super) fn discoveries(&mut self) -> Result<Vec<Discovery>, StoreError> {
        let rows = self.sql.query(
            "SELECT relay, last_at, hosts_seen, hosts_added, last_error FROM discovery
             ORDER BY relay",
            &[],
        )?;
        let discovery = |row: &Row| {
            Ok(Discovery {
                relay: row.get(0)?,
                last_at: row.get(1)?,
                hosts_seen: row.get(2)?,
                hosts_added: row.get(3)?,
                last_error: row.get(4)?,
            })
        };
        rows.iter().map(discovery).collect()
    }

    pub(super) fn save_discovery(&mut self, discovery: &Discovery) -> Result<(), StoreError> {
        self.sql.execute(
            "INSERT INTO discovery (relay, last_at, hosts_seen, hosts_added, last_error)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (relay) DO UPDATE SET last_at = excluded.last_at,
                 hosts_seen = excluded.hosts_seen, hosts_added = excluded.hosts_added,
                 last_error = excluded.last_error",
            &values![
                &discovery.relay,
                discovery.last_at,
                discovery.hosts_seen,
                discovery.hosts_added,
                &discovery.last_error
            ],
        )?;
        Ok(())
    }

    pub(super) fn refused_host(
        &mut self,
        hostname: &str,
    ) -> Result<Option<RefusedHost>, StoreError> {
        let row = self.sql.query_row(
            "SELECT hostname, reason, refused_at, retry_at, times FROM refused_host
             WHERE hostname = ?1",
            &values![hostname],
        )?;
        row.as_ref().map(refused_host).transpose()
    }

    /// Those that are not to be tried yet, above a name, in the order of names.
    pub(super) fn refused_hosts(
        &mut self,
        after: &str,
        now: u64,
        count: usize,
    ) -> Result<Vec<RefusedHost>, StoreError> {
        let rows = self.sql.query(
            "SELECT hostname, reason, refused_at, retry_at, times FROM refused_host
             WHERE hostname > ?1 AND retry_at > ?2 ORDER BY hostname LIMIT ?3",
            &values![after, now, count],
        )?;
        rows.iter().map(refused_host).collect()
    }

    /// Notes a refusal; `times` grows with each.
    pub(super) fn refuse_host(
        &mut self,
        hostname: &str,
        reason: &str,
        retry_at: u64,
        now: u64,
    ) -> Result<(), StoreError> {
        self.sql.execute(
            "INSERT INTO refused_host (hostname, reason, refused_at, retry_at)
             VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (hostname) DO UPDATE SET reason = excluded.reason,
                 refused_at = excluded.refused_at, retry_at = excluded.retry_at,
                 times = refused_host.times + 1",
            &values![hostname, reason, now, retry_at],
        )?;
        Ok(())
    }

    /// Forgets refusals before a time.
    pub(super) fn forget_refused(&mut self, before: u64) -> Result<(), StoreError> {
        self.sql.execute("DELETE FROM refused_host WHERE refused_at < ?1", &values![before])?;
        Ok(())
    }

    pub(super) fn unrefuse_host(&mut self, hostname: &str) -> Result<(), StoreError> {
        self.sql.execute("DELETE FROM refused_host WHERE hostname = ?1", &values![hostname])?;
        Ok(())
    }
}

fn refused_host(row: &Row) -> Result<RefusedHost, StoreError> {
    Ok(RefusedHost {
        hostname: row.get(0)?,
        reason: row.get(1)?,
        refused_at: row.get(2)?,
        retry_at: row.get(3)?,
        times: row.get(4)?,
    })
}
