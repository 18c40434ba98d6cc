//! The operator's routes.

use super::*;

#[tokio::test]
async fn admin_calls_take_parameters_from_anywhere() {
    let fixture = fixture().await;
    let basic = "Authorization: Basic YWRtaW46c2VjcmV0\r\n";
    for (path, headers, body) in [
        ("/admin/subs/banDomain", BEARER, r#"{"Domain":"One.test"}"#),
        ("/admin/subs/banDomain", basic, r#"{"domain":"two.test"}"#),
        ("/admin/subs/banDomain?domain=three.test", BEARER, ""),
    ] {
        let reply = call(&fixture, "POST", path, headers, body).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"success":"true"}"#));
    }
    let form = format!("{BEARER}Content-Type: application/x-www-form-urlencoded\r\n");
    let reply = call(&fixture, "POST", "/admin/subs/unbanDomain", &form, "domain=two.test").await;
    assert_eq!(reply.status, 200);
    let reply = call(&fixture, "POST", "/admin/subs/banDomain?domain=one.test", BEARER, "").await;
    assert_eq!(reply.error().0, 400);
    let bans = call(&fixture, "GET", "/admin/subs/listDomainBans", BEARER, "").await.json();
    assert_eq!(bans["banned_domains"], serde_json::json!(["one.test", "three.test"]));
    let reply = call(&fixture, "GET", "/admin/subs/listDomainBans", "", "").await;
    assert!(reply.head.to_ascii_lowercase().contains("www-authenticate: basic"));
}

#[tokio::test]
async fn admin_settings_of_hosts_and_crawls_are_kept() {
    let fixture = fixture().await;
    let post = async |path: &str, body: &str| call(&fixture, "POST", path, BEARER, body).await;
    assert_eq!(post("/admin/subs/setEnabled?enabled=false", "").await.status, 200);
    assert_eq!(post("/admin/subs/setPerDayLimit?limit=7", "").await.status, 200);
    assert_eq!(post("/admin/subs/setPerDayLimit?limit=x", "").await.status, 400);
    let enabled = call(&fixture, "GET", "/admin/subs/getEnabled", BEARER, "").await.json();
    assert_eq!(enabled, serde_json::json!({ "enabled": false }));
    let limit = call(&fixture, "GET", "/admin/subs/perDayLimit", BEARER, "").await.json();
    assert_eq!(limit, serde_json::json!({ "limit": 7 }));
    let setting = fixture.shared.store.setting("crawl_enabled").await.unwrap();
    assert_eq!(setting.as_deref(), Some("false"));
    let crawl = r#"{"hostname":"a.example.com"}"#;
    let reply = post("/xrpc/com.atproto.sync.requestCrawl", crawl).await;
    assert_eq!(reply.error(), (403, "Forbidden".to_owned()));

    let limits = r#"{"host":"a.example.com","repo_limit":500,"per_second":9}"#;
    assert_eq!(post("/admin/pds/changeLimits", limits).await.status, 200);
    assert_eq!(post("/admin/pds/changeLimits", r#"{"host":"a.example.com"}"#).await.status, 400);
    let unknown = r#"{"host":"x.example.com","repo_limit":5}"#;
    assert_eq!(post("/admin/pds/changeLimits", unknown).await.error().0, 404);
    assert_eq!(post("/admin/pds/block?host=a.example.com", "").await.status, 200);
    let list = call(&fixture, "GET", "/admin/pds/list", BEARER, "").await.json();
    let host = &list[0];
    assert_eq!(host["Host"], "a.example.com");
    assert_eq!(host["RepoLimit"], 500);
    assert_eq!(host["PerSecondEventRate"]["Max"], 9);
    assert_eq!(host["PerHourEventRate"]["Max"], 3000);
    assert_eq!((&host["Blocked"], &host["Status"]), (&true.into(), &"banned".into()));
    assert_eq!(post("/admin/pds/unblock?host=a.example.com", "").await.status, 200);
    let list = call(&fixture, "GET", "/admin/pds/list?q=A.EX&status=active", BEARER, "").await;
    assert_eq!(list.json()[0]["Blocked"], false);
    let kill = post("/admin/subs/killUpstream?host=a.example.com", "").await;
    assert_eq!(kill.error().0, 400);
    let connected = call(&fixture, "GET", "/admin/subs/getUpstreamConns", BEARER, "").await;
    assert_eq!(connected.body, "[]");
}

#[tokio::test]
async fn who_sends_wrong_keys_has_to_wait() {
    let fixture = fixture().await;
    let ask = async |header: &str| call(&fixture, "GET", "/admin/pds/list", header, "").await;
    for _ in 0..40 {
        assert_eq!(ask("").await.status, 401);
    }
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(ask("Authorization: Bearer wrong\r\n").await.status);
    }
    assert_eq!((statuses[0], statuses[39]), (401, 429), "{statuses:?}");
    let reply = ask(BEARER).await;
    assert_eq!(reply.error(), (429, "RateLimitExceeded".to_owned()));
    assert!(reply.head.to_ascii_lowercase().contains("retry-after: "), "{}", reply.head);
}

#[tokio::test]
async fn settings_hold_at_once_and_after_a_restart() {
    let fixture = fixture().await;
    let post = async |body: &str| call(&fixture, "POST", "/admin/settings", BEARER, body).await;
    let read = async || call(&fixture, "GET", "/admin/settings", BEARER, "").await.json();
    let before = read().await;
    assert_eq!(before["replay_window_seconds"], 72 * 3600);
    assert_eq!(before["strictness"], "strict");
    for wrong in [
        "{}",
        r#"{"strictness":"loose"}"#,
        r#"{"replay_window_seconds":5}"#,
        r#"{"max_consumers":-1}"#,
    ] {
        assert_eq!(post(wrong).await.error(), (400, "InvalidRequest".to_owned()), "{wrong}");
    }
    assert_eq!(read().await, before);
    let all = serde_json::json!({
        "crawl_enabled": false, "new_hosts_per_day": 3, "strictness": "lenient",
        "replay_window_seconds": 3600, "replay_bytes": 1000, "max_consumers": 7,
        "max_consumers_per_address": 2, "max_connections_per_address": 50,
        "discovery_interval_seconds": 90,
    });
    assert_eq!(post(&all.to_string()).await.status, 200);
    assert_eq!(read().await, all);
    assert_eq!(post(r#"{"replay_bytes":0}"#).await.status, 200);
    // What a new process does with the same database.
    fixture.shared.consumers.set_limits(ConsumerLimits { all: 10, per_address: None });
    fixture.shared.hosts.set_crawl(Some(true), Some(50)).await.unwrap();
    restore_settings(&fixture.shared).await.unwrap();
    let mut expected = all;
    expected["replay_bytes"] = 0.into();
    assert_eq!(read().await, expected);
}

#[tokio::test]
async fn the_document_names_the_routes_and_their_keys() {
    let fixture = fixture().await;
    let document = get(&fixture, "/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let crawl = &document["paths"]["/admin/pds/requestCrawl"]["post"];
    assert_eq!(crawl["security"][0], serde_json::json!({ "bearer": [] }));
    let list = &document["paths"]["/xrpc/com.atproto.sync.listHosts"]["get"];
    assert!(list.get("security").is_none());
    assert!(list["responses"].get("default").is_some());
    assert!(get(&fixture, "/").await.body.contains("/openapi.json"));
    // What it names is there.
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = method.to_ascii_uppercase();
            let status = call(&fixture, &method, path, BEARER, "").await.status;
            assert!(![0, 404, 405, 501].contains(&status), "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn a_relay_without_mirror_says_so() {
    let fixture = fixture().await;
    for (method, path) in [
        ("POST", "/admin/repo/compactAll"),
        ("POST", "/admin/repo/compact?did=did:plc:x&fast=true"),
        ("POST", "/admin/repo/reset"),
        ("POST", "/admin/repo/verify"),
        ("GET", "/admin/pds/resync?host=a.example.com"),
        ("POST", "/admin/pds/resync?host=a.example.com"),
    ] {
        let reply = call(&fixture, method, path, BEARER, "").await;
        assert_eq!(reply.error(), (400, "MirrorDisabled".to_owned()), "{method} {path}");
    }
}
