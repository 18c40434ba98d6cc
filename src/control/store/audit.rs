//! Who changed what, and when.

use super::{
    Database, StoreError,
    sql::{Row, values},
};

/// A change that an operator made, or tried to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditEntry {
    /// Which key was used, or which part of the relay itself.
    pub actor: String,
    /// The address that the request came from.
    pub remote: String,
    pub action: String,
    /// The host, account, domain or setting.
    pub subject: String,
    pub detail: String,
    pub outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    pub id: u64,
    /// Unix seconds.
    pub at: u64,
    pub entry: AuditEntry,
}

impl Database {
    pub(super) fn audit_append(&mut self, entry: &AuditEntry, now: u64) -> Result<u64, StoreError> {
        let id = self.value(
            "INSERT INTO audit (id, at, actor, remote, action, subject, detail, outcome)
             VALUES ((SELECT coalesce(max(id), 0) + 1 FROM audit), ?1, ?2, ?3, ?4, ?5, ?6, ?7)
             RETURNING id",
            &values![
                now,
                &entry.actor,
                &entry.remote,
                &entry.action,
                &entry.subject,
                &entry.detail,
                &entry.outcome
            ],
        )?;
        Ok(id.unwrap_or(0))
    }

    /// The newest first; `before` an id, or from the end.
    pub(super) fn audit_list(
        &mut self,
        before: Option<u64>,
        count: usize,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let rows = self.sql.query(
            "SELECT id, at, actor, remote, action, subject, detail, outcome FROM audit
             WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
            &values![before.unwrap_or(i64::MAX as u64), count],
        )?;
        rows.iter().map(audit_row).collect()
    }
}

fn audit_row(row: &Row) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        id: row.get(0)?,
        at: row.get(1)?,
        entry: AuditEntry {
            actor: row.get(2)?,
            remote: row.get(3)?,
            action: row.get(4)?,
            subject: row.get(5)?,
            detail: row.get(6)?,
            outcome: row.get(7)?,
        },
    })
}
