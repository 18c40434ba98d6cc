//! What the rest of the control plane can ask the store for.

use std::{sync::mpsc, time::Duration};

use ports::{AccountId, AccountState, HostId, HostProgress, LogTail, RelaySeq, UpstreamStatus};

use super::{
    AccountCounts, AccountRow, AuditEntry, AuditRow, Command, Discovery, HostFilter, HostPatch,
    HostRow, LocalChange, LocalSet, NewHost, Recovery, RefusedHost, Store, StoreError,
    StoredAccount, StoredIdentity, database::Database, unix_now,
};

/// Between attempts to bring the rows up to the log at start.
const START_PAUSE: Duration = Duration::from_secs(1);

impl Store {
    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.call(Database::ping).await
    }

    /// Brings the account rows up to the end of the log, and goes on doing so every half second.
    ///
    /// Returns once the rows are as of the newest synced event; while the database is away it waits.
    pub async fn follow(&self, tail: Box<dyn LogTail>) -> Result<Recovery, StoreError> {
        self.call(move |database| {
            database.set_tail(tail);
            Ok(())
        })
        .await?;
        loop {
            match self.call(Database::start_following).await {
                Err(error) if error.is_passing() => {
                    tracing::warn!(%error, "the account rows wait for the database");
                    tokio::time::sleep(START_PAUSE).await;
                }
                ended => return ended,
            }
        }
    }

    /// The event of the log that the account rows are as of.
    pub async fn log_seq(&self) -> Result<RelaySeq, StoreError> {
        self.call(Database::log_seq).await
    }

    /// The same, for threads without a runtime.
    pub fn log_seq_blocking(&self) -> Result<RelaySeq, StoreError> {
        let (reply, result) = mpsc::sync_channel(1);
        let work = move |database: &mut Database| {
            // The asker waits for it below.
            let _ = reply.send(database.log_seq());
        };
        self.commands.send(Command::Work(Box::new(work))).map_err(|_gone| StoreError::Closed)?;
        result.recv().map_err(|_gone| StoreError::Closed)?
    }

    /// Follows the log to its end, writes all that is held back, and ends the thread.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.call(Database::close).await
    }
}

/// Hosts.
impl Store {
    pub async fn hosts(&self) -> Result<Vec<HostRow>, StoreError> {
        self.call(Database::hosts).await
    }

    /// Hosts above an id, in the order of ids.
    pub async fn hosts_page(
        &self,
        filter: HostFilter,
        after: HostId,
        count: usize,
    ) -> Result<Vec<HostRow>, StoreError> {
        self.read(move |database| database.hosts_page(&filter, after.0, count)).await
    }

    /// Inserts a host with status `active`, or returns the row that has this name already.
    pub async fn insert_host(&self, host: NewHost) -> Result<HostRow, StoreError> {
        self.call(move |database| database.insert_host(&host, unix_now())).await
    }

    /// The same, unless the public has added that many hosts since: then `None`. In one step, so
    /// that requests at once do not exceed the limit together.
    pub async fn insert_host_within(
        &self,
        host: NewHost,
        since: u64,
        limit: u64,
    ) -> Result<Option<HostRow>, StoreError> {
        self.call(move |database| {
            if database.hosts_added_since(since)? >= limit {
                return Ok(None);
            }
            database.insert_host(&host, unix_now()).map(Some)
        })
        .await
    }

    pub async fn host(&self, id: HostId) -> Result<HostRow, StoreError> {
        self.call(move |database| database.host(id)).await
    }

    /// Changes a host and returns the row as it is then.
    pub async fn update_host(&self, id: HostId, patch: HostPatch) -> Result<HostRow, StoreError> {
        self.call(move |database| database.update_host(id, &patch, unix_now())).await
    }

    /// How many hosts were added since, other than by an operator.
    pub async fn hosts_added_since(&self, unix_seconds: u64) -> Result<u64, StoreError> {
        self.call(move |database| database.hosts_added_since(unix_seconds)).await
    }

    /// Stores the cursors of hosts that moved.
    pub async fn save_progress(&self, progress: Vec<HostProgress>) -> Result<(), StoreError> {
        self.call(move |database| database.save_progress(&progress)).await
    }

    /// Hosts with throttled accounts and free places, and how many places are free.
    pub async fn hosts_with_places(&self) -> Result<Vec<(HostId, u64)>, StoreError> {
        self.call(Database::hosts_with_places).await
    }

