//! `tls_server_config`: builds the rustls configuration.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret;

use super::client_cert;
use super::error::Problem;
use super::file::TlsServerConfig;
use super::source::Reader;
use super::tls_names;

/// Builds the configuration of a TLS server; `None` if the section does not configure TLS.
///
/// The crypto provider is aws-lc-rs, passed explicitly: rustls' process-wide default belongs to the program that uses
/// this library.
pub(super) fn server_config(
    typed: &TlsServerConfig,
    http2: bool,
    reader: &mut Reader,
) -> Result<Option<Arc<ServerConfig>>, Problem> {
    if is_empty(typed) {
        return Ok(None);
    }
    let (certificate_key, certificate) = required(
        pem("cert", typed.cert.as_deref(), typed.cert_file.as_deref(), reader)?,
        "tls_server_config.cert_file",
    )?;
    let key = typed.key.as_ref().map(|key| key.0.expose_secret());
    let (key_key, key) = required(pem("key", key, typed.key_file.as_deref(), reader)?, "tls_server_config.key_file")?;
    let authorities = pem("client_ca", typed.client_ca.as_deref(), typed.client_ca_file.as_deref(), reader)?;

    let provider = provider(typed)?;
    let versions = tls_names::versions(typed.min_version.as_deref(), typed.max_version.as_deref())?;
    let client_verifier = client_cert::verifier(
        typed.client_auth_type.as_deref(),
        typed.client_allowed_sans.as_deref().unwrap_or_default(),
        authorities.as_ref().map(|(key, pem)| (key.as_str(), pem.as_slice())),
        &provider,
    )?;

    let chain = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Problem::key(&certificate_key, format!("invalid certificate: {error}")))?;
    if chain.is_empty() {
        return Err(Problem::key(certificate_key, "contains no certificate in PEM format"));
    }
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
        Problem::key(&key_key, "contains no private key in PEM format (PKCS#8, PKCS#1 or SEC1, unencrypted)")
    })?;

    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| Problem::key("tls_server_config.cipher_suites", error.to_string()))?
        .with_client_cert_verifier(client_verifier)
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Problem::key(
                key_key,
                format!("the private key does not belong to the certificate of {certificate_key}"),
            ),
            other => Problem::key(certificate_key, other.to_string()),
        })?;
    config.ignore_client_order = typed.prefer_server_cipher_suites.unwrap_or(true);
    config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(Some(Arc::new(config)))
}

/// Returns whether nothing is set. Any setting without a certificate is an error instead: with `min_version` set,
/// plain HTTP would be unexpected.
fn is_empty(typed: &TlsServerConfig) -> bool {
    let TlsServerConfig {
        cert_file,
        cert,
        key_file,
        key,
        client_auth_type,
        client_ca_file,
        client_ca,
        client_allowed_sans,
        min_version,
        max_version,
        cipher_suites,
        prefer_server_cipher_suites,
        curve_preferences,
    } = typed;
    let texts = [cert_file, cert, key_file, client_auth_type, client_ca_file, client_ca, min_version, max_version];
    let lists = [client_allowed_sans, cipher_suites, curve_preferences];
    key.is_none()
        && prefer_server_cipher_suites.is_none()
        && texts.into_iter().all(Option::is_none)
        && lists.into_iter().all(Option::is_none)
}

fn provider(typed: &TlsServerConfig) -> Result<Arc<CryptoProvider>, Problem> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if let Some(names) = typed.cipher_suites.as_deref().filter(|names| !names.is_empty()) {
        provider.cipher_suites = tls_names::cipher_suites(names)?;
    }
    if let Some(names) = typed.curve_preferences.as_deref().filter(|names| !names.is_empty()) {
        provider.kx_groups = tls_names::curves(names)?;
    }
    Ok(Arc::new(provider))
}

/// Returns the PEM text of `name` or of the file `name_file`, with the key that it came from.
fn pem(
    name: &str,
    inline: Option<&str>,
    file: Option<&str>,
    reader: &mut Reader,
) -> Result<Option<(String, Vec<u8>)>, Problem> {
    let inline_key = format!("tls_server_config.{name}");
    let file_key = format!("tls_server_config.{name}_file");
    match (inline.filter(|text| !text.is_empty()), file.filter(|path| !path.is_empty())) {
        (Some(_), Some(_)) => Err(Problem::key(file_key, format!("set {name} or {name}_file, not both"))),
        (Some(text), None) => Ok(Some((inline_key, text.as_bytes().to_vec()))),
        (None, Some(path)) => {
            let path = reader.resolve(&PathBuf::from(path));
            let content = reader
                .read(&path)
                .map_err(|error| Problem::key(&file_key, format!("{} cannot be read: {error}", path.display())))?;
            Ok(Some((file_key, content)))
        }
        (None, None) => Ok(None),
    }
}

fn required(pem: Option<(String, Vec<u8>)>, key: &str) -> Result<(String, Vec<u8>), Problem> {
    pem.ok_or_else(|| Problem::key(key, "missing; TLS requires a certificate and its private key"))
}
