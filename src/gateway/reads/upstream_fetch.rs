//! The upstream request for coalesced reads: a request for the resource, or a lookup in a batch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;

use super::instance_state::LookUpKind;
use super::shareable::{LEFT_OUT_FIELDS, may_be_kept};
use crate::gateway::config::policy::{Mode, RoutePolicies};
use crate::gateway::request::error_response::{error_body, own_trace_id, whole_seconds};
use crate::gateway::request::headers;
use crate::gateway::request::routing_table::InstanceRuntime;
use crate::gateway::request::turn::Turn;
use crate::gateway::request::upstream_request::UpstreamRequest;
use clerk_client::cache::{CacheKey, CachedResponse};
use clerk_client::clerk::{ApiError, Error};
use clerk_client::limiter::{ShedReason, ThrottleForecast};
use clerk_client::outbound::{
    Credentials, ForwardRequest, ForwardedResponse, RequestError, SendError, UpstreamResponse,
};
use clerk_client::transport::{ErrorKind, RequestBody, TransportError};
use clerk_quota::{CallerId, Route};

/// Larger responses are streamed to one client and not shared, in bytes.
const MAX_SHARED_BYTES: usize = 4 * 1024 * 1024;

/// Statistics of a fetch.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::gateway) struct FetchStats {
    /// Whether this request performed the fetch, instead of using another's response.
    pub(in crate::gateway) is_leader: bool,
    pub(in crate::gateway) attempts: u32,
    pub(in crate::gateway) waited: Duration,
    pub(in crate::gateway) latency: Option<Duration>,
    pub(in crate::gateway) is_batched: bool,
    /// Whether it was the first lookup of its batch.
    pub(in crate::gateway) is_batch_leader: bool,
    /// The dry run of pacing, if that is in shadow mode.
    pub(in crate::gateway) pace_forecast: Option<ThrottleForecast>,
    /// Lookups known to share a batch, if batching is in shadow mode.
    pub(in crate::gateway) shadow_batched: u32,
}

/// Why there is no response to share.
#[derive(Debug)]
pub(in crate::gateway) enum FetchError {
    Send(SendError),
    /// A batch was shed, or got no response.
    List(Error),
    /// The response is incomplete.
    Broken(RequestError),
    /// The response is too large, or not a final one.
    Unshareable,
}

impl FetchError {
    /// Whether the limiter rejected the fetch because of the share of its caller.
    pub(super) fn is_of_caller(&self) -> bool {
        match self {
            Self::Send(SendError::Shed(shed)) | Self::List(Error::Shed(shed)) => {
                matches!(shed.reason, ShedReason::CallerCap | ShedReason::CallerPaused)
            }
            _ => false,
        }
    }
}

/// Performs the fetch for all coalesced requests.
pub(in crate::gateway) struct Fetcher {
    pub(in crate::gateway) instance: Arc<InstanceRuntime>,
    pub(in crate::gateway) request: UpstreamRequest,
    /// The body of a verification; reads have none.
    pub(in crate::gateway) body: Bytes,
    pub(in crate::gateway) route: Route,
    pub(in crate::gateway) credentials: Credentials,
    /// The caller of the first request; the upstream request is attributed to it.
    pub(in crate::gateway) caller: CallerId,
    pub(in crate::gateway) policies: RoutePolicies,
    pub(in crate::gateway) turn: Turn,
    /// The ID of the user to look up in a batch.
    pub(in crate::gateway) user: Option<String>,
    pub(in crate::gateway) key: CacheKey,
    /// Whether a policy in shadow mode would have saved the request.
    pub(in crate::gateway) is_spared_in_shadow: bool,
    pub(in crate::gateway) stats: Mutex<FetchStats>,
    /// A response too large to share, for the request that performed the fetch.
    pub(in crate::gateway) large: Mutex<Option<ForwardedResponse>>,
}

impl Fetcher {
    pub(in crate::gateway) async fn fetch(&self) -> Result<CachedResponse, FetchError> {
        let batched = match &self.user {
            Some(user) => self.fetch_in_batch(user).await,
            None => None,
        };
        match batched {
            Some(answer) => answer,
            None => self.fetch_alone().await,
        }
    }

