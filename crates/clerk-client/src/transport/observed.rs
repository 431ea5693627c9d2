//! Notes the steps of a connection through the hooks of reqwest and rustls.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use reqwest::ClientBuilder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, NamedGroup, SignatureScheme};
use tower::{Layer, Service};

use super::reqwest::BuildError;
use super::{ConnectionEvent, ConnectionLog, error_chain, tls};

/// Makes the client note the steps of its connections.
pub(super) fn observed(
    builder: ClientBuilder,
    verifier: Arc<dyn ServerCertVerifier>,
    log: &ConnectionLog,
) -> Result<ClientBuilder, BuildError> {
    let mut config: ClientConfig = tls::config(Arc::new(LoggedVerifier { inner: verifier, log: log.clone() }))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Keeps nothing, so that the server shows its certificate each time.
    config.resumption = Resumption::store(Arc::new(HandshakeStart(log.clone())));
    let builder = builder.tls_backend_preconfigured(config).dns_resolver(Arc::new(LoggedResolver(log.clone())));
    Ok(builder.connector_layer(ConnectLayer(log.clone())))
}

/// The system's resolver, as without a log.
#[derive(Debug)]
struct LoggedResolver(ConnectionLog);

impl Resolve for LoggedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let log = self.0.clone();
        Box::pin(async move {
            log.add(ConnectionEvent::Resolving(name.as_str().to_owned()));
            match tokio::net::lookup_host((name.as_str(), 0)).await {
                Ok(found) => {
                    let addresses: Vec<_> = found.collect();
                    log.add(ConnectionEvent::Resolved(addresses.iter().map(std::net::SocketAddr::ip).collect()));
                    let addresses: Addrs = Box::new(addresses.into_iter());
                    Ok(addresses)
                }
                Err(error) => {
                    log.add(ConnectionEvent::NotResolved(error_chain(&error)));
                    Err(error.into())
                }
            }
        })
    }
}

/// rustls asks for a hint when it begins a handshake, which is when the connection below is established.
#[derive(Debug)]
struct HandshakeStart(ConnectionLog);

impl ClientSessionStore for HandshakeStart {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.add(ConnectionEvent::HandshakeStarted(server_name.to_str().into_owned()));
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {}

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

/// Decides as another verifier does.
#[derive(Debug)]
struct LoggedVerifier {
    inner: Arc<dyn ServerCertVerifier>,
    log: ConnectionLog,
}

impl ServerCertVerifier for LoggedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        self.log.add(ConnectionEvent::Certificate {
            bytes: end_entity.len(),
            intermediates: intermediates.len(),
            refusal: verified.as_ref().err().map(ToString::to_string),
        });
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.log.add(ConnectionEvent::TlsVersion("TLS 1.2"));
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.log.add(ConnectionEvent::TlsVersion("TLS 1.3"));
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[derive(Debug, Clone)]
struct ConnectLayer(ConnectionLog);

impl<S> Layer<S> for ConnectLayer {
    type Service = LoggedConnect<S>;

    fn layer(&self, inner: S) -> LoggedConnect<S> {
        LoggedConnect { inner, log: self.0.clone() }
    }
}

/// Notes when a connection is ready or failed.
#[derive(Debug, Clone)]
struct LoggedConnect<S> {
    inner: S,
    log: ConnectionLog,
}

impl<S, R> Service<R> for LoggedConnect<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
    S::Error: AsRef<dyn std::error::Error + Send + Sync + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (connecting, log) = (self.inner.call(request), self.log.clone());
        Box::pin(async move {
            let connected = connecting.await;
            log.add(match &connected {
                Ok(_) => ConnectionEvent::Connected,
                Err(error) => ConnectionEvent::NotConnected(error_chain(error.as_ref())),
            });
            connected
        })
    }
}
