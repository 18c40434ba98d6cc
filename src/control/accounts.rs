//! What an operator does to accounts: take-downs, and their reversal.
//!
//! The word is stored first and then told to the shard that owns the account, which makes the one
//! #account event that follows from it; the event log erases what it holds of a taken-down account.
//! If the process ends in between, the shard learns it from the store when it next sees the account.

use ports::{AccountState, LocalStatus, SetLocal, ShardCommand, owner_of};

use crate::{
    Shards,
    store::{Store, StoreError},
};

#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    store: Store,
    shards: Shards,
}

impl Accounts {
    pub(crate) fn new(store: Store, shards: Shards) -> Self {
        Self { store, shards }
    }

    /// Takes an account down; one that is unknown only if `force` says so, ahead of its first event.
    /// For one that is down already, what the log still holds of it is erased again. `None`: there is
    /// no such account.
    pub(crate) async fn take_down(
        &self,
        did: &str,
        force: bool,
    ) -> Result<Option<AccountState>, StoreError> {
        self.set(did, LocalStatus::Takendown, force).await
    }

    /// Reverses a take-down; an account that is not down stays as it is. `None`: there is no such
    /// account.
    pub(crate) async fn reverse_takedown(
        &self,
        did: &str,
    ) -> Result<Option<AccountState>, StoreError> {
        match self.store.account_by_did(did).await? {
            Some((state, _identity)) if state.local != LocalStatus::Takendown => Ok(Some(state)),
            Some(_) => self.set(did, LocalStatus::Active, false).await,
            None => Ok(None),
        }
    }

    async fn set(
        &self,
        did: &str,
        local: LocalStatus,
        create: bool,
    ) -> Result<Option<AccountState>, StoreError> {
        let Some(state) = self.store.set_local(did, local, create).await? else { return Ok(None) };
        let owner = owner_of(did, usize::from(self.shards.count()));
        let set = SetLocal { did: did.into(), state, local };
        self.shards.send(owner, ShardCommand::SetLocal(Box::new(set)));
        Ok(Some(state))
    }
}

#[cfg(test)]
mod tests {
    use ports::HostId;

    use super::*;
    use crate::store::DatabaseUrl;

    #[tokio::test]
    async fn the_owner_is_told_of_what_is_stored() {
        let store = Store::open(&DatabaseUrl::Memory).unwrap();
        let (shards, mut commands) = Shards::new(4);
        let accounts = Accounts::new(store.clone(), shards);
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
        assert_eq!((shard, &*set.did, set.local), (owner_of(did, 4), did, LocalStatus::Takendown));
        let (stored, _) = store.account_by_did(did).await.unwrap().unwrap();
        assert_eq!(stored.local, LocalStatus::Takendown);

        accounts.reverse_takedown(did).await.unwrap().unwrap();
        let (_, command) = commands.try_recv().unwrap();
        let ShardCommand::SetLocal(set) = command else { panic!("{command:?}") };
        assert_eq!(set.local, LocalStatus::Active);

        let ahead = accounts.take_down("did:plc:ahead", true).await.unwrap().unwrap();
        assert_eq!(ahead.local, LocalStatus::Takendown);
        let taken = store.takedowns_after(ports::AccountId(0), 10).await.unwrap();
        assert_eq!(taken.len(), 1);
    }
}
