//! Changes on their way to siblings that are well, down, or refuse.

use std::time::Duration;

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use tokio::sync::mpsc;

use super::*;
use crate::store::DatabaseUrl;

/// What a sibling got: path, body, `Via`, `Authorization`.
type Got = (String, String, String, String);

#[derive(Clone)]
struct Sibling {
    got: mpsc::UnboundedSender<Got>,
    /// The next replies; then 200.
    replies: Arc<Mutex<Vec<(u16, &'static str)>>>,
}

async fn take(State(sibling): State<Sibling>, request: Request) -> Response {
    let (via, key) = {
        let text = |name: &str| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        (text("via"), text("authorization"))
    };
    let path = request.uri().to_string();
    let body = axum::body::to_bytes(request.into_body(), 1 << 16).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    sibling.got.send((path, body, via, key)).unwrap();
    let mut replies = sibling.replies.lock().unwrap();
    if replies.is_empty() {
        return "{}".into_response();
    }
    let (status, body) = replies.remove(0);
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

/// A sibling that gives these replies first, its address, and what it gets.
async fn sibling(
    replies: &[(u16, &'static str)],
) -> (SiblingAddress, mpsc::UnboundedReceiver<Got>) {
    let (sender, got) = mpsc::unbounded_channel();
    let replies = Arc::new(Mutex::new(replies.to_vec()));
    let router = Router::new().fallback(take).with_state(Sibling { got: sender, replies });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    (SiblingAddress::parse(&address).unwrap(), got)
}

fn store() -> Store {
    Store::open(&DatabaseUrl::Memory).unwrap()
}

async fn start(addresses: &[SiblingAddress], store: &Store) -> Siblings {
    let pace = PaceConfig { first: Duration::from_millis(5), longest: Duration::from_millis(20) };
    let config = SiblingsConfig::new(addresses.iter().cloned(), Some("our key".to_owned()));
    Siblings::start(SiblingsConfig { pace, ..config }, store.clone()).await.unwrap()
}

fn change(path: &str, kind: Kind) -> Change {
    Change { path: path.to_owned(), body: r#"{"a":1}"#.to_owned(), kind }
}

async fn state_where(siblings: &Siblings, is: impl Fn(&SiblingState) -> bool) -> SiblingState {
    loop {
        let state = siblings.state().remove(0);
        if is(&state) {
            return state;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn changes_arrive_in_order_and_again_until_they_are_made() {
    let refusal = r#"{"error":"DomainBanned","message":"already"}"#;
    let (address, mut got) = sibling(&[(503, ""), (500, ""), (200, ""), (400, refusal)]).await;
    let siblings = start(std::slice::from_ref(&address), &store()).await;
    for path in ["/one", "/two", "/three"] {
        siblings.pass_on(change(path, Kind::Admin), None).await.unwrap();
    }
    let mut paths = Vec::new();
    let mut numbers = Vec::new();
    for _ in 0..5 {
        let (path, body, via, key) = got.recv().await.unwrap();
        assert_eq!((body.as_str(), key.as_str()), (r#"{"a":1}"#, "Basic YWRtaW46b3VyIGtleQ=="));
        let mut headers = http::HeaderMap::new();
        headers.insert("via", via.parse().unwrap());
        let Arrival::Relayed(way) = Arrival::of(&headers) else { panic!("{via}") };
        assert!(siblings.is_known(&way));
        paths.push(path);
        numbers.push(way.number);
    }
    assert_eq!(paths, ["/one", "/one", "/one", "/two", "/three"]);
    assert!(numbers[0] == numbers[2] && numbers[2] < numbers[3] && numbers[3] < numbers[4]);
    let state = state_where(&siblings, |state| state.queued == 0).await;
    assert_eq!((state.delivered, state.refused, state.failures), (2, 1, 0));
    assert!(state.last_error.unwrap().contains("DomainBanned"));
    assert_eq!(state.sibling, address.origin());
}

#[tokio::test]
async fn a_sibling_that_is_down_holds_up_no_other_and_gets_all_after_a_restart() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let down = SiblingAddress::parse(&format!("http://{}", gone.local_addr().unwrap())).unwrap();
    drop(gone);
    let (up, mut got) = sibling(&[]).await;
    let store = store();
    let siblings = start(&[down.clone(), up], &store).await;
    for path in ["/one", "/two"] {
        siblings.pass_on(change(path, Kind::Admin), None).await.unwrap();
        assert_eq!(got.recv().await.unwrap().0, path);
    }
    let state = state_where(&siblings, |state| state.failures > 2).await;
    assert_eq!((state.queued, state.delivered), (2, 0));
    assert!(state.next_attempt_at.is_some() && state.oldest_at.is_some());

    // Another process on the same database, when the sibling is there again.
    let (again, mut got) = sibling(&[]).await;
    let origin = down.origin().to_owned();
    let row = store.sibling_head(&origin).await.unwrap().unwrap();
    assert!(row.attempts > 2 && row.path == "/one", "{row:?}");
    let restarted = start(&[down], &store).await;
    assert_eq!(restarted.0.id, siblings.0.id);
    assert_eq!(restarted.state()[0].queued, 2);
    let next = start(&[again], &store).await;
    next.pass_on(change("/three", Kind::Admin), None).await.unwrap();
    assert_eq!(got.recv().await.unwrap().0, "/three");
}

#[tokio::test]
async fn a_change_is_taken_once_and_goes_on_with_its_way() {
    let (address, mut got) = sibling(&[]).await;
    let store = store();
    let siblings = start(&[address], &store).await;
    let way = Way::begin(RelayId(7), 100).extended(RelayId(8)).unwrap();
    assert!(!siblings.is_known(&way));
    siblings.pass_on(change("/one", Kind::Admin), Some(&way)).await.unwrap();
    let via = got.recv().await.unwrap().2;
    assert_eq!(via, format!("{way}, 1.1 atproto-relay-{}", siblings.0.id));
    assert!(siblings.is_known(&way) && siblings.is_known(&Way::begin(RelayId(7), 99)));
    assert!(!siblings.is_known(&Way::begin(RelayId(7), 101)));
    // The same from elsewhere is not sent again.
    siblings
        .pass_on(change("/one", Kind::Admin), Some(&Way::begin(RelayId(7), 100)))
        .await
        .unwrap();
    siblings.pass_on(change("/two", Kind::Admin), None).await.unwrap();
    assert_eq!(got.recv().await.unwrap().0, "/two");
    assert!(start(&[], &store).await.is_known(&way));
}

#[tokio::test]
async fn a_way_that_is_long_enough_ends_here() {
    let (address, mut got) = sibling(&[]).await;
    let siblings = start(&[address], &store()).await;
    let mut way = Way::begin(RelayId(7), 100);
    for relay in 1..via::HOPS_MAX as u64 {
        way = way.extended(RelayId(relay)).unwrap();
    }
    siblings.pass_on(change("/one", Kind::Admin), Some(&way)).await.unwrap();
    siblings.pass_on(change("/two", Kind::Admin), None).await.unwrap();
    assert_eq!(got.recv().await.unwrap().0, "/two");
    assert!(siblings.is_known(&way));
}

#[tokio::test]
async fn strangers_fill_a_small_part_of_a_queue_and_repeat_nothing() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let down = SiblingAddress::parse(&format!("http://{}", gone.local_addr().unwrap())).unwrap();
    let siblings = start(&[down], &store()).await;
    for number in 0..CRAWLS_MAX + 5 {
        for _again in 0..2 {
            siblings.pass_on(change(&format!("/{number}"), Kind::Crawl), None).await.unwrap();
        }
    }
    let state = siblings.state().remove(0);
    assert_eq!((state.queued, state.dropped), (CRAWLS_MAX, 5));
    siblings.pass_on(change("/mine", Kind::Admin), None).await.unwrap();
    assert_eq!(siblings.state()[0].queued, CRAWLS_MAX + 1);
}
