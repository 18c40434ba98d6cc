//! Keeps the account rows in step with the event log.

use std::{
    collections::{BTreeMap, HashMap},
    io::ErrorKind,
};

use ports::{
    AccountId, EventKind, HostId, HostSeq, LocalStatus, LogRecord, LogTail, RelaySeq, RepoHead,
    UpstreamStatus,
};
use rusqlite::{OptionalExtension, Transaction};

use super::{Database, Recovery, StoreError};

/// Records folded into one transaction.
const BATCH: usize = 8192;

/// The store's place in the log, and the events above their hosts' cursors.
pub(super) struct Follower {
    tail: Box<dyn LogTail>,
    /// The account rows are as of this event.
    log_seq: RelaySeq,
    /// For each host its events in the log that its stored cursor does not cover yet.
    emitted: HashMap<HostId, BTreeMap<HostSeq, RelaySeq>>,
    records: Vec<LogRecord>,
    behind: bool,
}

impl Follower {
    /// A cursor has been stored: the events up to it need not be looked for after a restart.
    pub(super) fn handle_cursor(&mut self, host: HostId, cursor: HostSeq) {
        if let Some(events) = self.emitted.get_mut(&host) {
            *events = events.split_off(&HostSeq(cursor.0 + 1));
            if events.is_empty() {
                self.emitted.remove(&host);
            }
        }
    }

    fn note_emitted(&mut self, record: &LogRecord, cursor: Option<HostSeq>) {
        if record.host != HostId::RELAY && cursor.is_none_or(|cursor| record.host_seq > cursor) {
            self.emitted.entry(record.host).or_default().insert(record.host_seq, record.seq);
        }
    }

    /// The greatest number at or below which no event above its host's cursor stands.
    fn floor(&self) -> RelaySeq {
        let oldest = self.emitted.values().flat_map(BTreeMap::values).min();
        oldest.map_or(self.log_seq, |seq| RelaySeq(seq.0 - 1).min(self.log_seq))
    }
}

/// The last state of an account in a batch of records.
struct Folded {
    seq: RelaySeq,
    /// `None`: only the relay itself spoke of the account.
    host: Option<HostId>,
    upstream: UpstreamStatus,
    local: LocalStatus,
    head: Option<RepoHead>,
}

impl Database {
    pub(super) fn log_seq(&self) -> Result<RelaySeq, StoreError> {
        match &self.follower {
            Some(follower) => Ok(follower.log_seq),
            None => Ok(RelaySeq(self.meta("log_seq")?)),
        }
    }

    /// Whether the last batch was full, so that there is more to read at once.
    pub(super) fn behind(&self) -> bool {
        self.follower.as_ref().is_some_and(|follower| follower.behind)
    }

    pub(super) fn start_following(
        &mut self,
        tail: Box<dyn LogTail>,
    ) -> Result<Recovery, StoreError> {
        let newest = tail.bounds().newest;
        let mut log_seq = RelaySeq(self.meta("log_seq")?);
        let mut floor = RelaySeq(self.meta("emitted_floor")?);
        if newest < log_seq {
            tracing::warn!(
                database = log_seq.0,
                log = newest.0,
                "the event log ends before the database does: it was removed or replaced. \
                 Account rows stay as they are"
            );
            log_seq = newest;
            floor = floor.min(newest);
        }
        let mut follower =
            Follower { tail, log_seq, emitted: HashMap::new(), records: Vec::new(), behind: false };
        self.scan_emitted(&mut follower, floor)?;
        self.follower = Some(follower);
        let records = self.follow_to_end()?;
        self.place_new_hosts()?;
        let follower = self.follower.as_ref().ok_or(StoreError::Closed)?;
        let emitted = follower
            .emitted
            .iter()
            .map(|(host, events)| (*host, events.keys().copied().collect()))
            .collect();
        Ok(Recovery { emitted, records })
    }

    /// Reads the part of the log which the account rows have already, for events that the hosts'
    /// stored cursors do not cover.
    fn scan_emitted(&self, follower: &mut Follower, floor: RelaySeq) -> Result<(), StoreError> {
        let cursors = self.cursors()?;
        let mut at = floor;
        while at < follower.log_seq {
            let mut records = std::mem::take(&mut follower.records);
            records.clear();
            follower.tail.read_after(at, BATCH, &mut records)?;
            let Some(last) = records.last() else { break };
            at = last.seq;
            let end = follower.log_seq;
            for record in records.iter().filter(|record| record.seq <= end) {
                follower.note_emitted(record, cursors.get(&record.host).copied());
            }
            follower.records = records;
        }
        Ok(())
    }

    /// Gives a cursor to hosts that were new when the process was killed: events of theirs are in the
    /// log, but no cursor had been stored. Without one they would be taken up at their live position,
    /// and what they sent meanwhile would be lost.
    fn place_new_hosts(&self) -> Result<(), StoreError> {
        let Some(follower) = &self.follower else { return Ok(()) };
        for (host, events) in &follower.emitted {
            let Some((first, _)) = events.first_key_value() else { continue };
            self.connection
                .prepare_cached("UPDATE host SET last_seq = ?2 WHERE id = ?1 AND last_seq IS NULL")?
                .execute((host.0, first.0.saturating_sub(1) as i64))?;
        }
        Ok(())
    }

    fn cursors(&self) -> Result<HashMap<HostId, HostSeq>, StoreError> {
        let hosts = self.hosts()?;
        Ok(hosts.into_iter().filter_map(|host| Some((host.id, host.cursor?))).collect())
    }

