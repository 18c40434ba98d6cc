//! What a batch of the log's records does to the account rows.

use std::{collections::HashMap, io, io::ErrorKind};

use ports::{
    AccountId, AccountState, Effective, EventKind, HostId, LocalStatus, LogRecord, LogTail,
    RelaySeq, RepoHead, StatusWord, UpstreamStatus, effective,
};

use super::{
    Database, StoreError,
    account::{CountChanges, find_accounts, insert_accounts, new_account_row},
    local::Said,
    sql::{Sql, Type, Value, values},
    unix_now,
};

/// A record whose index was lost and made again from the frame alone: whose it is stands in the
/// frame only, and what the relay itself said of the account is not known.
const UNKNOWN: AccountId = AccountId(0);

/// The last state of an account in a batch of records; `None`: the batch does not say.
#[derive(Clone, Copy)]
struct Folded {
    seq: RelaySeq,
    host: Option<HostId>,
    upstream: Option<UpstreamStatus>,
    /// Only for an account whose row is lost. Rows hold what the relay itself says of an account
    /// before any shard is told: records tell what was said when they were made, which may be older.
    local: LocalStatus,
    /// The newest record does not say what the relay said.
    rebuilt: bool,
    announced: Option<Effective>,
    head: Option<RepoHead>,
}

impl Folded {
    fn new(record: &LogRecord) -> Self {
        let rebuilt = record.account == UNKNOWN;
        let identity = record.kind == EventKind::Identity;
        // Any host may send an #identity of an account whose document has changed: that does not
        // move the account to it.
        let speaks = record.host != HostId::RELAY && !identity;
        Self {
            seq: record.seq,
            host: speaks.then_some(record.host),
            upstream: (!(rebuilt && identity)).then_some(record.upstream),
            local: if rebuilt { LocalStatus::Active } else { record.local },
            rebuilt,
            // A frame from which a record was made again says just what consumers were told.
            announced: (record.kind == EventKind::Account)
                .then(|| effective(record.upstream, record.local)),
            head: record.head,
        }
    }

    /// The same account, by two records in any order.
    fn join(self, other: Self) -> Self {
        let (old, new) = if self.seq < other.seq { (self, other) } else { (other, self) };
        Self {
            seq: new.seq,
            host: new.host.or(old.host),
            upstream: new.upstream.or(old.upstream),
            local: if new.rebuilt { old.local } else { new.local },
            rebuilt: new.rebuilt && old.rebuilt,
            announced: new.announced.or(old.announced),
            head: new.head.or(old.head),
        }
    }
}

/// What the row says before the batch.
struct Before {
    host: HostId,
    /// Another one than `host` only where the row is new, and counted nowhere.
    host_in_row: HostId,
    upstream: UpstreamStatus,
    local: LocalStatus,
}

pub(super) struct Fold {
    accounts: HashMap<AccountId, Folded>,
    /// Records that do not say whose they are.
    rebuilt: Vec<Folded>,
    said: Said,
    before: HashMap<AccountId, Before>,
    /// Accounts to insert.
    born: Vec<Vec<Value>>,
}

impl Fold {
    pub(super) fn new(records: &[LogRecord]) -> Self {
        let mut fold = Self {
            accounts: HashMap::new(),
            rebuilt: Vec::new(),
            said: Said::default(),
            before: HashMap::new(),
            born: Vec::new(),
        };
        for record in records {
            fold.said.hear(record);
            let folded = Folded::new(record);
            if record.account == UNKNOWN {
                fold.rebuilt.push(folded);
            } else {
                fold.add(record.account, folded);
            }
        }
        fold
    }

    fn add(&mut self, account: AccountId, folded: Folded) {
        let known = self.accounts.entry(account).or_insert(folded);
        *known = known.join(folded);
    }

    /// Within the transaction.
    pub(super) fn store(self, sql: &mut Sql) -> Result<(), StoreError> {
        insert_accounts(sql, &self.born)?;
        self.said.store(sql, |account| self.before.get(&account).map(|before| before.local))?;
        let mut counts = CountChanges::default();
        let (mut rows, mut moved) = (Vec::with_capacity(self.accounts.len()), Vec::new());
        for (account, mut folded) in self.accounts {
            if let Some(before) = self.before.get(&account) {
                // A take-down by the relay itself, read from a frame, is not the host's word.
                let ours = before.local == LocalStatus::Takendown
                    && folded.rebuilt
                    && folded.upstream.is_some_and(|said| said.word == StatusWord::Takendown);
                if ours {
                    folded.upstream = None;
                }
                if let Some(host) = folded.host.filter(|host| *host != before.host_in_row) {
                    moved.push(values![account.0, host.0].into());
                }
                counts.remove(before.host, before.upstream, before.local);
                counts.add(
                    folded.host.unwrap_or(before.host),
                    folded.upstream.unwrap_or(before.upstream),
                    before.local,
                );
            }
            rows.push(account_row(account, &folded));
        }
        // In the order of the table, which is kind to its pages.
        rows.sort_unstable();
        update_accounts(sql, &rows)?;
        // Apart, as few accounts move, and a statement that may change what an index holds costs twice
        // as much.
        moved.sort_unstable();
        sql.execute_rows(
            "UPDATE account SET host_id = r.host FROM {rows} WHERE account.id = r.id",
            &[("id", Type::Int), ("host", Type::Int)],
            &moved,
        )?;
        counts.store(sql)
    }
}

