//! A transport to a server in the same process: real HTTP over in-memory pipes, without sockets.
//!
//! With tokio's paused clock, hours of traffic run in a second, which real sockets do not allow.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::task::JoinSet;
use tower::Service;

use super::{HyperOptions, HyperTransport, RequestBody, ResponseFuture, Transport};

/// Capacity of a pipe in bytes.
const PIPE_BYTES: usize = 64 * 1024;

/// A transport to a router in this process.
#[derive(Debug)]
pub struct MemoryTransport {
    client: HyperTransport<Connector>,
}

impl MemoryTransport {
    /// Creates a transport to this router. After it is dropped, its connections end with their last request.
    #[must_use]
    pub fn new(router: Router) -> Arc<Self> {
        let connector = Connector { router, servers: Arc::default() };
        Arc::new(Self { client: HyperTransport::with_connector(connector, &HyperOptions::default()) })
    }
}

impl Transport for MemoryTransport {
    fn send(&self, request: http::Request<RequestBody>) -> ResponseFuture {
        self.client.send(request)
    }
}

/// Creates a pipe per connection and serves the router at its other end.
#[derive(Debug, Clone)]
struct Connector {
    router: Router,
    servers: Arc<Mutex<JoinSet<()>>>,
}

impl Service<Uri> for Connector {
    type Response = Pipe;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Pipe>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let service = TowerToHyperService::new(self.router.clone());
        let mut servers = self.servers.lock();
        while servers.try_join_next().is_some() {}
        servers.spawn(async move {
            let mut server = hyper::server::conn::http1::Builder::new();
            // The client observes a broken connection itself.
            let _ = server.timer(TokioTimer::new()).serve_connection(TokioIo::new(theirs), service).await;
        });
        Box::pin(std::future::ready(Ok(Pipe(TokioIo::new(ours)))))
    }
}

/// The client's end of a pipe.
struct Pipe(TokioIo<DuplexStream>);

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        hyper::rt::Write::poll_flush(Pin::new(&mut self.0), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        hyper::rt::Write::poll_shutdown(Pin::new(&mut self.0), context)
    }
}
