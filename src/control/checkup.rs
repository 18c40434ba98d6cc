//! A look at a host as the relay would meet it, for `relayered check-host`: name, addresses,
//! `describeServer`, the stream and its first event. Needs no relay.

use std::time::Duration;

use bytes::BytesMut;
use protocol::frame::{self, Skim};
use serde_json::Value;
use tokio::{io::AsyncReadExt as _, time::timeout};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

use crate::dial::{DialConfig, DialPolicy, Dialer, FetchError, HostAddress, HttpClient, Reach};

const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
const REPLY_BYTES_MAX: usize = 64 * 1024;
/// A quiet host has nothing to send.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);
const MESSAGE_BYTES_MAX: u64 = 5_000_000;

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: &'static str,
    /// What was found, or what is wrong.
    pub result: Result<String, String>,
}

/// Looks at one thing after the other, up to the first that is wrong.
pub async fn check_host(text: &str, policy: DialPolicy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut note = |what, result: &Result<String, String>| {
        findings.push(Finding { what, result: result.clone() });
        result.is_ok()
    };
    let address = match name(text, &policy) {
        Ok(address) => address,
        Err(problem) => {
            note("name", &Err(problem));
            return findings;
        }
    };
    let dialer = Dialer::new(DialConfig { policy, ..DialConfig::default() });
    let looks =
        [("name", Ok(address.http_origin())), ("addresses", addresses(&dialer, &address).await)];
    if !looks.iter().all(|(what, result)| note(what, result)) {
        return findings;
    }
    let client = match HttpClient::new(Reach::Guarded(dialer), REPLY_TIMEOUT, REPLY_BYTES_MAX) {
        Ok(client) => client,
        Err(error) => {
            note("describeServer", &Err(error.to_string()));
            return findings;
        }
    };
    if note("describeServer", &describe(&client, &address).await) {
        note("subscribeRepos", &stream(&client, &address).await);
    }
    findings
}

fn name(text: &str, policy: &DialPolicy) -> Result<HostAddress, String> {
    let address = HostAddress::parse(text).map_err(|error| error.to_string())?;
    address.check(policy, true).map_err(|error| error.to_string())?;
    Ok(address)
}

async fn addresses(dialer: &Dialer, address: &HostAddress) -> Result<String, String> {
    let found = dialer.resolve(address.name(), address.port()).await;
    let found = found.map_err(|error| error.to_string())?;
    Ok(found.iter().map(|one| one.ip().to_string()).collect::<Vec<_>>().join(", "))
}

async fn describe(client: &HttpClient, address: &HostAddress) -> Result<String, String> {
    let url = format!("{}/xrpc/com.atproto.server.describeServer", address.http_origin());
    let reply = client.get(&url).await.map_err(|error| error.to_string())?;
    if reply.is_relay() {
        return Err("it is a relay, not a PDS".to_owned());
    }
    if !reply.is_success() {
        return Err(format!("HTTP status {}", reply.status));
    }
    let Ok(Value::Object(server)) = serde_json::from_slice(&reply.body) else {
        return Err("the reply is not a JSON object".to_owned());
    };
    let text = |name: &str| server.get(name).and_then(Value::as_str);
    Ok(match text("did") {
        Some(did) => shown(did),
        None => "it does not tell its DID".to_owned(),
    })
}

/// Opens the stream from its beginning, which brings the oldest event that the host keeps.
async fn stream(client: &HttpClient, address: &HostAddress) -> Result<String, String> {
    let url = format!("{}/xrpc/com.atproto.sync.subscribeRepos?cursor=0", address.http_origin());
    let mut socket = client.open_websocket(&url).await.map_err(|error| match error {
        FetchError::Transport(reason) => reason,
        other => other.to_string(),
    })?;
    match timeout(EVENT_TIMEOUT, first_message(&mut socket)).await {
        Err(_silent) => Ok("it opens; no event came in 5 s".to_owned()),
        Ok(Err(problem)) => Err(problem),
        Ok(Ok(message)) => first_event(&message),
    }
}

fn first_event(message: &[u8]) -> Result<String, String> {
    match frame::skim(message) {
        Ok(Skim::Event { kind, did, seq }) => {
            Ok(format!("first event: seq {seq}, {kind:?} of {}", shown(did)))
        }
        Ok(Skim::Info { name, .. }) => Ok(format!("it opens; #info {}", shown(name))),
        Ok(Skim::Error { error, .. }) => Err(format!("it opens and ends with {}", shown(error))),
        Ok(Skim::Unknown { .. }) => Err("the first message is of no known kind".to_owned()),
        Err(error) => Err(format!("the first message is no event: {error:?}")),
    }
}

async fn first_message(
    socket: &mut (impl tokio::io::AsyncRead + Unpin),
) -> Result<Vec<u8>, String> {
    let mut buffer = BytesMut::new();
    loop {
        let header = FrameHeader::parse(&mut std::io::Cursor::new(&buffer[..]))
            .map_err(|error| format!("the stream is no WebSocket: {error}"))?;
        if let Some((header, length)) = header {
            if length > MESSAGE_BYTES_MAX {
                return Err(format!("a message of {length} bytes"));
            }
            let begin = header.len(length);
            let end = begin + length as usize;
            if buffer.len() >= end {
                let payload = buffer.split_to(end).split_off(begin);
                match header.opcode {
                    OpCode::Data(Data::Binary) => return Ok(payload.to_vec()),
                    OpCode::Data(_) => return Err("a message that is not binary".to_owned()),
                    // A ping needs no answer in so short a time.
                    OpCode::Control(_) => continue,
                }
            }
        }
        if socket.read_buf(&mut buffer).await.map_err(|error| error.to_string())? == 0 {
            return Err("the stream ended before an event came".to_owned());
        }
    }
}

/// What a stranger wrote, fit for a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_message_is_found_behind_pings_and_in_pieces() {
        let mut reader: &[u8] = &[0x89, 2, 1, 2, 0x82, 3, 7, 8, 9, 0x82, 1];
        assert_eq!(first_message(&mut reader).await.unwrap(), [7, 8, 9]);
        for bad in [
            &[0x81, 1, b'x'][..],
            &[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            &[0x82, 3, 7],
            &[],
            b"HTTP/1.1 200",
        ] {
            let mut reader = bad;
            assert!(first_message(&mut reader).await.is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_bad_name_is_the_only_finding() {
        let findings = check_host("https://10.0.0.1/", DialPolicy::default()).await;
        assert_eq!(findings.len(), 1);
        assert!(findings[0].what == "name" && findings[0].result.is_err());
        let findings = check_host("localhost:1", DialPolicy::default()).await;
        assert!(findings.len() == 1 && findings[0].result.is_err());
    }
}
