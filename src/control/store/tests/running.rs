//! A store that is asked while it follows, and servers that are shared or silent.

use super::*;

/// A log of many events of one account.
fn long_log(account: &AccountState, host: HostId, count: u64) -> FakeLog {
    let log = FakeLog::default();
    for number in 1..=count {
        log.append(account.id.0, "did:plc:a", host.0, number, Some(number));
    }
    log
}

#[tokio::test]
async fn a_take_down_waits_for_the_log_and_look_ups_do_not() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        let account = store.create_account("did:plc:a", host).await.unwrap();
        store.follow(Box::new(log.clone())).await.unwrap();
        let more = long_log(&account, host, 20_000);
        // From here on the store is far behind.
        log.0.lock().unwrap().append(&mut more.0.lock().unwrap());
        let set = store.set_local("did:plc:a", LocalChange::TakeDown { ahead: false });
        let (set, behind) = tokio::join!(set, async {
            store.account_by_did("did:plc:a").await.unwrap();
            store.log_seq().await.unwrap()
        });
        assert!(behind.0 < 20_000, "the look-up waited for the whole log");
        let set = set.unwrap().unwrap();
        assert_eq!(
            (set.row.state.local, set.row.state.head),
            (LocalStatus::Takendown, Some(head(20_000)))
        );
        assert_eq!(store.log_seq().await.unwrap().0, 20_000);
        // A look-up that needs a late event waits for it.
        log.append(account.id.0, "did:plc:a", host.0, 20_001, Some(20_001));
        let found = store.account_as_of("did:plc:a", RelaySeq(20_001)).await.unwrap();
        assert_eq!(found.state.unwrap().head, Some(head(20_001)));
    })
    .await;
}

#[tokio::test]
async fn a_relay_does_not_share_its_database() {
    let Some(fresh) = Fresh::postgres().await else { return };
    let alone = StoreConfig { alone: true, ..StoreConfig::default() };
    let first = Store::open_with(&fresh.url, alone).unwrap();
    let refused = Store::open_with(&fresh.url, alone).unwrap_err();
    assert!(refused.is_passing(), "it may end");
    let text = refused.to_string();
    assert!(text.contains("another relay uses this database (from "), "{text}");
    assert!(text.contains("give each relay a database of its own"), "{text}");
    // Commands that are made to be used beside a relay are not kept out.
    fresh.open().ping().await.unwrap();
    first.close().await.unwrap();
    let second = loop {
        match Store::open_with(&fresh.url, alone) {
            Ok(second) => break second,
            // The server has yet to see that the first has gone.
            Err(StoreError::Taken(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    second.close().await.unwrap();
    fresh.drop().await;
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let Some(fresh) = Fresh::postgres().await else { return };
    let store = fresh.open();
    store.ping().await.unwrap();
    let DatabaseUrl::Postgres(url) = &fresh.url else { panic!() };
    let (other, connection) = url.config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // As a server without an answer: the statement waits for a lock that nobody lets go.
    other.batch_execute("BEGIN; LOCK TABLE setting").await.unwrap();
    let asking = store.set_setting("x", "y".into());
    let mut asking = std::pin::pin!(asking);
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    loop {
        // Polled once at least, so that the statement is on its way.
        let asked = std::future::poll_fn(|context| {
            std::task::Poll::Ready(asking.as_mut().poll(context).is_ready())
        });
        assert!(!asked.await);
        if other.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            break;
        }
    }
    store.give_up();
    let error = asking.await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    // Nothing is waited for any more, and nothing is tried anew.
    assert!(store.close().await.unwrap_err().is_passing());
    drop(other);
    fresh.drop().await;
}

#[tokio::test]
async fn lists_do_not_wait_for_whoever_writes() {
    on_both(async |fresh| {
        let store = fresh.open();
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        store.create_account("did:plc:a", host).await.unwrap();
        let (release, held) = mpsc::channel::<()>();
        let busy = store.clone();
        let busy = tokio::spawn(async move {
            busy.call(move |database| {
                let wait = |_sql: &mut sql::Sql| Ok(held.recv().is_ok());
                database.sql.transaction(sql::Durability::Log, wait)
            })
            .await
        });
        tokio::task::yield_now().await;
        let lists = async || {
            let hosts = store.hosts_page(HostFilter::default(), HostId(0), 9).await.unwrap();
            let account = store.account_by_did("did:plc:a").await.unwrap();
            (hosts.len(), account.is_some())
        };
        // As many at once as there are connections, and more.
        for answer in [lists(), lists(), lists(), lists()].map(Box::pin) {
            assert_eq!(answer.await, (1, true));
        }
        release.send(()).unwrap();
        assert!(busy.await.unwrap().unwrap());
        let write = |database: &mut Database| database.set_setting("x", "y");
        let refused = store.read(write).await.unwrap_err().to_string().to_lowercase();
        assert!(refused.contains("read-only") || refused.contains("readonly"), "{refused}");
        // What was written is read at once.
        for number in 0..20 {
            store.set_setting("x", number.to_string()).await.unwrap();
            assert_eq!(store.setting("x").await.unwrap(), Some(number.to_string()));
        }
    })
    .await;
}

#[tokio::test]
async fn one_connection_does_for_all() {
    on_both(async |fresh| {
        let one = StoreConfig { connections_max: 1, ..StoreConfig::default() };
        let store = Store::open_with(&fresh.url, one).unwrap();
        store.set_setting("x", "y".into()).await.unwrap();
        assert_eq!(store.setting("x").await.unwrap().as_deref(), Some("y"));
        assert!(store.readers.is_none());
    })
    .await;
}
