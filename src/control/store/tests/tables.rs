//! Tables and their calls.

use ecdsa::VerifyingKey;

use super::*;

#[tokio::test]
async fn hosts_are_inserted_once_and_patched() {
    on_both(async |fresh| {
        let store = fresh.open();
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
    })
    .await;
}

#[tokio::test]
async fn accounts_are_created_once_and_counted() {
    on_both(async |fresh| {
        let store = fresh.open();
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        let first = store.create_account("did:plc:a", host).await.unwrap();
        assert_eq!(store.create_account("did:plc:a", HostId(9)).await.unwrap(), first);
        assert_eq!(first.upstream, UpstreamStatus::ACTIVE);
        assert_eq!(store.hosts().await.unwrap()[0].account_count, 1);
        assert!(store.account_by_did("did:plc:b").await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn identities_are_kept_for_known_accounts_only() {
    on_both(async |fresh| {
        let store = fresh.open();
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
            let found = store.account_as_of("did:plc:a", RelaySeq(0)).await.unwrap();
            let expected = (Some(account), Some(identity.clone()));
            assert_eq!((found.state, found.identity), expected);
            store.call(Database::flush_identities).await.unwrap();
        }
        let count = store.call(|database| database.value("SELECT count(*) FROM identity", &[]));
        let count: Option<u64> = count.await.unwrap();
        assert_eq!(count, Some(1));
    })
    .await;
}

#[tokio::test]
async fn settings_and_bans() {
    on_both(async |fresh| {
        let store = fresh.open();
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
    })
    .await;
}

fn names(rows: &[AccountRow]) -> Vec<&str> {
    rows.iter().map(|row| row.did.as_str()).collect()
}

#[tokio::test]
async fn accounts_above_the_limit_wait_for_places() {
    on_both(async |fresh| {
        let store = fresh.open();
        let host = NewHost { account_limit: 2, ..new_host("a.example") };
        let host = store.insert_host(host).await.unwrap().id;
        let mut locals = Vec::new();
        for did in ["did:plc:a", "did:plc:b", "did:plc:c", "did:plc:d"] {
            locals.push(store.create_account(did, host).await.unwrap().local);
        }
        use LocalStatus::{Active, Throttled};
        assert_eq!(locals, [Active, Active, Throttled, Throttled]);
        assert_eq!(store.host(host).await.unwrap().account_count, 2);
        assert_eq!(store.hosts_with_places().await.unwrap(), []);
        let patch = HostPatch { account_limit: Some(3), ..HostPatch::default() };
        store.update_host(host, patch).await.unwrap();
        assert_eq!(store.hosts_with_places().await.unwrap(), [(host, 1)]);
        let oldest = store.throttled_oldest(host, 1).await.unwrap();
        assert_eq!(names(&oldest), ["did:plc:c"]);
        // Twice: the second time nothing changes.
        for _ in 0..2 {
            let set = store.set_local("did:plc:c", LocalChange::Place).await.unwrap().unwrap();
            assert_eq!((set.row.state.host, set.row.state.local), (host, Active));
            assert_eq!(store.host(host).await.unwrap().account_count, 3);
        }
        let counts = store.account_counts(host).await.unwrap();
        assert_eq!((counts.all, counts.counted, counts.throttled), (4, 3, 1));
    })
    .await;
}

#[tokio::test]
async fn a_wrong_count_is_corrected() {
    on_both(async |fresh| {
        let store = fresh.open();
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        store.create_account("did:plc:a", host).await.unwrap();
        let spoil = |database: &mut Database| {
            database.sql.execute("UPDATE host SET account_count = 77", &[]).map(drop)
        };
        store.call(spoil).await.unwrap();
        assert_eq!(store.account_counts(host).await.unwrap().counted, 1);
        assert_eq!(store.host(host).await.unwrap().account_count, 1);
    })
    .await;
}

#[tokio::test]
async fn take_downs_are_listed_in_pages_and_can_come_ahead() {
    on_both(async |fresh| {
        let store = fresh.open();
        let host = store.insert_host(new_host("a.example")).await.unwrap().id;
        store.create_account("did:plc:a", host).await.unwrap();
        let down = |ahead| LocalChange::TakeDown { ahead };
        assert_eq!(store.set_local("did:plc:b", down(false)).await.unwrap(), None);
        assert!(store.set_local("did:plc:a", down(false)).await.unwrap().unwrap().changed);
        assert!(!store.set_local("did:plc:a", down(false)).await.unwrap().unwrap().changed);
        let ahead = store.set_local("did:plc:b", down(true)).await.unwrap().unwrap().row.state;
        assert_eq!((ahead.host, ahead.local), (HostId::RELAY, LocalStatus::Takendown));
        // Only a reversal undoes it.
        assert!(!store.set_local("did:plc:a", LocalChange::Place).await.unwrap().unwrap().changed);
        let page = store.takedowns_after(AccountId(0), 1).await.unwrap();
        assert_eq!(names(&page), ["did:plc:a"]);
        let page = store.takedowns_after(page[0].state.id, 5).await.unwrap();
        assert_eq!(names(&page), ["did:plc:b"]);
    })
    .await;
}

#[tokio::test]
async fn hosts_are_listed_in_pages() {
    on_both(async |fresh| {
        let store = fresh.open();
        let mut ids = Vec::new();
        for name in ["a.example", "b_c.example", "bxc.example", "d.test"] {
            ids.push(store.insert_host(new_host(name)).await.unwrap().id);
        }
        let patch = HostPatch {
            status: Some((HostStatus::Banned, None)),
            memory: Some(HostMemory { failures: 3, well_formed: 9, ..HostMemory::default() }),
            ..HostPatch::default()
        };
        let patched = store.update_host(ids[3], patch).await.unwrap();
        assert_eq!((patched.memory.failures, patched.memory.well_formed), (3, 9));
        let page = async |filter: HostFilter, after: HostId, count: usize| {
            let rows = store.hosts_page(filter, after, count).await.unwrap();
            rows.iter().map(|row| row.id).collect::<Vec<_>>()
        };
        let all = HostFilter::default;
        assert_eq!(page(all(), HostId(0), 2).await, ids[..2]);
        assert_eq!(page(all(), ids[1], 9).await, ids[2..]);
        // A wildcard in the text stands for itself.
        let text = HostFilter { text: Some("B_".into()), ..all() };
        assert_eq!(page(text, HostId(0), 9).await, [ids[1]]);
        let banned = HostFilter { status: Some(HostStatus::Banned), ..all() };
        assert_eq!(page(banned, HostId(0), 9).await, [ids[3]]);
        let heard = HostFilter { heard: true, ..all() };
        assert_eq!(page(heard, HostId(0), 9).await, ids[..3]);
    })
    .await;
}

#[tokio::test]
async fn collections_are_noted_once_and_listed_in_pages() {
    on_both(async |fresh| {
        let store = fresh.open();
        let a = store.create_account("did:plc:a", HostId(1)).await.unwrap().id;
        let b = store.create_account("did:plc:b", HostId(1)).await.unwrap().id;
        for _ in 0..2 {
            let seen = vec![
                (a, Box::from("app.test.post")),
                (b, Box::from("app.test.post")),
                (b, Box::from("app.test.like")),
                (b, Box::from("app.test.like")),
            ];
            store.collections_add(seen).await.unwrap();
        }
        let page = async |nsid: &str, after: u64, count: usize| {
            let rows = store.accounts_by_collection(nsid, AccountId(after), count).await.unwrap();
            rows.into_iter().map(|row| row.did).collect::<Vec<_>>()
        };
        assert_eq!(page("app.test.post", 0, 1).await, ["did:plc:a"]);
        assert_eq!(page("app.test.post", a.0, 9).await, ["did:plc:b"]);
        assert_eq!(page("app.test.like", 0, 9).await, ["did:plc:b"]);
        assert!(page("app.test.none", 0, 9).await.is_empty());
        store.collections_forget(b).await.unwrap();
        assert_eq!(page("app.test.post", 0, 9).await, ["did:plc:a"]);
    })
    .await;
}

#[tokio::test]
async fn the_audit_log_and_lists_of_names() {
    on_both(async |fresh| {
        let store = fresh.open();
        for action in ["ban", "unban", "block"] {
            // PostgreSQL stores no zero byte in a text.
            let subject = "a\0b".to_owned();
            let entry = AuditEntry { action: action.into(), subject, ..AuditEntry::default() };
            store.audit_append(entry).await.unwrap();
        }
        let newest = store.audit_list(None, 2).await.unwrap();
        let actions: Vec<&str> = newest.iter().map(|row| row.entry.action.as_str()).collect();
        assert_eq!(actions, ["block", "unban"]);
        let rest = store.audit_list(Some(newest[1].id), 9).await.unwrap();
        assert_eq!((rest.len(), rest[0].entry.action.as_str()), (1, "ban"));

        assert!(store.trust_domain("b.example").await.unwrap());
        assert!(!store.trust_domain("b.example").await.unwrap());
        assert_eq!(store.trusted_domains().await.unwrap(), ["b.example"]);
        assert!(store.untrust_domain("b.example").await.unwrap());

        let far = unix_now() + 1000;
        store.refuse_host("x.example", "no PDS", far).await.unwrap();
        store.refuse_host("x.example", "no answer", far).await.unwrap();
        let refused = store.refused_host("x.example").await.unwrap().unwrap();
        assert_eq!((refused.times, refused.reason.as_str()), (2, "no answer"));
        assert_eq!(store.refused_hosts("", 9).await.unwrap(), [refused]);
        store.unrefuse_host("x.example").await.unwrap();
        assert_eq!(store.refused_host("x.example").await.unwrap(), None);
        let seen = Discovery { relay: "https://r".into(), hosts_seen: 7, ..Discovery::default() };
        store.save_discovery(seen.clone()).await.unwrap();
        assert_eq!(store.discoveries().await.unwrap(), [seen]);
    })
    .await;
}

#[tokio::test]
async fn documents_of_an_export_are_there_before_their_accounts() {
    on_both(async |fresh| {
        let store = fresh.open();
        store.create_account("did:plc:a", HostId(1)).await.unwrap();
        let document = |host: &str, fetched_at: u64| StoredIdentity {
            key: None,
            pds: Some(host.into()),
            pds_tls: true,
            handle: None,
            fetched_at,
        };
        let both = |host: &str, at: u64| {
            vec![
                ("did:plc:a".to_owned(), document(host, at)),
                ("did:plc:b".to_owned(), document(host, at)),
            ]
        };
        assert_eq!(store.identities_import(both("new.example", 9)).await.unwrap(), 2);
        // What was fetched later stays.
        assert_eq!(store.identities_import(both("old.example", 5)).await.unwrap(), 0);
        for did in ["did:plc:a", "did:plc:b"] {
            let found = store.account_as_of(did, RelaySeq(0)).await.unwrap();
            assert_eq!(found.identity, Some(document("new.example", 9)), "{did}");
            assert_eq!(found.state.is_some(), did == "did:plc:a");
        }
        store.create_account("did:plc:b", HostId(1)).await.unwrap();
        let found = store.account_as_of("did:plc:b", RelaySeq(0)).await.unwrap();
        assert_eq!(found.identity, Some(document("new.example", 9)));
    })
    .await;
}
