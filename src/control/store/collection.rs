//! In which collections accounts have made records, as far as the relay has seen.

use std::collections::{BTreeSet, HashMap};

use ports::AccountId;

use super::{
    AccountRow, Database, StoreError,
    account::{STATE, account_rows},
    sql::{Durability, Type, Value, values},
};

/// A database of names that hostile accounts invent is kept from growing without end.
const NAMES_MAX: usize = 100_000;

/// Numbers of the names that are in the database already.
#[derive(Debug, Default)]
pub(super) struct CollectionNames {
    ids: HashMap<String, u64>,
    /// The connection as of which they were read.
    epoch: Option<u64>,
}

impl Database {
    /// Those that are there already are left out.
    pub(super) fn collections_add(
        &mut self,
        seen: &[(AccountId, Box<str>)],
    ) -> Result<(), StoreError> {
        self.name_collections(seen.iter().map(|(_, nsid)| &**nsid).collect())?;
        let pairs: BTreeSet<(u64, u64)> = seen
            .iter()
            .filter_map(|(account, nsid)| Some((*self.collections.ids.get(&**nsid)?, account.0)))
            .collect();
        let rows: Vec<Vec<Value>> =
            pairs.into_iter().map(|(name, account)| values![name, account].into()).collect();
        self.sql.transaction(Durability::Log, |sql| {
            sql.execute_rows(
                "INSERT INTO collection (name_id, account_id)
                 SELECT r.name_id, r.account_id FROM {rows} WHERE true ON CONFLICT DO NOTHING",
                &[("name_id", Type::Int), ("account_id", Type::Int)],
                &rows,
            )
        })?;
        Ok(())
    }

    /// Gives numbers to new names.
    fn name_collections(&mut self, names: BTreeSet<&str>) -> Result<(), StoreError> {
        if self.collections.epoch != Some(self.sql.epoch()) {
            let rows = self.sql.query("SELECT nsid, id FROM collection_name", &[])?;
            let ids: Result<_, StoreError> =
                rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect();
            self.collections = CollectionNames { ids: ids?, epoch: Some(self.sql.epoch()) };
        }
        let room = NAMES_MAX.saturating_sub(self.collections.ids.len());
        let new: Vec<&str> = names
            .into_iter()
            .filter(|name| !self.collections.ids.contains_key(*name))
            .take(room)
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let next = self.collections.ids.values().max().map_or(1, |newest| newest + 1);
        let rows: Vec<Vec<Value>> =
            new.iter().zip(next..).map(|(name, id)| values![id, *name].into()).collect();
        self.sql.transaction(Durability::Disk, |sql| {
            sql.execute_rows(
                "INSERT INTO collection_name (id, nsid) SELECT r.id, r.nsid FROM {rows}",
                &[("id", Type::Int), ("nsid", Type::Text)],
                &rows,
            )
        })?;
        self.collections.ids.extend(new.into_iter().map(str::to_owned).zip(next..));
        Ok(())
    }

    /// Accounts above an id that have a collection, in the order of ids.
    pub(super) fn accounts_by_collection(
        &mut self,
        nsid: &str,
        after: u64,
        count: usize,
    ) -> Result<Vec<AccountRow>, StoreError> {
        let sql = format!(
            "SELECT {STATE}, a.did FROM collection AS c JOIN account AS a ON a.id = c.account_id
             WHERE c.name_id = (SELECT id FROM collection_name WHERE nsid = ?1)
               AND c.account_id > ?2
             ORDER BY c.account_id LIMIT ?3"
        );
        account_rows(&self.sql.query(&sql, &values![nsid, after, count])?)
    }

    /// Forgets what an account has, when all local data of it go.
    pub(super) fn collections_forget(&mut self, account: AccountId) -> Result<(), StoreError> {
        self.sql.execute(
            "DELETE FROM collection
             WHERE account_id = ?1 AND name_id IN (SELECT id FROM collection_name)",
            &values![account.0],
        )?;
        Ok(())
    }
}
