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

/// Any request of the Backend API: paced, repeated and observed like all others.
///
/// ```no_run
/// # async fn example(clerk: clerk_client::clerk::Clerk) -> Result<(), clerk_client::clerk::Error> {
/// use http::Method;
/// let organizations: serde_json::Value =
///     clerk.raw(Method::GET, "/v1/organizations").query("limit", 100).json().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before `send` or `json`"]
pub struct Raw {
    clerk: Clerk,
    call: ApiRequest,
}

impl Raw {
    pub(super) const fn new(clerk: Clerk, call: ApiRequest) -> Self {
        Self { clerk, call }
    }

    /// Adds a parameter to the query.
    pub fn query(mut self, name: &str, value: impl Display) -> Self {
        let mut query = Query::of(&self.call.path);
        query.push(name, value);
        self.call.path = query.into_path();
        self
    }

    /// Sets a header, such as `Clerk-API-Version`. `Authorization` and `Host` are the client's and are left out.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.call.headers.insert(name, value);
        self
    }

    /// Sets a JSON body.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    pub fn body(mut self, value: &impl Serialize) -> Result<Self, Error> {
        let invalid = |_| Error::parameter("the body", "cannot be written as JSON");
        self.call.body = Bytes::from(serde_json::to_vec(value).map_err(invalid)?);
        self.call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(self)
    }

    /// Says which failures allow the request to be sent again; without it, all for methods that read, and none for
    /// others.
    pub fn repeat(mut self, repeat: Idempotency) -> Self {
        self.call.idempotency = repeat;
        self
    }

    /// Sends the request and reads the whole answer, which is a success.
    ///
    /// # Errors
    /// When the path is none of the Backend API, or there is no complete answer of status 2xx.
    pub async fn send(self) -> Result<Response<Bytes>, Error> {
        check_path(&self.call.path)?;
        self.clerk.exchange(&self.call).await
    }

    /// Sends the request and reads the answer as JSON.
    ///
    /// # Errors
    /// As [`Raw::send`], and when the answer is not of this form.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        decode(&self.send().await?)
    }
}

/// Whether a path stays below `/v1/`, whatever normalises it on the way. The path is put behind the host as it is.
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
    fn a_path_stays_below_v1() {
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