    /// Follows until nothing new is there; returns how many records were read.
    pub(super) fn follow_to_end(&mut self) -> Result<u64, StoreError> {
        let mut total = 0;
        loop {
            let count = self.follow_batch()?;
            total += count as u64;
            if count == 0 {
                return Ok(total);
            }
        }
    }

    /// Folds one batch of records into the account rows, in one transaction with the place in the
    /// log; also writes the identities held back. Returns how many records were read.
    pub(super) fn follow_batch(&mut self) -> Result<usize, StoreError> {
        self.flush_identities()?;
        let Some(mut follower) = self.follower.take() else { return Ok(0) };
        let result = self.follow_batch_with(&mut follower);
        self.follower = Some(follower);
        result
    }

    fn follow_batch_with(&mut self, follower: &mut Follower) -> Result<usize, StoreError> {
        let mut records = std::mem::take(&mut follower.records);
        records.clear();
        follower.tail.read_after(follower.log_seq, BATCH, &mut records)?;
        let Some(last) = records.last().map(|record| record.seq) else {
            follower.behind = false;
            follower.records = records;
            return Ok(0);
        };
        let cursors = self.cursors_of(&records)?;
        let transaction = self.connection.transaction()?;
        for (account, folded) in fold(&records) {
            store_account(&transaction, follower.tail.as_mut(), account, &folded)?;
        }
        for record in &records {
            follower.note_emitted(record, cursors.get(&record.host).copied());
        }
        let floor = follower.floor();
        for (name, value) in [("log_seq", last), ("emitted_floor", floor)] {
            transaction
                .prepare_cached("UPDATE meta SET value = ?2 WHERE name = ?1")?
                .execute((name, value.0 as i64))?;
        }
        transaction.commit()?;
        follower.log_seq = last;
        follower.behind = records.len() == BATCH;
        let count = records.len();
        follower.records = records;
        let newest = follower.tail.bounds().newest;
        metrics::gauge!("relayered_store_lag_events").set(newest.0.saturating_sub(last.0) as f64);
        Ok(count)
    }

    fn cursors_of(&self, records: &[LogRecord]) -> Result<HashMap<HostId, HostSeq>, StoreError> {
        let mut cursors = HashMap::new();
        let mut asked = std::collections::HashSet::new();
        let mut statement =
            self.connection.prepare_cached("SELECT last_seq FROM host WHERE id = ?1")?;
        for record in records {
            if record.host == HostId::RELAY || !asked.insert(record.host) {
                continue;
            }
            let cursor: Option<Option<i64>> =
                statement.query_row([record.host.0], |row| row.get(0)).optional()?;
            if let Some(Some(cursor)) = cursor {
                cursors.insert(record.host, HostSeq(cursor as u64));
            }
        }
        Ok(cursors)
    }
}

fn fold(records: &[LogRecord]) -> HashMap<AccountId, Folded> {
    let mut accounts: HashMap<AccountId, Folded> = HashMap::new();
    for record in records {
        let before = accounts.get(&record.account);
        // Any host may send an #identity of an account whose document has changed: that does not
        // move the account to it.
        let speaks = record.host != HostId::RELAY && record.kind != EventKind::Identity;
        let host = speaks.then_some(record.host);
        let folded = Folded {
            seq: record.seq,
            host: host.or(before.and_then(|folded| folded.host)),
            upstream: record.upstream,
            local: record.local,
            head: record.head.or(before.and_then(|folded| folded.head)),
        };
        accounts.insert(record.account, folded);
    }
    accounts
}

fn store_account(
    transaction: &Transaction<'_>,
    tail: &mut dyn LogTail,
    account: AccountId,
    folded: &Folded,
) -> Result<(), StoreError> {
    let id = account.0 as i64;
    let before: Option<u32> = transaction
        .prepare_cached("SELECT host_id FROM account WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    if before.is_none() && !restore_account(transaction, tail, account, folded)? {
        return Ok(());
    }
    let host = folded.host.map(|host| host.0);
    if let Some(host) = host.filter(|host| Some(*host) != before) {
        let mut count = transaction
            .prepare_cached("UPDATE host SET account_count = account_count + ?2 WHERE id = ?1")?;
        count.execute((host, 1))?;
        if let Some(before) = before {
            count.execute((before, -1))?;
        }
    }
    transaction
        .prepare_cached(
            "UPDATE account SET host_id = coalesce(?2, host_id), upstream = ?3, local = ?4,
                 rev = coalesce(?5, rev), data = coalesce(?6, data),
                 commit_hash = coalesce(?7, commit_hash)
             WHERE id = ?1",
        )?
        .execute((
            id,
            host,
            folded.upstream.code(),
            folded.local as u8,
            folded.head.map(|head| head.rev as i64),
            folded.head.map(|head| head.data),
            folded.head.map(|head| head.commit),
        ))?;
    Ok(())
}

/// Makes the row of an account whose creation was lost in a crash. `false`: it cannot be made.
fn restore_account(
    transaction: &Transaction<'_>,
    tail: &mut dyn LogTail,
    account: AccountId,
    folded: &Folded,
) -> Result<bool, StoreError> {
    let did = match tail.did_of(folded.seq) {
        Ok(did) => did,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {
            tracing::warn!(account = account.0, seq = folded.seq.0, %error,
                "an account in the log has no row, and its frame cannot be read");
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let host = folded.host.unwrap_or(HostId::RELAY);
    let inserted = transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO account (id, did, host_id, upstream) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((account.0 as i64, &did, host.0, folded.upstream.code()))?;
    if inserted == 0 {
        tracing::warn!(account = account.0, did, "an account in the log has another row already");
    }
    Ok(inserted == 1)
}
