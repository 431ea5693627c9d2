use std::sync::Arc;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Extension, Router};
use prometheus_web::{AuthenticatedClient, WebConfigFile};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::frames::{FrameClient, RST_STREAM};
use crate::support::*;

const TLS: &str = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n";

/// A client's protocols and certificate.
#[derive(Default)]
struct Client {
    certificate: Option<&'static str>,
    alpn: &'static [&'static str],
    versions: Option<&'static [&'static rustls::SupportedProtocolVersion]>,
}

fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(data("tls").join(name)).unwrap()
}

impl Client {
    async fn connect(&self, server: &TestServer) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions.unwrap_or(rustls::ALL_VERSIONS))
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let key = PrivateKeyDer::from_pem_file(data("tls").join(format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![certificate(&format!("{name}.pem"))], key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        within(TlsConnector::from(Arc::new(config)).connect(name, server.connect().await)).await
    }

    /// Returns the status of a request; `None` if the server rejects the client.
    ///
    /// In TLS 1.3 a client only notices that its certificate is rejected when it reads.
    async fn status(&self, server: &TestServer) -> Option<u16> {
        let mut stream = self.connect(server).await.ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
        let answer = read_to_end(&mut stream).await;
        (!answer.is_empty()).then(|| status(&answer))
    }
}

async fn serve(web_config: &str) -> (TestServer, ConfigFolder) {
    let folder = ConfigFolder::new(web_config);
    let server = TestServer::start(ok_router(), patient(), folder.source()).await;
    (server, folder)
}

fn shown_certificate(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn tls_works_with_files_and_inline_pem() {
    let (server, folder) = serve(TLS).await;
    assert!(folder.source().uses_tls());
    assert_eq!(Client::default().status(&server).await, Some(200));

    let inline = |name: &str| {
        let text = std::fs::read_to_string(data("tls").join(name)).unwrap();
        text.lines().map(|line| format!("    {line}\n")).collect::<String>()
    };
    let config = format!("tls_server_config:\n  cert: |\n{}  key: |\n{}", inline("server.pem"), inline("server.key"));
    let (server, _folder) = serve(&config).await;
    assert_eq!(Client::default().status(&server).await, Some(200));
}

#[tokio::test]
async fn http2_is_offered_unless_disabled() {
    let client = Client { alpn: &["h2", "http/1.1"], ..Client::default() };
    for (extra, expected) in [("", "h2"), ("http_server_config: {http2: false}\n", "http/1.1")] {
        let (server, _folder) = serve(&format!("{TLS}{extra}")).await;
        let stream = client.connect(&server).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(expected.as_bytes()));
    }
}

#[tokio::test]
async fn new_certificate_is_used_without_a_restart() {
    let (server, folder) = serve(TLS).await;
    let before = Client::default().connect(&server).await.unwrap();
    assert_eq!(shown_certificate(&before), certificate("server.pem"));

    folder.copy("rotated.pem", "server.pem");
    folder.copy("rotated.key", "server.key");
    let after = Client::default().connect(&server).await.unwrap();
    assert_eq!(shown_certificate(&after), certificate("rotated.pem"));
    // A connection from before the change continues.
    assert_eq!(status(&exchange(before, "/", "").await), 200);
}

#[tokio::test]
async fn half_a_rotation_keeps_the_old_pair() {
    for (first, then) in [("pem", "key"), ("key", "pem")] {
        let folder = ConfigFolder::new(TLS);
        let source = folder.source();
        let server = TestServer::start(ok_router(), patient(), source.clone()).await;
        let open = Client::default().connect(&server).await.unwrap();
        folder.copy(&format!("rotated.{first}"), &format!("server.{first}"));
        let stream = Client::default().connect(&server).await.unwrap();
        assert_eq!(shown_certificate(&stream), certificate("server.pem"));
        assert_eq!(status(&exchange(stream, "/", "").await), 200);
        assert_eq!(status(&exchange(open, "/", "").await), 200, "open connections continue");
        let half = source.reloads(WebConfigFile::TlsCertificate);
        assert!(half.failures > 0);
        assert_eq!(source.reloads(WebConfigFile::WebConfig).failures, 0);

        folder.copy(&format!("rotated.{then}"), &format!("server.{then}"));
        let stream = Client::default().connect(&server).await.unwrap();
        assert_eq!(shown_certificate(&stream), certificate("rotated.pem"));
        let whole = source.reloads(WebConfigFile::TlsCertificate);
        assert!(whole.successes > half.successes);
    }
}

