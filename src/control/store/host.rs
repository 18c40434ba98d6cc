//! The host table.

use std::collections::HashMap;

use ports::{HostId, HostProgress, HostSeq, Strictness};

use super::{
    Database, HostFilter, HostMemory, HostPatch, HostRow, HostStatus, NewHost, StoreError,
    sql::{Durability, Row, Type, Value, values},
};

const COLUMNS: &str = "id, hostname, no_ssl, status, status_reason, status_since, trusted, \
     strictness, last_seq, account_count, account_limit, per_second, per_hour, per_day, \
     account_limit_alerts_silenced, last_error, last_error_at, created_at, status_until, \
     failures, next_attempt_at, quarantine_count, well_formed, strictness_since";

impl Database {
    pub(super) fn hosts(&mut self) -> Result<Vec<HostRow>, StoreError> {
        let rows = self.sql.query(&format!("SELECT {COLUMNS} FROM host ORDER BY id"), &[])?;
        rows.iter().map(host_row).collect()
    }

    /// Hosts above an id, in the order of ids.
    pub(super) fn hosts_page(
        &mut self,
        filter: &HostFilter,
        after: u32,
        count: usize,
    ) -> Result<Vec<HostRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM host
             WHERE id > ?1 AND (?2 = '' OR status = ?2)
               AND (?3 = '' OR hostname LIKE ?4 ESCAPE '\\')
               AND (?5 = 0 OR last_seq IS NOT NULL OR account_count > 0 OR status = 'active')
             ORDER BY id LIMIT ?6"
        );
        let text = filter.text.as_deref().unwrap_or_default().to_ascii_lowercase();
        let rows = self.sql.query(
            &sql,
            &values![
                after,
                filter.status.map_or("", HostStatus::label),
                &text,
                format!("%{}%", escaped(&text)),
                i64::from(filter.heard),
                count,
            ],
        )?;
        rows.iter().map(host_row).collect()
    }

    pub(super) fn host(&mut self, id: HostId) -> Result<HostRow, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM host WHERE id = ?1");
        let row = self.sql.query_row(&sql, &values![id.0])?;
        host_row(&row.ok_or(StoreError::NoSuchHost(id))?)
    }

    pub(super) fn insert_host(&mut self, host: &NewHost, now: u64) -> Result<HostRow, StoreError> {
        self.sql.execute(
            // Accounts may be of a host whose row is lost: no other host gets its number.
            "INSERT INTO host (id, hostname, no_ssl, status, status_since, trusted, account_limit,
                               by_admin, created_at, updated_at)
             VALUES ((SELECT coalesce(max(known.id), 0) + 1
                      FROM (SELECT max(id) AS id FROM host
                            UNION ALL SELECT max(host_id) FROM account) AS known),
                     ?1, ?2, 'active', ?3, ?4, ?5, ?6, ?3, ?3)
             ON CONFLICT (hostname) DO NOTHING",
            &values![
                &host.hostname,
                !host.tls,
                now,
                host.trusted,
                host.account_limit,
                host.by_admin
            ],
        )?;
        let sql = format!("SELECT {COLUMNS} FROM host WHERE hostname = ?1");
        let row = self.sql.query_row(&sql, &values![&host.hostname])?;
        // Hosts are never deleted.
        host_row(&row.ok_or(StoreError::NoSuchHost(HostId::RELAY))?)
    }

    pub(super) fn update_host(
        &mut self,
        id: HostId,
        patch: &HostPatch,
        now: u64,
    ) -> Result<HostRow, StoreError> {
        let mut row = self.host(id)?;
        apply(&mut row, patch, now);
        self.sql.transaction(Durability::Disk, |sql| {
            sql.execute(
                "UPDATE host SET no_ssl = ?2, status = ?3, status_reason = ?4, status_since = ?5,
                     trusted = ?6, strictness = ?7, account_limit = ?8, per_second = ?9,
                     per_hour = ?10, per_day = ?11, account_limit_alerts_silenced = ?12,
                     last_error = ?13, last_error_at = ?14, updated_at = ?15, status_until = ?16,
                     failures = ?17, next_attempt_at = ?18, quarantine_count = ?19,
                     well_formed = ?20, strictness_since = ?21
                 WHERE id = ?1",
                &patched(&row, now),
            )?;
            // Moves on with every report; set here only if it was asked for.
            if let Some(cursor) = patch.cursor {
                sql.execute(
                    "UPDATE host SET last_seq = ?2 WHERE id = ?1",
                    &values![id.0, cursor.map(|seq| seq.0)],
                )?;
            }
            Ok(())
        })?;
        Ok(row)
    }

    pub(super) fn hosts_added_since(&mut self, since: u64) -> Result<u64, StoreError> {
        let count = self.value(
            "SELECT count(*) FROM host WHERE created_at >= ?1 AND by_admin = 0",
            &values![since],
        )?;
        Ok(count.unwrap_or(0))
    }

    /// Hosts with throttled accounts and free places, and how many places are free.
    pub(super) fn hosts_with_places(&mut self) -> Result<Vec<(HostId, u64)>, StoreError> {
        let rows = self.sql.query(
            "SELECT h.id, h.account_limit - h.account_count FROM host AS h
             WHERE h.account_limit > h.account_count
               AND EXISTS (SELECT 1 FROM account AS a WHERE a.host_id = h.id AND a.local = 2)
             ORDER BY h.id",
            &[],
        )?;
        rows.iter().map(|row| Ok((HostId(row.get(0)?), row.get(1)?))).collect()
    }

    pub(super) fn save_progress(&mut self, progress: &[HostProgress]) -> Result<(), StoreError> {
        // The last word on each host: a statement may hit a row once only.
        let last: HashMap<HostId, &HostProgress> = progress
            .iter()
            .filter(|host| host.cursor.is_some())
            .map(|host| (host.host, host))
            .collect();
        let rows: Vec<Vec<Value>> = last
            .values()
            .map(|host| {
                values![host.host.0, host.cursor.map(|cursor| cursor.0), host.log_floor.0].into()
            })
            .collect();
        self.sql.transaction(Durability::Disk, |sql| {
            sql.execute_rows(
                "UPDATE host SET last_seq = r.cursor,
                     log_floor = CASE WHEN r.floor > 0 THEN r.floor ELSE host.log_floor END
                 FROM {rows} WHERE host.id = r.host",
                &[("host", Type::Int), ("cursor", Type::Int), ("floor", Type::Int)],
                &rows,
            )
        })?;
        if let Some(follower) = &mut self.follower {
            for host in progress {
                if let Some(cursor) = host.cursor {
                    follower.handle_cursor(host.host, cursor, host.log_floor);
                }
            }
            if !rows.is_empty() {
                follower.handle_stored();
            }
        }
        Ok(())
    }
}

