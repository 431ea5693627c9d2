//! Any bytes as HTTP/1 requests on one connection: no request reaches hyper whose head was not checked.

#![no_main]

mod handler {
    pub(crate) use prometheus_web::Ambiguity;
}
#[path = "../../crates/prometheus-web/src/http1_framing.rs"]
mod http1_framing;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncWriteExt;

fuzz_target!(|data: &[u8]| {
    // The first byte is the size of the reads.
    let Some((&piece, bytes)) = data.split_first() else { return };
    let piece = usize::from(piece).max(1);
    let mut heads = 0;
    let mut framing = http1_framing::Http1Framing::default();
    bytes.chunks(piece).for_each(|part| framing.scan(part, |_| heads += 1));
    let taken = taken_by_hyper(bytes, piece);
    assert!(taken <= heads, "hyper parsed {taken} requests, {heads} heads were checked");
});

/// How many requests hyper parses from these bytes.
fn taken_by_hyper(bytes: &[u8], piece: usize) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without a driver");
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    runtime.block_on(async move {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let service = service_fn(async |request: Request<Incoming>| {
            counter.fetch_add(1, Ordering::Relaxed);
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        let serving = http.pipeline_flush(true).serve_connection(TokioIo::new(server), service);
        let sending = async {
            for part in bytes.chunks(piece) {
                if client.write_all(part).await.is_err() {
                    return;
                }
            }
            let _ = client.shutdown().await;
            let mut rest = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut client, &mut rest).await;
        };
        let _ = tokio::join!(serving, sending);
    });
    taken.load(Ordering::Relaxed)
}
