//! Outgoing connections: names, DNS, the address guard, TCP.
//!
//! Everything that the relay connects to on the word of a stranger goes through here. DNS and connect
//! run on the control thread's runtime (the system resolver in its blocking pool), never on a shard;
//! a shard gets a connected socket.

mod client;
#[cfg(test)]
pub(crate) mod fake;
pub mod guard;
mod hostname;

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::Semaphore,
    time::timeout,
};

pub use client::{FetchError, Fetched, HttpClient, Outgoing, Reach, USER_AGENT};
pub use guard::GuardRefusal;
pub(crate) use hostname::check_name;
pub use hostname::{HostAddress, HostnameError, is_reserved};

/// More addresses than this are not tried for one connection.
const ADDRESSES_TRIED_MAX: usize = 4;

/// What the operator allows beyond public hosts with TLS.
#[derive(Clone, Debug, Default)]
pub struct DialPolicy {
    /// `ws://` hosts, `localhost:port`, and other ports than 80 and 443.
    pub allow_insecure_hosts: bool,
    /// Networks which hosts may be in although they are not public, for labs.
    pub private_hosts: Vec<IpNet>,
}

#[derive(Clone, Debug)]
pub struct DialConfig {
    pub policy: DialPolicy,
    pub dns_timeout: Duration,
    /// For each address.
    pub connect_timeout: Duration,
    /// The system resolver blocks a thread for each look-up.
    pub dns_parallel_max: usize,
    /// Certificates to trust beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Names that tests give addresses to; the port takes the place of 443.
    #[cfg(test)]
    pub(crate) names: Vec<(&'static str, SocketAddr)>,
}

impl Default for DialConfig {
    fn default() -> Self {
        Self {
            policy: DialPolicy::default(),
            dns_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            dns_parallel_max: 64,
            extra_roots: Vec::new(),
            #[cfg(test)]
            names: Vec::new(),
        }
    }
}

#[derive(Debug)]
pub enum DialError {
    /// The name does not resolve.
    Dns(io::Error),
    DnsTimeout,
    /// Every address of the name is refused; this is the first.
    Refused(GuardRefusal),
    Connect(io::Error),
    ConnectTimeout,
}

impl DialError {
    /// The value of the metric label `fault`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::DnsTimeout => "dns-timeout",
            Self::Refused(_) => "address-refused",
            Self::Connect(_) => "connect",
            Self::ConnectTimeout => "connect-timeout",
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(error) => write!(f, "DNS: {error}"),
            Self::DnsTimeout => f.write_str("DNS: no answer in time"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Connect(error) => write!(f, "connect: {error}"),
            Self::ConnectTimeout => f.write_str("connect: no answer in time"),
        }
    }
}

impl std::error::Error for DialError {}

/// Resolves, guards and connects. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: DialConfig,
    dns_slots: Arc<Semaphore>,
}

impl Dialer {
    pub fn new(config: DialConfig) -> Self {
        let dns_slots = Arc::new(Semaphore::new(config.dns_parallel_max));
        Self(Arc::new(Shared { config, dns_slots }))
    }

    pub fn policy(&self) -> &DialPolicy {
        &self.0.config.policy
    }

    pub(super) fn extra_roots(&self) -> &[CertificateDer<'static>] {
        &self.0.config.extra_roots
    }

    /// The port for addresses of the name where a URL has none; 0: the scheme's own.
    #[cfg_attr(not(test), allow(clippy::unused_self, reason = "tests have other ports"))]
    fn port_of(&self, name: &str) -> u16 {
        #[cfg(test)]
        if let Some((_, address)) = self.test_name(name) {
            return address.port();
        }
        let _ = name;
        0
    }

    #[cfg(test)]
    fn test_name(&self, name: &str) -> Option<&(&'static str, SocketAddr)> {
        self.0.config.names.iter().find(|(known, _)| *known == name)
    }

