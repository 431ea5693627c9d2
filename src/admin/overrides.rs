//! `/api/v1/overrides`: lists, sets and ends overrides of callers.
//!
//! Changes need a client that has authenticated, and no browser may make them for another site: a form cannot send JSON,
//! and `Sec-Fetch-Site` names the sender.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Admin;
use crate::gateway::{ActiveOverride, Gateway, OVERRIDE_DURATIONS, OverrideAction, OverrideError, OverrideRequest};
use prometheus_web::AuthenticatedClient;

/// Maximum size of a request body in bytes.
const MAX_BODY: usize = 4096;

/// An override that is in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverrideStatus {
    /// Alias of the instance.
    pub instance: Arc<str>,
    /// Name of the caller.
    pub caller: Arc<str>,
    /// `pause` or `cap`.
    pub action: &'static str,
    /// Part of the limit that a cap leaves; null for a pause.
    pub max_share: Option<f64>,
    /// When it ends (RFC 3339, UTC).
    pub until: String,
    /// `all`: it holds for all gateways on the same Redis; `process`: for this process.
    pub scope: &'static str,
}

impl From<ActiveOverride> for OverrideStatus {
    fn from(it: ActiveOverride) -> Self {
        Self {
            instance: it.instance,
            caller: it.caller,
            action: it.action.as_str(),
            max_share: it.action.max_share(),
            until: humantime::format_rfc3339_seconds(it.until).to_string(),
            scope: if it.is_shared { "all" } else { "process" },
        }
    }
}

/// The overrides of all instances.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct OverridePage {
    overrides: Vec<OverrideStatus>,
}

/// A request that is not fulfilled: the status, and what to do instead.
type Rejection = (StatusCode, String);

type Client = Option<Extension<AuthenticatedClient>>;

pub(super) async fn list(State(site): State<Arc<Admin>>) -> Response {
    let page = gateway(&site).map(|gateway| {
        let overrides = gateway.overrides().into_iter().map(OverrideStatus::from).collect();
        Json(OverridePage { overrides })
    });
    answer(page)
}

pub(super) async fn set(State(site): State<Arc<Admin>>, client: Client, request: Request) -> Response {
    answer(try_set(&site, client, request).await)
}

pub(super) async fn end(
    State(site): State<Arc<Admin>>,
    client: Client,
    query: Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    answer(try_end(&site, client, &query, &headers).await)
}

fn answer(result: Result<impl IntoResponse, Rejection>) -> Response {
    match result {
        Ok(page) => page.into_response(),
        Err((status, message)) => (status, message + "\n").into_response(),
    }
}

async fn try_set(site: &Admin, client: Client, request: Request) -> Result<Json<OverrideStatus>, Rejection> {
    let (head, body) = request.into_parts();
    let client = authorized(client, &head.headers)?;
    let gateway = gateway(site)?;
    if !is_json(&head.headers) {
        let message = "send JSON, with `Content-Type: application/json`";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned()));
    }
    let body = read(body).await?;
    let wanted = parse(&body).map_err(|message| (StatusCode::BAD_REQUEST, message))?;
    let request = OverrideRequest {
        instance: wanted.instance.as_deref(),
        caller: &wanted.caller,
        action: wanted.action,
        duration: wanted.duration,
        by: client.user.as_deref(),
    };
    let set = gateway.set_override(&request).await;
    set.map(|it| Json(it.into())).map_err(rejection)
}

async fn try_end(
    site: &Admin,
    client: Client,
    query: &[(String, String)],
    headers: &HeaderMap,
) -> Result<Json<OverrideStatus>, Rejection> {
    let client = authorized(client, headers)?;
    let gateway = gateway(site)?;
    let of = |wanted: &str| query.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
    let Some(caller) = of("caller") else {
        return Err((StatusCode::BAD_REQUEST, "write `?instance=prod&caller=import` after the path".to_owned()));
    };
    let ended = gateway.end_override(of("instance"), caller, client.user.as_deref()).await;
    ended.map(|it| Json(it.into())).map_err(rejection)
}

