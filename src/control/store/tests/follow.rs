//! The account rows in step with the log.

use super::*;

#[tokio::test]
async fn the_last_state_of_an_account_wins() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
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
        store.call(Database::follow_slice).await.unwrap();
        assert_eq!(state(&store, "did:plc:a").await.host, host);
    })
    .await;
}

#[tokio::test]
async fn what_the_relay_says_of_an_account_is_not_undone_by_older_records() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        let account = store.create_account("did:plc:a", host).await.unwrap();
        store.follow(Box::new(log.clone())).await.unwrap();
        // The row is first, then the shard; in between a commit is numbered.
        store.set_local("did:plc:a", LocalChange::TakeDown { ahead: false }).await.unwrap();
        log.append(account.id.0, "did:plc:a", host.0, 1, Some(10));
        store.call(Database::follow_slice).await.unwrap();
        assert_eq!(state(&store, "did:plc:a").await.local, LocalStatus::Takendown);
        // Reversed before the rows have followed the take-down's own event.
        log.append(account.id.0, "did:plc:a", 0, 0, None);
        log.0.lock().unwrap()[1].0.local = LocalStatus::Takendown;
        store.set_local("did:plc:a", LocalChange::Reverse).await.unwrap();
        store.call(Database::follow_slice).await.unwrap();
        assert_eq!(state(&store, "did:plc:a").await.local, LocalStatus::Active);
        assert!(store.takedowns_after(AccountId(0), 1).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_the_relay_says_is_owed_until_the_log_has_it() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        let account = store.create_account("did:plc:a", host).await.unwrap();
        store.follow(Box::new(log.clone())).await.unwrap();
        let owed = async || store.owed().await.unwrap().len();
        let said = async |seq: usize, local| {
            log.append(account.id.0, "did:plc:a", 0, 0, None);
            let kind = EventKind::Account;
            log.change(seq, |record| *record = LogRecord { kind, local, ..*record });
            store.call(Database::follow_slice).await.unwrap();
        };
        let down = LocalChange::TakeDown { ahead: false };
        store.set_local("did:plc:a", down).await.unwrap();
        // Of the host, and older.
        log.append(account.id.0, "did:plc:a", host.0, 1, Some(10));
        store.call(Database::follow_slice).await.unwrap();
        assert_eq!((owed().await, owed().await), (1, 1));
        said(1, LocalStatus::Takendown).await;
        assert_eq!(owed().await, 0);

        store.set_local("did:plc:a", LocalChange::Reverse).await.unwrap();
        assert_eq!(owed().await, 1);
        store.set_local("did:plc:a", down).await.unwrap();
        // The reversal's event is not the second take-down's.
        said(2, LocalStatus::Active).await;
        assert_eq!(owed().await, 1);
        said(3, LocalStatus::Takendown).await;
        assert_eq!(owed().await, 0);

        // Reversed while its host says the same: there is no event to be made.
        log.append(account.id.0, "did:plc:a", host.0, 2, None);
        let by_host = UpstreamStatus { active: false, word: StatusWord::Takendown };
        log.0.lock().unwrap()[4].0.upstream = by_host;
        store.call(Database::follow_slice).await.unwrap();
        store.set_local("did:plc:a", LocalChange::Reverse).await.unwrap();
        assert_eq!(owed().await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_move_is_counted_on_both_hosts() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
        let a = store.insert_host(new_host("a.example")).await.unwrap().id;
        let b = store.insert_host(new_host("b.example")).await.unwrap().id;
        let account = store.create_account("did:plc:a", a).await.unwrap();
        log.append(account.id.0, "did:plc:a", b.0, 1, Some(1));
        store.follow(Box::new(log)).await.unwrap();
        let counts: Vec<u64> =
            store.hosts().await.unwrap().iter().map(|host| host.account_count).collect();
        assert_eq!(counts, [0, 1]);
        assert_eq!(state(&store, "did:plc:a").await.host, b);
    })
    .await;
}

