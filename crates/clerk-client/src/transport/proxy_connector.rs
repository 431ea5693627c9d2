//! Connections over the proxy that the environment names.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use super::api_url::is_this_machine;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Makes connections over TCP. Hosts elsewhere that are spoken to over TLS are reached through the proxy that
/// `HTTPS_PROXY` or `ALL_PROXY` names, unless `NO_PROXY` says otherwise.
#[derive(Clone)]
pub struct ProxyConnector {
    direct: HttpConnector,
    proxies: Arc<Matcher>,
}

impl fmt::Debug for ProxyConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy's address may hold a password.
        f.debug_struct("Tunnelling").finish_non_exhaustive()
    }
}

/// A proxy that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("only proxies that are spoken to by http can be used here, not {0}: set HTTPS_PROXY to http://HOST:PORT")]
struct UnknownProxy(String);

impl ProxyConnector {
    /// With the proxies of the environment.
    pub(super) fn new(direct: HttpConnector) -> Self {
        Self { direct, proxies: Arc::new(Matcher::from_system()) }
    }
}

impl Service<Uri> for ProxyConnector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let is_elsewhere = uri.scheme_str() == Some("https") && !is_this_machine(uri.host().unwrap_or_default());
        let Some(proxy) = is_elsewhere.then(|| self.proxies.intercept(&uri)).flatten() else {
            let connecting = self.direct.call(uri);
            return Box::pin(async move { connecting.await.map_err(Into::into) });
        };
        if proxy.uri().scheme_str() != Some("http") {
            let unknown = UnknownProxy(proxy.uri().scheme_str().unwrap_or_default().to_owned());
            return Box::pin(std::future::ready(Err(unknown.into())));
        }
        let tunnel = Tunnel::new(proxy.uri().clone(), self.direct.clone());
        let mut tunnel = match proxy.basic_auth() {
            Some(password) => tunnel.with_auth(password.clone()),
            None => tunnel,
        };
        let connecting = tunnel.call(uri);
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}
