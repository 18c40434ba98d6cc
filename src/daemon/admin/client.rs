//! Requests to a relay: its admin API, and the public one of any.

use std::{io, time::Duration};

use control::dial::{FetchError, Fetched, HttpClient, Outgoing, Reach};
use serde_json::Value;

use crate::{
    env::Env,
    fatal::{Code, Fatal},
};

/// Not the name by which relays know each other: this is a person.
const USER_AGENT: &str = concat!("relayered-admin/", env!("CARGO_PKG_VERSION"));
/// A relay looks at a host before it answers, and hands out lists of many thousands.
const TIMEOUT: Duration = Duration::from_mins(1);
const REPLY_BYTES_MAX: usize = 256 << 20;

/// Which relay, and who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) relay_url: Option<String>,
    pub(crate) admin_key: Option<String>,
}

impl Target {
    /// What is not given is taken from the environment.
    pub(crate) fn complete(self, env: &impl Env) -> Self {
        let first = |names: &[&str]| env.first(names).map(|(_, value)| value);
        let keys = first(&["RELAY_ADMIN_KEY", "RELAY_ADMIN_PASSWORD"]);
        // Several keys may hold at once; any of them will do.
        let key = keys.and_then(|keys| {
            keys.split(',').map(str::trim).find(|key| !key.is_empty()).map(str::to_owned)
        });
        Self {
            relay_url: self.relay_url.or_else(|| first(&["RELAY_URL", "RELAY_HOST"])),
            admin_key: self.admin_key.or(key),
        }
    }
}

/// `https://host` of what people write for it: a URL, a name, `localhost:2470` or `:2470`.
pub(crate) fn base_url(text: &str) -> Result<String, Fatal> {
    let text = text.trim();
    let url = match text.strip_suffix('/').unwrap_or(text) {
        url if url.contains(":/") => url.to_owned(),
        port if port.starts_with(':') => format!("http://localhost{port}"),
        local if is_local(local) => format!("http://{local}"),
        name => format!("https://{name}"),
    };
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => Ok(url),
        _ => Err(Fatal::new(Code::Usage, format!("{text:?} is no relay"))
            .remedy("Give its name or URL, as https://relay.example.com or localhost:2470")),
    }
}

fn is_local(text: &str) -> bool {
    ["localhost", "127.", "[::1]"].iter().any(|start| text.starts_with(start))
}

/// One relay. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: HttpClient,
    base: String,
    authorization: Option<String>,
}

/// What a relay answered instead of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{relay} can't be reached: {reason}")]
    Unreachable { relay: String, reason: String },
    #[error("{relay} does not take this admin key")]
    Key { relay: String },
    /// The relay's own words.
    #[error("{message}")]
    Refused { status: u16, name: String, message: String },
    #[error("{relay} answers with something else than JSON (HTTP status {status})")]
    NoJson { relay: String, status: u16 },
}

impl From<Failure> for Fatal {
    fn from(failure: Failure) -> Self {
        let (code, remedy) = match &failure {
            Failure::Unreachable { .. } | Failure::NoJson { .. } => {
                (Code::Unavailable, "Check --relay-url (RELAY_URL, RELAY_HOST)")
            }
            Failure::Key { .. } => (Code::Permission, "Check --admin-key (RELAY_ADMIN_KEY)"),
            Failure::Refused { .. } => (Code::Refused, ""),
        };
        Self::of(code, &failure).remedy(remedy)
    }
}

impl Client {
    /// For the admin API.
    pub(crate) fn admin(target: &Target) -> Result<Self, Fatal> {
        let Some(key) = &target.admin_key else {
            return Err(Fatal::new(Code::Usage, "there is no admin key")
                .remedy("Give the relay's with --admin-key, or in RELAY_ADMIN_KEY"));
        };
        let mut client = Self::public(target.relay_url.as_deref().unwrap_or("localhost:2470"))?;
        client.authorization = Some(format!("Bearer {key}"));
        Ok(client)
    }

    /// For what anybody may ask.
    pub(crate) fn public(relay: &str) -> Result<Self, Fatal> {
        let http = HttpClient::new(Reach::Trusted, TIMEOUT, REPLY_BYTES_MAX)
            .map_err(|error| Fatal::of(Code::Software, &error))?;
        Ok(Self { http, base: base_url(relay)?, authorization: None })
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        let mut target = path.to_owned();
        if !query.is_empty() {
            let mut pairs = form_urlencoded::Serializer::new(String::new());
            target = format!("{path}?{}", pairs.extend_pairs(query).finish());
        }
        self.request("GET", &target, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.request("POST", path, &body.to_string()).await
    }

    async fn request(&self, method: &str, target: &str, body: &str) -> Result<Value, Failure> {
        let url = format!("{}{target}", self.base);
        let mut headers = vec![("user-agent", USER_AGENT), ("accept", "application/json")];
        if let Some(authorization) = &self.authorization {
            headers.push(("authorization", authorization));
        }
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        let request = Outgoing { method, url: &url, headers: &headers, body };
        self.read(self.http.send(request).await)
    }

    fn read(&self, result: Result<Fetched, FetchError>) -> Result<Value, Failure> {
        let relay = self.base.clone();
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => {
                return Err(Failure::Unreachable { relay, reason: error.to_string() });
            }
        };
        let status = reply.status;
        if status == 401 {
            return Err(Failure::Key { relay });
        }
        let body = serde_json::from_slice::<Value>(&reply.body);
        // A reply may be empty where there is nothing to tell.
        if reply.is_success() && reply.body.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        if reply.is_success() {
            return body.map_err(|_not_json| Failure::NoJson { relay, status });
        }
        let part = |name: &str| body.as_ref().ok()?.get(name)?.as_str().map(str::to_owned);
        match (part("error"), part("message")) {
            (None, None) => Err(Failure::NoJson { relay, status }),
            (name, message) => {
                let name = name.unwrap_or_default();
                let message = message.unwrap_or_else(|| name.clone());
                Err(Failure::Refused { status, name, message })
            }
        }
    }
}

/// Runs a command's requests.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Fatal>>) -> Result<T, Fatal> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error: io::Error| Fatal::of(Code::Software, &error))?;
    let result = runtime.block_on(work);
    // A look-up of a name that nobody waits for must not hold up the end.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_named_in_many_ways() {
        for (text, url) in [
            ("relay.example.com", "https://relay.example.com"),
            ("https://relay.example.com/", "https://relay.example.com"),
            ("http://10.0.0.1:2470", "http://10.0.0.1:2470"),
            ("localhost:2470", "http://localhost:2470"),
            ("127.0.0.1:2470", "http://127.0.0.1:2470"),
            (":2470", "http://localhost:2470"),
        ] {
            assert_eq!(base_url(text).unwrap(), url, "{text}");
        }
        for text in ["", "wss://a.example", "https://", "a.example/path", "user@a.example"] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }
}