/// The rows of [`account_row`].
fn update_accounts(sql: &mut Sql, rows: &[Vec<Value>]) -> Result<u64, StoreError> {
    sql.execute_rows(
        "UPDATE account SET
             upstream = coalesce(r.upstream, account.upstream),
             announced = coalesce(r.announced, account.announced),
             rev = coalesce(r.rev, account.rev),
             data = coalesce(r.data, account.data),
             commit_hash = coalesce(r.hash, account.commit_hash)
         FROM {rows} WHERE account.id = r.id",
        &[
            ("id", Type::Int),
            ("upstream", Type::Int),
            ("announced", Type::Int),
            ("rev", Type::Int),
            ("data", Type::Bytes),
            ("hash", Type::Bytes),
        ],
        rows,
    )
}

fn account_row(account: AccountId, folded: &Folded) -> Vec<Value> {
    values![
        account.0,
        folded.upstream.map(UpstreamStatus::code),
        folded.announced.map(Effective::code),
        folded.head.map(|head| head.rev),
        folded.head.map(|head| head.data),
        folded.head.map(|head| head.commit),
    ]
    .into()
}

impl Database {
    /// Finds the row of each account in a batch. Rows that a crash has lost are made again, with the
    /// DID that stands in the frame.
    pub(super) fn resolve(
        &mut self,
        fold: &mut Fold,
        tail: &mut dyn LogTail,
    ) -> Result<(), StoreError> {
        self.read_before(fold)?;
        let lost: Vec<AccountId> =
            fold.accounts.keys().filter(|id| !fold.before.contains_key(id)).copied().collect();
        let mut unplaced = Vec::new();
        for account in lost {
            if let Some(folded) = fold.accounts.remove(&account)
                && let Some(did) = did_of(tail, folded.seq)?
            {
                unplaced.push((did, Some(account), folded));
            }
        }
        for folded in std::mem::take(&mut fold.rebuilt) {
            if let Some(did) = did_of(tail, folded.seq)? {
                unplaced.push((did, None, folded));
            }
        }
        if unplaced.is_empty() {
            return Ok(());
        }
        let dids: Vec<String> = unplaced.iter().map(|(did, ..)| did.clone()).collect();
        let mut ids = HashMap::new();
        for (did, found) in dids.iter().zip(find_accounts(&mut self.sql, &dids)?) {
            if let Some(state) = found.state {
                ids.insert(did.as_str(), state.id);
            }
        }
        for (did, number, _) in &unplaced {
            if let (Some(number), false) = (number, ids.contains_key(did.as_str())) {
                ids.insert(did, *number);
            }
        }
        for (did, _, folded) in &unplaced {
            let id = match ids.get(did.as_str()) {
                Some(id) => *id,
                None => {
                    let id = AccountId(self.number_account());
                    ids.insert(did, id);
                    id
                }
            };
            fold.add(id, *folded);
        }
        self.read_before(fold)?;
        for (did, id) in ids {
            self.note_number(id.0);
            if !fold.before.contains_key(&id)
                && let Some(folded) = fold.accounts.get(&id)
            {
                let state = newborn(id, folded);
                fold.born.push(new_account_row(&state, did, unix_now()));
                fold.before.insert(
                    id,
                    // Counted nowhere so far.
                    Before {
                        host: HostId::RELAY,
                        host_in_row: state.host,
                        upstream: state.upstream,
                        local: state.local,
                    },
                );
            }
        }
        Ok(())
    }

    fn read_before(&mut self, fold: &mut Fold) -> Result<(), StoreError> {
        let mut ids: Vec<u64> = fold.accounts.keys().map(|id| id.0).collect();
        ids.retain(|id| !fold.before.contains_key(&AccountId(*id)));
        ids.sort_unstable();
        let wanted: Vec<Vec<Value>> = ids.into_iter().map(|id| values![id].into()).collect();
        let rows = self.sql.query_rows(
            "SELECT a.id, a.host_id, a.upstream, a.local
             FROM {rows} JOIN account AS a ON a.id = r.id",
            &[("id", Type::Int)],
            &wanted,
        )?;
        for row in &rows {
            let host = HostId(row.get(1)?);
            let before = Before {
                host,
                host_in_row: host,
                upstream: UpstreamStatus::from_code(row.get(2)?),
                local: LocalStatus::from_code(row.get(3)?),
            };
            fold.before.insert(AccountId(row.get(0)?), before);
        }
        Ok(())
    }
}

fn newborn(id: AccountId, folded: &Folded) -> AccountState {
    AccountState {
        id,
        host: folded.host.unwrap_or(HostId::RELAY),
        upstream: folded.upstream.unwrap_or(UpstreamStatus::ACTIVE),
        local: folded.local,
        announced: None,
        head: None,
    }
}

/// `None`: the frame is gone (erased in a take-down) or damaged.
fn did_of(tail: &mut dyn LogTail, seq: RelaySeq) -> io::Result<Option<String>> {
    match tail.did_of(seq) {
        Ok(did) => Ok(Some(did)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {
            tracing::warn!(seq = seq.0, %error,
                "an event in the log has no account row, and its frame cannot be read");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
