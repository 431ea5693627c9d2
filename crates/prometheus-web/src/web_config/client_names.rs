//! `client_allowed_sans`: names of which a client's certificate must have one, beside a valid signature.
//!
//! The names are read here, and not by `x509-parser` or `x509-cert`: those bring 10 to 30 crates for one extension, and
//! refuse certificates that rustls' verifier accepts. The certificate is verified before its names are read. The reader is
//! bounded, has no unsafe code, and is fuzzed (`fuzz/fuzz_targets/client_names.rs`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// Accepts a client if another verifier does and its certificate has one of the allowed names.
#[derive(Debug)]
pub(super) struct AllowedNames {
    inner: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl AllowedNames {
    /// Creates the verifier. `names` are DNS names, IP addresses, e-mail addresses and URIs; one exact match is
    /// enough.
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, names: &[String]) -> Self {
        let names = names.iter().map(|name| name.parse().map_or_else(|_| name.clone(), canonical)).collect();
        Self { inner, names }
    }
}

impl ClientCertVerifier for AllowedNames {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let names = alternative_names(end_entity).ok_or(CertificateError::BadEncoding)?;
        if names.iter().any(|name| self.names.contains(name)) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Returns the canonical form of an address, so that `::1` and `0:0:0:0:0:0:0:1` are equal.
fn canonical(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
/// `[3]`, the extensions of a certificate.
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.17, `id-ce-subjectAltName`.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Returns the subject alternative names of a certificate (RFC 5280, sections 4.1 and 4.2.1.6) of the four kinds that
/// exporter-toolkit compares. `None` if it is malformed.
fn alternative_names(certificate: &[u8]) -> Option<Vec<String>> {
    let (certificate, _) = read(certificate, SEQUENCE)?;
    let (to_be_signed, _) = read(certificate, SEQUENCE)?;
    let mut names = Vec::new();
    for field in Elements(to_be_signed) {
        let (tag, field) = field?;
        if tag != EXTENSIONS {
            continue;
        }
        let (extensions, _) = read(field, SEQUENCE)?;
        for extension in Elements(extensions) {
            let (_, extension) = extension?;
            let (identifier, _) = read(extension, OBJECT_IDENTIFIER)?;
            if identifier != SUBJECT_ALT_NAME {
                continue;
            }
            // The value is the last part; an optional "critical" flag precedes it.
            let (tag, value) = Elements(extension).last()??;
            if tag != OCTET_STRING {
                return None;
            }
            let (general_names, _) = read(value, SEQUENCE)?;
            for name in Elements(general_names) {
                let (tag, name) = name?;
                names.extend(general_name(tag, name));
            }
        }
    }
    Some(names)
}

fn general_name(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        // rfc822Name, dNSName, uniformResourceIdentifier: ASCII text.
        0x81 | 0x82 | 0x86 => String::from_utf8(value.to_vec()).ok(),
        // iPAddress
        0x87 => {
            let address = match value.len() {
                4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)),
                _ => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?)),
            };
            Some(canonical(address))
        }
        _ => None,
    }
}

/// Returns the content of the first element, which must have this tag, and the rest.
fn read(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(input)?;
    (found == tag).then_some((content, rest))
}

/// Returns tag, content and rest of the first DER element.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, input) = input.split_first()?;
    let (&first, input) = input.split_first()?;
    let (length, input) = match first {
        0..=0x7f => (usize::from(first), input),
        // The long form of a length, with one to four bytes; certificates need no more.
        0x81..=0x84 => {
            let (bytes, input) = input.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), input)
        }
        _ => return None,
    };
    let (content, rest) = input.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The elements of a sequence; a malformed one yields `None` at the end.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Option<(u8, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        match element(self.0) {
            Some((tag, content, rest)) => {
                self.0 = rest;
                Some(Some((tag, content)))
            }
            None => {
                self.0 = &[];
                Some(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls::pki_types::pem::PemObject;

    fn client() -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(include_bytes!("../../tests/data/tls/client.pem")).unwrap()
    }

    #[test]
    fn names_of_all_four_kinds_are_parsed() {
        let expected = ["scraper.example", "ops@example.org", "spiffe://example.org/prometheus", "192.0.2.7"];
        assert_eq!(alternative_names(&client()).unwrap(), expected);
    }

    #[test]
    fn certificate_without_names_has_none() {
        let pem = include_bytes!("../../tests/data/tls/stranger.pem");
        assert_eq!(alternative_names(&CertificateDer::from_pem_slice(pem).unwrap()), Some(Vec::new()));
    }

    #[test]
    fn addresses_are_compared_in_canonical_form() {
        let inner = rustls::server::WebPkiClientVerifier::no_client_auth();
        let allowed = AllowedNames::new(inner, &["2001:DB8:0:0::1".to_owned(), "::ffff:192.0.2.7".to_owned()]);
        assert_eq!(allowed.names, ["2001:db8::1", "192.0.2.7"]);
    }

    #[test]
    fn truncated_certificate_is_malformed() {
        let whole = client();
        for length in 0..whole.len() {
            assert_eq!(alternative_names(&whole[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_do_not_panic(position in 0_usize..500, byte: u8, noise: Vec<u8>) {
            let mut bytes = client().to_vec();
            let position = position % bytes.len();
            bytes[position] = byte;
            let _ = alternative_names(&bytes);
            let _ = alternative_names(&noise);
        }
    }
}
