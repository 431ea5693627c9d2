//! Records what a probe sends and gets, while it is sent as any other request.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::outbound::Outbound;
use clerk_client::transport::{ConnectionLog, ConnectionStep, RequestBody, ResponseFuture, Transport};
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use parking_lot::Mutex;

/// One request and what came of it.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    pub(super) sent: Duration,
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// With the key, marked as sensitive.
    pub(super) headers: HeaderMap,
    pub(super) steps: Vec<ConnectionStep>,
    /// `None` if the probe ended before.
    pub(super) result: Option<(Duration, Result<ResponseHead, String>)>,
}

/// The head of a response.
#[derive(Debug, Clone)]
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
}

/// The exchanges of one probe: two if the key was read again.
#[derive(Debug, Clone, Default)]
pub(super) struct Recording {
    log: ConnectionLog,
    exchanges: Arc<Mutex<Vec<(Exchange, ConnectionLog)>>>,
}

impl Recording {
    /// Returns the client, with a transport that records.
    pub(super) fn of(&self, outbound: &Outbound) -> Outbound {
        let inner = Arc::clone(&outbound.transport);
        Outbound { transport: Arc::new(RecordingTransport { inner, recording: self.clone() }), ..outbound.clone() }
    }

    /// Time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.log.elapsed()
    }

    /// The exchanges so far.
    pub(super) fn exchanges(&self) -> Vec<Exchange> {
        let exchanges = self.exchanges.lock();
        exchanges.iter().map(|(exchange, log)| Exchange { steps: log.steps(), ..exchange.clone() }).collect()
    }
}

#[derive(Debug)]
struct RecordingTransport {
    inner: Arc<dyn Transport>,
    recording: Recording,
}

impl Transport for RecordingTransport {
    fn send(&self, mut request: http::Request<RequestBody>) -> ResponseFuture {
        let recording = self.recording.clone();
        let log = ConnectionLog::new();
        request.extensions_mut().insert(log.clone());
        let exchange = Exchange {
            sent: recording.elapsed(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            steps: Vec::new(),
            result: None,
        };
        let number = {
            let mut exchanges = recording.exchanges.lock();
            exchanges.push((exchange, log));
            exchanges.len() - 1
        };
        let pending = self.inner.send(request);
        Box::pin(async move {
            let response = pending.await;
            let head = match &response {
                Ok(response) => Ok(ResponseHead {
                    status: response.status(),
                    version: response.version(),
                    headers: response.headers().clone(),
                }),
                Err(error) => Err(error.to_string()),
            };
            if let Some((exchange, _)) = recording.exchanges.lock().get_mut(number) {
                exchange.result = Some((recording.elapsed(), head));
            }
            response
        })
    }
}
