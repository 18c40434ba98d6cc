//! TLS towards hosts, without IO: ciphertext in and out of buffers.
//!
//! rustls is driven directly over the read buffer and the list of outgoing bytes. A wrapped stream
//! would have one task's read and another's write borrow the same session.

use std::{
    io::{BufRead, Write},
    sync::Arc,
};

use bytes::BytesMut;
use ports::HostFault;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};

/// One session with a host.
#[derive(Debug)]
pub struct TlsSession(ClientConnection);

/// The client's settings: the system's certificates, or Mozilla's where there are none.
///
/// # Errors
/// If the library refuses its own defaults.
pub fn client_config(
    extra: &[CertificateDer<'static>],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(native.certs);
    if usable == 0 {
        tracing::info!(errors = native.errors.len(), "no system certificates: using Mozilla's");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots.add_parsable_certificates(extra.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl TlsSession {
    /// Begins a session with the host of that name; a port is left out.
    ///
    /// # Errors
    /// If it is not a name that a certificate can be for.
    pub fn new(config: &Arc<ClientConfig>, hostname: &str) -> Result<Self, HostFault> {
        let name = without_port(hostname);
        let name = ServerName::try_from(name.to_owned()).map_err(fault)?;
        ClientConnection::new(Arc::clone(config), name).map(Self).map_err(fault)
    }

    pub fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Takes plaintext to be sent.
    ///
    /// # Errors
    /// If too much waits for the handshake.
    pub fn write(&mut self, plaintext: &[u8]) -> Result<(), HostFault> {
        self.0.writer().write_all(plaintext).map_err(fault)
    }

    /// Moves the ciphertext that is to be sent to `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        while self.0.wants_write() {
            // Writing to memory does not fail.
            if self.0.write_tls(out).is_err() {
                return;
            }
        }
    }

    /// Takes ciphertext that was received, and adds its plaintext to `plain`.
    ///
    /// # Errors
    /// If the peer breaks the protocol or its certificate is not trusted; an alert may be waiting
    /// to be sent.
    pub fn read(&mut self, mut cipher: &[u8], plain: &mut BytesMut) -> Result<(), HostFault> {
        while !cipher.is_empty() {
            // Zero: the peer has closed the session, and what follows does not count.
            if self.0.read_tls(&mut cipher).map_err(fault)? == 0 {
                return Ok(());
            }
            let state = self.0.process_new_packets().map_err(fault)?;
            let mut rest = state.plaintext_bytes_to_read();
            while rest > 0 {
                let mut reader = self.0.reader();
                let chunk = reader.fill_buf().map_err(fault)?;
                let len = chunk.len();
                plain.extend_from_slice(chunk);
                reader.consume(len);
                rest = rest.saturating_sub(len.max(1));
            }
        }
        Ok(())
    }
}

fn without_port(hostname: &str) -> &str {
    match hostname.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => hostname,
    }
}

fn fault(error: impl std::fmt::Display) -> HostFault {
    HostFault::Tls(error.to_string().into())
}