fn gateway(site: &Admin) -> Result<&Gateway, Rejection> {
    let message = "no gateway is configured in this process; only a gateway can pause or cap callers";
    site.sources.gateway.as_deref().ok_or_else(|| (StatusCode::NOT_FOUND, message.to_owned()))
}

/// The client, if it has authenticated and no other site made its browser send the request.
fn authorized(client: Client, headers: &HeaderMap) -> Result<AuthenticatedClient, Rejection> {
    let Some(Extension(client)) = client else {
        let message = "overrides can be changed only by users with a password or a client certificate; set \
                       basic_auth_users in the file of --web.config.file";
        return Err((StatusCode::FORBIDDEN, message.to_owned()));
    };
    let mut sites = headers.get_all("sec-fetch-site").iter();
    if sites.any(|site| !["same-origin", "none"].iter().any(|own| site.as_bytes() == own.as_bytes())) {
        let message = "a page of another site sent this request; send it from this site or with a command";
        return Err((StatusCode::FORBIDDEN, message.to_owned()));
    }
    Ok(client)
}

/// Whether the media type is that of JSON, whatever its parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

async fn read(body: Body) -> Result<Vec<u8>, Rejection> {
    let bytes = to_bytes(body, MAX_BODY).await;
    bytes.map(Vec::from).map_err(|error| {
        // The limit's error is the only one with a source of this type.
        let mut causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        if causes.any(|cause| cause.is::<http_body_util::LengthLimitError>()) {
            (StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {MAX_BODY} bytes; {EXAMPLE}"))
        } else {
            (StatusCode::BAD_REQUEST, "the body ended early; send it again".to_owned())
        }
    })
}

fn rejection(error: OverrideError) -> Rejection {
    let status = match error {
        OverrideError::WhichInstance { .. } | OverrideError::OutOfRange => StatusCode::BAD_REQUEST,
        OverrideError::NoInstance { .. } | OverrideError::NoCaller { .. } | OverrideError::NoOverride => {
            StatusCode::NOT_FOUND
        }
        OverrideError::TooMany => StatusCode::CONFLICT,
        OverrideError::Redis { .. } | OverrideError::Content => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
}

/// A body, checked.
#[derive(Debug, PartialEq)]
struct WantedOverride {
    instance: Option<String>,
    caller: String,
    action: OverrideAction,
    duration: Duration,
}

const EXAMPLE: &str = r#"write it as in `{"instance":"prod","caller":"import","action":"pause","minutes":30}`"#;
const MAX_MINUTES: u64 = OVERRIDE_DURATIONS.end().as_secs() / 60;

/// Reads a body. Messages do not repeat values.
fn parse(body: &[u8]) -> Result<WantedOverride, String> {
    let value: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| format!("the body is not a JSON object; {EXAMPLE}"))?;
    const KNOWN: [&str; 5] = ["instance", "caller", "action", "minutes", "max_share"];
    if value.keys().any(|key| !KNOWN.contains(&key.as_str())) {
        return Err(format!(
            "the body has an unknown key; write only {}",
            KNOWN.map(|key| format!("`{key}`")).join(", ")
        ));
    }
    let text = |key: &str| match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{key}` is not a text; {EXAMPLE}")),
    };
    let instance = text("instance")?;
    let caller = text("caller")?.ok_or_else(|| format!("`caller` is missing; {EXAMPLE}"))?;
    let share = value.get("max_share").filter(|share| !share.is_null());
    let action = match (text("action")?.as_deref(), share) {
        (Some("pause"), None) => OverrideAction::Pause,
        (Some("pause"), Some(_)) => return Err("`max_share` is for the action `cap`; remove it".to_owned()),
        (Some("cap"), share) => {
            let share = share.and_then(Value::as_f64).filter(|share| *share > 0.0 && *share < 1.0);
            let max_share = share.ok_or("`max_share` is not between 0 and 1; write 0.1 for 10 % of the limit")?;
            OverrideAction::Cap { max_share }
        }
        _ => return Err("`action` is neither `pause` nor `cap`; write one of them".to_owned()),
    };
    let minutes = value.get("minutes").and_then(Value::as_u64).filter(|it| (1..=MAX_MINUTES).contains(it));
    let minutes =
        minutes.ok_or_else(|| format!("`minutes` is not a whole number from 1 to {MAX_MINUTES}; write 30"))?;
    Ok(WantedOverride { instance, caller, action, duration: Duration::from_secs(minutes * 60) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(instance: Option<&str>, action: OverrideAction, minutes: u64) -> WantedOverride {
        let duration = Duration::from_secs(minutes * 60);
        WantedOverride { instance: instance.map(str::to_owned), caller: "import".to_owned(), action, duration }
    }

    #[test]
    fn complete_bodies_are_read() {
        let cap = OverrideAction::Cap { max_share: 0.1 };
        for (body, expected) in [
            (
                r#"{"instance":"prod","caller":"import","action":"pause","minutes":30}"#,
                wanted(Some("prod"), OverrideAction::Pause, 30),
            ),
            (r#"{"caller":"import","action":"pause","minutes":1440}"#, wanted(None, OverrideAction::Pause, 1440)),
            (r#"{"caller":"import","action":"cap","max_share":0.1,"minutes":1}"#, wanted(None, cap, 1)),
            (
                r#"{"instance":null,"max_share":null,"caller":"import","action":"pause","minutes":2}"#,
                wanted(None, OverrideAction::Pause, 2),
            ),
        ] {
            assert_eq!(parse(body.as_bytes()), Ok(expected), "{body}");
        }
    }

    #[test]
    fn every_mistake_has_a_remedy() {
        for (body, expected) in [
            ("", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("\"CANARY\"", "not a JSON object"),
            (r#"{"action":"pause","minutes":30}"#, "`caller` is missing"),
            (r#"{"caller":7,"action":"pause","minutes":30}"#, "`caller` is not a text"),
            (r#"{"instance":[],"caller":"a","action":"pause","minutes":30}"#, "`instance` is not a text"),
            (r#"{"caller":"a","minutes":30}"#, "neither `pause` nor `cap`"),
            (r#"{"caller":"a","action":"CANARY","minutes":30}"#, "neither `pause` nor `cap`"),
            (r#"{"caller":"a","action":"pause"}"#, "`minutes` is not a whole number from 1 to 1440"),
            (r#"{"caller":"a","action":"pause","minutes":0}"#, "`minutes`"),
            (r#"{"caller":"a","action":"pause","minutes":1441}"#, "`minutes`"),
            (r#"{"caller":"a","action":"pause","minutes":1.5}"#, "`minutes`"),
            (r#"{"caller":"a","action":"pause","minutes":"30"}"#, "`minutes`"),
            (r#"{"caller":"a","action":"pause","minutes":30,"max_share":0.1}"#, "for the action `cap`"),
            (r#"{"caller":"a","action":"cap","minutes":30}"#, "`max_share` is not between 0 and 1"),
            (r#"{"caller":"a","action":"cap","minutes":30,"max_share":0}"#, "`max_share`"),
            (r#"{"caller":"a","action":"cap","minutes":30,"max_share":1}"#, "`max_share`"),
            (r#"{"caller":"a","action":"cap","minutes":30,"max_share":"0.1"}"#, "`max_share`"),
            (r#"{"caller":"a","action":"pause","minutes":30,"CANARY":1}"#, "unknown key; write only `instance`"),
        ] {
            let message = parse(body.as_bytes()).unwrap_err();
            assert!(message.contains(expected) && !message.contains("CANARY"), "{body}: {message}");
        }
    }

    #[test]
    fn only_json_is_json() {
        let is = |value: &str| is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]));
        assert!(is("application/json") && is("Application/JSON; charset=utf-8"));
        for other in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            assert!(!is(other), "{other}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
