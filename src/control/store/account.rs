//! The account and identity tables.

use ports::{AccountId, AccountState, HostId, LocalStatus, RepoHead, UpstreamStatus};
use rusqlite::{OptionalExtension, Row};

use super::{AccountRow, Database, StoreError, StoredIdentity};

/// Identities are written in batches of this size at most while the log stands still.
const IDENTITY_BATCH: usize = 1024;

impl Database {
    pub(super) fn account_by_did(
        &mut self,
        did: &str,
    ) -> Result<Option<(AccountState, Option<StoredIdentity>)>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT a.id, a.host_id, a.upstream, a.local, a.rev, a.data, a.commit_hash,
                    i.key, i.pds, i.pds_tls, i.handle, i.fetched_at
             FROM account a LEFT JOIN identity i ON i.account_id = a.id
             WHERE a.did = ?1",
        )?;
        let found = statement
            .query_row([did], |row| Ok((account_state(row)?, stored_identity(row)?)))
            .optional()?;
        let Some((state, stored)) = found else { return Ok(None) };
        // What waits to be written is newer than what is written.
        let waiting = self.identities.iter().rev().find(|(name, _)| name == did);
        Ok(Some((state, waiting.map(|(_, identity)| identity.clone()).or(stored))))
    }

    pub(super) fn create_account(
        &mut self,
        did: &str,
        host: HostId,
    ) -> Result<AccountState, StoreError> {
        let transaction = self.connection.transaction()?;
        let inserted = transaction
            .prepare_cached(
                "INSERT INTO account (did, host_id, upstream) VALUES (?1, ?2, ?3)
                 ON CONFLICT (did) DO NOTHING",
            )?
            .execute((did, host.0, UpstreamStatus::ACTIVE.code()))?;
        if inserted == 1 {
            transaction
                .prepare_cached("UPDATE host SET account_count = account_count + 1 WHERE id = ?1")?
                .execute([host.0])?;
        }
        let state = transaction
            .prepare_cached(
                "SELECT id, host_id, upstream, local, rev, data, commit_hash
                 FROM account WHERE did = ?1",
            )?
            .query_row([did], account_state)?;
        transaction.commit()?;
        Ok(state)
    }

    pub(super) fn accounts_after(
        &self,
        after: u64,
        count: usize,
    ) -> Result<Vec<AccountRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, did, host_id, upstream, local, rev, data, commit_hash
             FROM account WHERE id > ?1 AND rev IS NOT NULL ORDER BY id LIMIT ?2",
        )?;
        let rows = statement.query_map((after as i64, count as i64), |row| {
            Ok(AccountRow { did: row.get("did")?, state: account_state(row)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn keep_identity(&mut self, did: String, identity: StoredIdentity) {
        self.identities.push((did, identity));
        if self.identities.len() >= IDENTITY_BATCH
            && let Err(error) = self.flush_identities()
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
        let identities = std::mem::take(&mut self.identities);
        let transaction = self.connection.transaction()?;
        {
            let mut upsert = transaction.prepare_cached(
                "INSERT INTO identity (account_id, key, pds, pds_tls, handle, fetched_at)
                 SELECT id, ?2, ?3, ?4, ?5, ?6 FROM account WHERE did = ?1
                 ON CONFLICT (account_id) DO UPDATE SET
                     key = excluded.key, pds = excluded.pds, pds_tls = excluded.pds_tls,
                     handle = excluded.handle, fetched_at = excluded.fetched_at",
            )?;
            for (did, identity) in &identities {
                upsert.execute((
                    did,
                    identity.key.as_ref().map(|key| key.to_bytes().to_vec()),
                    &identity.pds,
                    identity.pds_tls,
                    &identity.handle,
                    identity.fetched_at as i64,
                ))?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn account_state(row: &Row<'_>) -> rusqlite::Result<AccountState> {
    let rev: Option<i64> = row.get("rev")?;
    let data: Option<[u8; 32]> = row.get("data")?;
    let commit: Option<[u8; 32]> = row.get("commit_hash")?;
    Ok(AccountState {
        id: AccountId(row.get::<_, i64>("id")? as u64),
        host: HostId(row.get("host_id")?),
        upstream: UpstreamStatus::from_code(row.get("upstream")?),
        local: LocalStatus::from_code(row.get("local")?),
        announced: None,
        head: match (rev, data, commit) {
            (Some(rev), Some(data), Some(commit)) => {
                Some(RepoHead { rev: rev as u64, data, commit })
            }
            _ => None,
        },
    })
}

fn stored_identity(row: &Row<'_>) -> rusqlite::Result<Option<StoredIdentity>> {
    let Some(fetched_at) = row.get::<_, Option<i64>>("fetched_at")? else { return Ok(None) };
    let key: Option<Vec<u8>> = row.get("key")?;
    Ok(Some(StoredIdentity {
        key: key.as_deref().and_then(|bytes| ecdsa::VerifyingKey::from_bytes(bytes).ok()),
        pds: row.get("pds")?,
        pds_tls: row.get("pds_tls")?,
        handle: row.get("handle")?,
        fetched_at: fetched_at as u64,
    }))
}
