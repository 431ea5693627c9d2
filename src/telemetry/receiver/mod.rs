//! The OTLP/HTTP receiver: `POST /v1/traces`.
//!
//! Bounded in every way: bytes of a body, bytes that wait, bodies that are decoded at the same time. Beyond that it
//! answers 503 with `Retry-After`, on which OTLP exporters try again.

mod answer;
mod body;
mod limits;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Response};
use axum::routing::post;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tracing::debug;

pub use limits::{ReceiverLimits, Rejected};

use super::account::SpanAccount;
use super::decode::{BodyEncoding, BodyFormat, DecodeError, decode};
use super::options::{InvalidTelemetryOptions, SpanPlan, TelemetryOptions};
use super::stats::{Refusal, TelemetryStats};
use answer::Failure;
use clerk_quota::CallerId;
use clerk_quota::clock::Clock;

/// Bodies up to this size, as sent, are decoded where they are read: in well under a millisecond, unlike larger ones.
const SMALL_BODY: usize = 32 << 10;

/// The telemetry source: takes trace requests and reports the calls in them.
#[derive(Debug)]
pub struct Telemetry {
    plan: ArcSwap<SpanPlan>,
    account: Mutex<SpanAccount>,
    refused: Mutex<[u64; Refusal::ALL.len()]>,
    clock: Arc<Clock>,
    limits: ReceiverLimits,
    /// Bytes of bodies that wait or are decoded.
    waiting: Arc<Semaphore>,
    decoders: Arc<Semaphore>,
}

impl Telemetry {
    /// Creates a telemetry source.
    ///
    /// # Errors
    ///
    /// [`InvalidTelemetryOptions`] if a host or the sampling ratio is invalid.
    pub fn new(options: TelemetryOptions, clock: Arc<Clock>) -> Result<Self, InvalidTelemetryOptions> {
        let limits = options.limits;
        Ok(Self {
            plan: ArcSwap::from_pointee(SpanPlan::new(options)?),
            account: Mutex::new(SpanAccount::new(&limits)),
            refused: Mutex::default(),
            clock,
            limits,
            waiting: Arc::new(Semaphore::new(limits.max_waiting_bytes.min(Semaphore::MAX_PERMITS))),
            decoders: Arc::new(Semaphore::new(limits.max_decoders.max(1))),
        })
    }

    /// Applies a new configuration. Counters, callers and remembered spans are kept.
    ///
    /// # Errors
    ///
    /// [`InvalidTelemetryOptions`] if a host or the sampling ratio is invalid; then nothing changes.
    pub fn configure(&self, options: TelemetryOptions) -> Result<(), InvalidTelemetryOptions> {
        self.plan.store(Arc::new(SpanPlan::new(options)?));
        Ok(())
    }

    /// Returns the router of `POST /v1/traces`.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().route("/v1/traces", post(export)).with_state(Arc::clone(self))
    }

    /// Returns the current statistics.
    #[must_use]
    pub fn stats(&self) -> TelemetryStats {
        TelemetryStats { refused: *self.refused.lock(), ..self.account.lock().stats() }
    }

    /// Returns the instances, and whether all their callers send spans.
    #[must_use]
    pub fn completeness(&self) -> Vec<(Arc<str>, bool)> {
        self.plan.load().instances.iter().map(|it| (Arc::clone(&it.name), it.is_complete)).collect()
    }

    /// Returns a caller's name.
    #[must_use]
    pub fn caller_name(&self, id: CallerId) -> Arc<str> {
        self.account.lock().callers().name(id)
    }

    /// Decodes a body that arrives now and accounts for its spans. Takes up to some 100 ms for the largest bodies.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the body is invalid or too large; then none of its spans counts.
    pub fn take(&self, body: &[u8], format: BodyFormat, encoding: BodyEncoding) -> Result<Rejected, DecodeError> {
        let request = decode(body, format, encoding, &self.limits.decode)?;
        let plan = self.plan.load();
        let mut account = self.account.lock();
        // Under the lock, so that times do not decrease.
        let now = self.clock.now();
        Ok(account.take(now, self.clock.step_seconds(), &plan, &request))
    }

    async fn export(
        self: Arc<Self>,
        request: Request,
    ) -> Result<(BodyFormat, Rejected), (Option<BodyFormat>, Failure)> {
        let (head, body) = request.into_parts();
        let header = |name: HeaderName| head.headers.get(name).map(HeaderValue::as_bytes);
        let format = BodyFormat::of(header(CONTENT_TYPE)).map_err(|error| (None, Failure::Decode(error)))?;
        let answered = async {
            let encoding = BodyEncoding::of(header(CONTENT_ENCODING)).map_err(Failure::Decode)?;
            let (body, permit) = body::read(body, &self.waiting, self.limits.decode.max_body_bytes).await?;
            // Closed never: the semaphore lives as long as `self`.
            let decoder = Arc::clone(&self.decoders).acquire_owned().await.map_err(|_| Failure::Overloaded)?;
            if body.len() <= SMALL_BODY && encoding == BodyEncoding::Identity {
                return self.take(&body, format, encoding).map_err(Failure::Decode);
            }
            let telemetry = Arc::clone(&self);
            // It goes on if the client leaves, and so holds what limits it.
            let decoding = tokio::task::spawn_blocking(move || {
                let taken = telemetry.take(&body, format, encoding);
                drop((body, permit, decoder));
                taken
            });
            decoding.await.map_err(|_| Failure::Overloaded)?.map_err(Failure::Decode)
        };
        answered.await.map(|rejected| (format, rejected)).map_err(|failure| (Some(format), failure))
    }

    fn refuse(&self, failure: &Failure) {
        if let Some(refusal) = failure.refusal() {
            self.refused.lock()[refusal.index()] += 1;
        }
        debug!(reason = %failure, "a trace request was refused");
    }
}

async fn export(State(telemetry): State<Arc<Telemetry>>, request: Request) -> Response<Body> {
    match Arc::clone(&telemetry).export(request).await {
        Ok((format, rejected)) => answer::success(format, rejected),
        Err((format, failure)) => {
            telemetry.refuse(&failure);
            answer::failure(format, &failure)
        }
    }
}
