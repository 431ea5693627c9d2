//! Properties of whole analyses.

mod own_log;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use clerk_quota::{
    Bucket, CallerId, Coverage, Environment, InstanceLedger, KeyVerdict, Limit, MethodLabel, Moment, Observation,
    Quota, ReportedEnd, ReportedRequest, RequestStart, Settings, Source, route,
};

const WINDOW: Duration = Duration::from_secs(10);
const LIMIT: u64 = 20;

/// Begin of the logs, on the grid of windows.
const BEGIN: u64 = 1_795_993_450_000;

/// A request: start and duration in milliseconds, what it reads or writes, and the status.
#[derive(Debug, Clone, Copy)]
struct Request {
    start: u64,
    took: u64,
    user: u8,
    is_write: bool,
    status: u16,
}

fn requests(most: usize) -> impl Strategy<Value = Vec<Request>> {
    let status = prop_oneof![8 => Just(200_u16), 1 => Just(429_u16), 1 => Just(503_u16)];
    let one = (0_u64..55_000, 0_u64..1500, 0_u8..6, prop::bool::weighted(0.1), status);
    let of = |(start, took, user, is_write, status)| Request { start: BEGIN + start, took, user, is_write, status };
    prop::collection::vec(one.prop_map(of), 1..most)
}

fn line(request: &Request) -> String {
    let Request { start, took, user, is_write, status } = *request;
    // Sessions have no bucket of their own, and their writes change no user.
    let (method, path) = if is_write { ("PATCH", "/v1/sessions/s") } else { ("GET", "/v1/users/u") };
    format!(
        "{{\"start_time\":\"{start}\",\"duration\":{took},\"method\":\"{method}\",\"path\":\"{path}{user}\",\
         \"response_code\":{status},\"authority\":\"api.clerk.com\",\"user_agent\":\"app{user}/1\"}}\n"
    )
}

fn options() -> AnalysisOptions {
    let limit = Limit { requests: LIMIT, window: WINDOW };
    AnalysisOptions {
        hosts: vec![CLERK_HOST.to_owned()],
        instance: None,
        fields: Vec::new(),
        limit: AssumedLimit { limit, environment: Environment::Production, low_threshold: 0.1 },
        max_wait: Duration::from_secs(11),
    }
}

fn analyzed(logs: Vec<String>) -> AnalysisReport {
    let (options, files) = (options(), logs.len());
    let callers = Arc::new(CallerRegistry::new(MAX_CALLERS));
    let parser = LineParser::new(&options.hosts, &[], Arc::clone(&callers));
    let logs = Logs::in_memory(logs.into_iter().map(String::into_bytes), parser).unwrap();
    report(sum(logs, &options, callers).unwrap(), files, &options.limit, &LimitSource::Flag)
}

/// One log per part.
fn split(requests: &[Request], parts: usize) -> Vec<String> {
    let mut logs = vec![String::new(); parts];
    for (place, request) in requests.iter().enumerate() {
        logs[place % parts].push_str(&line(request));
    }
    logs
}

/// Windows, low and exhausted ones, counted by hand.
fn by_hand(requests: &[Request]) -> [u64; 3] {
    let mut windows: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
    for request in requests {
        let window = windows.entry(request.start / 10_000).or_default();
        window.0 += u64::from(request.status != 429);
        window.1 |= request.status == 429;
    }
    let exhausted = |(used, refused): &&(u64, bool)| *refused || *used >= LIMIT;
    let low = |window: &&(u64, bool)| exhausted(window) || (LIMIT - window.0) * 10 < LIMIT;
    [windows.len(), windows.values().filter(low).count(), windows.values().filter(exhausted).count()]
        .map(|count| count as u64)
}

/// The same from the ledger's own way for requests that are reported after they ended.
fn by_reports(requests: &[Request]) -> [u64; 3] {
    let settings = Settings {
        name: "log".into(),
        environment: Environment::Production,
        api_host: "".into(),
        limit: Some(Limit { requests: LIMIT, window: WINDOW }),
        users_limit: None,
        low_threshold: 0.1,
        stale_after: WINDOW,
        sources: vec![Source::Telemetry],
        coverage: Coverage::Sole,
        lateness: Some(order::LATENESS),
    };
    let mut ledger = InstanceLedger::new(settings);
    let at = |millis| Moment::from_unix(Duration::from_millis(millis));
    ledger.count_since(at(BEGIN - 60_000));
    let newest = at(BEGIN + 57_000);
    for request in requests {
        let (method, path) = if request.is_write { ("PATCH", "/v1/sessions/s") } else { ("GET", "/v1/users/u") };
        let route = route::find(method, path.as_bytes());
        let source = Source::Telemetry;
        let start =
            RequestStart { at: at(request.start), source, caller: CallerId::UNNAMED, route, method: MethodLabel::Get };
        let ended = at(request.start + request.took);
        let observation = Observation {
            at: ended,
            source,
            route: route.id,
            bucket: route.bucket,
            entity: None,
            status: request.status,
            usable: request.status < 500,
            key: KeyVerdict::Unknown,
            quota_code: None,
            is_rate_limit: request.status == 429,
            quota: Quota::default(),
            clock_offset_seconds: None,
        };
        let end = ReportedEnd::Answered(observation);
        ledger.report(newest, &ReportedRequest { start, ended, end, weight: 1.0 });
    }
    let snapshot = ledger.snapshot(at(BEGIN + 600_000));
    let bucket = snapshot.bucket(Bucket::Instance).unwrap();
    [bucket.windows, bucket.low_windows, bucket.exhausted_windows]
}

