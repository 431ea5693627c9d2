//! Turns a response into an observation.

use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::response::Parts;

use super::error_body::ErrorBody;
use super::media_type::is_json;
use clerk_quota::{KeyVerdict, Moment, Observation, QuotaCode, Route, Source};

/// Error codes of Clerk's rate limiter. The second one occurs in mocks.
const RATE_LIMIT_CODES: [&str; 2] = ["too_many_requests", "rate_limit_exceeded"];

/// Turns a response into an observation.
///
/// `body` is `None` if it could not be read or is streamed. `at` and `wall` are the same instant on the monotonic and
/// on the wall clock.
pub(super) fn observe(
    head: &Parts,
    body: Option<&[u8]>,
    errors: &ErrorBody,
    source: Source,
    route: Route,
    at: Moment,
    wall: SystemTime,
) -> Observation {
    let quota = ratelimit_headers::parse(head.status, &head.headers, Some(wall));
    let quota_code = errors.errors.iter().find_map(|error| QuotaCode::from_code(&error.code));
    let json = is_json(&head.headers);
    Observation {
        at,
        source,
        route: route.id,
        bucket: route.bucket,
        entity: route.entity,
        status: head.status.as_u16(),
        usable: is_usable(head, json, body, errors),
        key: key_verdict(head, json, body, errors, quota_code),
        quota_code: quota_code.filter(|_| head.status == StatusCode::FORBIDDEN),
        is_rate_limit: errors.code().is_some_and(|code| RATE_LIMIT_CODES.contains(&code)),
        quota,
        clock_offset_seconds: quota.date.map(|date| offset_seconds(date, wall)),
    }
}

/// Whether this is a usable response of Clerk's API.
///
/// A proxy's page or a login form is not, whatever its status. A 429 always is, because Clerk's edge sends it as HTML.
fn is_usable(head: &Parts, json: bool, body: Option<&[u8]>, errors: &ErrorBody) -> bool {
    let status = head.status;
    if status == StatusCode::TOO_MANY_REQUESTS {
        return true;
    }
    if status.is_success() {
        // A 204 has no content type.
        return status == StatusCode::NO_CONTENT || (json && body.is_none_or(begins_as_json));
    }
    let is_api_error = errors.code().is_some() || is_compressed_json(head, body);
    // A 401 or 403 means that the instance's key does not work, except a 403 with a quota code. A 407 is a proxy's.
    status.is_client_error()
        && !matches!(
            status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED
        )
        && is_api_error
        || (status == StatusCode::FORBIDDEN && errors.code().is_some_and(|code| QuotaCode::from_code(code).is_some()))
}

/// Whether this is an unread compressed JSON body, which can be judged only by its content type.
fn is_compressed_json(head: &Parts, body: Option<&[u8]>) -> bool {
    body.is_none() && head.headers.contains_key(CONTENT_ENCODING) && is_json(&head.headers)
}

/// Whether a body starts like a JSON object or list, the only kinds Clerk sends. The caller parses the rest.
fn begins_as_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

fn key_verdict(
    head: &Parts,
    json: bool,
    body: Option<&[u8]>,
    errors: &ErrorBody,
    quota_code: Option<QuotaCode>,
) -> KeyVerdict {
    let status = head.status;
    let is_api_body = json && body.is_none_or(begins_as_json);
    match status {
        StatusCode::UNAUTHORIZED => KeyVerdict::Invalid,
        StatusCode::FORBIDDEN if quota_code.is_some() => KeyVerdict::Valid,
        // The cause may be the key or a quota.
        StatusCode::FORBIDDEN if is_compressed_json(head, body) => KeyVerdict::Unknown,
        // An HTML page comes from an intermediary rather than from the API.
        StatusCode::FORBIDDEN if json || !head.headers.contains_key(CONTENT_TYPE) => KeyVerdict::Invalid,
        _ if status.is_success() && is_api_body => KeyVerdict::Valid,
        _ if status.is_client_error()
            && status != StatusCode::TOO_MANY_REQUESTS
            && (errors.code().is_some() || is_compressed_json(head, body)) =>
        {
            KeyVerdict::Valid
        }
        _ => KeyVerdict::Unknown,
    }
}

