//! TLS of connections to Postgres: what libpq's `sslmode` means, with rustls.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::postgres::{Check, Postgres, Roots, Tls};

/// What servers since PostgreSQL 17 expect of a connection that begins with TLS (`sslnegotiation=direct`); older ones
/// don't look at it.
const PROTOCOL: &[u8] = b"postgresql";

/// Why connections can't be protected as `DATABASE_URL` says. One line that says what to do; nothing of a key.
#[allow(missing_docs, reason = "the messages say what the fields are")]
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("DATABASE_URL: {parameter}, {}, can't be read: {source}", path.display())]
    Read { parameter: &'static str, path: PathBuf, source: io::Error },
    /// A file has something else in it.
    #[error("DATABASE_URL: {parameter}, {}, has no {expected} in PEM format", path.display())]
    Content { parameter: &'static str, path: PathBuf, expected: &'static str },
    /// A certificate that is to be trusted can't be used.
    #[error("DATABASE_URL: sslrootcert, {}, has a certificate that can't be used: {source}", path.display())]
    Root { path: PathBuf, source: Error },
    /// Certificate and key don't belong together, or are of an unknown kind.
    #[error("DATABASE_URL: sslcert and sslkey can't be used: {0}")]
    Client(#[source] Error),
    /// Nothing to check certificates with.
    #[error(
        "DATABASE_URL: sslmode checks the server's certificate, and this system trusts no authority: install its \
         ca-certificates, or set sslrootcert"
    )]
    NoRoots,
    /// The library refuses.
    #[error("TLS for the database can't be set up: {0}")]
    Setup(#[source] Error),
}

/// What connections to this database speak TLS with. Reads the files with certificates, once: whoever replaces them makes
/// a new connector. Its `SslMode` is [`Postgres::ssl_mode`].
pub fn connector(postgres: &Postgres) -> Result<MakeRustlsConnect, TlsError> {
    // Not the process's default, which is installed only when something else needs it.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Verifier::new(&postgres.tls, &provider)?);
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::Setup)?.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match &postgres.tls.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let chain = certificates("sslcert", &client.certificate)?;
            let key = PrivateKeyDer::from_pem_file(&client.key)
                .map_err(|error| refused("sslkey", &client.key, "private key, not encrypted,", error))?;
            builder.with_client_auth_cert(chain, key).map_err(TlsError::Client)?
        }
    };
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

/// Checks as much of a server's certificate as the settings say.
#[derive(Debug)]
struct Verifier {
    check: Check,
    roots: RootCertStore,
    /// The certificates of `sslrootcert` as they are.
    pinned: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(tls: &Tls, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let check = tls.check();
        let (mut roots, mut pinned) = (RootCertStore::empty(), Vec::new());
        match &tls.roots {
            _ if check == Check::Key => {}
            Some(Roots::File(path)) => {
                pinned = certificates("sslrootcert", path)?;
                for certificate in &pinned {
                    let added = roots.add(certificate.clone());
                    added.map_err(|source| TlsError::Root { path: path.clone(), source })?;
                }
            }
            Some(Roots::System) | None => {
                // What can't be read among them is left out, as everywhere.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(TlsError::NoRoots);
                }
            }
        }
        Ok(Self { check, roots, pinned, algorithms: provider.signature_verification_algorithms })
    }

    fn check_chain(
        &self,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let checked =
            verify_server_cert_signed_by_trust_anchor(parsed, &self.roots, intermediates, now, self.algorithms.all);
        match checked {
            // `openssl req -x509`, which PostgreSQL's manual has for a first certificate, makes an authority's, and webpki
            // refuses those of a server. It has looked at its dates before.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.pinned.contains(certificate) => Ok(()),
            checked => checked,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check != Check::Key {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            self.check_chain(end_entity, &parsed, intermediates, now)?;
            if self.check == Check::ChainAndName {
                verify_server_name(&parsed, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    // Signatures are always checked: without that, a certificate would say nothing, and SCRAM's channel binding, which is
    // to the certificate, neither.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The certificates of a file, one at least.
fn certificates(parameter: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refused = |error| refused(parameter, path, "certificate", error);
    let all = CertificateDer::pem_file_iter(path).map_err(refused)?.collect::<Result<Vec<_>, _>>().map_err(refused)?;
    if all.is_empty() { Err(refused(pem::Error::NoItemsFound)) } else { Ok(all) }
}

/// Without what the parser says: it can repeat a part of the file.
fn refused(parameter: &'static str, path: &Path, expected: &'static str, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => TlsError::Read { parameter, path, source },
        _ => TlsError::Content { parameter, path, expected },
    }
}
