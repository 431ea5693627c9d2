//! Requests that have no method of their own.

use std::fmt::Display;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::query::Query;
use super::request::decode;
use super::{Clerk, Error};
use crate::outbound::ApiRequest;
use crate::outbound::retry::Idempotency;

/// Any request of the Backend API, made by [`Clerk::request`]: throttled, retried and observed like all others.
///
/// No setter fails: the first invalid value is the error of [`RequestBuilder::send`].
///
/// ```no_run
/// # async fn example(clerk: clerk_client::Clerk) -> Result<(), clerk_client::Error> {
/// use http::Method;
///
/// let organizations: serde_json::Value =
///     clerk.request(Method::GET, "/v1/organizations").query("limit", 100).send_json().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "call `send` or `send_json`"]
pub struct RequestBuilder {
    clerk: Clerk,
    request: ApiRequest,
    /// The first error of a setter.
    error: Option<Error>,
}

impl RequestBuilder {
    pub(super) const fn new(clerk: Clerk, request: ApiRequest) -> Self {
        Self { clerk, request, error: None }
    }

    /// Adds a parameter to the query.
    pub fn query(mut self, name: &str, value: impl Display) -> Self {
        let mut query = Query::of(&self.request.path);
        query.push(name, value);
        self.request.path = query.into_path();
        self
    }

    /// Sets a header, such as `Clerk-API-Version`. `Authorization` and `Host` are the client's own and are ignored.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        match (name.try_into(), value.try_into()) {
            (Ok(name), Ok(value)) => {
                self.request.headers.insert(name, value);
            }
            _ => self.fail(Error::parameter("a header", "is not valid HTTP")),
        }
        self
    }

    /// Sets a JSON body.
    pub fn json(mut self, value: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => {
                self.request.body = Bytes::from(body);
                self.request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            Err(_) => self.fail(Error::parameter("the body", "cannot be written as JSON")),
        }
        self
    }

    /// Sets which failures may be retried. Default: all for GET, HEAD and OPTIONS, none for other methods.
    pub const fn idempotency(mut self, idempotency: Idempotency) -> Self {
        self.request.idempotency = idempotency;
        self
    }

    /// Sends the request and returns the whole response, which is a success. A write invalidates what it may have changed
    /// in the client's cache.
    ///
    /// # Errors
    /// Returns the error of the first invalid setting, an error if the path is not one of the Backend API, and an error if
    /// there is no complete response with a status of 2xx.
    pub async fn send(self) -> Result<Response<Bytes>, Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        check_path(&self.request.path)?;
        self.clerk.call(&self.request).await
    }

    /// Sends the request and decodes the JSON response.
    ///
    /// # Errors
    /// As [`RequestBuilder::send`]; also if the response cannot be decoded as `T`.
    pub async fn send_json<T: DeserializeOwned>(self) -> Result<T, Error> {
        decode(&self.send().await?)
    }

    fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }
}

/// Checks that a path stays below `/v1/`, whatever normalises it on the way: it is appended to the host as it is.
fn check_path(path: &str) -> Result<(), Error> {
    let only = path.split('?').next().unwrap_or_default();
    let climbs = only.split('/').any(|part| matches!(part, "." | "..")) || only.to_ascii_lowercase().contains("%2e");
    let is_sound = path.starts_with("/v1/") && !climbs && !path.contains('#') && path.parse::<PathAndQuery>().is_ok();
    let reason = "must begin with /v1/ and be a path as it is sent, such as /v1/users/count";
    if is_sound { Ok(()) } else { Err(Error::parameter("the path", reason)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_outside_v1_is_refused() {
        for path in ["/v1/users", "/v1/users?limit=1", "/v1/organizations/org_1/invitations", "/v1/x?path=../y"] {
            assert!(check_path(path).is_ok(), "{path}");
        }
        for path in [
            "",
            "/",
            "v1/users",
            "/v2/users",
            "/v1x",
            "@evil.example/v1/",
            "/v1/../x",
            "/v1/%2E%2e/x",
            "/v1/a b",
            "/v1/#",
        ] {
            assert!(check_path(path).is_err(), "{path}");
        }
    }
}
