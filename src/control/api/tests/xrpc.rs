//! Public methods.

use super::*;

#[tokio::test]
async fn errors_are_xrpc_json() {
    let fixture = fixture().await;
    for (method, path, status, name) in [
        ("GET", "/xrpc/com.example.unknown", 501, "MethodNotImplemented"),
        ("POST", "/xrpc/com.example.unknown", 501, "MethodNotImplemented"),
        ("GET", "/xrpc/com.atproto.sync.requestCrawl", 405, "MethodNotAllowed"),
        ("POST", SUBSCRIBE, 405, "MethodNotAllowed"),
        ("GET", "/elsewhere", 404, "NotFound"),
        ("GET", "/admin/nothing", 401, "AuthenticationRequired"),
        ("GET", "/xrpc/com.atproto.sync.listHosts?limit=0", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.listHosts?cursor=x", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getHostStatus", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getHostStatus?hostname=x.example.com", 404, "HostNotFound"),
        ("GET", "/xrpc/com.atproto.sync.getRepoStatus?did=x", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getRepoStatus?did=did:plc:x", 404, "RepoNotFound"),
        ("POST", "/xrpc/com.atproto.sync.requestCrawl", 400, "InvalidRequest"),
        ("GET", "/xrpc/%00", 501, "MethodNotImplemented"),
        ("GET", "/xrpc/com.atproto.sync.getRepo?did=did:plc:x", 404, "RepoNotFound"),
        ("GET", "/xrpc/com.atproto.sync.getRepo?did=did:plc:x&since=x", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getRecord?did=did:plc:x", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getBlob?did=did:plc:x&cid=x", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getBlocks?did=did:plc:x", 400, "InvalidRequest"),
        ("GET", "/xrpc/com.atproto.sync.getHead?did=did:plc:x", 400, "HeadNotFound"),
        ("GET", "/xrpc/com.atproto.sync.notifyOfUpdate", 405, "MethodNotAllowed"),
        ("POST", "/xrpc/com.atproto.sync.notifyOfUpdate", 400, "InvalidRequest"),
        ("GET", "/xrpc/", 404, "NotFound"),
    ] {
        let reply = call(&fixture, method, path, "", "").await;
        assert_eq!(reply.error(), (status, name.to_owned()), "{method} {path}");
        assert!(reply.json()["message"].is_string(), "{method} {path}");
    }
}

#[tokio::test]
async fn health_follows_the_stage_and_the_store() {
    let fixture = fixture().await;
    assert_eq!(get(&fixture, "/xrpc/_health").await.json()["status"], "ok");
    *fixture.log.fault.lock().unwrap() = Some(Arc::new("write to /log: no space left".into()));
    for path in ["/_health", "/xrpc/_health"] {
        let reply = get(&fixture, path).await;
        assert_eq!(reply.status, 503);
        assert!(reply.json()["message"].as_str().unwrap().contains("no space left"));
    }
    *fixture.log.fault.lock().unwrap() = None;
    fixture.shared.set_stopping();
    assert_eq!(get(&fixture, "/xrpc/_health").await.status, 503);
    assert_eq!(get(&fixture, SUBSCRIBE).await.status, 503);
    fixture.shared.0.ready.store(true, Ordering::Relaxed);
    fixture.shared.store.close().await.unwrap();
    assert_eq!(get(&fixture, "/_health").await.status, 500);
}

#[tokio::test]
async fn hosts_are_listed_in_pages() {
    let fixture = fixture().await;
    let page = get(&fixture, "/xrpc/com.atproto.sync.listHosts?limit=2").await.json();
    assert_eq!(page["hosts"][0]["hostname"], "a.example.com");
    assert_eq!(page["hosts"].as_array().unwrap().len(), 2);
    let cursor = page["cursor"].as_str().unwrap();
    let path = format!("/xrpc/com.atproto.sync.listHosts?limit=2&cursor={cursor}");
    let page = get(&fixture, &path).await.json();
    assert_eq!(page["hosts"][0]["hostname"], "c.example.com");
    assert!(page.get("cursor").is_none());
    let path = "/xrpc/com.atproto.sync.getHostStatus?hostname=HTTPS://A.Example.com";
    let status = get(&fixture, path).await.json();
    assert_eq!(
        (&status["hostname"], &status["status"]),
        (&"a.example.com".into(), &"active".into())
    );
}

#[tokio::test]
async fn accounts_are_listed_with_their_status() {
    let fixture = fixture().await;
    let state = fixture.shared.store.create_account("did:plc:abc", HostId(1)).await.unwrap();
    let path = "/xrpc/com.atproto.sync.getLatestCommit?did=did:plc:abc";
    assert_eq!(get(&fixture, path).await.error().0, 404);
    let status = get(&fixture, "/xrpc/com.atproto.sync.getRepoStatus?did=did:plc:abc").await.json();
    assert_eq!((&status["active"], status.get("rev")), (&true.into(), None));
    assert_eq!(state.host, HostId(1));
    let cid = "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm";
    for rest in [
        "getRepo?did=did:plc:abc&since=3jzfcijpj2z2a".to_owned(),
        "getCheckout?did=did:plc:abc".to_owned(),
        "getRecord?did=did:plc:abc&collection=app.bsky.feed.post&rkey=self".to_owned(),
        format!("getBlocks?did=did:plc:abc&cids={cid}&cids={cid}"),
        format!("getBlob?did=did:plc:abc&cid={cid}"),
        "listBlobs?did=did:plc:abc&limit=5&cursor=whatever".to_owned(),
    ] {
        let path = format!("/xrpc/com.atproto.sync.{rest}");
        let reply = get(&fixture, &path).await;
        assert_eq!(reply.status, 302, "{path} {}", reply.body);
        let location = format!("location: https://a.example.com{path}\r\n");
        assert!(reply.head.contains(&location), "{}", reply.head);
    }
    let repos = get(&fixture, "/xrpc/com.atproto.sync.listRepos").await.json();
    assert_eq!(repos, serde_json::json!({ "repos": [] }));
}
