//! The host table.

use ports::{HostId, HostProgress, HostSeq, Strictness};
use rusqlite::{OptionalExtension, Row};

use super::{Database, HostMemory, HostPatch, HostRow, HostStatus, NewHost, StoreError};

const COLUMNS: &str = "id, hostname, no_ssl, status, status_reason, status_since, trusted, \
     strictness, last_seq, account_count, account_limit, per_second, per_hour, per_day, \
     account_limit_alerts_silenced, last_error, last_error_at, created_at";

impl Database {
    pub(super) fn hosts(&self) -> Result<Vec<HostRow>, StoreError> {
        let mut statement =
            self.connection.prepare(&format!("SELECT {COLUMNS} FROM host ORDER BY id"))?;
        let rows = statement.query_map([], host_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn host(&self, id: HostId) -> Result<HostRow, StoreError> {
        self.connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM host WHERE id = ?1"))?
            .query_row([id.0], host_row)
            .optional()?
            .ok_or(StoreError::NoSuchHost(id))
    }

    pub(super) fn insert_host(&self, host: &NewHost, now: u64) -> Result<HostRow, StoreError> {
        let now = now as i64;
        self.connection
            .prepare_cached(
                "INSERT INTO host (hostname, no_ssl, status, status_since, trusted, account_limit,
                                   by_admin, created_at, updated_at)
                 VALUES (?1, ?2, 'active', ?3, ?4, ?5, ?6, ?3, ?3)
                 ON CONFLICT (hostname) DO NOTHING",
            )?
            .execute((
                &host.hostname,
                !host.tls,
                now,
                host.trusted,
                host.account_limit as i64,
                host.by_admin,
            ))?;
        Ok(self
            .connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM host WHERE hostname = ?1"))?
            .query_row([&host.hostname], host_row)?)
    }

    pub(super) fn update_host(
        &mut self,
        id: HostId,
        patch: &HostPatch,
        now: u64,
    ) -> Result<HostRow, StoreError> {
        let mut row = self.host(id)?;
        apply(&mut row, patch, now);
        self.connection
            .prepare_cached(
                "UPDATE host SET no_ssl = ?2, status = ?3, status_reason = ?4, status_since = ?5,
                     trusted = ?6, strictness = ?7, account_limit = ?8, per_second = ?9,
                     per_hour = ?10, per_day = ?11, account_limit_alerts_silenced = ?12,
                     last_error = ?13, last_error_at = ?14, updated_at = ?15
                 WHERE id = ?1",
            )?
            .execute((
                id.0,
                !row.tls,
                row.status.label(),
                &row.status_reason,
                row.status_since as i64,
                row.trusted,
                row.strictness.map(strictness_label),
                row.account_limit as i64,
                row.per_second.map(|rate| rate as i64),
                row.per_hour.map(|rate| rate as i64),
                row.per_day.map(|rate| rate as i64),
                row.alerts_silenced,
                &row.last_error,
                row.last_error_at.map(|time| time as i64),
                now as i64,
            ))?;
        if let Some(cursor) = patch.cursor {
            self.set_cursor(id, cursor)?;
        }
        Ok(row)
    }

    fn set_cursor(&self, id: HostId, cursor: Option<HostSeq>) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE host SET last_seq = ?2 WHERE id = ?1")?
            .execute((id.0, cursor.map(|seq| seq.0 as i64)))?;
        Ok(())
    }

    pub(super) fn hosts_added_since(&self, since: u64) -> Result<u64, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT count(*) FROM host WHERE created_at >= ?1 AND by_admin = 0")?;
        Ok(statement.query_row([since as i64], |row| row.get::<_, i64>(0))? as u64)
    }

    pub(super) fn save_progress(&mut self, progress: &[HostProgress]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        {
            let mut update =
                transaction.prepare_cached("UPDATE host SET last_seq = ?2 WHERE id = ?1")?;
            for host in progress {
                if let Some(cursor) = host.cursor {
                    update.execute((host.host.0, cursor.0 as i64))?;
                }
            }
        }
        transaction.commit()?;
        if let Some(follower) = &mut self.follower {
            for host in progress {
                if let Some(cursor) = host.cursor {
                    follower.handle_cursor(host.host, cursor);
                }
            }
        }
        Ok(())
    }
}

fn apply(row: &mut HostRow, patch: &HostPatch, now: u64) {
    if let Some((status, reason)) = &patch.status {
        if row.status != *status {
            row.status_since = now;
        }
        row.status = *status;
        row.status_reason.clone_from(reason);
    }
    if let Some(error) = &patch.last_error {
        row.last_error = Some(error.clone());
        row.last_error_at = Some(now);
    }
    row.tls = patch.tls.unwrap_or(row.tls);
    row.trusted = patch.trusted.unwrap_or(row.trusted);
    row.strictness = patch.strictness.unwrap_or(row.strictness);
    row.cursor = patch.cursor.unwrap_or(row.cursor);
    row.account_limit = patch.account_limit.unwrap_or(row.account_limit);
    row.per_second = patch.per_second.unwrap_or(row.per_second);
    row.per_hour = patch.per_hour.unwrap_or(row.per_hour);
    row.per_day = patch.per_day.unwrap_or(row.per_day);
    row.alerts_silenced = patch.alerts_silenced.unwrap_or(row.alerts_silenced);
    row.memory = patch.memory.unwrap_or(row.memory);
}

fn host_row(row: &Row<'_>) -> rusqlite::Result<HostRow> {
    let number = |column: &str| row.get::<_, i64>(column).map(|value| value as u64);
    let optional =
        |column: &str| row.get::<_, Option<i64>>(column).map(|value| value.map(|v| v as u64));
    Ok(HostRow {
        id: HostId(row.get("id")?),
        hostname: row.get("hostname")?,
        tls: !row.get::<_, bool>("no_ssl")?,
        status: HostStatus::parse(&row.get::<_, String>("status")?).unwrap_or_default(),
        status_reason: row.get("status_reason")?,
        status_since: number("status_since")?,
        trusted: row.get("trusted")?,
        strictness: row.get::<_, Option<String>>("strictness")?.as_deref().and_then(strictness),
        cursor: optional("last_seq")?.map(HostSeq),
        account_count: number("account_count")?,
        account_limit: number("account_limit")?,
        per_second: optional("per_second")?,
        per_hour: optional("per_hour")?,
        per_day: optional("per_day")?,
        alerts_silenced: row.get("account_limit_alerts_silenced")?,
        last_error: row.get("last_error")?,
        last_error_at: optional("last_error_at")?,
        memory: HostMemory::default(),
        created_at: number("created_at")?,
    })
}

fn strictness_label(strictness: Strictness) -> &'static str {
    match strictness {
        Strictness::Strict => "strict",
        Strictness::Lenient => "lenient",
    }
}

fn strictness(word: &str) -> Option<Strictness> {
    match word {
        "strict" => Some(Strictness::Strict),
        "lenient" => Some(Strictness::Lenient),
        _ => None,
    }
}
