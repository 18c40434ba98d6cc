//! Requests to crawl a host: who may ask for what, and what is answered.

use std::{fmt, net::IpAddr, time::Duration};

use crate::dial::{FetchError, Fetched, HostAddress, HostnameError, HttpClient};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Anybody, through `com.atproto.sync.requestCrawl`.
    Public,
    /// The same, from this address: each client has its own pace.
    Client(IpAddr),
    /// The list of a relay that the operator trusts to tell of hosts: no daily limit and no switch.
    Discovery,
    /// The operator: the same, and hosts without TLS.
    Admin,
}

impl Caller {
    /// Whether the limits for strangers hold.
    pub(super) fn is_stranger(self) -> bool {
        !matches!(self, Self::Discovery | Self::Admin)
    }
}

/// After which a request makes sense again that the database was needed for.
const AWAY_PAUSE: Duration = Duration::from_secs(5);

/// What a request led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crawl {
    /// A connection stands or is being made: nothing was to be done.
    Connected,
    /// The host was known, an attempt is made now.
    Retried,
    /// The host is new.
    Added,
}

/// Why a request is refused. Nothing remains of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrawlRefusal {
    Hostname(HostnameError),
    /// Requests from the public are switched off.
    Disabled,
    Banned,
    /// The host answers no `describeServer`.
    Unreachable(String),
    /// The host is a relay.
    Relay,
    /// The limit of new hosts a day is used up, or too many requests are being looked at.
    RateLimited {
        retry_after: Duration,
    },
    /// The host is left alone for a while, for what it has sent.
    Quarantined {
        retry_after: Duration,
    },
    /// The store failed.
    Internal(String),
    /// The database can't be asked at present.
    Away(String),
}

impl CrawlRefusal {
    pub(super) fn limited(retry_after: Duration) -> Self {
        Self::RateLimited { retry_after }
    }

    /// The error name of the XRPC reply.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hostname(_) => "InvalidRequest",
            Self::Disabled => "Forbidden",
            Self::Banned => "HostBanned",
            Self::Unreachable(_) | Self::Relay => "HostNotFound",
            Self::RateLimited { .. } | Self::Quarantined { .. } => "RateLimitExceeded",
            Self::Internal(_) => "InternalServerError",
            Self::Away(_) => "ServiceUnavailable",
        }
    }

    /// The HTTP status of the reply.
    pub fn status(&self) -> u16 {
        match self {
            Self::Hostname(_) | Self::Unreachable(_) | Self::Relay => 400,
            Self::Disabled | Self::Banned => 403,
            Self::RateLimited { .. } | Self::Quarantined { .. } => 429,
            Self::Internal(_) => 500,
            Self::Away(_) => 503,
        }
    }

    /// For the `Retry-After` header.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Quarantined { retry_after } => {
                Some(*retry_after)
            }
            Self::Away(_) => Some(AWAY_PAUSE),
            _ => None,
        }
    }
}

impl fmt::Display for CrawlRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hostname(error) => error.fmt(f),
            Self::Disabled => f.write_str("this relay takes no requests to crawl at present"),
            Self::Banned => f.write_str("this host is banned"),
            Self::Unreachable(reason) => {
                write!(f, "the host does not answer com.atproto.server.describeServer: {reason}")
            }
            Self::Relay => f.write_str("the host is a relay, not a PDS"),
            Self::RateLimited { .. } => f.write_str(
                "too many requests, or no more new hosts for today; hosts that are connected are \
                 not affected",
            ),
            Self::Quarantined { .. } => f.write_str(
                "the host is in quarantine for what it has sent, and is connected again after it",
            ),
            // The particulars are for the log, not for strangers.
            Self::Internal(_) => f.write_str("the request could not be carried out"),
            Self::Away(_) => f.write_str("the relay cannot reach its database at present"),
        }
    }
}

impl std::error::Error for CrawlRefusal {}

/// Asks the host whether it is a PDS.
///
/// # Cancel-safety
/// Dropping the future ends the request.
pub(super) async fn probe(client: &HttpClient, address: &HostAddress) -> Result<(), CrawlRefusal> {
    let url = format!("{}/xrpc/com.atproto.server.describeServer", address.http_origin());
    judge(client.get(&url).await)
}

fn judge(result: Result<Fetched, FetchError>) -> Result<(), CrawlRefusal> {
    let reply = result.map_err(|error| {
        tracing::debug!(%error, "probe failed");
        CrawlRefusal::Unreachable(match error {
            // Which address it is may be the secret of the relay's own network.
            FetchError::Refused(_) => "its address is not a public one".to_owned(),
            other => other.to_string(),
        })
    })?;
    if reply.is_relay() {
        return Err(CrawlRefusal::Relay);
    }
    if !reply.is_success() {
        return Err(CrawlRefusal::Unreachable(format!("HTTP status {}", reply.status)));
    }
    let object: Result<serde_json::Map<String, serde_json::Value>, _> =
        serde_json::from_slice(&reply.body);
    match object {
        Ok(_) => Ok(()),
        Err(_) => Err(CrawlRefusal::Unreachable("the reply is not a JSON object".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str, server: Option<&str>) -> Fetched {
        let server = server.map(str::to_owned);
        Fetched { status, body: body.into(), server, retry_after: None }
    }

    #[test]
    fn only_a_describe_server_reply_passes() {
        assert_eq!(judge(Ok(reply(200, r#"{"did":"did:web:a.com"}"#, None))), Ok(()));
        assert_eq!(judge(Ok(reply(200, "{}", Some("nginx")))), Ok(()));
        assert_eq!(
            judge(Ok(reply(200, "{}", Some("indigo-relay/1 (atproto-relay)")))),
            Err(CrawlRefusal::Relay)
        );
        // Also where the relay does not know the method.
        assert_eq!(judge(Ok(reply(501, "", Some("x (atproto-relay)")))), Err(CrawlRefusal::Relay));
        for bad in [
            Ok(reply(404, "{}", None)),
            Ok(reply(302, "", None)),
            Ok(reply(200, "<html>", None)),
            Ok(reply(200, "[]", None)),
            Err(FetchError::Timeout),
            Err(FetchError::TooLarge(9)),
            Err(FetchError::Refused("10.0.0.1".to_owned())),
        ] {
            let refusal = judge(bad).unwrap_err();
            assert!(matches!(refusal, CrawlRefusal::Unreachable(_)));
            assert!(!refusal.to_string().contains("10.0.0.1"));
        }
    }
}
