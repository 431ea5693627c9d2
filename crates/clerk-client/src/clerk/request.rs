//! One call: from the cache or from Clerk, read whole, checked for success and decoded.

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::{Instant, timeout_at};

use super::cached_reads::is_cached;
use super::write_guard::WriteGuard;
use super::{ApiError, Clerk, Error};
use crate::outbound::retry::Idempotency;
use crate::outbound::{ApiRequest, ExecuteOptions, RequestError, StreamingResponse, WriteOutcome, read_body};
use clerk_quota::Observation;

/// Largest body that is read, after decompression: twice the size of 500 users with as much metadata as Clerk allows (8 KB
/// of each of three kinds).
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

impl Clerk {
    /// The resource at a path, from the cache if there is one and the route is cached.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: impl Into<String>) -> Result<T, Error> {
        let request = self.api_request(Method::GET, path);
        match &self.cache {
            Some(cache) if is_cached(&request) => decode(&self.read_through(cache, request).await?),
            _ => decode(&self.call(&request).await?),
        }
    }

    /// A request with this client's headers, source and caller.
    pub(super) fn api_request(&self, method: Method, path: impl Into<String>) -> ApiRequest {
        let (headers, caller) = (HeaderMap::clone(&self.headers), self.caller);
        let members = self.members.clone();
        ApiRequest { headers, caller, members, ..ApiRequest::new(method, path, self.source) }
    }

    /// Sends a request and returns the whole response if it is a success. A write invalidates what it may have changed.
    pub(super) async fn call(&self, request: &ApiRequest) -> Result<Response<Bytes>, Error> {
        let guard = self.cache.as_ref().and_then(|cache| WriteGuard::new(cache, request, self.options.attempt_timeout));
        let result = self.fetch(request).await;
        if let Some(guard) = guard {
            let outcome = match &result {
                Ok(fetched) => {
                    // Of an earlier attempt that was not throttled it is not known whether it was executed.
                    let is_only_attempt = request.idempotency != Idempotency::Idempotent;
                    WriteOutcome::of_status(fetched.status, is_only_attempt)
                }
                Err(error) if error.is_unsent() => WriteOutcome::NotExecuted,
                Err(_) => WriteOutcome::Unknown,
            };
            guard.finish(outcome).await;
        }
        result?.into_success()
    }

    /// Sends a request and returns the whole response, whatever its status.
    ///
    /// After a 401 it reads the key again and, if the key was replaced, sends the request once more: Clerk executes nothing
    /// that it responds to with 401.
    pub(super) async fn fetch(&self, request: &ApiRequest) -> Result<Fetched, Error> {
        let until = Instant::now() + self.options.deadline;
        let key = self.outbound.key.current()?;
        let result = self.fetch_until(request, until).await;
        let is_rejected = result.as_ref().is_ok_and(|fetched| fetched.status == StatusCode::UNAUTHORIZED);
        if is_rejected && self.outbound.key.replaces(&key) { self.fetch_until(request, until).await } else { result }
    }

    async fn fetch_until(&self, request: &ApiRequest, until: Instant) -> Result<Fetched, Error> {
        let options = ExecuteOptions { deadline: until.saturating_duration_since(Instant::now()), ..self.options };
        let StreamingResponse { status, headers, body, observation, .. } =
            self.outbound.open_with(request, &options).await?;
        let late = |_| RequestError::Timeout(self.options.deadline);
        let read = timeout_at(until, read_body(body, MAX_BODY_BYTES)).await.map_err(late).and_then(|read| Ok(read?));
        let body = read.map_err(|source| Error::Transport { source, attempts: 1 })?;
        let too_large = || undecodable(status, format!("its body is larger than {MAX_BODY_BYTES} bytes"));
        Ok(Fetched { status, headers, body: body.ok_or_else(too_large)?, observation })
    }
}

/// A whole response of any status.
pub(super) struct Fetched {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) observation: Observation,
}

impl Fetched {
    fn into_success(self) -> Result<Response<Bytes>, Error> {
        success(self.status, self.headers, self.body, self.observation.quota.retry_after)
    }
}

/// A response, or Clerk's error if it is not a success.
pub(super) fn success(
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    retry_after: Option<std::time::Duration>,
) -> Result<Response<Bytes>, Error> {
    if !status.is_success() {
        return Err(Error::Api(Box::new(ApiError::new(status, &headers, &body, retry_after))));
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Decodes a JSON body.
pub(super) fn decode<T: DeserializeOwned>(response: &Response<Bytes>) -> Result<T, Error> {
    serde_json::from_slice(response.body()).map_err(|error| {
        // The error's own text may repeat what users wrote.
        let what = match error.classify() {
            Category::Data => "it is JSON of another form than expected",
            Category::Eof => "its JSON breaks off",
            Category::Syntax | Category::Io => "it is not JSON: check for a proxy or a login page in between",
        };
        let reason = format!("{what} (line {}, column {})", error.line(), error.column());
        undecodable(response.status(), reason)
    })
}

fn undecodable(status: StatusCode, reason: String) -> Error {
    Error::Decode { status, reason }
}
