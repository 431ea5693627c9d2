//! The TLS configuration that all transports share: the system's certificate authorities, and further ones.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls_platform_verifier::Verifier;

use super::reqwest::BuildError;

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
