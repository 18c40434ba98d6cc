//! `com.atproto.sync.subscribeRepos`: the handshake, after which the socket leaves for a shard.

use axum::{
    body::Body,
    extract::{Query, Request, State},
    response::Response,
};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use ports::{ConsumerId, ConsumerSocket, ConsumerStart, ShardCommand, ShardId};
use tungstenite::handshake::server::create_response_with_body;

use super::{
    Shared,
    client::{self, Client},
    consumer::TooMany,
    reply::ApiError,
    server::Peer,
    socket::Socket,
};

/// `GET /xrpc/com.atproto.sync.subscribeRepos?cursor=`.
pub(crate) async fn subscribe_repos(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Response, ApiError> {
    // The router sends HEAD here as well; a stream has no head of its own.
    if request.method() != Method::GET {
        return Err(ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "a stream is opened with GET",
        ));
    }
    if !shared.is_ready() {
        return Err(not_ready());
    }
    check_upgrade(request.headers())?;
    let cursor = cursor(request.uri())?;
    accept(&shared, request, cursor)
}

fn accept(
    shared: &Shared,
    mut request: Request,
    cursor: Option<u64>,
) -> Result<Response, ApiError> {
    let response: Response = create_response_with_body(&request, Body::empty)
        .map_err(|error| ApiError::invalid(format!("not a WebSocket handshake: {error}")))?;
    let Client(client) = client::of(shared, request.extensions(), request.headers())?;
    let Peer(peer) = *request.extensions().get::<Peer>().ok_or_else(ApiError::internal)?;
    let added = shared.consumers.add(client, request.headers(), cursor, crate::unix_now());
    let (id, shard) = added.map_err(too_many)?;
    // Before the reply: whatever comes after it is for the consumer.
    let newest = shared.log.bounds().newest;
    let start = cursor.map_or(ConsumerStart::Live(newest), ConsumerStart::Cursor);
    let upgrade = hyper::upgrade::on(&mut request);
    let shared = shared.clone();
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => hand_over(&shared, upgraded, (id, shard), start, peer),
            Err(error) => {
                tracing::debug!(%error, consumer = id.0, "the upgrade did not happen");
                shared.consumers.remove(id);
            }
        }
    });
    Ok(response)
}

/// Takes the socket out of the HTTP server and gives it to a shard.
fn hand_over(
    shared: &Shared,
    upgraded: hyper::upgrade::Upgraded,
    (id, shard): (ConsumerId, ShardId),
    start: ConsumerStart,
    remote: std::net::SocketAddr,
) {
    let taken = upgraded
        .downcast::<TokioIo<Socket>>()
        .map_err(|_other| std::io::Error::other("not a TCP connection"))
        .and_then(|parts| Ok((parts.io.into_inner().into_stream().into_std()?, parts.read_buf)));
    match taken {
        Ok((stream, received)) => {
            tracing::info!(consumer = id.0, %remote, ?start, shard = shard.0, "consumer connected");
            let socket = ConsumerSocket { id, stream, received: received.to_vec(), start, remote };
            shared.shards.send(shard, ShardCommand::Consumer(Box::new(socket)));
        }
        Err(error) => {
            tracing::warn!(%error, consumer = id.0, "a consumer's socket could not be handed over");
            shared.consumers.remove(id);
        }
    }
}

fn too_many(which: TooMany) -> ApiError {
    let (status, message) = match which {
        TooMany::All => (
            StatusCode::SERVICE_UNAVAILABLE,
            "this relay serves as many consumers as it may; try again later or elsewhere",
        ),
        TooMany::OfAddress => (
            StatusCode::TOO_MANY_REQUESTS,
            "as many consumers as may be are connected from this address",
        ),
    };
    ApiError::new(status, "TooManyConsumers", message).retry_after(60)
}

fn not_ready() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "NotReady",
        "the relay is starting or stopping; try again in a moment",
    )
    .retry_after(2)
}

/// Without an `Upgrade` header the client does not know that this is a stream, and with another
/// version than the one there is it could not read it: 426 tells it.
fn check_upgrade(headers: &HeaderMap) -> Result<(), ApiError> {
    let message = if !headers.contains_key(header::UPGRADE) {
        "this is an event stream: connect with a WebSocket client"
    } else if headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version != "13") {
        "the version of the WebSocket protocol is 13"
    } else {
        return Ok(());
    };
    Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, "UpgradeRequired", message))
}

/// The cursor: digits and nothing else. Whoever sends one that can't be meant should hear of it, rather
/// than get a stream that begins elsewhere.
fn cursor(uri: &Uri) -> Result<Option<u64>, ApiError> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| ApiError::invalid(format!("the query can't be read: {error}")))?;
    let mut given = pairs.into_iter().filter(|(name, _)| name == "cursor");
    let Some((_, text)) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(ApiError::invalid("\"cursor\" is given more than once"));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ApiError::invalid("\"cursor\" must be a number of 0 or more"));
    }
    text.parse::<u64>()
        .map(Some)
        .map_err(|_too_great| ApiError::invalid("\"cursor\" is greater than any sequence number"))
}

#[cfg(test)]
mod tests {
    use super::cursor;

    #[test]
    fn cursors_are_numbers_of_zero_or_more() {
        let read = |query: &str| cursor(&format!("/xrpc/x?{query}").parse().unwrap());
        for (query, expected) in [
            ("", None),
            ("curso=1", None),
            ("cursor=0", Some(0)),
            ("cursor=007", Some(7)),
            ("a=b&cursor=17", Some(17)),
            ("cursor=%31%37", Some(17)),
            ("%63ursor=17", Some(17)),
            ("cursor=18446744073709551615", Some(u64::MAX)),
        ] {
            assert_eq!(read(query).unwrap(), expected, "{query}");
        }
        for bad in [
            "cursor=",
            "cursor",
            "cursor=-1",
            "cursor=+1",
            "cursor=%201",
            "cursor=1%00",
            "cursor=x",
            "cursor=1.0",
            "cursor=1e3",
            "cursor=0x10",
            "cursor=%d9%a1",
            "cursor=99999999999999999999",
            "cursor=1&cursor=2",
            "cursor=&cursor=2",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