/// Clerk's clock minus the local one, in seconds. Adds 0.5 s, because `Date` is truncated to whole seconds.
fn offset_seconds(date: SystemTime, wall: SystemTime) -> f64 {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    seconds(date) + 0.5 - seconds(wall)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clerk_quota::route;
    use std::time::Duration;

    fn observed(status: u16, content_type: &str, body: &str) -> Observation {
        let response = http::Response::builder()
            .status(status)
            .header("content-type", content_type)
            .header("date", "Wed, 25 Nov 2026 12:00:30 GMT")
            .body(())
            .unwrap();
        let wall = UNIX_EPOCH + Duration::from_secs(1_795_608_000);
        let at = Moment::from_unix(Duration::from_secs(1_795_608_000));
        let head = response.into_parts().0;
        let errors = ErrorBody::parse(head.status, body.as_bytes());
        observe(&head, Some(body.as_bytes()), &errors, Source::Probe, route::find("GET", b"/v1/users/count"), at, wall)
    }

    #[test]
    fn clock_offset_uses_the_current_wall_clock() {
        let date = UNIX_EPOCH + Duration::from_secs(1_795_608_030);
        for (wall, offset) in
            [(1_795_608_030, 0.5), (1_795_618_830, -10_799.5), (1_795_608_000, 30.5), (0, 1_795_608_030.5)]
        {
            let found = offset_seconds(date, UNIX_EPOCH + Duration::from_secs(wall));
            assert!((found - offset).abs() < 1e-6, "{wall}: {found}");
        }
    }

    fn error(code: &str) -> String {
        format!(r#"{{"errors":[{{"code":"{code}","message":"m"}}]}}"#)
    }

    #[test]
    fn responses_determine_usability_and_key_verdict() {
        use KeyVerdict::{Invalid, Unknown, Valid};
        for (status, content_type, body, usable, key) in [
            (200, "application/json", "{}".to_owned(), true, Valid),
            (200, "application/json; charset=utf-8", "{}".to_owned(), true, Valid),
            (200, "text/html", "<html>".to_owned(), false, Unknown),
            (200, "application/json", String::new(), false, Unknown),
            (200, "application/json", " <html>".to_owned(), false, Unknown),
            (200, "application/json", " \n[]".to_owned(), true, Valid),
            (204, "", String::new(), true, Unknown),
            (302, "text/html", String::new(), false, Unknown),
            (401, "application/json", error("clerk_key_invalid"), false, Invalid),
            (401, "text/html", String::new(), false, Invalid),
            (403, "application/json", error("user_quota_exceeded"), true, Valid),
            (403, "application/json", error("not_allowed"), false, Invalid),
            (403, "text/html", "blocked by a proxy".to_owned(), false, Unknown),
            (404, "application/json", error("resource_not_found"), true, Valid),
            (404, "text/html", "<html>".to_owned(), false, Unknown),
            (407, "text/html", String::new(), false, Unknown),
            (429, "text/html", "<html>".to_owned(), true, Unknown),
            (429, "application/json", error("too_many_requests"), true, Unknown),
            (500, "application/json", error("internal_clerk_error"), false, Unknown),
            (521, "text/html", String::new(), false, Unknown),
        ] {
            let observation = observed(status, content_type, &body);
            assert_eq!((observation.usable, observation.key), (usable, key), "{status} {content_type} {body}");
        }
    }

    #[test]
    fn observation_has_the_clock_offset() {
        assert_eq!(observed(200, "application/json", "{}").clock_offset_seconds, Some(30.5));
    }

    #[test]
    fn quota_code_is_reported_only_for_403() {
        assert_eq!(observed(403, "application/json", &error("quota_exceeded")).quota_code, Some(QuotaCode::Any));
        assert_eq!(observed(400, "application/json", &error("quota_exceeded")).quota_code, None);
    }
}
