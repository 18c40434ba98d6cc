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
            let (state, found) = store.account_by_did("did:plc:a").await.unwrap().unwrap();
            assert_eq!((state.id, found), (account.id, Some(identity.clone())));
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
