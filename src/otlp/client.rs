//! The connection to the collector: that of all other requests, so that proxies and certificate authorities are the same.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use opentelemetry_http::{HttpClient, HttpError};

use clerk_client::transport::{RequestBody, Transport};

/// Longest response that is read, in bytes. Collectors answer with a few.
const MAX_RESPONSE: usize = 1024 * 1024;

/// Sends the exporter's requests.
#[derive(Debug)]
pub(super) struct CollectorClient {
    pub(super) transport: Arc<dyn Transport>,
    /// Longest time for a request and its whole response.
    pub(super) timeout: Duration,
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let response = self.transport.send(request.map(RequestBody::from)).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_RESPONSE).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        tokio::time::timeout(self.timeout, exchange).await?
    }
}
