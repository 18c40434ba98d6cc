//! What an operator does to accounts: take-downs, and their reversal.
//!
//! The word is stored first and then told to the shard that owns the account, which makes the one
//! #account event that follows from it; the event log erases what it holds of a taken-down account.
//! If the process ends in between, the shard is told at the next start.

use ports::AccountState;

use crate::{
    Shards,
    store::{LocalChange, LocalSet, Store, StoreError},
};

#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    store: Store,
    shards: Shards,
}

impl Accounts {
    /// Tells the shards what they may not have heard, or not made an event of, before the last process
    /// ended.
    pub(crate) async fn start(store: Store, shards: Shards) -> Result<Self, StoreError> {
        for row in store.owed().await? {
            shards.set_local(&row.did, row.state);
        }
        Ok(Self { store, shards })
    }

    /// Takes an account down; one that is unknown only if `force` says so, ahead of its first event.
    /// `None`: there is no such account.
    pub(crate) async fn take_down(
        &self,
        did: &str,
        force: bool,
    ) -> Result<Option<AccountState>, StoreError> {
        self.set(did, LocalChange::TakeDown { ahead: force }).await
    }

    /// Reverses a take-down; an account that is not down stays as it is. `None`: there is no such
    /// account.
    pub(crate) async fn reverse_takedown(
        &self,
        did: &str,
    ) -> Result<Option<AccountState>, StoreError> {
        self.set(did, LocalChange::Reverse).await
    }

    async fn set(
        &self,
        did: &str,
        change: LocalChange,
    ) -> Result<Option<AccountState>, StoreError> {
        let Some(LocalSet { row, changed }) = self.store.set_local(did, change).await? else {
            return Ok(None);
        };
        if changed {
            self.shards.set_local(&row.did, row.state);
        }
        Ok(Some(row.state))
    }
}

#[cfg(test)]
mod tests {
    use ports::{HostId, LocalStatus, ShardCommand, owner_of};

    use super::*;
    use crate::store::DatabaseUrl;

    #[tokio::test]
    async fn the_owner_is_told_of_what_is_stored() {
        let store = Store::open(&DatabaseUrl::Memory).unwrap();
        let (shards, mut commands) = Shards::new(4);
        let accounts = Accounts::start(store.clone(), shards.clone()).await.unwrap();
        let did = "did:plc:abc";
        assert_eq!(accounts.take_down(did, false).await.unwrap(), None);
        assert_eq!(accounts.reverse_takedown(did).await.unwrap(), None);
        store.create_account(did, HostId(1)).await.unwrap();
        assert!(accounts.reverse_takedown(did).await.unwrap().is_some());
        assert!(commands.try_recv().is_err(), "there is nothing to be reversed");

        let down = accounts.take_down(did, false).await.unwrap().unwrap();
        assert_eq!(down.local, LocalStatus::Takendown);
        let (shard, command) = commands.try_recv().unwrap();
        let ShardCommand::SetLocal(set) = command else { panic!("{command:?}") };
        assert_eq!(
            (shard, &*set.did, set.state.local),
            (owner_of(did, 4), did, LocalStatus::Takendown)
        );
        let stored = store.account_by_did(did).await.unwrap().unwrap();
        assert_eq!(stored.local, LocalStatus::Takendown);
        accounts.take_down(did, false).await.unwrap().unwrap();
        assert!(commands.try_recv().is_err(), "it is down already");
        let accounts = Accounts::start(store.clone(), shards).await.unwrap();
        let (_, command) = commands.try_recv().unwrap();
        let ShardCommand::SetLocal(again) = command else { panic!("{command:?}") };
        assert_eq!(again, set, "no event of it is in the log");

        accounts.reverse_takedown(did).await.unwrap().unwrap();
        let (_, command) = commands.try_recv().unwrap();
        let ShardCommand::SetLocal(set) = command else { panic!("{command:?}") };
        assert_eq!(set.state.local, LocalStatus::Active);

        let ahead = accounts.take_down("did:plc:ahead", true).await.unwrap().unwrap();
        assert_eq!(ahead.local, LocalStatus::Takendown);
        let taken = store.takedowns_after(ports::AccountId(0), 10).await.unwrap();
        assert_eq!(taken.len(), 1);
    }
}
