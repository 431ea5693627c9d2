//! What a span is, by its attributes.

use std::collections::BTreeMap;
use std::time::Duration;

use clerk_exporter::telemetry::span::{Call, CallEnd, Hosts, OWN_MARK, SpanKind, classify};
use clerk_quota::{HeaderDialect, MethodLabel, Quota};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::support::{World, attribute, call, number, span, text, texts};

fn kind(span: &Span) -> SpanKind {
    classify(span, &Hosts::new(["api.clerk.com"]).unwrap())
}

fn as_call(span: &Span) -> Call {
    let SpanKind::Call(call) = kind(span) else { panic!("{:?}", kind(span)) };
    call
}

fn with(attributes: Vec<KeyValue>) -> Span {
    let mut all = vec![text("http.request.method", "GET"), text("url.full", "https://api.clerk.com/v1/users/u_1?a=b")];
    all.extend(attributes);
    span(1, all)
}

fn end_with(attributes: Vec<KeyValue>) -> CallEnd {
    as_call(&with(attributes)).end
}

#[test]
fn only_client_spans_are_calls() {
    for (number, expected) in [(0, false), (1, false), (2, false), (3, true), (4, false), (5, false), (99, false)] {
        let found = kind(&Span { kind: number, ..call(1) });
        assert_eq!(matches!(found, SpanKind::Call(_)), expected, "{number}");
        assert_eq!(found == SpanKind::OtherKind, !expected, "{number}");
    }
}

#[test]
fn connection_span_is_no_request() {
    let found = kind(&span(1, vec![text("net.peer.name", "api.clerk.com"), number("net.peer.port", 443)]));
    assert_eq!(found, SpanKind::OtherKind);
}

#[test]
fn own_spans_are_marked() {
    for (mark, expected) in [
        (attribute(OWN_MARK, Value::BoolValue(true)), true),
        (text(OWN_MARK, "true"), true),
        (attribute(OWN_MARK, Value::BoolValue(false)), false),
        (text(OWN_MARK, "x"), false),
    ] {
        assert_eq!(kind(&with(vec![mark])) == SpanKind::Own, expected);
    }
    assert_eq!(OWN_MARK, "clerk_exporter.own");
}

#[test]
fn methods_and_routes_are_found_in_both_conventions() {
    let cases = [
        ("http.request.method", "PATCH", "url.full", MethodLabel::Patch, "/v1/users/{user_id}"),
        ("http.method", "patch", "http.url", MethodLabel::Patch, "/v1/users/{user_id}"),
        ("http.method", "DELETE", "url.path", MethodLabel::Delete, "/v1/users/{user_id}"),
        ("http.method", "HEAD", "http.target", MethodLabel::Head, "/v1/users/{user_id}"),
        ("http.method", "PROPFIND", "url.full", MethodLabel::Other, "other"),
    ];
    for (method_key, method, path_key, label, route) in cases {
        let path = if path_key.ends_with("path") || path_key.ends_with("target") {
            "/v1/users/u_1"
        } else {
            "https://api.clerk.com/v1/users/u_1?limit=1#x"
        };
        let found = as_call(&span(
            1,
            vec![text(method_key, method), text(path_key, path), text("server.address", "api.clerk.com")],
        ));
        assert_eq!((found.method, found.route.template), (label, route), "{method_key} {path_key}");
    }
    let other = [text("http.request.method", "_OTHER"), text("http.request.method_original", "GET")];
    let mut list = vec![text("url.full", "https://api.clerk.com/v1/users")];
    list.extend(other);
    assert_eq!(as_call(&span(1, list)).method, MethodLabel::Get);
}

#[test]
fn status_is_a_number_a_text_or_the_error_type() {
    let answered = |status| CallEnd::Answered { status, quota: Quota::default() };
    for (attributes, expected) in [
        (vec![number("http.response.status_code", 200)], answered(200)),
        (vec![number("http.status_code", 404)], answered(404)),
        (vec![text("http.status_code", "429")], answered(429)),
        (vec![text("error.type", "503")], answered(503)),
        (vec![number("http.status_code", 0)], CallEnd::Unanswered),
        (vec![number("http.status_code", 1000)], CallEnd::Unanswered),
        (vec![number("http.status_code", -200)], CallEnd::Unanswered),
        (vec![text("error.type", "200")], CallEnd::Unanswered),
        (vec![], CallEnd::Unanswered),
        (vec![number("http.response.status_code", 200), text("error.type", "ECONNREFUSED")], answered(200)),
    ] {
        assert_eq!(end_with(attributes.clone()), expected, "{attributes:?}");
    }
}

#[test]
fn calls_that_never_left_cost_nothing() {
    let exception = |key: &str, value: &str| Span {
        events: vec![Event { name: "exception".to_owned(), attributes: vec![text(key, value)], ..Event::default() }],
        ..with(vec![])
    };
    let status = |message: &str| Span { status: Some(Status { message: message.to_owned(), code: 2 }), ..with(vec![]) };
    for (span, expected) in [
        (with(vec![text("error.type", "ECONNREFUSED")]), CallEnd::NotSent),
        (with(vec![text("error.type", "*net.DNSError")]), CallEnd::NotSent),
        (with(vec![text("error.cause_chain", "error sending request: client error (Connect)")]), CallEnd::NotSent),
        (exception("exception.type", "httpx.ConnectTimeout"), CallEnd::NotSent),
        (exception("exception.message", "getaddrinfo ENOTFOUND api.clerk.com"), CallEnd::NotSent),
        (status("dial tcp: lookup api.clerk.com: no such host"), CallEnd::NotSent),
        (with(vec![text("error.type", "ECONNRESET")]), CallEnd::Unanswered),
        (exception("exception.type", "httpx.ReadTimeout"), CallEnd::Unanswered),
        (status("read tcp: i/o timeout"), CallEnd::Unanswered),
    ] {
        assert_eq!(as_call(&span).end, expected, "{span:?}");
    }
    let world = World::new("api.clerk.com");
    world.send(vec![with(vec![text("error.type", "ENOTFOUND")])]);
    assert_eq!(world.results(), [("accepted", 1)]);
    assert_eq!(world.spent(), BTreeMap::new());
}