#[tokio::test]
async fn an_identity_event_of_another_host_moves_nothing() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
        let a = store.insert_host(new_host("a.example")).await.unwrap().id;
        let b = store.insert_host(new_host("b.example")).await.unwrap().id;
        let account = store.create_account("did:plc:a", a).await.unwrap();
        log.append(account.id.0, "did:plc:a", b.0, 1, None);
        log.0.lock().unwrap()[0].0.kind = EventKind::Identity;
        store.follow(Box::new(log)).await.unwrap();
        assert_eq!(state(&store, "did:plc:a").await.host, a);
    })
    .await;
}

#[tokio::test]
async fn accounts_lost_in_a_crash_come_back_from_the_log() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
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
    })
    .await;
}

#[tokio::test]
async fn a_restart_goes_on_where_the_rows_are() {
    on_both(async |fresh| {
        let log = FakeLog::default();
        let store = fresh.open();
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

        let store = fresh.open();
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

        let store = fresh.open();
        let recovery = store.follow(Box::new(log)).await.unwrap();
        assert_eq!(recovery.emitted, HashMap::new());
    })
    .await;
}

#[tokio::test]
async fn many_records_are_folded_in_batches() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
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
    })
    .await;
}

#[tokio::test]
async fn a_log_that_is_gone_does_not_stop_the_relay() {
    on_both(async |fresh| {
        let store = fresh.open();
        let log = FakeLog::default();
        for seq in 1..=3 {
            log.append(1, "did:plc:a", 1, seq, Some(seq));
        }
        store.follow(Box::new(log)).await.unwrap();
        store.close().await.unwrap();
        let store = fresh.open();
        let recovery = store.follow(Box::new(FakeLog::default())).await.unwrap();
        assert_eq!(recovery, Recovery::default());
        assert_eq!(state(&store, "did:plc:a").await.head, Some(head(3)));
    })
    .await;
}

#[tokio::test]
async fn records_made_again_from_frames_find_their_accounts() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        store.create_account("did:plc:a", host).await.unwrap();
        store.set_local("did:plc:a", LocalChange::TakeDown { ahead: false }).await.unwrap();
        // Neither account nor host stand in such a record, nor what the relay said.
        log.append(0, "did:plc:a", 0, 0, Some(7));
        log.append(0, "did:plc:new", 0, 0, Some(8));
        log.append(0, "did:plc:new", 0, 0, Some(9));
        store.follow(Box::new(log.clone())).await.unwrap();
        let known = state(&store, "did:plc:a").await;
        assert_eq!((known.host, known.local), (host, LocalStatus::Takendown));
        assert_eq!(known.head, Some(head(7)));
        let new = state(&store, "did:plc:new").await;
        assert_eq!((new.host, new.head), (HostId::RELAY, Some(head(9))));
        // Its host becomes known with its next event, and counts it then.
        log.append(new.id.0, "did:plc:new", host.0, 5, Some(10));
        let as_of = store.account_as_of("did:plc:new", RelaySeq(4)).await.unwrap();
        assert_eq!(as_of.state.unwrap().host, host);
        assert_eq!(store.host(host).await.unwrap().account_count, 2);
    })
    .await;
}

#[tokio::test]
async fn deleted_accounts_free_their_places() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        let account = store.create_account("did:plc:a", host).await.unwrap();
        log.append(account.id.0, "did:plc:a", host.0, 1, None);
        let gone = UpstreamStatus { active: false, word: StatusWord::Deleted };
        {
            let mut records = log.0.lock().unwrap();
            (records[0].0.kind, records[0].0.upstream) = (EventKind::Account, gone);
        }
        store.follow(Box::new(log.clone())).await.unwrap();
        assert_eq!(store.host(host).await.unwrap().account_count, 0);
        let announced = state(&store, "did:plc:a").await.announced.unwrap();
        assert_eq!((announced.active, announced.word), (false, StatusWord::Deleted));
        // And take them again when they come back.
        log.append(account.id.0, "did:plc:a", host.0, 2, Some(2));
        store.account_as_of("did:plc:a", RelaySeq(2)).await.unwrap();
        assert_eq!(store.host(host).await.unwrap().account_count, 1);
        assert_eq!(store.account_counts(host).await.unwrap().counted, 1);
    })
    .await;
}

