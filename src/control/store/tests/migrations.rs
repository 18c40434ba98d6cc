//! Databases of other versions of the program.

use super::*;

/// What the first version made, statement by statement; a migration that was released is not edited.
fn first_version(url: &DatabaseUrl) -> &'static str {
    match url {
        DatabaseUrl::Postgres(_) => include_str!("../migrations/postgres/V1__initial.sql"),
        _ => include_str!("../migrations/sqlite/V1__initial.sql"),
    }
}

/// Runs statements on an empty database without making its tables.
async fn prepare(fresh: &Fresh, statements: &str) {
    match &fresh.url {
        DatabaseUrl::File(path) => {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let connection = rusqlite::Connection::open(path).unwrap();
            connection.execute_batch(statements).unwrap();
        }
        DatabaseUrl::Postgres(url) => {
            let (client, connection) = url.config.connect(tokio_postgres::NoTls).await.unwrap();
            let connection = tokio::spawn(connection);
            client.batch_execute(statements).await.unwrap();
            drop(client);
            connection.await.unwrap().unwrap();
        }
        DatabaseUrl::Memory => panic!(),
    }
}

/// As the migration library notes what it has done.
fn history(version: i64, name: &str, checksum: u64) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS refinery_schema_history
             (version INT4 PRIMARY KEY, name VARCHAR(255), applied_on VARCHAR(255),
              checksum VARCHAR(255));
         INSERT INTO refinery_schema_history
             VALUES ({version}, '{name}', '2026-11-01T00:00:00Z', '{checksum}');"
    )
}

/// What the library makes of the first migration's text.
fn checksum(sql: &str) -> u64 {
    refinery::Migration::unapplied("V1__initial", sql).unwrap().checksum()
}

/// Rows as the first version wrote them.
const ROWS: &str = "
    INSERT INTO host (id, hostname, status_since, last_seq, account_count, account_limit, created_at,
                      updated_at)
        VALUES (1, 'old.example', 5, 77, 2, 100, 5, 6);
    INSERT INTO account (id, rev, host_id, upstream, local, did) VALUES
        (1, NULL, 1, 128, 0, 'did:plc:a'), (2, NULL, 1, 128, 1, 'did:plc:b');
    INSERT INTO domain_ban (id, domain, created_at) VALUES (1, 'bad.example', 5);
    INSERT INTO setting (name, value) VALUES ('x', 'y');
    UPDATE meta SET value = 3 WHERE name = 'log_seq';";

#[tokio::test]
async fn a_database_of_the_first_version_is_taken_over_with_its_rows() {
    on_both(async |fresh| {
        let first = first_version(&fresh.url);
        let noted = history(1, "initial", checksum(first));
        prepare(fresh, &format!("{first};{noted}{ROWS}")).await;
        // Twice: the second time nothing is to be done.
        for _ in 0..2 {
            let store = fresh.open();
            let host = store.hosts().await.unwrap().remove(0);
            assert_eq!((host.hostname.as_str(), host.account_count), ("old.example", 2));
            assert_eq!((host.cursor, host.memory.failures), (Some(HostSeq(77)), 0));
            let account = state(&store, "did:plc:b").await;
            assert_eq!((account.id, account.announced), (AccountId(2), None));
            assert_eq!(account.local, LocalStatus::Takendown);
            assert_eq!(store.domain_bans().await.unwrap(), ["bad.example"]);
            assert_eq!(store.setting("x").await.unwrap().as_deref(), Some("y"));
            assert_eq!(store.log_seq().await.unwrap(), RelaySeq(3));
            store.close().await.unwrap();
        }
        // The relay goes on with it.
        let (store, log) = (fresh.open(), FakeLog::default());
        for seq in 1..=4 {
            log.append(1, "did:plc:a", 1, 70 + seq * 3, Some(seq));
        }
        let recovery = store.follow(Box::new(log)).await.unwrap();
        assert_eq!(recovery.records, 1, "what it knew is not read again");
        assert_eq!(state(&store, "did:plc:a").await.head, Some(head(4)));
        let new = store.create_account("did:plc:c", HostId(1)).await.unwrap();
        assert_eq!(new.id, AccountId(3));
    })
    .await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    on_both(async |fresh| {
        let store = fresh.open();
        store.set_setting("x", "y".into()).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        prepare(fresh, &history(999, "to_come", 7)).await;
        let error = Store::open(&fresh.url).unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: 999, .. }), "{error}");
        assert!(!error.is_passing(), "waiting does not help");
        assert!(error.to_string().contains("newer version of this program"), "{error}");
        prepare(fresh, "DELETE FROM refinery_schema_history WHERE version = 999").await;
        assert_eq!(fresh.open().setting("x").await.unwrap().as_deref(), Some("y"));
    })
    .await;
}