#[tokio::test]
async fn missing_certificate_file_keeps_the_loaded_one() {
    for name in ["server.pem", "server.key"] {
        let (server, folder) = serve(TLS).await;
        std::fs::remove_file(folder.path().with_file_name(name)).unwrap();
        assert_eq!(Client::default().status(&server).await, Some(200));
        std::fs::write(folder.path().with_file_name(name), "").unwrap();
        assert_eq!(Client::default().status(&server).await, Some(200));
        folder.copy("rotated.pem", "server.pem");
        folder.copy("rotated.key", "server.key");
        let stream = Client::default().connect(&server).await.unwrap();
        assert_eq!(shown_certificate(&stream), certificate("rotated.pem"));
    }
}

#[tokio::test]
async fn users_are_reloaded_despite_an_invalid_certificate() {
    let (server, folder) = serve(TLS).await;
    folder.copy("rotated.pem", "server.pem");
    folder.write(&format!("{TLS}{}", alice("open sesame")));
    assert_eq!(Client::default().status(&server).await, Some(401));
}

#[tokio::test]
async fn invalid_authorities_keep_the_old_ones() {
    let signed = Client { certificate: Some("client"), ..Client::default() };
    let stranger = Client { certificate: Some("stranger"), ..Client::default() };
    let folder = ConfigFolder::new(
        "tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, \
         client_auth_type: RequireAndVerifyClientCert}\n",
    );
    let source = folder.source();
    let server = TestServer::start(ok_router(), patient(), source.clone()).await;
    for broken in ["", "nonsense"] {
        std::fs::write(folder.path().with_file_name("ca.pem"), broken).unwrap();
        assert_eq!(signed.status(&server).await, Some(200));
        assert_eq!(stranger.status(&server).await, None);
    }
    std::fs::remove_file(folder.path().with_file_name("ca.pem")).unwrap();
    assert_eq!(signed.status(&server).await, Some(200));
    assert!(source.reloads(WebConfigFile::ClientCa).failures > 0);
    assert_eq!(source.reloads(WebConfigFile::TlsCertificate).failures, 0);
    folder.copy("stranger.pem", "ca.pem");
    assert_eq!(signed.status(&server).await, None);
}

#[tokio::test]
async fn tls_is_never_disabled_at_run_time() {
    let (server, folder) = serve(TLS).await;
    for text in ["", "nonsense: 1\n"] {
        folder.write(text);
        assert_eq!(Client::default().status(&server).await, Some(200));
    }
    std::fs::remove_file(folder.path()).unwrap();
    assert_eq!(Client::default().status(&server).await, Some(200));
}

#[tokio::test]
async fn stalled_stream_is_reset_over_tls() {
    let folder = ConfigFolder::new(TLS);
    let server = TestServer::start(ok_router(), patient().write_timeout(LATER), folder.source()).await;
    let client = Client { alpn: &["h2"], ..Client::default() };
    let mut client = FrameClient::start(client.connect(&server).await.unwrap(), 0).await;
    client.get(1, "/").await;
    assert!(within(client.next_of(RST_STREAM, 1)).await.is_some());
    within(client.ended()).await;
}

