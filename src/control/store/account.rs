//! The account and identity tables.

use std::collections::HashMap;

use ports::{
    AccountId, AccountState, Effective, HostId, LocalStatus, RepoHead, StatusWord, UpstreamStatus,
};

use super::{
    AccountCounts, AccountRow, Database, StoreError, StoredAccount, StoredIdentity,
    sql::{Durability, Row, Sql, Type, Value, values},
    unix_now,
};

/// Identities are written in batches of this size at most while the log stands still.
const IDENTITY_BATCH: usize = 1024;

/// Columns of [`account_state`].
pub(super) const STATE: &str =
    "a.id, a.host_id, a.upstream, a.local, a.announced, a.rev, a.data, a.commit_hash";

/// Whether an account takes one of the places that its host's limit gives.
pub(super) fn takes_place(upstream: UpstreamStatus, local: LocalStatus) -> bool {
    let deleted = !upstream.active && upstream.word == StatusWord::Deleted;
    !deleted && local != LocalStatus::Throttled
}

/// Changes to the numbers of accounts that hosts have.
#[derive(Debug, Default)]
pub(super) struct CountChanges(HashMap<HostId, i64>);

impl CountChanges {
    pub(super) fn add(&mut self, host: HostId, upstream: UpstreamStatus, local: LocalStatus) {
        self.change(host, i64::from(takes_place(upstream, local)));
    }

    pub(super) fn remove(&mut self, host: HostId, upstream: UpstreamStatus, local: LocalStatus) {
        self.change(host, -i64::from(takes_place(upstream, local)));
    }

    fn change(&mut self, host: HostId, by: i64) {
        if by != 0 && host != HostId::RELAY {
            *self.0.entry(host).or_default() += by;
        }
    }

    /// Within the transaction that changes the accounts.
    pub(super) fn store(self, sql: &mut Sql) -> Result<(), StoreError> {
        let rows: Vec<Vec<Value>> = self
            .0
            .into_iter()
            .filter(|(_, by)| *by != 0)
            .map(|(host, by)| values![host.0, by].into())
            .collect();
        sql.execute_rows(
            "UPDATE host SET account_count = account_count + r.change
             FROM {rows} WHERE host.id = r.host",
            &[("host", Type::Int), ("change", Type::Int)],
            &rows,
        )?;
        Ok(())
    }
}

impl Database {
    /// What is known of each DID, in the order of the question.
    pub(super) fn accounts_by_did(
        &mut self,
        dids: &[String],
    ) -> Result<Vec<StoredAccount>, StoreError> {
        let mut found = find_accounts(&mut self.sql, dids)?;
        for (did, account) in dids.iter().zip(&mut found) {
            // What waits to be written is newer than what is written.
            let waiting = self.identities.iter().rev().find(|(name, _)| name == did);
            if let Some((_, identity)) = waiting {
                account.identity = Some(identity.clone());
            }
        }
        Ok(found)
    }

    /// Makes accounts which their hosts call active, or finds those that are there. An account above
    /// its host's limit begins as throttled.
    pub(super) fn create_accounts(
        &mut self,
        wanted: &[(String, HostId)],
    ) -> Result<Vec<AccountState>, StoreError> {
        let dids: Vec<String> = wanted.iter().map(|(did, _)| did.clone()).collect();
        let mut states: HashMap<&str, AccountState> = HashMap::new();
        for (did, found) in dids.iter().zip(find_accounts(&mut self.sql, &dids)?) {
            if let Some(state) = found.state {
                states.insert(did, state);
            }
        }
        let mut places = self.free_places(wanted)?;
        let (mut rows, mut counts) = (Vec::new(), CountChanges::default());
        let now = unix_now();
        for (did, host) in wanted {
            if states.contains_key(did.as_str()) {
                continue;
            }
            let free = places.get_mut(host);
            let local = match free {
                Some(0) => LocalStatus::Throttled,
                Some(free) => {
                    *free -= 1;
                    LocalStatus::Active
                }
                None => LocalStatus::Active,
            };
            let state = AccountState {
                id: AccountId(self.number_account()),
                host: *host,
                upstream: UpstreamStatus::ACTIVE,
                local,
                announced: None,
                head: None,
            };
            counts.add(*host, state.upstream, local);
            rows.push(new_account_row(&state, did, now));
            states.insert(did, state);
        }
        if !rows.is_empty() {
            self.sql.transaction(Durability::Log, |sql| {
                insert_accounts(sql, &rows)?;
                counts.store(sql)
            })?;
        }
        Ok(wanted.iter().filter_map(|(did, _)| states.get(did.as_str()).copied()).collect())
    }

