//! Tests of the store, each on SQLite and, where `RELAYERED_TEST_POSTGRES` names a server, on
//! PostgreSQL, in a database of its own.

mod follow;
mod migrations;
mod pages;
mod running;
mod schema;
mod tables;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use ports::{
    AccountId, EventKind, HostProgress, LocalStatus, LogBounds, LogRecord, LogTail, RepoHead,
    StatusWord, UpstreamStatus,
};

use super::*;

/// An empty database, dropped at the end.
pub(super) struct Fresh {
    pub(super) url: DatabaseUrl,
    /// Of SQLite; `None` on a server.
    directory: Option<tempfile::TempDir>,
}

impl Fresh {
    fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::File(directory.path().join("deep/relay.sqlite"));
        Self { url, directory: Some(directory) }
    }

    /// `None`: no server to test with.
    async fn postgres() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Ok(server) = std::env::var("RELAYERED_TEST_POSTGRES") else {
            assert!(
                std::env::var("RELAYERED_TEST_REQUIRE_ALL").is_err(),
                "RELAYERED_TEST_POSTGRES names no server, and no test may be skipped"
            );
            eprintln!("skipped on PostgreSQL: RELAYERED_TEST_POSTGRES names no server");
            return None;
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("relayered_{}_{number}", std::process::id());
        admin(&server, &format!("CREATE DATABASE {name}")).await;
        let DatabaseUrl::Postgres(mut url) = DatabaseUrl::parse(&server).unwrap() else {
            panic!("RELAYERED_TEST_POSTGRES: {server}")
        };
        url.config.dbname(&name);
        Some(Self { url: DatabaseUrl::Postgres(url), directory: None })
    }

    fn open(&self) -> Store {
        Store::open(&self.url).unwrap()
    }

    async fn drop(self) {
        if self.directory.is_none()
            && let (DatabaseUrl::Postgres(url), Ok(server)) =
                (&self.url, std::env::var("RELAYERED_TEST_POSTGRES"))
        {
            let name = url.config.get_dbname().unwrap();
            admin(&server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }
}

/// A statement on the server itself.
async fn admin(server: &str, sql: &str) {
    let DatabaseUrl::Postgres(url) = DatabaseUrl::parse(server).unwrap() else {
        panic!("RELAYERED_TEST_POSTGRES: {server}")
    };
    let (client, connection) = url.config.connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
}

/// Runs a test on each kind of database.
pub(super) async fn on_both(test: impl AsyncFn(&Fresh)) {
    let sqlite = Fresh::sqlite();
    test(&sqlite).await;
    sqlite.drop().await;
    if let Some(postgres) = Fresh::postgres().await {
        test(&postgres).await;
        postgres.drop().await;
    }
}

/// A log in memory, which tests append to while the store follows it; a number up to which it counts as
/// synced at least, as after an unclean stop, which leaves numbers out; and one up to which it was
/// released.
#[derive(Clone, Default)]
struct FakeLog(Arc<Mutex<Vec<(LogRecord, String)>>>, u64, Arc<AtomicU64>);

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

    fn change(&self, index: usize, change: impl FnOnce(&mut LogRecord)) {
        change(&mut self.0.lock().unwrap()[index].0);
    }
}

impl LogTail for FakeLog {
    fn bounds(&self) -> LogBounds {
        let newest = RelaySeq(self.0.lock().unwrap().len() as u64);
        let newest = newest.max(RelaySeq(self.1));
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

    fn release(&mut self, through: RelaySeq) {
        self.2.store(through.0, Ordering::Relaxed);
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

fn progress(host: HostId, cursor: u64) -> HostProgress {
    HostProgress { cursor: Some(HostSeq(cursor)), ..HostProgress::new(host) }
}

async fn state(store: &Store, did: &str) -> AccountState {
    store.account_by_did(did).await.unwrap().unwrap()
}
