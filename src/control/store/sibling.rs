//! Changes that wait for sibling relays, and what became of those sent.

use super::{
    Store, StoreError,
    database::Database,
    sql::{Durability, Row, Sql, values},
    unix_now,
};
use crate::siblings::SiblingState;

/// A change to be queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSiblingChange {
    pub method: String,
    pub path: String,
    pub body: String,
    pub via: String,
    /// Queues that are longer do not take it.
    pub queue_max: u64,
}

/// A change in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiblingChange {
    pub id: u64,
    pub method: String,
    pub path: String,
    pub body: String,
    pub via: String,
    pub created_at: u64,
    /// Attempts that failed.
    pub attempts: u32,
}

/// What became of a change at one sibling's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiblingPush {
    Queued {
        /// Unix seconds.
        at: u64,
    },
    Full,
}

/// Changes for sibling relays.
impl Store {
    /// Queues a change for each of the siblings, and notes it as the last one of its origin.
    pub(crate) async fn sibling_push(
        &self,
        change: NewSiblingChange,
        siblings: Vec<String>,
        origin: (u64, u64),
    ) -> Result<Vec<SiblingPush>, StoreError> {
        self.call(move |database| database.sibling_push(&change, &siblings, origin, unix_now()))
            .await
    }

    /// The oldest change that waits for a sibling.
    pub(crate) async fn sibling_head(
        &self,
        sibling: &str,
    ) -> Result<Option<SiblingChange>, StoreError> {
        let sibling = sibling.to_owned();
        self.call(move |database| database.sibling_head(&sibling)).await
    }

    /// The sibling has made the change, or refused it. Returns when the next one was made.
    pub(crate) async fn sibling_done(
        &self,
        id: u64,
        sibling: &str,
        refusal: Option<String>,
    ) -> Result<Option<u64>, StoreError> {
        let sibling = sibling.to_owned();
        self.call(move |database| {
            database.sibling_done(id, &sibling, refusal.as_deref(), unix_now())
        })
        .await
    }

    /// An attempt failed; the next one is made at `next_at` (Unix seconds).
    pub(crate) async fn sibling_failed(
        &self,
        id: u64,
        sibling: &str,
        error: String,
        next_at: u64,
    ) -> Result<(), StoreError> {
        let sibling = sibling.to_owned();
        self.call(move |database| {
            database.sibling_failed(id, &sibling, &error, next_at, unix_now())
        })
        .await
    }

    pub(crate) async fn sibling_states(&self) -> Result<Vec<SiblingState>, StoreError> {
        self.call(Database::sibling_states).await
    }

    /// The number of the last change of each relay where changes began.
    pub(crate) async fn sibling_origins(&self) -> Result<Vec<(u64, u64)>, StoreError> {
        self.call(Database::sibling_origins).await
    }
}

impl Database {
    /// Queues a change for each of the siblings, and notes it as the last one of its origin.
    pub(super) fn sibling_push(
        &mut self,
        change: &NewSiblingChange,
        siblings: &[String],
        (origin, number): (u64, u64),
        now: u64,
    ) -> Result<Vec<SiblingPush>, StoreError> {
        self.sql.transaction(Durability::Disk, |sql| {
            sql.execute(
                "INSERT INTO sibling_origin (origin, number) VALUES (?1, ?2)
                 ON CONFLICT (origin) DO UPDATE SET number = excluded.number",
                &values![origin, number],
            )?;
            siblings.iter().map(|sibling| push(sql, change, sibling, now)).collect()
        })
    }

    pub(super) fn sibling_head(
        &mut self,
        sibling: &str,
    ) -> Result<Option<SiblingChange>, StoreError> {
        let row = self.sql.query_row(
            "SELECT id, method, path, body, via, created_at, attempts FROM sibling_queue
             WHERE sibling = ?1 ORDER BY id LIMIT 1",
            &values![sibling],
        )?;
        row.as_ref().map(change).transpose()
    }

    /// The sibling has made the change, or refused it. Returns when the next one was made.
    pub(super) fn sibling_done(
        &mut self,
        id: u64,
        sibling: &str,
        refusal: Option<&str>,
        now: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.sql.transaction(Durability::Disk, |sql| {
            sql.execute("DELETE FROM sibling_queue WHERE id = ?1", &values![id])?;
            let statement = "INSERT INTO sibling_state (sibling, delivered, refused, last_ok_at)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (sibling) DO UPDATE SET
                     delivered = sibling_state.delivered + excluded.delivered,
                     refused = sibling_state.refused + excluded.refused,
                     last_ok_at = excluded.last_ok_at";
            let refused = refusal.is_some();
            sql.execute(statement, &values![sibling, !refused, refused, now])?;
            if let Some(reason) = refusal {
                note_error(sql, sibling, reason, now)?;
            }
            sql.query_value(
                "SELECT created_at FROM sibling_queue WHERE sibling = ?1 ORDER BY id LIMIT 1",
                &values![sibling],
            )
        })
    }