    /// For each host how many accounts it may still have. Where accounts wait for places, those that
    /// get free are theirs.
    fn free_places(
        &mut self,
        wanted: &[(String, HostId)],
    ) -> Result<HashMap<HostId, u64>, StoreError> {
        let mut hosts: Vec<HostId> = wanted.iter().map(|(_, host)| *host).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let rows: Vec<Vec<Value>> = hosts.iter().map(|host| values![host.0].into()).collect();
        let found = self.sql.query_rows(
            "SELECT h.id, h.account_count,
                    CASE WHEN EXISTS (SELECT 1 FROM account AS a
                                      WHERE a.host_id = h.id AND a.local = 2)
                         THEN 0 ELSE h.account_limit END
             FROM {rows} JOIN host AS h ON h.id = r.host",
            &[("host", Type::Int)],
            &rows,
        )?;
        found
            .iter()
            .map(|row| {
                let (count, limit): (i64, u64) = (row.get(1)?, row.get(2)?);
                Ok((HostId(row.get(0)?), limit.saturating_sub(count.max(0) as u64)))
            })
            .collect()
    }

    pub(super) fn accounts_after(
        &mut self,
        after: u64,
        count: usize,
    ) -> Result<Vec<AccountRow>, StoreError> {
        let sql = format!(
            "SELECT {STATE}, a.did FROM account AS a
             WHERE a.id > ?1 AND a.rev IS NOT NULL ORDER BY a.id LIMIT ?2"
        );
        account_rows(&self.sql.query(&sql, &values![after, count])?)
    }

    /// Accounts taken down by the operator above an id, in the order of ids.
    pub(super) fn takedowns_after(
        &mut self,
        after: u64,
        count: usize,
    ) -> Result<Vec<AccountRow>, StoreError> {
        let sql = format!(
            "SELECT {STATE}, a.did FROM account AS a
             WHERE a.local = 1 AND a.local <> 0 AND a.id > ?1 ORDER BY a.id LIMIT ?2"
        );
        account_rows(&self.sql.query(&sql, &values![after, count])?)
    }

    pub(super) fn throttled_oldest(
        &mut self,
        host: HostId,
        count: usize,
    ) -> Result<Vec<AccountRow>, StoreError> {
        let sql = format!(
            "SELECT {STATE}, a.did FROM account AS a
             WHERE a.host_id = ?1 AND a.local = 2 ORDER BY a.id LIMIT ?2"
        );
        account_rows(&self.sql.query(&sql, &values![host.0, count])?)
    }

    pub(super) fn note_upstream(
        &mut self,
        noted: &[(AccountId, UpstreamStatus)],
    ) -> Result<(), StoreError> {
        self.sql.transaction(Durability::Log, |sql| {
            let mut counts = CountChanges::default();
            for (id, upstream) in noted {
                let rows = sql.query(
                    "SELECT host_id, upstream, local FROM account WHERE id = ?1",
                    &values![id.0],
                )?;
                let Some(row) = rows.first() else { continue };
                let (host, local) = (HostId(row.get(0)?), LocalStatus::from_code(row.get(2)?));
                counts.remove(host, UpstreamStatus::from_code(row.get(1)?), local);
                counts.add(host, *upstream, local);
                sql.execute(
                    "UPDATE account SET upstream = ?2 WHERE id = ?1",
                    &values![id.0, upstream.code()],
                )?;
            }
            counts.store(sql)
        })
    }

    /// Counts a host's accounts, and corrects the number in its row.
    pub(super) fn account_counts(&mut self, host: HostId) -> Result<AccountCounts, StoreError> {
        self.sql.transaction(Durability::Disk, |sql| {
            let rows = sql.query(
                "SELECT upstream, local, count(*) FROM account WHERE host_id = ?1
                 GROUP BY upstream, local",
                &values![host.0],
            )?;
            let mut counts = AccountCounts::default();
            for row in &rows {
                let upstream = UpstreamStatus::from_code(row.get(0)?);
                let local = LocalStatus::from_code(row.get(1)?);
                let number: u64 = row.get(2)?;
                counts.all += number;
                if takes_place(upstream, local) {
                    counts.counted += number;
                }
                match local {
                    LocalStatus::Active => {}
                    LocalStatus::Takendown => counts.takendown += number,
                    LocalStatus::Throttled => counts.throttled += number,
                }
                if !upstream.active && upstream.word == StatusWord::Deleted {
                    counts.deleted += number;
                }
            }
            sql.execute(
                "UPDATE host SET account_count = ?2 WHERE id = ?1 AND account_count <> ?2",
                &values![host.0, counts.counted],
            )?;
            Ok(counts)
        })
    }

