//! TLS to PostgreSQL, as `sslmode` asks for it.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::{
    StoreError,
    url::{PostgresUrl, TlsCheck},
};

pub(super) fn connector(url: &PostgresUrl) -> Result<MakeRustlsConnect, StoreError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Tls(error.to_string()))?;
    let config = match url.check {
        TlsCheck::Nothing => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Lenient { provider, chain: None }))
            .with_no_client_auth(),
        TlsCheck::Issuer => {
            let chain = WebPkiServerVerifier::builder_with_provider(
                Arc::new(roots(url)?),
                Arc::clone(&provider),
            )
            .build()
            .map_err(|error| StoreError::Tls(error.to_string()))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Lenient {
                    provider,
                    chain: Some(chain),
                }))
                .with_no_client_auth()
        }
        TlsCheck::Name => builder.with_root_certificates(roots(url)?).with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(config))
}

/// The certificates of `sslrootcert`, or those that the system trusts.
fn roots(url: &PostgresUrl) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &url.root_certificates {
        let broken = |error: String| StoreError::Tls(format!("{}: {error}", path.display()));
        let certificates = CertificateDer::pem_file_iter(path)
            .map_err(|error| broken(error.to_string()))?
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| broken(error.to_string()))?;
        for certificate in certificates {
            roots.add(certificate).map_err(|error| broken(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(broken("no certificate in it".into()));
        }
        return Ok(roots);
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

/// `sslmode=require` and `verify-ca`: encryption against who listens, not against who pretends.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// The certificate must come from a trusted issuer, for whatever name.
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let checked =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            // The name is looked at last, when the chain is known to be good.
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
