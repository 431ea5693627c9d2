//! Any bytes as a client certificate with a valid signature: an accepted client has an allowed name.

#![no_main]

#[path = "../../crates/prometheus-web/src/web_config/client_names.rs"]
mod client_names;

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

const NAMES: [&str; 4] = ["prometheus.example", "10.0.0.1", "scraper@example.com", "spiffe://example/prometheus"];

/// Accepts every certificate.
#[derive(Debug)]
struct AcceptAll;

impl ClientCertVerifier for AcceptAll {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

fuzz_target!(|data: &[u8]| {
    let verifier = client_names::AllowedNames::new(Arc::new(AcceptAll), &NAMES.map(str::to_owned));
    let certificate = CertificateDer::from(data);
    let accepted = verifier.verify_client_cert(&certificate, &[], UnixTime::since_unix_epoch(Default::default()));
    let holds = |name: &[u8]| data.windows(name.len()).any(|part| part == name);
    // An address is four bytes, or sixteen with the prefix of mapped addresses.
    let has_name = NAMES.iter().any(|name| holds(name.as_bytes())) || holds(&[10, 0, 0, 1]);
    assert!(accepted.is_err() || has_name, "accepted without an allowed name");
});
