//! The control endpoints under `/_simulator`. They need no key and are not counted.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, http::StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::Simulator;
use super::faults::Faults;
use super::index;

/// Events of each budget in the response, unless the query sets another number.
const DEFAULT_EVENTS: usize = 1_000;

/// Routes under `/_simulator`.
pub(super) fn routes() -> Router<Simulator> {
    Router::new()
        .route("/_simulator", get(index::show))
        .route("/_simulator/", get(index::show))
        .route("/_simulator/truth", get(truth))
        .route("/_simulator/faults", get(show_faults).post(add_faults).put(replace_faults).delete(clear_faults))
        .route("/_simulator/reset", post(reset))
        .route("/_simulator/{*path}", axum::routing::any(unknown))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TruthQuery {
    #[serde(default = "default_events")]
    events: usize,
}

fn default_events() -> usize {
    DEFAULT_EVENTS
}

async fn truth(State(simulator): State<Simulator>, query: Result<Query<TruthQuery>, QueryRejection>) -> Response {
    match query {
        Ok(Query(query)) => Json(simulator.truth().with_last_events(query.events)).into_response(),
        Err(rejection) => error_response(StatusCode::BAD_REQUEST, &rejection.body_text()),
    }
}

async fn show_faults(State(simulator): State<Simulator>) -> Json<Faults> {
    Json(simulator.faults())
}

async fn add_faults(State(simulator): State<Simulator>, given: Result<Json<Faults>, JsonRejection>) -> Response {
    change_faults(&simulator, given, |mut present, given| {
        present.rules.extend(given.rules);
        // A skew that is not given stays unchanged.
        if given.clock_skew_seconds != 0 {
            present.clock_skew_seconds = given.clock_skew_seconds;
        }
        present
    })
}

async fn replace_faults(State(simulator): State<Simulator>, given: Result<Json<Faults>, JsonRejection>) -> Response {
    change_faults(&simulator, given, |_, given| given)
}

fn change_faults(
    simulator: &Simulator,
    given: Result<Json<Faults>, JsonRejection>,
    change: impl FnOnce(Faults, Faults) -> Faults,
) -> Response {
    match given {
        Ok(Json(given)) => match simulator.change_faults(|present| change(present, given)) {
            Ok(faults) => Json(faults).into_response(),
            Err(error) => error_response(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
        },
        Err(rejection) => error_response(rejection.status(), &rejection.body_text()),
    }
}

async fn clear_faults(State(simulator): State<Simulator>) -> Json<Faults> {
    Json(simulator.set_faults(Faults::default()).map_or_else(|_| simulator.faults(), |()| Faults::default()))
}

async fn reset(State(simulator): State<Simulator>) -> StatusCode {
    simulator.reset();
    StatusCode::NO_CONTENT
}

async fn unknown() -> Response {
    error_response(StatusCode::NOT_FOUND, "no such endpoint; GET /_simulator/ lists all")
}

fn error_response(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}