    async fn fetch_alone(&self) -> Result<CachedResponse, FetchError> {
        let forward_request = ForwardRequest {
            head: self.request.clone().into_head(),
            // They are specific to one client, and the response is shared.
            omitted: &LEFT_OUT_FIELDS,
            body: body_of(&self.body),
            route: self.route,
            idempotency: self.policies.idempotency(self.request.method()),
            credentials: self.credentials,
            caller: self.caller,
        };
        let options = self.instance.policies.execute_options(&self.policies, self.turn.queue());
        let shadow_batched = self.dry_run_batch();
        let is_sent = !self.is_spared_in_shadow && shadow_batched == 0;
        let pace_forecast = is_sent.then(|| self.forecast_pace()).flatten();
        let begun = {
            let mut stats = self.stats.lock();
            *stats = FetchStats { is_leader: true, pace_forecast, shadow_batched, ..FetchStats::default() };
            *stats
        };
        let outbound = &self.instance.outbound;
        let mut forwarded = outbound.forward(forward_request, &options).await.map_err(FetchError::Send)?;
        let ForwardedResponse { attempts, waited, latency, .. } = forwarded;
        *self.stats.lock() = FetchStats { attempts, waited, latency: Some(latency), ..begun };
        self.instance.reload_key_on_unauthorized(self.credentials, forwarded.response.head.status);
        if !headers::is_final(&forwarded.response.head) {
            return Err(FetchError::Unshareable);
        }
        let patience = self.instance.policies.body_idle_timeout;
        let filled = forwarded.response.body.fill(MAX_SHARED_BYTES, patience).await;
        let is_whole = filled.map_err(|_| FetchError::Broken(RequestError::Timeout(patience)))?;
        if forwarded.response.body.is_broken() {
            let why = "the response body is incomplete".to_owned();
            return Err(FetchError::Broken(TransportError::new(ErrorKind::Broken, why).into()));
        }
        if !is_whole {
            *self.large.lock() = Some(forwarded);
            return Err(FetchError::Unshareable);
        }
        let UpstreamResponse { mut head, body, .. } = *forwarded.response;
        headers::response(&mut head);
        for name in [CONTENT_LENGTH, SET_COOKIE] {
            head.headers.remove(name);
        }
        let may_be_kept = may_be_kept(&head.headers);
        let answer = CachedResponse::new(head.status, head.headers, body.seen(), outbound.clock.wall());
        Ok(if may_be_kept { answer } else { answer.for_once() })
    }

    fn forecast_pace(&self) -> Option<ThrottleForecast> {
        self.instance.forecast_pace(&self.policies, self.route, self.turn)
    }

    fn dry_run_batch(&self) -> u32 {
        if self.policies.batch != Mode::Shadow || self.is_spared_in_shadow {
            return 0;
        }
        self.instance.state.dry_run_batch(&self.key, self.look_up_kind())
    }

    fn look_up_kind(&self) -> LookUpKind {
        LookUpKind::of(self.request.headers(), self.turn, self.policies)
    }

    /// `None` if the lookup should be sent on its own.
    async fn fetch_in_batch(&self, user: &str) -> Option<Result<CachedResponse, FetchError>> {
        let kind = self.look_up_kind();
        let instance = &self.instance;
        let options = || instance.policies.execute_options(&self.policies, self.turn.queue());
        let loader = instance.state.loader(&instance.outbound, kind, options)?;
        // A batch in flight may have been read before an invalidation that precedes this lookup.
        loader.invalidate(user);
        let (found, share) = loader.raw_batched(user, self.caller, self.request.member()).await;
        let has_opened = share.is_first;
        // Only the first lookup of a batch is counted.
        let pace_forecast = has_opened.then(|| self.forecast_pace()).flatten();
        let answer = match found {
            Ok(Some(user)) => Ok(self.stored(StatusCode::OK, HeaderMap::new(), user.into_bytes())),
            Ok(None) => Ok(self.missing(user)),
            Err(error) => match &error {
                // What is wrong with a list for another reason need not be wrong with a request of its own.
                Error::Api(api) if is_of_all(api.status) => Ok(self.rejected(api)),
                Error::Shed(_) if self.policies.pace.is_on() => Err(FetchError::List(error)),
                Error::Transport { .. } => Err(FetchError::List(error)),
                _ => return None,
            },
        };
        *self.stats.lock() = FetchStats {
            is_leader: has_opened,
            attempts: u32::from(has_opened),
            is_batched: share.is_shared,
            is_batch_leader: has_opened,
            pace_forecast,
            ..FetchStats::default()
        };
        Some(answer)
    }

    fn stored(&self, status: StatusCode, mut headers: HeaderMap, body: Bytes) -> CachedResponse {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        CachedResponse::new(status, headers, body, self.instance.outbound.clock.wall())
    }

    /// A 404 for a user that is not in the list, with the same error as Clerk's for a single lookup.
    fn missing(&self, user: &str) -> CachedResponse {
        let why = format!("No user was found with id {user}.");
        let body = error_body("not found", &why, "resource_not_found", Some(&own_trace_id()));
        self.stored(StatusCode::NOT_FOUND, HeaderMap::new(), body)
    }

    /// Clerk's error for a batch, as the response to a lookup.
    fn rejected(&self, error: &ApiError) -> CachedResponse {
        let mut headers = HeaderMap::new();
        if let Some(wait) = error.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        let code = error.code.as_deref().unwrap_or("internal_clerk_error");
        let body = error_body(&error.message, &error.message, code, error.trace_id.as_deref());
        self.stored(error.status, headers, body)
    }
}

/// A body in memory. Reads have none, and no length of it.
pub(in crate::gateway) fn body_of(bytes: &Bytes) -> RequestBody {
    if bytes.is_empty() { RequestBody::empty() } else { RequestBody::from(bytes.clone()) }
}

/// Whether this status of a batch applies to each of its lookups.
fn is_of_all(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}
