//! One request and its answer: sent, read whole, judged by its status, and understood.

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::{Instant, timeout_at};

use super::{ApiError, Clerk, Error};
use crate::outbound::{ApiRequest, ExecuteOptions, RequestError, StreamingResponse, read_body};

/// Largest body that is read, after decompression: 500 users with as much metadata as Clerk lets them have (8 KB of each
/// of three kinds) are about half of it.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

impl Clerk {
    /// The resource at a path.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: impl Into<String>) -> Result<T, Error> {
        decode(&self.exchange(&self.call(Method::GET, path)).await?)
    }

    /// A request of this client's.
    pub(super) fn call(&self, method: Method, path: impl Into<String>) -> ApiRequest {
        let (headers, caller) = (HeaderMap::clone(&self.headers), self.caller);
        ApiRequest { headers, caller, ..ApiRequest::new(method, path, self.source) }
    }

    /// Sends a request and gives the whole answer if it is a success.
    ///
    /// A 401 reads the key again, since it may have been replaced, and sends the request once more if it was: what was
    /// refused for its key was not executed.
    pub(super) async fn exchange(&self, call: &ApiRequest) -> Result<Response<Bytes>, Error> {
        let until = Instant::now() + self.options.deadline;
        let key = self.outbound.key.current()?;
        let result = self.exchange_until(call, until).await;
        let is_refused = result.as_ref().is_err_and(|error| error.status() == Some(StatusCode::UNAUTHORIZED));
        if is_refused && self.outbound.key.replaces(&key) { self.exchange_until(call, until).await } else { result }
    }

    async fn exchange_until(&self, call: &ApiRequest, until: Instant) -> Result<Response<Bytes>, Error> {
        let options = ExecuteOptions { deadline: until.saturating_duration_since(Instant::now()), ..self.options };
        let StreamingResponse { status, headers, body, observation, errors } =
            self.outbound.open_with(call, &options).await?;
        if !status.is_success() {
            let error = ApiError::new(status, &headers, errors, observation.quota.retry_after);
            return Err(Error::Api(Box::new(error)));
        }
        let late = |_| RequestError::Timeout(self.options.deadline);
        let read = timeout_at(until, read_body(body, MAX_BODY_BYTES)).await.map_err(late).and_then(|read| Ok(read?));
        let body = read.map_err(|source| Error::Transport { source, attempts: 1 })?;
        let too_large = || undecodable(status, format!("its body is larger than {MAX_BODY_BYTES} bytes"));
        let mut response = Response::new(body.ok_or_else(too_large)?);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// What a JSON body says.
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
