//! HTTPS end to end: the probe of a host and did:web, with a CA of our own; and what a name that
//! leads into the operator's own network comes to.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ports::IdentityAnswer;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};

use super::*;
use crate::{
    Shards,
    hosts::{Caller, Crawl, CrawlRefusal, Hosts, HostsConfig},
    identity::{IdentityConfig, Resolver},
    store::{DatabaseUrl, Store},
};

const CA: &[u8] = include_bytes!("../../../tests/data/tls/ca.der");
const LEAF: &[u8] = include_bytes!("../../../tests/data/tls/leaf.der");
const LEAF_KEY: &[u8] = include_bytes!("../../../tests/data/tls/leaf.key.der");

const DID: &str = "did:web:web.relay-test.net";

/// Serves one document at every path, and counts requests.
fn https_server(body: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_slice(LEAF)],
            PrivatePkcs8KeyDer::from(LEAF_KEY).into(),
        );
    let config = Arc::new(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::<AtomicUsize>::default();
    let counting = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(session, stream);
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            // A client that does not trust us has gone.
            if head.ends_with(b"\r\n\r\n") {
                counting.fetch_add(1, Ordering::SeqCst);
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (address, requests)
}

struct Lab {
    dialer: Dialer,
    hosts: Hosts,
    store: Store,
}

impl Lab {
    async fn new(
        names: &[&'static str],
        address: SocketAddr,
        trusted_ca: bool,
        private: &str,
    ) -> Self {
        let policy = DialPolicy {
            allow_insecure_hosts: false,
            private_hosts: private.split_whitespace().map(|net| net.parse().unwrap()).collect(),
        };
        let extra_roots =
            if trusted_ca { vec![CertificateDer::from_slice(CA)] } else { Vec::new() };
        let names = names.iter().map(|name| (*name, address)).collect();
        let dialer =
            Dialer::new(DialConfig { policy, extra_roots, names, ..DialConfig::default() });
        let store = Store::open(&DatabaseUrl::Memory).unwrap();
        let (shards, _) = Shards::new(1);
        let config = HostsConfig { dials_max: 0, ..HostsConfig::default() };
        let hosts =
            Hosts::start(config, store.clone(), dialer.clone(), HashMap::new(), shards).await;
        Self { dialer, hosts: hosts.unwrap(), store }
    }

    async fn crawl(&self, name: &str) -> Result<Crawl, CrawlRefusal> {
        self.hosts.request_crawl(name, Caller::Public).await
    }

    async fn identity(&self, did: &str) -> IdentityAnswer {
        let config = IdentityConfig {
            queue_wait_max: Duration::from_millis(1),
            ..IdentityConfig::default()
        };
        let resolver =
            Resolver::start(config, self.store.clone(), &self.dialer, self.hosts.names()).unwrap();
        resolver.identity(did, false).await
    }
}

fn document() -> String {
    format!(
        r##"{{"id":"{DID}","alsoKnownAs":["at://alice.test"],"verificationMethod":[],
        "service":[{{"id":"#atproto_pds","type":"AtprotoPersonalDataServer",
        "serviceEndpoint":"https://pds.relay-test.net"}}]}}"##
    )
}

const NAMES: [&str; 3] = ["pds.relay-test.net", "web.relay-test.net", "other.relay-test.net"];
const LOOPBACK: &str = "127.0.0.0/8";

#[tokio::test]
async fn a_host_is_probed_and_a_did_web_resolved_over_tls() {
    let (address, requests) = https_server(document());
    let lab = Lab::new(&NAMES, address, true, LOOPBACK).await;
    assert_eq!(lab.crawl("PDS.relay-test.net").await, Ok(Crawl::Added));
    let IdentityAnswer::Found(identity) = lab.identity(DID).await else { panic!() };
    assert_eq!(identity.host, lab.hosts.names().id("pds.relay-test.net"));
    assert!(identity.host.is_some());
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn certificates_must_be_trusted_and_for_the_name() {
    let (address, requests) = https_server(document());
    let lab = Lab::new(&NAMES, address, true, LOOPBACK).await;
    let refusal = lab.crawl("other.relay-test.net").await.unwrap_err();
    assert_eq!(refusal.name(), "HostNotFound");
    let other = lab.identity("did:web:other.relay-test.net").await;
    assert_eq!(other, IdentityAnswer::Unavailable);
    let lab = Lab::new(&NAMES, address, false, LOOPBACK).await;
    assert_eq!(lab.crawl("pds.relay-test.net").await.unwrap_err().name(), "HostNotFound");
    assert_eq!(lab.identity(DID).await, IdentityAnswer::Unavailable);
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    assert!(lab.store.hosts().await.unwrap().is_empty());
}

/// The name is public, its address is not: DNS says what its owner likes.
#[tokio::test]
async fn a_public_name_does_not_lead_into_the_operator_s_network() {
    let (address, requests) = https_server(document());
    for private in ["", "10.0.0.0/8 fd00::/8"] {
        let lab = Lab::new(&NAMES, address, true, private).await;
        let refusal = lab.crawl("pds.relay-test.net").await.unwrap_err();
        assert_eq!((refusal.name(), refusal.status()), ("HostNotFound", 400));
        assert!(!refusal.to_string().contains("127.0.0.1"), "{refusal}");
        assert_eq!(lab.identity(DID).await, IdentityAnswer::NotFound);
    }
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}
