//! The relay's own word on accounts, and which of these words may not have become an event yet.
//!
//! A word is stored before the account's shard hears of it. From then on the account stands in the
//! table `owed`, until the #account that the shard made of it is found in the log: after a restart
//! the shards are told again.

use std::collections::HashMap;

use ports::{
    AccountId, AccountState, Effective, EventKind, HostId, LocalStatus, LogRecord, effective,
};

use super::{
    AccountRow, Database, StoreError,
    account::{CountChanges, STATE, account_rows, find_accounts},
    sql::{Durability, Sql, Type, Value, values},
};

/// A change of what the relay itself says of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalChange {
    /// By the operator; `ahead`: also of an account that is unknown.
    TakeDown { ahead: bool },
    /// Of a take-down; of an account that is not down nothing.
    Reverse,
    /// For a throttled account; for another one nothing.
    Place,
}

impl LocalChange {
    fn word(self) -> LocalStatus {
        match self {
            Self::TakeDown { .. } => LocalStatus::Takendown,
            Self::Reverse | Self::Place => LocalStatus::Active,
        }
    }

    fn changes(self, local: LocalStatus) -> bool {
        match self {
            Self::TakeDown { .. } => local != LocalStatus::Takendown,
            Self::Reverse => local == LocalStatus::Takendown,
            Self::Place => local == LocalStatus::Throttled,
        }
    }
}

/// What became of a [`LocalChange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSet {
    pub row: AccountRow,
    /// `false`: it was so before.
    pub changed: bool,
}

impl Database {
    /// `None`: there is no such account.
    pub(super) fn set_local(
        &mut self,
        did: &str,
        change: LocalChange,
    ) -> Result<Option<LocalSet>, StoreError> {
        let dids = [did.to_owned()];
        let mut found = find_accounts(&mut self.sql, &dids)?.into_iter().next();
        let state = match found.as_mut().and_then(|found| found.state.take()) {
            Some(state) => state,
            None if change == (LocalChange::TakeDown { ahead: true }) => {
                let created = self.create_accounts(&[(did.to_owned(), HostId::RELAY)])?;
                let Some(state) = created.into_iter().next() else { return Ok(None) };
                state
            }
            None => return Ok(None),
        };
        let changed = change.changes(state.local);
        let local = if changed { change.word() } else { state.local };
        if changed {
            self.store_local(&state, local)?;
        }
        let state = AccountState { local, ..state };
        Ok(Some(LocalSet { row: AccountRow { did: did.to_owned(), state }, changed }))
    }

    fn store_local(&mut self, state: &AccountState, local: LocalStatus) -> Result<(), StoreError> {
        let mut counts = CountChanges::default();
        counts.remove(state.host, state.upstream, state.local);
        counts.add(state.host, state.upstream, local);
        self.sql.transaction(Durability::Disk, |sql| {
            sql.execute(
                "UPDATE account SET local = ?2 WHERE id = ?1",
                &values![state.id.0, local as u8],
            )?;
            sql.execute(
                "INSERT INTO owed (account_id) VALUES (?1) ON CONFLICT (account_id) DO NOTHING",
                &values![state.id.0],
            )?;
            counts.store(sql)
        })
    }

    /// Accounts whose last word may not have become an event, with the log followed to its end.
    pub(super) fn owed(&mut self) -> Result<Vec<AccountRow>, StoreError> {
        let sql = format!(
            "SELECT {STATE}, a.did FROM owed JOIN account AS a ON a.id = owed.account_id
             ORDER BY a.id"
        );
        let (owed, told): (Vec<_>, Vec<_>) =
            account_rows(&self.sql.query(&sql, &[])?)?.into_iter().partition(is_owed);
        let told = told.iter().map(|row| values![row.state.id.0].into()).collect();
        self.sql.transaction(Durability::Disk, |sql| forget(sql, told))?;
        Ok(owed)
    }
}

/// A take-down needs an event of its own, which is not in the log yet; whatever else only one if
/// consumers believe something else.
fn is_owed(row: &AccountRow) -> bool {
    let AccountState { upstream, local, announced, .. } = row.state;
    local == LocalStatus::Takendown
        || announced.unwrap_or(Effective::ACTIVE) != effective(upstream, local)
}

/// What the relay itself said in a batch of records: the last word on each account.
#[derive(Debug, Default)]
pub(super) struct Said(HashMap<AccountId, LocalStatus>);

impl Said {
    pub(super) fn hear(&mut self, record: &LogRecord) {
        if record.kind == EventKind::Account && record.host == HostId::RELAY {
            self.0.insert(record.account, record.local);
        }
    }

    /// Within the transaction that follows the records. `local` is what the rows say.
    pub(super) fn store(
        &self,
        sql: &mut Sql,
        local: impl Fn(AccountId) -> Option<LocalStatus>,
    ) -> Result<(), StoreError> {
        let told = self.0.iter().filter(|(account, said)| local(**account) == Some(**said));
        forget(sql, told.map(|(account, _)| values![account.0].into()).collect())
    }
}

fn forget(sql: &mut Sql, accounts: Vec<Vec<Value>>) -> Result<(), StoreError> {
    sql.execute_rows(
        "DELETE FROM owed WHERE account_id IN (SELECT r.id FROM {rows})",
        &[("id", Type::Int)],
        &accounts,
    )?;
    Ok(())
}