    /// Counts a host's accounts one by one, and corrects the number in its row.
    pub async fn account_counts(&self, host: HostId) -> Result<AccountCounts, StoreError> {
        self.call(move |database| database.account_counts(host)).await
    }
}

/// Accounts and identities.
impl Store {
    /// An account's state as of the last time that the rows followed the log: half a second ago.
    pub async fn account_by_did(&self, did: &str) -> Result<Option<AccountState>, StoreError> {
        let dids = [did.to_owned()];
        let found = self.read(move |database| database.accounts_by_did(&dids)).await?;
        Ok(found.into_iter().next().and_then(|found| found.state))
    }

    /// What is known of a DID, with the account's state as of this event of the log or a later one.
    /// Waits until the event is synced and the rows have followed.
    pub async fn account_as_of(
        &self,
        did: &str,
        as_of: RelaySeq,
    ) -> Result<StoredAccount, StoreError> {
        let did = did.to_owned();
        self.ask(|reply| Command::Find { did, as_of, reply }).await
    }

    /// Makes an account which its host calls active, or returns the one that is there. It begins as
    /// throttled if its host has as many accounts as it may.
    pub async fn create_account(
        &self,
        did: &str,
        host: HostId,
    ) -> Result<AccountState, StoreError> {
        let did = did.to_owned();
        self.ask(|reply| Command::Create { did, host, reply }).await
    }

    /// Accounts with a repository above an id, in the order of ids.
    pub async fn accounts_after(
        &self,
        after: u64,
        count: usize,
    ) -> Result<Vec<AccountRow>, StoreError> {
        self.read(move |database| database.accounts_after(after, count)).await
    }

    /// Accounts that the operator has taken down, above an id, in the order of ids.
    pub async fn takedowns_after(
        &self,
        after: AccountId,
        count: usize,
    ) -> Result<Vec<AccountRow>, StoreError> {
        self.read(move |database| database.takedowns_after(after.0, count)).await
    }

    /// The accounts of a host that have been throttled longest.
    pub async fn throttled_oldest(
        &self,
        host: HostId,
        count: usize,
    ) -> Result<Vec<AccountRow>, StoreError> {
        self.call(move |database| database.throttled_oldest(host, count)).await
    }

    /// Sets what the relay itself says of an account, and returns the state as it is then, as of the
    /// newest event. `None`: there is no such account.
    pub async fn set_local(
        &self,
        did: &str,
        change: LocalChange,
    ) -> Result<Option<LocalSet>, StoreError> {
        let did = did.to_owned();
        self.call_followed(move |database| database.set_local(&did, change)).await
    }

    /// Accounts of whose last change by the relay itself no event was found in the log. For a start,
    /// before any shard is told anything.
    pub async fn owed(&self) -> Result<Vec<AccountRow>, StoreError> {
        self.call(Database::owed).await
    }

    /// Notes what hosts said of accounts where no event of the log tells it; the last word counts.
    pub async fn note_upstream(
        &self,
        noted: Vec<(AccountId, UpstreamStatus)>,
    ) -> Result<(), StoreError> {
        // The log's events of these accounts are older.
        self.call_followed(move |database| database.note_upstream(&noted)).await
    }

    /// Keeps what a DID document says, for accounts that have a row. Written behind, in batches.
    pub fn save_identity(&self, did: &str, identity: StoredIdentity) {
        let did = did.to_owned();
        let work = move |database: &mut Database| database.keep_identity(did, identity);
        // A store that has been closed needs no cache any more.
        let _ = self.commands.send(Command::Work(Box::new(work)));
    }

    /// Takes over documents from an export of the directory, also of DIDs without account; what was
    /// fetched later than those stays. Returns how many were taken.
    pub async fn identities_import(
        &self,
        identities: Vec<(String, StoredIdentity)>,
    ) -> Result<u64, StoreError> {
        self.call(move |database| database.import_identities(&identities)).await
    }

    /// Notes that accounts have records in collections. Idempotent.
    pub async fn collections_add(
        &self,
        seen: Vec<(AccountId, Box<str>)>,
    ) -> Result<(), StoreError> {
        self.call(move |database| database.collections_add(&seen)).await
    }

