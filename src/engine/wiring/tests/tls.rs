//! Hosts behind TLS. The certificates were made for these tests, with keys that protect nothing.

use std::{
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::JoinHandle,
};

use ports::{HostFault, HostId, HostLimits, HostResume, HostSocket, ShardCommand, Strictness};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use tungstenite::Message;

use super::harness::{Bench, PATIENCE, config, drivers, event};

const CA: &[u8] = include_bytes!("../../../../tests/data/tls/ca.der");
const LEAF: &[u8] = include_bytes!("../../../../tests/data/tls/leaf.der");
const LEAF_KEY: &[u8] = include_bytes!("../../../../tests/data/tls/leaf.key.der");

const HOST: HostId = HostId(1);

fn server_config() -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_slice(LEAF)],
            PrivatePkcs8KeyDer::from(LEAF_KEY).into(),
        );
    Arc::new(config.unwrap())
}

/// Sends so many long events, answers to a ping, and closes.
fn tls_host(count: u64) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let session = ServerConnection::new(server_config()).unwrap();
        let Ok(mut socket) = tungstenite::accept(StreamOwned::new(session, stream)) else { return };
        let padding = "x".repeat(40_000);
        for seq in 1..=count {
            socket.send(Message::binary(event(seq % 9, seq, &padding))).unwrap();
        }
        socket.send(Message::Ping("still there".into())).unwrap();
        assert_eq!(socket.read().unwrap(), Message::Pong("still there".into()));
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
    });
    (address, thread)
}

fn connect(bench: &Bench, address: SocketAddr, name: &str) {
    let socket = HostSocket {
        host: HOST,
        hostname: format!("{name}:{}", address.port()).into(),
        tls: true,
        stream: TcpStream::connect(address).unwrap(),
        strictness: Strictness::Strict,
        limits: HostLimits::default(),
        resume: HostResume::default(),
    };
    bench.command(1, ShardCommand::Host(Box::new(socket)));
}

#[test]
fn a_stream_through_tls_is_complete() {
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir, driver);
        config.extra_roots = vec![CertificateDer::from_slice(CA)];
        let mut bench = Bench::start(config);
        let mut consumer = bench.consumer(None);
        let (address, thread) = tls_host(300);
        connect(&bench, address, "localhost");
        assert_eq!(consumer.events(300).last().unwrap().0, 300);
        assert_eq!(bench.wait_fault(HOST), HostFault::Closed);
        thread.join().unwrap();
    }
}

#[test]
fn a_certificate_must_be_trusted_and_for_that_name() {
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start(config(&dir, driver));
        let (address, thread) = tls_host(0);
        connect(&bench, address, "localhost");
        assert!(matches!(bench.wait_fault(HOST), HostFault::Tls(_)), "not trusted");
        thread.join().unwrap();
        drop(bench);

        let mut config = config(&dir, driver);
        config.extra_roots = vec![CertificateDer::from_slice(CA)];
        let mut bench = Bench::start(config);
        let (address, thread) = tls_host(0);
        connect(&bench, address, "other.test");
        assert!(matches!(bench.wait_fault(HOST), HostFault::Tls(_)), "another name");
        thread.join().unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        connect(&bench, listener.local_addr().unwrap(), "localhost");
        // Read what was said: unread bytes would make a reset of the close.
        let _ = listener.accept().unwrap().0.read(&mut [0; 4096]).unwrap();
        assert!(matches!(bench.wait_fault(HOST), HostFault::Tls(_)), "closed in the middle");
    }
}
