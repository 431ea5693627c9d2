//! The TLS configuration that all transports share: the system's certificate authorities, and further ones.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;

use super::reqwest::BuildError;

/// Reads the certificates in a PEM file.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let pem =
        std::fs::read(path).map_err(|cause| BuildError::Read { path: path.to_owned(), cause: Arc::new(cause) })?;
    let wrong = |reason: String| BuildError::Certificates { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() { Err(wrong("contains no certificate".to_owned())) } else { Ok(certificates) }
}

/// Creates the verifier of servers. Blocks to read the system's authorities.
pub(super) fn verifier(extra: Vec<CertificateDer<'static>>) -> Result<Arc<dyn ServerCertVerifier>, BuildError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let made = Verifier::new_with_extra_roots(extra, provider).map_err(|error| BuildError::client(&error))?;
    Ok(Arc::new(made))
}

/// Creates the configuration of connections to servers that this verifier accepts.
pub(super) fn config(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, BuildError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| BuildError::client(&error))?;
    // rustls calls every verifier but its own dangerous; this one uses the operating system's.
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}