    /// Accounts above an id that have records in a collection, in the order of ids.
    pub async fn accounts_by_collection(
        &self,
        nsid: &str,
        after: AccountId,
        count: usize,
    ) -> Result<Vec<AccountRow>, StoreError> {
        let nsid = nsid.to_owned();
        self.read(move |database| database.accounts_by_collection(&nsid, after.0, count)).await
    }

    /// Forgets in which collections an account has records.
    pub async fn collections_forget(&self, account: AccountId) -> Result<(), StoreError> {
        self.call(move |database| database.collections_forget(account)).await
    }
}

/// Settings, domains, the audit log, other relays.
impl Store {
    pub async fn setting(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.read(move |database| database.setting(name)).await
    }

    pub async fn set_setting(&self, name: &'static str, value: String) -> Result<(), StoreError> {
        self.call(move |database| database.set_setting(name, &value)).await
    }

    /// Banned domains in alphabetical order. A ban holds for the domain and all names below it.
    pub async fn domain_bans(&self) -> Result<Vec<String>, StoreError> {
        self.read(Database::domain_bans).await
    }

    /// Whether the ban is new.
    pub async fn ban_domain(&self, domain: &str) -> Result<bool, StoreError> {
        let domain = domain.to_owned();
        self.call(move |database| database.ban_domain(&domain, unix_now())).await
    }

    /// Whether there was such a ban.
    pub async fn unban_domain(&self, domain: &str) -> Result<bool, StoreError> {
        let domain = domain.to_owned();
        self.call(move |database| database.unban_domain(&domain)).await
    }

    /// Domains that the operator trusts beyond those of the command line, in alphabetical order.
    pub async fn trusted_domains(&self) -> Result<Vec<String>, StoreError> {
        self.read(Database::trusted_domains).await
    }

    /// Whether the domain is new in the list.
    pub async fn trust_domain(&self, domain: &str) -> Result<bool, StoreError> {
        let domain = domain.to_owned();
        self.call(move |database| database.trust_domain(&domain, unix_now())).await
    }

    /// Whether the domain was in the list.
    pub async fn untrust_domain(&self, domain: &str) -> Result<bool, StoreError> {
        let domain = domain.to_owned();
        self.call(move |database| database.untrust_domain(&domain)).await
    }

    /// Returns the entry's id.
    pub async fn audit_append(&self, entry: AuditEntry) -> Result<u64, StoreError> {
        self.call(move |database| database.audit_append(&entry, unix_now())).await
    }

    /// Entries before an id (`None`: from the end), the newest first.
    pub async fn audit_list(
        &self,
        before: Option<u64>,
        count: usize,
    ) -> Result<Vec<AuditRow>, StoreError> {
        self.read(move |database| database.audit_list(before, count)).await
    }

    pub async fn discoveries(&self) -> Result<Vec<Discovery>, StoreError> {
        self.read(Database::discoveries).await
    }

    /// Replaces what is stored of the relay.
    pub async fn save_discovery(&self, discovery: Discovery) -> Result<(), StoreError> {
        self.call(move |database| database.save_discovery(&discovery)).await
    }

    pub async fn refused_host(&self, hostname: &str) -> Result<Option<RefusedHost>, StoreError> {
        let hostname = hostname.to_owned();
        self.read(move |database| database.refused_host(&hostname)).await
    }

    /// Hosts that are not to be tried yet, above a name, in the order of names.
    pub async fn refused_hosts(
        &self,
        after: &str,
        count: usize,
    ) -> Result<Vec<RefusedHost>, StoreError> {
        let after = after.to_owned();
        self.read(move |database| database.refused_hosts(&after, unix_now(), count)).await
    }

    /// Notes that a host was refused, and is not to be tried before `retry_at` (Unix seconds).
    pub async fn refuse_host(
        &self,
        hostname: &str,
        reason: &str,
        retry_at: u64,
    ) -> Result<(), StoreError> {
        let (hostname, reason) = (hostname.to_owned(), reason.to_owned());
        self.call(move |database| database.refuse_host(&hostname, &reason, retry_at, unix_now()))
            .await
    }

    /// Forgets refusals before a time, in Unix seconds.
    pub async fn forget_refused(&self, before: u64) -> Result<(), StoreError> {
        self.call(move |database| database.forget_refused(before)).await
    }

    pub async fn unrefuse_host(&self, hostname: &str) -> Result<(), StoreError> {
        let hostname = hostname.to_owned();
        self.call(move |database| database.unrefuse_host(&hostname)).await
    }
}