#[tokio::test]
async fn a_look_up_waits_for_the_event_that_it_needs() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        let account = store.create_account("did:plc:a", host).await.unwrap();
        store.follow(Box::new(log.clone())).await.unwrap();
        let (asking, appended) = (store.clone(), log.clone());
        let question = tokio::spawn(async move {
            asking.account_as_of("did:plc:a", RelaySeq(1)).await.unwrap().state.unwrap()
        });
        tokio::task::yield_now().await;
        // Whoever asks for less is answered meanwhile.
        assert_eq!(state(&store, "did:plc:a").await.head, None);
        appended.append(account.id.0, "did:plc:a", host.0, 1, Some(3));
        assert_eq!(question.await.unwrap().head, Some(head(3)));
    })
    .await;
}

#[tokio::test]
async fn numbers_left_out_by_an_unclean_stop_are_not_waited_for() {
    on_both(async |fresh| {
        let store = fresh.open();
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        store.create_account("did:plc:a", host).await.unwrap();
        let log = FakeLog(Arc::default(), 5000, Arc::default());
        store.follow(Box::new(log)).await.unwrap();
        let found = store.account_as_of("did:plc:a", RelaySeq(5000)).await.unwrap();
        assert_eq!(found.state.unwrap().host, host);
    })
    .await;
}

#[tokio::test]
async fn a_numbering_that_a_host_gave_up_is_forgotten() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        let account = store.create_account("did:plc:a", host).await.unwrap();
        log.append(account.id.0, "did:plc:a", host.0, 900, Some(1));
        log.append(account.id.0, "did:plc:a", host.0, 3, Some(2));
        store.follow(Box::new(log.clone())).await.unwrap();
        let renumbered =
            HostProgress { log_floor: RelaySeq(1), renumbered: true, ..progress(host, 2) };
        store.save_progress(vec![renumbered]).await.unwrap();
        store.close().await.unwrap();
        let store = fresh.open();
        let recovery = store.follow(Box::new(log)).await.unwrap();
        assert_eq!(recovery.emitted, HashMap::from([(host, vec![HostSeq(3)])]));
    })
    .await;
}

#[tokio::test]
async fn the_log_holds_what_a_restart_would_need() {
    on_both(async |fresh| {
        let (store, log) = (fresh.open(), FakeLog::default());
        let released = || log.2.load(Ordering::Relaxed);
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        let account = store.create_account("did:plc:a", host).await.unwrap();
        log.append(account.id.0, "did:plc:a", host.0, 10, Some(10));
        log.append(account.id.0, "did:plc:a", host.0, 20, Some(20));
        log.append(account.id.0, "did:plc:a", host.0, 30, Some(30));
        // The rows have all of it, but only the log tells that the host's events are done with.
        store.follow(Box::new(log.clone())).await.unwrap();
        assert_eq!(released(), 0);
        store.save_progress(vec![progress(host, 20)]).await.unwrap();
        assert_eq!(released(), 2);
        store.save_progress(vec![progress(host, 30)]).await.unwrap();
        assert_eq!(released(), 3);
        // An event of the relay's own has no cursor: it is let go once the rows have it on disk.
        log.append(account.id.0, "did:plc:a", 0, 0, None);
        store.call(Database::follow_slice).await.unwrap();
        assert_eq!(released(), 3);
        store.call(Database::follow_slice).await.unwrap();
        assert_eq!(released(), 4);
    })
    .await;
}