    /// A connected socket to the host: non-blocking, `TCP_NODELAY` set, without TLS yet.
    ///
    /// # Cancel-safety
    /// Dropping the future closes whatever it has opened.
    pub async fn connect(&self, host: &HostAddress) -> Result<std::net::TcpStream, DialError> {
        let addresses = self.resolve(host.name(), host.port()).await?;
        let mut failure = DialError::ConnectTimeout;
        for address in addresses.into_iter().take(ADDRESSES_TRIED_MAX) {
            match timeout(self.0.config.connect_timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(DialError::Connect)?;
                    return stream.into_std().map_err(DialError::Connect);
                }
                Ok(Err(error)) => failure = DialError::Connect(error),
                Err(_) => failure = DialError::ConnectTimeout,
            }
        }
        Err(failure)
    }

    /// The addresses of the name to which the relay may connect; never empty.
    pub async fn resolve(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        let addresses = self.lookup(name, port).await?;
        let policy = self.policy();
        let mut refusal = None;
        let mut allowed = Vec::new();
        for address in addresses {
            match guard::check(policy, name, address) {
                Ok(()) => allowed.push(address),
                Err(reason) => {
                    refusal.get_or_insert(reason);
                }
            }
        }
        match refusal {
            Some(refusal) if allowed.is_empty() => Err(DialError::Refused(refusal)),
            None if allowed.is_empty() => Err(DialError::Dns(io::ErrorKind::NotFound.into())),
            _ => Ok(allowed),
        }
    }

    async fn lookup(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        if name == "localhost" {
            // RFC 6761: never asked of a resolver, which could say anything.
            let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
            return Ok(loopback.map(|ip| SocketAddr::new(ip, port)).to_vec());
        }
        #[cfg(test)]
        if let Some((_, address)) = self.test_name(name) {
            return Ok(vec![SocketAddr::new(address.ip(), port)]);
        }
        let slots = Arc::clone(&self.0.dns_slots);
        // With the root's dot, so that the machine's search domains play no part. Labs may rely on
        // /etc/hosts, which does not know that form.
        let lab = !self.policy().private_hosts.is_empty();
        let target = if lab { name.to_owned() } else { format!("{name}.") };
        // A task of its own: the system resolver can't be cancelled, and its thread stays occupied
        // after our time-out. The slot is held until it really returns.
        let lookup = tokio::spawn(async move {
            let _slot = slots.acquire_owned().await.map_err(io::Error::other)?;
            lookup_host((target.as_str(), port)).await.map(Iterator::collect::<Vec<_>>)
        });
        match timeout(self.0.config.dns_timeout, lookup).await {
            Ok(Ok(Ok(addresses))) => Ok(addresses),
            Ok(Ok(Err(error))) => Err(DialError::Dns(error)),
            Ok(Err(error)) => Err(DialError::Dns(io::Error::other(error))),
            Err(_) => Err(DialError::DnsTimeout),
        }
    }
}

#[cfg(test)]
mod tls_tests;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn dialer(allow_insecure_hosts: bool) -> Dialer {
        let policy = DialPolicy { allow_insecure_hosts, ..DialPolicy::default() };
        Dialer::new(DialConfig { policy, ..DialConfig::default() })
    }

    #[tokio::test]
    async fn a_socket_to_localhost_is_handed_over_non_blocking() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = HostAddress::parse(&format!("localhost:{port}")).unwrap();
        let mut stream = dialer(true).connect(&host).await.unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (mut peer, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        let mut got = [0; 5];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
    }

    #[tokio::test]
    async fn loopback_is_refused_without_the_setting() {
        let host = HostAddress { hostname: "localhost:1".to_owned(), tls: false };
        let error = dialer(false).connect(&host).await.unwrap_err();
        assert!(matches!(error, DialError::Refused(GuardRefusal::Address(_))), "{error}");
    }

    #[tokio::test]
    async fn a_closed_port_is_a_connect_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let host = HostAddress { hostname: format!("localhost:{port}"), tls: false };
        let error = dialer(true).connect(&host).await.unwrap_err();
        assert!(matches!(error, DialError::Connect(_)), "{error}");
    }
}