#[tokio::test]
async fn only_allowed_tls_versions_are_accepted() {
    let (server, _folder) =
        serve("tls_server_config: {cert_file: server.pem, key_file: server.key, min_version: TLS13}\n").await;
    let versions: &[_] = const { &[&rustls::version::TLS12] };
    let old = Client { versions: Some(versions), ..Client::default() };
    assert_eq!(old.status(&server).await, None);
    assert_eq!(Client::default().status(&server).await, Some(200));
}

#[tokio::test]
async fn client_auth_type_decides_who_is_accepted() {
    let none = Client::default();
    let signed = Client { certificate: Some("client"), ..Client::default() };
    let stranger = Client { certificate: Some("stranger"), ..Client::default() };
    let cases = [
        ("NoClientCert", "", [Some(200), Some(200), Some(200)]),
        ("RequestClientCert", "", [Some(200), Some(200), Some(200)]),
        ("RequireAnyClientCert", "", [None, Some(200), Some(200)]),
        ("VerifyClientCertIfGiven", ", client_ca_file: ca.pem", [Some(200), Some(200), None]),
        ("RequireAndVerifyClientCert", ", client_ca_file: ca.pem", [None, Some(200), None]),
    ];
    for (auth_type, authority, expected) in cases {
        let (server, _folder) = serve(&format!(
            "tls_server_config: {{cert_file: server.pem, key_file: server.key, client_auth_type: {auth_type}{authority}}}\n"
        ))
        .await;
        let got = [none.status(&server).await, signed.status(&server).await, stranger.status(&server).await];
        assert_eq!(got, expected, "{auth_type}: without, signed, self-signed");
    }
}

#[tokio::test]
async fn only_a_required_certificate_authenticates() {
    let who = async |client: Option<Extension<AuthenticatedClient>>| {
        if client.is_some() { StatusCode::OK } else { StatusCode::NO_CONTENT }
    };
    let signed = Client { certificate: Some("client"), ..Client::default() };
    for (auth_type, expected) in [("VerifyClientCertIfGiven", 204), ("RequireAndVerifyClientCert", 200)] {
        let folder = ConfigFolder::new(&format!(
            "tls_server_config: {{cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, \
             client_auth_type: {auth_type}}}\n"
        ));
        let server = TestServer::start(Router::new().route("/", get(who)), patient(), folder.source()).await;
        assert_eq!(signed.status(&server).await, Some(expected), "{auth_type}");
    }
}

#[tokio::test]
async fn only_certificates_with_an_allowed_name_are_accepted() {
    let signed = Client { certificate: Some("client"), ..Client::default() };
    for (names, expected) in [
        ("scraper.example", Some(200)),
        ("other.example, 'spiffe://example.org/prometheus'", Some(200)),
        ("192.0.2.7", Some(200)),
        ("scraper", None),
        ("example", None),
    ] {
        let (server, _folder) = serve(&format!(
            "tls_server_config: {{cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, \
             client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [{names}]}}\n"
        ))
        .await;
        assert_eq!(signed.status(&server).await, expected, "{names}");
    }
}

#[tokio::test]
async fn plaintext_client_does_not_affect_others() {
    let (server, _folder) = serve(TLS).await;
    let mut plain = server.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    read_to_end(&mut plain).await;
    assert_eq!(Client::default().status(&server).await, Some(200));
}

#[tokio::test]
async fn unfinished_handshake_is_closed() {
    let folder = ConfigFolder::new(TLS);
    let options = patient().tls_handshake_timeout(SOON);
    let server = TestServer::start(ok_router(), options, folder.source()).await;
    let mut client = server.connect().await;
    client.write_all(&[22, 3, 1]).await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "");
}

#[tokio::test]
async fn unfinished_handshakes_do_not_block_others() {
    let folder = ConfigFolder::new(TLS);
    let options = patient().max_connections(8);
    let server = TestServer::start(ok_router(), options, folder.source()).await;
    let mut stuck = Vec::new();
    for _ in 0..50 {
        stuck.push(server.connect().await);
    }
    assert_eq!(Client::default().status(&server).await, Some(200));
}