    pub(super) fn keep_identity(&mut self, did: String, identity: StoredIdentity) {
        self.identities.push((did, identity));
        if self.identities.len().is_multiple_of(IDENTITY_BATCH)
            && let Err(error) = self.flush_identities()
            && !error.is_passing()
        {
            tracing::error!(%error, "identities could not be written");
        }
    }

    /// Writes the identities held back; those of unknown accounts are left out, so that look-ups
    /// for invented DIDs cannot fill the disk.
    pub(super) fn flush_identities(&mut self) -> Result<(), StoreError> {
        if self.identities.is_empty() {
            return Ok(());
        }
        let rows = identity_rows(&self.identities);
        let written = self.sql.transaction(Durability::Log, |sql| {
            sql.execute_rows(
                "INSERT INTO identity (account_id, key, pds, pds_tls, handle, fetched_at)
                 SELECT a.id, r.key, r.pds, r.pds_tls, r.handle, r.fetched_at
                 FROM {rows} JOIN account AS a ON a.did = r.did WHERE true
                 ON CONFLICT (account_id) DO UPDATE SET
                     key = excluded.key, pds = excluded.pds, pds_tls = excluded.pds_tls,
                     handle = excluded.handle, fetched_at = excluded.fetched_at",
                &IDENTITY_COLUMNS,
                &rows,
            )
        });
        match written {
            Ok(_) => self.identities.clear(),
            // Kept for the next time, but not without end: all of it can be fetched again.
            Err(_) if self.identities.len() > 64 * IDENTITY_BATCH => self.identities.clear(),
            Err(_) => {}
        }
        written.map(drop)
    }

    /// Takes over documents from an export of the directory, for accounts and for DIDs that have no
    /// account yet; what was fetched later than that stays. Returns how many were taken.
    pub(super) fn import_identities(
        &mut self,
        identities: &[(String, StoredIdentity)],
    ) -> Result<u64, StoreError> {
        let rows = identity_rows(identities);
        self.sql.transaction(Durability::Log, |sql| {
            let known = sql.execute_rows(
                "INSERT INTO identity (account_id, key, pds, pds_tls, handle, fetched_at)
                 SELECT a.id, r.key, r.pds, r.pds_tls, r.handle, r.fetched_at
                 FROM {rows} JOIN account AS a ON a.did = r.did WHERE true
                 ON CONFLICT (account_id) DO UPDATE SET
                     key = excluded.key, pds = excluded.pds, pds_tls = excluded.pds_tls,
                     handle = excluded.handle, fetched_at = excluded.fetched_at
                 WHERE identity.fetched_at < excluded.fetched_at",
                &IDENTITY_COLUMNS,
                &rows,
            )?;
            let unknown = sql.execute_rows(
                "INSERT INTO directory (did, key, pds, pds_tls, handle, fetched_at)
                 SELECT r.did, r.key, r.pds, r.pds_tls, r.handle, r.fetched_at
                 FROM {rows} LEFT JOIN account AS a ON a.did = r.did WHERE a.id IS NULL
                 ON CONFLICT (did) DO UPDATE SET
                     key = excluded.key, pds = excluded.pds, pds_tls = excluded.pds_tls,
                     handle = excluded.handle, fetched_at = excluded.fetched_at
                 WHERE directory.fetched_at < excluded.fetched_at",
                &IDENTITY_COLUMNS,
                &rows,
            )?;
            Ok(known + unknown)
        })
    }
}