fn patched(row: &HostRow, now: u64) -> [Value; 21] {
    values![
        row.id.0,
        !row.tls,
        row.status.label(),
        &row.status_reason,
        row.status_since,
        row.trusted,
        row.strictness.map(strictness_label),
        row.account_limit,
        row.per_second,
        row.per_hour,
        row.per_day,
        row.alerts_silenced,
        &row.last_error,
        row.last_error_at,
        now,
        row.memory.status_until,
        row.memory.failures,
        row.memory.next_attempt_at,
        row.memory.quarantine_count,
        row.memory.well_formed,
        row.memory.strictness_since,
    ]
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

fn host_row(row: &Row) -> Result<HostRow, StoreError> {
    Ok(HostRow {
        id: HostId(row.get(0)?),
        hostname: row.get(1)?,
        tls: !row.get::<bool>(2)?,
        status: HostStatus::parse(&row.get::<String>(3)?).unwrap_or_default(),
        status_reason: row.get(4)?,
        status_since: row.get(5)?,
        trusted: row.get(6)?,
        strictness: row.get::<Option<String>>(7)?.as_deref().and_then(strictness),
        cursor: row.get::<Option<u64>>(8)?.map(HostSeq),
        account_count: row.get::<i64>(9)?.max(0) as u64,
        account_limit: row.get(10)?,
        per_second: row.get(11)?,
        per_hour: row.get(12)?,
        per_day: row.get(13)?,
        alerts_silenced: row.get(14)?,
        last_error: row.get(15)?,
        last_error_at: row.get(16)?,
        created_at: row.get(17)?,
        memory: HostMemory {
            status_until: row.get(18)?,
            failures: row.get(19)?,
            next_attempt_at: row.get(20)?,
            quarantine_count: row.get(21)?,
            well_formed: row.get(22)?,
            strictness_since: row.get(23)?,
        },
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

/// A text that stands for itself in a LIKE pattern.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}
