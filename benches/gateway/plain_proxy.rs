//! A minimal proxy of hyper and its client on one thread: the upper bound for the gateway's performance.
//!
//! ```sh
//! cargo build --release --example plain_proxy
//! benches/gateway/run --candidate 'hyper alone=target/release/examples/plain_proxy {port} {upstream}'
//! ```

use anyhow::bail;
use http::header::{CONNECTION, HOST};
use http::{Request, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, upstream] = arguments.as_slice() else { bail!("usage: plain_proxy PORT UPSTREAM") };
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    let upstream: Uri = upstream.parse()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).http1_preserve_header_case(true).build(connector);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, upstream) = (client.clone(), upstream.clone());
        connections.spawn(async move {
            let service = service_fn(|request| {
                let asked = addressed(request, &upstream);
                let client = client.clone();
                async move { anyhow::Ok(client.request(asked?).await?) }
            });
            let builder =
                http1::Builder::new().preserve_header_case(true).serve_connection(TokioIo::new(stream), service);
            // Clients come and go.
            let _ = builder.await;
        });
    }
}

/// The same request to another address.
fn addressed(request: Request<Incoming>, upstream: &Uri) -> anyhow::Result<Request<Incoming>> {
    let (mut head, body) = request.into_parts();
    let mut parts = upstream.clone().into_parts();
    parts.path_and_query = head.uri.into_parts().path_and_query;
    head.uri = Uri::from_parts(parts)?;
    head.headers.remove(HOST);
    head.headers.remove(CONNECTION);
    Ok(Request::from_parts(head, body))
}