#[test]
fn unanswered_calls_may_have_been_counted() {
    let world = World::new("api.clerk.com");
    world.send(vec![with(vec![text("error.type", "UND_ERR_HEADERS_TIMEOUT")])]);
    assert_eq!(world.spent(), BTreeMap::from([("unknown GET /v1/users/{user_id} unknown".to_owned(), 1)]));
}

#[test]
fn captured_headers_are_parsed_like_those_of_a_response() {
    let header = |name: &str| format!("http.response.header.{name}");
    let status = number("http.response.status_code", 429);
    for retry_after in [texts(&header("retry-after"), &["6"]), text(&header("retry_after"), "6")] {
        let CallEnd::Answered { quota, .. } = end_with(vec![status.clone(), retry_after]) else { panic!() };
        assert_eq!(quota.retry_after, Some(Duration::from_secs(6)));
        assert_eq!(quota.dialect, Some(HeaderDialect::RetryAfter));
    }
    let limits = ["limit", "remaining", "reset"].map(|name| texts(&header(&format!("x-ratelimit-{name}")), &["10"]));
    let CallEnd::Answered { quota, .. } = end_with([vec![status.clone()], limits.to_vec()].concat()) else { panic!() };
    assert_eq!((quota.limit, quota.remaining, quota.reset), (Some(10), Some(10), Some(Duration::from_secs(10))));
    let others = vec![texts(&header("set-cookie"), &["a=b"]), texts(&header("x-ratelimit-limit\n"), &["1"])];
    let CallEnd::Answered { quota, .. } = end_with([vec![status], others].concat()) else { panic!() };
    assert_eq!(quota, Quota::default());
}

#[test]
fn nextjs_fetch_counts_as_at_most() {
    let fetch = |id| Span { span_id: vec![id; 8], ..with(vec![text("next.span_type", "AppRender.fetch")]) };
    assert!(as_call(&fetch(1)).is_nextjs_fetch);
    let world = World::new("api.clerk.com");
    let mut inner = call(9);
    inner.trace_id = fetch(1).trace_id;
    inner.parent_span_id = fetch(1).span_id;
    world.send(vec![inner, fetch(1), fetch(2)]);
    assert_eq!(world.results(), [("accepted", 2), ("nested", 1)]);
    assert_eq!(world.telemetry.stats().at_most, 1, "only the one without an inner span");
}

#[test]
fn sampling_ratio_of_a_span_beats_the_configured_one() {
    let world = World::with(&[("main", &["api.clerk.com"])], |mut options| {
        options.sampling_ratio = 0.5;
        options
    });
    let stated = |id, state: &str| Span { trace_state: state.to_owned(), ..call(id) };
    world.send(vec![call(1), stated(2, "ot=th:c"), stated(3, "ot=th:0"), stated(4, "ot=th:nonsense")]);
    assert_eq!(world.counted(), 2 + 4 + 1 + 2);
}

#[test]
fn malformed_calls_are_rejected_alone() {
    let edit = |change: fn(&mut Span)| {
        let mut span = call(1);
        change(&mut span);
        span
    };
    let malformed = [
        edit(|span| span.trace_id = vec![1; 15]),
        edit(|span| span.trace_id = vec![0; 16]),
        edit(|span| span.trace_id = Vec::new()),
        edit(|span| span.span_id = vec![1; 9]),
        edit(|span| span.span_id = vec![0; 8]),
        edit(|span| span.parent_span_id = vec![1; 7]),
        edit(|span| span.start_time_unix_nano = 0),
        edit(|span| span.end_time_unix_nano = 0),
    ];
    let count = malformed.len() as u64;
    for span in &malformed {
        assert_eq!(kind(span), SpanKind::Malformed, "{span:?}");
    }
    let world = World::new("api.clerk.com");
    let rejected = world.send([malformed.to_vec(), vec![call(2)]].concat());
    assert_eq!((rejected.malformed, rejected.dropped), (count, 0));
    assert_eq!(world.results(), [("accepted", 1), ("malformed", count)]);
}

#[test]
fn absurd_times_are_counted_without_a_window() {
    let world = World::new("api.clerk.com");
    let at = |id, start: u64, end: u64| Span { start_time_unix_nano: start, end_time_unix_nano: end, ..call(id) };
    let recent = call(0).end_time_unix_nano;
    let rejected = world.send(vec![
        at(1, 1, 1),
        at(2, u64::MAX, u64::MAX),
        at(3, 1, u64::MAX),
        at(4, u64::MAX, recent),
        at(5, 1, recent),
    ]);
    assert_eq!(rejected.spans(), 0);
    assert_eq!(world.results(), [("accepted", 1), ("late", 2), ("future", 2)]);
    assert_eq!(world.counted(), 5);
}