    pub(super) fn sibling_failed(
        &mut self,
        id: u64,
        sibling: &str,
        error: &str,
        next_at: u64,
        now: u64,
    ) -> Result<(), StoreError> {
        self.sql.transaction(Durability::Log, |sql| {
            sql.execute(
                "UPDATE sibling_queue SET attempts = attempts + 1, next_at = ?2, last_error = ?3
                 WHERE id = ?1",
                &values![id, next_at, error],
            )?;
            note_error(sql, sibling, error, now)
        })
    }

    /// Siblings of which anything is known, with what waits for them.
    pub(super) fn sibling_states(&mut self) -> Result<Vec<SiblingState>, StoreError> {
        let rows = self.sql.query(
            "SELECT names.sibling, state.delivered, state.refused, state.last_ok_at,
                    state.last_error, state.last_error_at,
                    (SELECT COUNT(*) FROM sibling_queue AS queue
                     WHERE queue.sibling = names.sibling),
                    (SELECT MIN(created_at) FROM sibling_queue AS queue
                     WHERE queue.sibling = names.sibling),
                    (SELECT attempts FROM sibling_queue AS queue
                     WHERE queue.sibling = names.sibling ORDER BY id LIMIT 1)
             FROM (SELECT sibling FROM sibling_state UNION SELECT sibling FROM sibling_queue)
                 AS names
             LEFT JOIN sibling_state AS state ON state.sibling = names.sibling
             ORDER BY names.sibling",
            &[],
        )?;
        let state = |row: &Row| {
            Ok(SiblingState {
                sibling: row.get(0)?,
                delivered: row.get::<Option<u64>>(1)?.unwrap_or(0),
                refused: row.get::<Option<u64>>(2)?.unwrap_or(0),
                last_ok_at: row.get(3)?,
                last_error: row.get(4)?,
                last_error_at: row.get(5)?,
                queued: row.get(6)?,
                oldest_at: row.get(7)?,
                failures: row.get::<Option<u32>>(8)?.unwrap_or(0),
                ..SiblingState::default()
            })
        };
        rows.iter().map(state).collect()
    }

    /// The last change of each relay where changes began, ourselves included.
    pub(super) fn sibling_origins(&mut self) -> Result<Vec<(u64, u64)>, StoreError> {
        let rows = self.sql.query("SELECT origin, number FROM sibling_origin", &[])?;
        rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
    }
}

fn push(
    sql: &mut Sql,
    change: &NewSiblingChange,
    sibling: &str,
    now: u64,
) -> Result<SiblingPush, StoreError> {
    let count = "SELECT COUNT(*) FROM sibling_queue WHERE sibling = ?1";
    let queued: u64 = sql.query_value(count, &values![sibling])?.unwrap_or(0);
    if queued >= change.queue_max {
        return Ok(SiblingPush::Full);
    }
    sql.execute(
        "INSERT INTO sibling_queue (id, sibling, method, path, body, via, created_at)
         SELECT COALESCE(MAX(id), 0) + 1, ?1, ?2, ?3, ?4, ?5, ?6 FROM sibling_queue",
        &values![sibling, &change.method, &change.path, &change.body, &change.via, now],
    )?;
    Ok(SiblingPush::Queued { at: now })
}

fn note_error(sql: &mut Sql, sibling: &str, error: &str, now: u64) -> Result<(), StoreError> {
    sql.execute(
        "INSERT INTO sibling_state (sibling, last_error, last_error_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (sibling) DO UPDATE SET
             last_error = excluded.last_error, last_error_at = excluded.last_error_at",
        &values![sibling, error, now],
    )?;
    Ok(())
}

fn change(row: &Row) -> Result<SiblingChange, StoreError> {
    Ok(SiblingChange {
        id: row.get(0)?,
        method: row.get(1)?,
        path: row.get(2)?,
        body: row.get(3)?,
        via: row.get(4)?,
        created_at: row.get(5)?,
        attempts: row.get(6)?,
    })
}