/// What the database knows of each DID, in the order of the question.
pub(super) fn find_accounts(
    sql: &mut Sql,
    dids: &[String],
) -> Result<Vec<StoredAccount>, StoreError> {
    let questions: Vec<Vec<Value>> =
        dids.iter().enumerate().map(|(n, did)| values![n, did].into()).collect();
    let columns = [("n", Type::Int), ("did", Type::Text)];
    let mut found = vec![StoredAccount::default(); dids.len()];
    let rows = sql.query_rows(
        &format!(
            "SELECT {STATE}, i.key, i.pds, i.pds_tls, i.handle, i.fetched_at, r.n
             FROM {{rows}} JOIN account AS a ON a.did = r.did
             LEFT JOIN identity AS i ON i.account_id = a.id"
        ),
        &columns,
        &questions,
    )?;
    for row in &rows {
        let place: u64 = row.get(13)?;
        if let Some(account) = found.get_mut(place as usize) {
            account.state = Some(account_state(row)?);
            account.identity = stored_identity(row, 8)?;
        }
    }
    let unknown: Vec<Vec<Value>> = questions
        .into_iter()
        .zip(&found)
        .filter(|(_, account)| account.identity.is_none())
        .map(|(question, _)| question)
        .collect();
    let rows = sql.query_rows(
        "SELECT d.key, d.pds, d.pds_tls, d.handle, d.fetched_at, r.n
         FROM {rows} JOIN directory AS d ON d.did = r.did",
        &columns,
        &unknown,
    )?;
    for row in &rows {
        let place: u64 = row.get(5)?;
        if let Some(account) = found.get_mut(place as usize) {
            account.identity = stored_identity(row, 0)?;
        }
    }
    Ok(found)
}

const IDENTITY_COLUMNS: [(&str, Type); 6] = [
    ("did", Type::Text),
    ("key", Type::Bytes),
    ("pds", Type::Text),
    ("pds_tls", Type::Int),
    ("handle", Type::Text),
    ("fetched_at", Type::Int),
];

/// The last document of each DID.
fn identity_rows(identities: &[(String, StoredIdentity)]) -> Vec<Vec<Value>> {
    let last: HashMap<&str, &StoredIdentity> =
        identities.iter().map(|(did, identity)| (did.as_str(), identity)).collect();
    last.into_iter()
        .map(|(did, identity)| {
            let key = identity.key.as_ref().map(|key| key.to_bytes().to_vec());
            values![
                did,
                key,
                &identity.pds,
                identity.pds_tls,
                &identity.handle,
                identity.fetched_at
            ]
            .into()
        })
        .collect()
}

/// A row for [`insert_accounts`].
pub(super) fn new_account_row(state: &AccountState, did: &str, now: u64) -> Vec<Value> {
    values![state.id.0, did, state.host.0, state.upstream.code(), state.local as u8, now].into()
}

pub(super) fn insert_accounts(sql: &mut Sql, rows: &[Vec<Value>]) -> Result<u64, StoreError> {
    sql.execute_rows(
        "INSERT INTO account (id, did, host_id, upstream, local, created_at)
         SELECT r.id, r.did, r.host, r.upstream, r.local, r.at FROM {rows} WHERE true
         ON CONFLICT DO NOTHING",
        &[
            ("id", Type::Int),
            ("did", Type::Text),
            ("host", Type::Int),
            ("upstream", Type::Int),
            ("local", Type::Int),
            ("at", Type::Int),
        ],
        rows,
    )
}

/// Rows of [`STATE`] and the DID.
pub(super) fn account_rows(rows: &[Row]) -> Result<Vec<AccountRow>, StoreError> {
    rows.iter().map(|row| Ok(AccountRow { did: row.get(8)?, state: account_state(row)? })).collect()
}

/// From the columns [`STATE`].
fn account_state(row: &Row) -> Result<AccountState, StoreError> {
    let rev: Option<u64> = row.get(5)?;
    let data: Option<[u8; 32]> = row.get(6)?;
    let commit: Option<[u8; 32]> = row.get(7)?;
    Ok(AccountState {
        id: AccountId(row.get(0)?),
        host: HostId(row.get(1)?),
        upstream: UpstreamStatus::from_code(row.get(2)?),
        local: LocalStatus::from_code(row.get(3)?),
        announced: row.get::<Option<u8>>(4)?.map(Effective::from_code),
        head: match (rev, data, commit) {
            (Some(rev), Some(data), Some(commit)) => Some(RepoHead { rev, data, commit }),
            _ => None,
        },
    })
}

fn stored_identity(row: &Row, at: usize) -> Result<Option<StoredIdentity>, StoreError> {
    let Some(fetched_at) = row.get(at + 4)? else { return Ok(None) };
    let key: Option<Vec<u8>> = row.get(at)?;
    Ok(Some(StoredIdentity {
        key: key.as_deref().and_then(|bytes| ecdsa::VerifyingKey::from_bytes(bytes).ok()),
        pds: row.get(at + 1)?,
        pds_tls: row.get(at + 2)?,
        handle: row.get(at + 3)?,
        fetched_at,
    }))
}
