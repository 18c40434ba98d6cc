use std::{io, sync::Arc, sync::Mutex};

use ecdsa::VerifyingKey;
use ports::{
    AccountId, EventKind, LocalStatus, LogBounds, LogRecord, RepoHead, StatusWord, UpstreamStatus,
};

use super::*;

/// A log in memory, which tests append to while the store follows it.
#[derive(Clone, Default)]
struct FakeLog(Arc<Mutex<Vec<(LogRecord, String)>>>);

impl FakeLog {
    fn append(&self, account: u64, did: &str, host: u32, host_seq: u64, rev: Option<u64>) {
        let mut records = self.0.lock().unwrap();
        let record = LogRecord {
            seq: RelaySeq(records.len() as u64 + 1),
            kind: EventKind::Commit,
            account: AccountId(account),
            host: HostId(host),
            host_seq: HostSeq(host_seq),
            time_micros: 0,
            upstream: UpstreamStatus::ACTIVE,
            local: LocalStatus::Active,
            head: rev.map(head),
        };
        records.push((record, did.to_owned()));
    }
}

impl LogTail for FakeLog {
    fn bounds(&self) -> LogBounds {
        let newest = RelaySeq(self.0.lock().unwrap().len() as u64);
        LogBounds { oldest: Some(RelaySeq(1)), newest, synced: newest, bytes: 0 }
    }

    fn read_after(
        &mut self,
        after: RelaySeq,
        count: usize,
        records: &mut Vec<LogRecord>,
    ) -> io::Result<()> {
        let all = self.0.lock().unwrap();
        let rest = all.iter().map(|(record, _)| *record).filter(|record| record.seq > after);
        records.extend(rest.take(count));
        Ok(())
    }

