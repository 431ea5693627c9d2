//! `client_auth_type`: whether clients present a certificate, and who has to sign it.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::client_names::AllowedNames;
use super::error::Problem;

const AUTH_KEY: &str = "tls_server_config.client_auth_type";

/// Returns the verifier for a `client_auth_type`.
///
/// `allowed_names` are those of `client_allowed_sans`. `authorities` is the PEM text of the authorities, with the key
/// that it came from.
pub(super) fn verifier(
    auth_type: Option<&str>,
    allowed_names: &[String],
    authorities: Option<(&str, &[u8])>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Problem> {
    let roots = authorities.map(|(key, pem)| root_store(key, pem)).transpose()?;
    let any = |mandatory| -> Arc<dyn ClientCertVerifier> {
        Arc::new(AnyClientCert {
            mandatory,
            hints: roots.as_ref().map(RootCertStore::subjects).unwrap_or_default(),
            provider: Arc::clone(provider),
        })
    };
    let verified = |mandatory| {
        let Some(roots) = &roots else {
            return Err(Problem::key(
                "tls_server_config.client_ca_file",
                "missing; this client_auth_type requires the authorities that sign client certificates",
            ));
        };
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(provider));
        let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
        builder.build().map_err(|error| Problem::key("tls_server_config.client_ca_file", error.to_string()))
    };
    let verifier = match auth_type {
        None | Some("" | "NoClientCert") if roots.is_some() => Err(Problem::key(
            AUTH_KEY,
            "client authorities are set, but clients are not asked for certificates; write RequireAndVerifyClientCert",
        )),
        None | Some("" | "NoClientCert") => Ok(WebPkiClientVerifier::no_client_auth()),
        Some("RequestClientCert") => Ok(any(false)),
        // The second name is an old one that exporter-toolkit still accepts.
        Some("RequireAnyClientCert" | "RequireClientCert") => Ok(any(true)),
        Some("VerifyClientCertIfGiven") => verified(false),
        Some("RequireAndVerifyClientCert") => verified(true),
        Some(_) => Err(Problem::key(
            AUTH_KEY,
            "write NoClientCert, RequestClientCert, RequireAnyClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert",
        )),
    }?;
    if allowed_names.is_empty() {
        return Ok(verifier);
    }
    if !verifier.offer_client_auth() || !verifier.client_auth_mandatory() {
        return Err(Problem::key(
            "tls_server_config.client_allowed_sans",
            "requires a certificate from every client; set client_auth_type to RequireAndVerifyClientCert",
        ));
    }
    Ok(Arc::new(AllowedNames::new(verifier, allowed_names)))
}

fn root_store(key: &str, pem: &[u8]) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|reason| Problem::key(key, format!("invalid certificate: {reason}")))?;
    }
    if roots.is_empty() {
        return Err(Problem::key(key, "contains no certificate in PEM format"));
    }
    Ok(roots)
}

/// Accepts every certificate whose private key the client has, regardless of its issuer.
///
/// This is the meaning of `RequestClientCert` and `RequireAnyClientCert`; they do not authenticate.
#[derive(Debug)]
struct AnyClientCert {
    mandatory: bool,
    /// Authorities named to the client, so that it can choose a certificate.
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyClientCert {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
