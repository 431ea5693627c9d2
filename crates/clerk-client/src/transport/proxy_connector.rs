//! Connections through the environment's proxies.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service;

use super::Proxies;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Connects over TCP, through a proxy if [`Proxies`] has one for the URL.
///
/// For https URLs it opens a CONNECT tunnel, for http URLs a connection to the proxy, which forwards requests.
#[derive(Clone)]
pub struct ProxyConnector {
    direct: HttpConnector,
    /// Connects to proxies, over TLS if needed.
    to_proxy: HttpsConnector<HttpConnector>,
    proxies: Arc<Proxies>,
}

impl fmt::Debug for ProxyConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyConnector").field("proxies", &self.proxies).finish_non_exhaustive()
    }
}

impl ProxyConnector {
    pub(super) fn new(direct: HttpConnector, proxies: Arc<Proxies>, tls: Arc<ClientConfig>) -> Self {
        let to_proxy = HttpsConnector::from((direct.clone(), tls));
        Self { direct, to_proxy, proxies }
    }
}

impl Service<Uri> for ProxyConnector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let proxy = match self.proxies.of(&uri) {
            Ok(Some(proxy)) => proxy,
            Ok(None) => {
                let connecting = self.direct.call(uri);
                return Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) });
            }
            Err(error) => return Box::pin(std::future::ready(Err(error.into()))),
        };
        if uri.scheme_str() != Some("https") {
            return self.to_proxy.call(proxy.uri().clone());
        }
        let tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        let mut tunnel = match proxy.authorization() {
            Some(password) => tunnel.with_auth(password.clone()),
            None => tunnel,
        };
        let connecting = tunnel.call(uri);
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}
