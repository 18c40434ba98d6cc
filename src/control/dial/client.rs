//! The HTTP client for requests to hosts and directories: bounded in time and size, no redirects,
//! no proxies, every address through the guard.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use reqwest::{
    Response, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{HeaderMap, RETRY_AFTER},
    redirect,
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

use super::{DialError, Dialer};

/// Sent with all requests to hosts; the bracket is how relays recognise each other.
pub const USER_AGENT: &str = concat!("relayered/", env!("CARGO_PKG_VERSION"), " (atproto-relay)");

/// A `Retry-After` beyond this is not believed.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// Whom a client may talk to.
#[derive(Clone, Debug)]
pub enum Reach {
    /// Names given by strangers: each resolved address must pass the guard.
    Guarded(Dialer),
    /// A server that the operator configured: anything, loopback and plain HTTP included.
    Trusted,
}

/// A request other than a plain `GET`.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub method: &'a str,
    pub url: &'a str,
    /// Also `user-agent`, in place of the relay's own.
    pub headers: &'a [(&'a str, &'a str)],
    /// Empty: none.
    pub body: &'a str,
}

/// A complete reply within the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub status: u16,
    pub body: Vec<u8>,
    /// The `Server` header, if it is text.
    pub server: Option<String>,
    /// The `Retry-After` header in seconds form.
    pub retry_after: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("body larger than {0} bytes")]
    TooLarge(usize),
    /// The guard refused every address of the name.
    #[error("{0}")]
    Refused(String),
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Transport(String),
}

/// A client with one set of limits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
    body_bytes_max: usize,
}

impl HttpClient {
    /// `timeout` is for the whole exchange, from DNS to the last byte of the body.
    pub fn new(reach: Reach, timeout: Duration, body_bytes_max: usize) -> Result<Self, FetchError> {
        let extra = match &reach {
            Reach::Guarded(dialer) => dialer.extra_roots(),
            Reach::Trusted => &[],
        };
        let builder = reqwest::Client::builder()
            .use_preconfigured_tls(tls_config(extra)?)
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .timeout(timeout)
            .connect_timeout(timeout)
            .no_proxy();
        let builder = match reach {
            // Nothing is kept open to strangers.
            Reach::Guarded(dialer) => {
                builder.dns_resolver(Arc::new(GuardedDns(dialer))).pool_max_idle_per_host(0)
            }
            Reach::Trusted => builder.pool_max_idle_per_host(32),
        };
        let client = builder.build().map_err(|error| FetchError::Transport(root_cause(&error)))?;
        Ok(Self { client, body_bytes_max })
    }

    /// # Cancel-safety
    /// Dropping the future closes the connection.
    pub async fn get(&self, url: &str) -> Result<Fetched, FetchError> {
        let mut response = self
            .client
            .get(url)
            .header("accept", "application/json, application/did+ld+json, */*;q=0.1")
            .send()
            .await
            .map_err(|error| fetch_error(&error))?;
        let status = response.status();
        let server = text_header(response.headers(), "server");
        let retry_after = retry_after(response.headers());
        // A redirect's body and those of failures are of no interest.
        let body =
            if status.is_success() { self.read_body(&mut response).await? } else { Vec::new() };
        Ok(Fetched { status: status.as_u16(), body, server, retry_after })
    }

    /// Sends any request, and reads the body of any reply.
    ///
    /// # Cancel-safety
    /// Dropping the future closes the connection; the server may have taken the request.
    pub async fn send(&self, request: Outgoing<'_>) -> Result<Fetched, FetchError> {
        let method = reqwest::Method::from_bytes(request.method.as_bytes())
            .map_err(|error| FetchError::Transport(error.to_string()))?;
        let mut builder = self.client.request(method, request.url);
        for (name, value) in request.headers {
            builder = builder.header(*name, *value);
        }
        if !request.body.is_empty() {
            builder = builder.body(request.body.to_owned());
        }
        let mut response = builder.send().await.map_err(|error| fetch_error(&error))?;
        let status = response.status().as_u16();
        let server = text_header(response.headers(), "server");
        let retry_after = retry_after(response.headers());
        let body = self.read_body(&mut response).await?;
        Ok(Fetched { status, body, server, retry_after })
    }

    /// Asks for a WebSocket, and gives what comes behind the server's consent.
    ///
    /// # Cancel-safety
    /// Dropping the future closes the connection.
    pub(crate) async fn open_websocket(
        &self,
        url: &str,
    ) -> Result<impl tokio::io::AsyncRead + Unpin + use<>, FetchError> {
        let key = tungstenite::handshake::client::generate_key();
        let request = self
            .client
            .get(url)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", &key);
        let response = request.send().await.map_err(|error| fetch_error(&error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status().as_u16();
            return Err(FetchError::Transport(format!("HTTP status {status} instead of 101")));
        }
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        if text_header(response.headers(), "sec-websocket-accept") != Some(accept) {
            return Err(FetchError::Transport("a wrong Sec-WebSocket-Accept".to_owned()));
        }
        response.upgrade().await.map_err(|error| fetch_error(&error))
    }

    async fn read_body(&self, response: &mut Response) -> Result<Vec<u8>, FetchError> {
        let announced = response.content_length().unwrap_or(0);
        if announced > self.body_bytes_max as u64 {
            return Err(FetchError::TooLarge(self.body_bytes_max));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| fetch_error(&error))? {
            if body.len() + chunk.len() > self.body_bytes_max {
                return Err(FetchError::TooLarge(self.body_bytes_max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl Fetched {
    pub fn is_success(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success())
    }

    /// Whether the `Server` header says that the peer is itself a relay.
    pub fn is_relay(&self) -> bool {
        self.server.as_deref().is_some_and(|server| server.contains("atproto-relay"))
    }
}

/// Resolves names through the dialer, so that only allowed addresses come out.
#[derive(Debug)]
struct GuardedDns(Dialer);

impl Resolve for GuardedDns {
    fn resolve(&self, name: Name) -> Resolving {
        let dialer = self.0.clone();
        Box::pin(async move {
            // The client puts the URL's port in; URLs are only made from checked host names, which
            // have no port unless the settings allow it.
            let addresses = dialer.resolve(name.as_str(), 443).await?;
            let port = dialer.port_of(name.as_str());
            let addresses =
                addresses.into_iter().map(|address| SocketAddr::new(address.ip(), port));
            Ok(Box::new(addresses.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

/// The system's roots, or those of Mozilla where the system has none (a bare container).
fn tls_config(extra: &[CertificateDer<'static>]) -> Result<ClientConfig, FetchError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots.add_parsable_certificates(extra.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| FetchError::Transport(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn text_header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

fn fetch_error(error: &reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::Timeout;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(DialError::Refused(refusal)) = inner.downcast_ref() {
            return FetchError::Refused(refusal.to_string());
        }
        cause = inner.source();
    }
    FetchError::Transport(root_cause(error))
}

/// What really went wrong, without the layers that it went wrong in.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(inner) = root.source() {
        root = inner;
    }
    root.to_string()
}