    fn did_of(&mut self, seq: RelaySeq) -> io::Result<String> {
        let all = self.0.lock().unwrap();
        let found = all.iter().find(|(record, _)| record.seq == seq);
        found.map(|(_, did)| did.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn head(rev: u64) -> RepoHead {
    RepoHead { rev, data: [rev as u8; 32], commit: [!(rev as u8); 32] }
}

fn new_host(hostname: &str) -> NewHost {
    NewHost {
        hostname: hostname.into(),
        tls: true,
        trusted: false,
        account_limit: 100,
        by_admin: false,
    }
}

fn memory() -> Store {
    Store::open(&DatabaseUrl::Memory).unwrap()
}

fn progress(host: HostId, cursor: u64) -> HostProgress {
    HostProgress { cursor: Some(HostSeq(cursor)), ..HostProgress::new(host) }
}

async fn state(store: &Store, did: &str) -> AccountState {
    store.account_by_did(did).await.unwrap().unwrap().0
}

#[tokio::test]
async fn hosts_are_inserted_once_and_patched() {
    let store = memory();
    let first = store.insert_host(new_host("a.example")).await.unwrap();
    let again = store.insert_host(new_host("a.example")).await.unwrap();
    assert_eq!(first, again);
    assert_eq!((first.status, first.cursor), (HostStatus::Active, None));
    let patch = HostPatch {
        status: Some((HostStatus::Banned, Some("spam".into()))),
        cursor: Some(Some(HostSeq(7))),
        per_day: Some(Some(3)),
        ..HostPatch::default()
    };
    let row = store.update_host(first.id, patch).await.unwrap();
    assert_eq!(store.hosts().await.unwrap(), std::slice::from_ref(&row));
    assert_eq!(row.status_reason.as_deref(), Some("spam"));
    assert_eq!((row.cursor, row.per_day), (Some(HostSeq(7)), Some(3)));
    assert_eq!(store.hosts_added_since(0).await.unwrap(), 1);
    let missing = store.update_host(HostId(99), HostPatch::default()).await;
    assert!(matches!(missing, Err(StoreError::NoSuchHost(HostId(99)))));
}

#[tokio::test]
async fn accounts_are_created_once_and_counted() {
    let store = memory();
    let host = store.insert_host(new_host("a.example")).await.unwrap().id;
    let first = store.create_account("did:plc:a", host).await.unwrap();
    assert_eq!(store.create_account("did:plc:a", HostId(9)).await.unwrap(), first);
    assert_eq!(first.upstream, UpstreamStatus::ACTIVE);
    assert_eq!(store.hosts().await.unwrap()[0].account_count, 1);
    assert!(store.account_by_did("did:plc:b").await.unwrap().is_none());
}

#[tokio::test]
async fn identities_are_kept_for_known_accounts_only() {
    let store = memory();
    let account = store.create_account("did:plc:a", HostId(1)).await.unwrap();
    let key = ecdsa::sign::SigningKey::from_bytes(ecdsa::Curve::P256, &[7; 32]).unwrap();
    let key: VerifyingKey = key.verifying_key();
    let identity = StoredIdentity {
        key: Some(key),
        pds: Some("a.example".into()),
        pds_tls: true,
        handle: Some("a.test".into()),
        fetched_at: 5,
    };
    for did in ["did:plc:a", "did:plc:unknown"] {
        store.save_identity(did, identity.clone());
    }
    // Before and after it is written.
    for _ in 0..2 {
        let (state, found) = store.account_by_did("did:plc:a").await.unwrap().unwrap();
        assert_eq!((state.id, found), (account.id, Some(identity.clone())));
        store.call(Database::flush_identities).await.unwrap();
    }
    let count = store
        .call(|database| {
            let count = "SELECT count(*) FROM identity";
            Ok(database.connection.query_row(count, [], |row| row.get::<_, i64>(0))?)
        })
        .await
        .unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn the_last_state_of_an_account_wins() {
    let (store, log) = (memory(), FakeLog::default());
    let host = store.insert_host(new_host("a.example")).await.unwrap().id;
    let account = store.create_account("did:plc:a", host).await.unwrap();
    log.append(account.id.0, "did:plc:a", host.0, 1, Some(10));
    log.append(account.id.0, "did:plc:a", host.0, 2, Some(20));
    // An event without a head leaves the head alone, and moves the status.
    log.append(account.id.0, "did:plc:a", host.0, 3, None);
    let gone = UpstreamStatus { active: false, word: StatusWord::Deactivated };
    log.0.lock().unwrap()[2].0.upstream = gone;
    let recovery = store.follow(Box::new(log.clone())).await.unwrap();
    assert_eq!(recovery.records, 3);
    let now = state(&store, "did:plc:a").await;
    assert_eq!((now.head, now.upstream), (Some(head(20)), gone));
    // What the relay itself says does not move the account to another host.
    log.append(account.id.0, "did:plc:a", 0, 0, None);
    log.0.lock().unwrap()[3].0.local = LocalStatus::Takendown;
    store.call(Database::follow_batch).await.unwrap();
    let now = state(&store, "did:plc:a").await;
    assert_eq!((now.host, now.local), (host, LocalStatus::Takendown));
}

#[tokio::test]
async fn a_move_is_counted_on_both_hosts() {
    let (store, log) = (memory(), FakeLog::default());
    let a = store.insert_host(new_host("a.example")).await.unwrap().id;
    let b = store.insert_host(new_host("b.example")).await.unwrap().id;
    let account = store.create_account("did:plc:a", a).await.unwrap();
    log.append(account.id.0, "did:plc:a", b.0, 1, Some(1));
    store.follow(Box::new(log)).await.unwrap();
    let counts: Vec<u64> =
        store.hosts().await.unwrap().iter().map(|host| host.account_count).collect();
    assert_eq!(counts, [0, 1]);
    assert_eq!(state(&store, "did:plc:a").await.host, b);
}

#[tokio::test]
async fn an_identity_event_of_another_host_moves_nothing() {
    let (store, log) = (memory(), FakeLog::default());
    let a = store.insert_host(new_host("a.example")).await.unwrap().id;
    let b = store.insert_host(new_host("b.example")).await.unwrap().id;
    let account = store.create_account("did:plc:a", a).await.unwrap();
    log.append(account.id.0, "did:plc:a", b.0, 1, None);
    log.0.lock().unwrap()[0].0.kind = EventKind::Identity;
    store.follow(Box::new(log)).await.unwrap();
    assert_eq!(state(&store, "did:plc:a").await.host, a);
}

#[tokio::test]
async fn accounts_lost_in_a_crash_come_back_from_the_log() {
    let (store, log) = (memory(), FakeLog::default());
    let host = store.insert_host(new_host("a.example")).await.unwrap().id;
    log.append(41, "did:plc:lost", host.0, 9, Some(5));
    store.follow(Box::new(log)).await.unwrap();
    let back = state(&store, "did:plc:lost").await;
    assert_eq!((back.id, back.host, back.head), (AccountId(41), host, Some(head(5))));
    let row = &store.hosts().await.unwrap()[0];
    // The host goes on behind what was there when it was first heard, not at its live position.
    assert_eq!((row.account_count, row.cursor), (1, Some(HostSeq(8))));
    // The next account does not get a number that the log knows.
    assert_eq!(store.create_account("did:plc:new", host).await.unwrap().id, AccountId(42));
}

#[tokio::test]
async fn a_restart_goes_on_where_the_rows_are() {
    let directory = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::File(directory.path().join("deep/relay.sqlite"));
    let log = FakeLog::default();
    let store = Store::open(&url).unwrap();
    let host = store.insert_host(new_host("a.example")).await.unwrap().id;
    let account = store.create_account("did:plc:a", host).await.unwrap();
    for seq in 1..=5 {
        log.append(account.id.0, "did:plc:a", host.0, seq * 10, Some(seq));
    }
    store.follow(Box::new(log.clone())).await.unwrap();
    store.save_progress(vec![progress(host, 30)]).await.unwrap();
    log.append(account.id.0, "did:plc:a", host.0, 60, Some(6));
    store.close().await.unwrap();
    assert!(matches!(store.ping().await, Err(StoreError::Closed)));

    let store = Store::open(&url).unwrap();
    assert_eq!(store.log_seq().await.unwrap(), RelaySeq(6));
    let recovery = store.follow(Box::new(log.clone())).await.unwrap();
    assert_eq!(recovery.records, 0);
    let expected = vec![HostSeq(40), HostSeq(50), HostSeq(60)];
    assert_eq!(recovery.emitted, HashMap::from([(host, expected)]));
    assert_eq!(state(&store, "did:plc:a").await.head, Some(head(6)));
    store.save_progress(vec![progress(host, 60)]).await.unwrap();
    log.append(account.id.0, "did:plc:a", host.0, 70, Some(7));
    store.save_progress(vec![progress(host, 70)]).await.unwrap();
    store.close().await.unwrap();

    let store = Store::open(&url).unwrap();
    let recovery = store.follow(Box::new(log)).await.unwrap();
    assert_eq!(recovery.emitted, HashMap::new());
}

#[tokio::test]
async fn many_records_are_folded_in_batches() {
    let (store, log) = (memory(), FakeLog::default());
    let host = store.insert_host(new_host("a.example")).await.unwrap().id;
    for number in 0..20_000_u64 {
        let account = number % 50 + 1;
        log.append(account, &format!("did:plc:{account}"), host.0, number + 1, Some(number));
    }
    let recovery = store.follow(Box::new(log)).await.unwrap();
    assert_eq!(recovery.records, 20_000);
    assert_eq!(state(&store, "did:plc:50").await.head.unwrap().rev, 19_999);
    let page = store.accounts_after(10, 5).await.unwrap();
    let ids: Vec<u64> = page.iter().map(|account| account.state.id.0).collect();
    assert_eq!(ids, [11, 12, 13, 14, 15]);
}

#[tokio::test]
async fn a_log_that_is_gone_does_not_stop_the_relay() {
    let directory = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::File(directory.path().join("relay.sqlite"));
    let store = Store::open(&url).unwrap();
    let log = FakeLog::default();
    for seq in 1..=3 {
        log.append(1, "did:plc:a", 1, seq, Some(seq));
    }
    store.follow(Box::new(log)).await.unwrap();
    store.close().await.unwrap();
    let store = Store::open(&url).unwrap();
    let recovery = store.follow(Box::new(FakeLog::default())).await.unwrap();
    assert_eq!(recovery, Recovery::default());
    assert_eq!(state(&store, "did:plc:a").await.head, Some(head(3)));
}

#[tokio::test]
async fn settings_and_bans() {
    let store = memory();
    assert_eq!(store.setting("x").await.unwrap(), None);
    for value in ["1", "2"] {
        store.set_setting("x", value.into()).await.unwrap();
        assert_eq!(store.setting("x").await.unwrap().as_deref(), Some(value));
    }
    assert!(store.ban_domain("b.example").await.unwrap());
    assert!(!store.ban_domain("b.example").await.unwrap());
    assert!(store.ban_domain("a.example").await.unwrap());
    assert_eq!(store.domain_bans().await.unwrap(), ["a.example", "b.example"]);
    assert!(store.unban_domain("b.example").await.unwrap());
    assert!(!store.unban_domain("b.example").await.unwrap());
}