fn windows(report: &AnalysisReport) -> [u64; 3] {
    let bucket = &report.buckets[0];
    [bucket.windows, bucket.low_windows, bucket.exhausted_windows]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn order_of_lines_within_a_minute_changes_nothing(
        (given, shuffled) in requests(150).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        parts in 1_usize..4,
    ) {
        let one = analyzed(split(&given, 1));
        let mut other = analyzed(split(&shuffled, parts));
        other.logs.files = 1;
        prop_assert_eq!(one, other);
    }

    #[test]
    fn windows_equal_an_independent_count(given in requests(200)) {
        let report = analyzed(split(&given, 2));
        prop_assert_eq!(windows(&report), by_hand(&given));
        prop_assert_eq!(windows(&report), by_reports(&given));
        let requests: u64 = report.routes.iter().map(|route| route.counts.requests).sum();
        prop_assert_eq!(requests, given.len() as u64);
        let bins = report.timeline.parts.iter().map(|part| [part.windows, part.low, part.exhausted]);
        let sum = bins.fold([0; 3], |sum, bin| [sum[0] + bin[0], sum[1] + bin[1], sum[2] + bin[2]]);
        prop_assert_eq!(sum, windows(&report));
        // The busiest windows say what they consisted of.
        for busy in &report.busiest_windows {
            let started = given.iter().filter(|request| {
                let start = Duration::from_millis(request.start / 10_000 * 10_000);
                humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + start).to_string() == busy.start
            });
            prop_assert_eq!(busy.requests, Some(started.count() as u64));
        }
    }

    #[test]
    fn savings_are_bounded_by_the_reads(given in requests(150)) {
        let report = analyzed(split(&given, 1));
        for saving in &report.savings {
            prop_assert!(saving.requests <= report.reads.shareable);
        }
        let caches: Vec<_> =
            report.savings.iter().filter(|saving| saving.policy == "cache").map(|saving| saving.requests).collect();
        prop_assert!(caches.is_sorted(), "{caches:?}");
        let pacing = report.pacing;
        prop_assert!(pacing.delayed + pacing.shed <= given.len() as u64);
    }

    #[test]
    fn any_bytes_are_counted_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let lines = bytes.split(|byte| *byte == b'\n').count() as u64;
        let (requests, skipped) = count(bytes);
        prop_assert!(requests + skipped <= lines);
    }
}

#[test]
fn late_lines_count_in_sums_and_not_in_windows() {
    let request = |start| Request { start: BEGIN + start, took: 10, user: 1, is_write: false, status: 200 };
    let report = analyzed(split(&[request(0), request(200_000), request(1000), request(195_000)], 1));
    assert_eq!((report.logs.requests, report.logs.out_of_order), (4, 1));
    assert_eq!(windows(&report), [3, 0, 0]);
    assert!(report.notes.iter().any(|note| note.starts_with("1 requests started more than a minute before")));
}

#[test]
fn shares_of_callers_leave_out_requests_without_a_limit() {
    let request = |user| Request { start: BEGIN, took: 10, user, is_write: false, status: 200 };
    let keys = line(&request(1)).replace("/v1/users/u1", "/v1/jwks");
    let log = [line(&request(1)), keys, line(&request(2))].concat();
    let report = analyzed(vec![log]);
    let callers: Vec<_> = report.callers.iter().map(|it| (&*it.caller, it.counts.requests, it.counts.share)).collect();
    assert_eq!(callers, [("app1", 2, Some(0.5)), ("app2", 1, Some(0.5))]);
}

#[test]
fn rotated_logs_are_merged_in_any_order() {
    let request = |start| Request { start: BEGIN + start, took: 10, user: 1, is_write: false, status: 200 };
    let log = |from: u64| (0..100).map(|step| line(&request(from + step * 1000))).collect::<String>();
    let report = analyzed(vec![log(400_000), log(0), log(200_000), String::new()]);
    assert_eq!((report.logs.requests, report.logs.out_of_order), (300, 0));
    assert_eq!(windows(&report)[0], 30);
}

#[test]
fn what_the_end_cuts_off_is_counted() {
    let line = line(&Request { start: BEGIN, took: 1, user: 1, is_write: false, status: 200 });
    assert_eq!(count(line.trim_end().into()), (1, 0));
    assert_eq!(count(format!("{line}{}", &line[..30]).into()), (1, 1));
    let long = format!("{line}{}", "x".repeat(40 << 20));
    assert_eq!(count(long.into()), (1, 1));
    let har = include_str!("../../tests/analyze/data/browser.har");
    assert_eq!(count(har.into()), (9, 1));
    assert_eq!(count(har[..har.len() - 5].into()), (9, 2));
}

#[test]
fn line_of_any_length_is_bounded() {
    let request = Request { start: BEGIN, took: 1, user: 1, is_write: false, status: 200 };
    let mut log = line(&request);
    log.push_str("{\"a\":\"");
    log.extend(std::iter::repeat_n('x', 40 << 20));
    let _ = write!(log, "\"}}\n{}", line(&request));
    assert_eq!(count(log.into_bytes()), (2, 1));
}
