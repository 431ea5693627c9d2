//! Rules that the vectors do not cover.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use ratelimit_headers::{HeaderDialect, HeaderError, Quota, parse};

/// 2026-11-25T12:00:00Z
const NOW: u64 = 1_795_608_000;

fn headers(lines: &[(&'static str, impl AsRef<[u8]>)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_ref()).unwrap());
    }
    headers
}

fn now() -> Option<SystemTime> {
    Some(UNIX_EPOCH + Duration::from_secs(NOW))
}

pub(crate) fn read(status: u16, lines: &[(&'static str, &str)]) -> Quota {
    parse(StatusCode::from_u16(status).unwrap(), &headers(lines), now())
}

fn errors(quota: &Quota) -> Vec<&'static str> {
    quota.errors.iter().map(HeaderError::as_str).collect()
}

/// Limit, remaining, reset in seconds, errors.
type Row<'a> = (Option<u64>, Option<u64>, Option<f64>, &'a [&'a str]);

#[track_caller]
fn assert_row(quota: &Quota, family: HeaderDialect, (limit, remaining, reset, names): Row<'_>) {
    assert_eq!(quota.limit, limit, "limit");
    assert_eq!(quota.remaining, remaining, "remaining");
    assert_eq!(quota.reset.map(|reset| reset.as_secs_f64()), reset, "reset");
    assert_eq!(errors(quota), names, "errors");
    assert_eq!(quota.dialect, Some(family), "family");
}

#[track_caller]
fn assert_x(status: u16, [limit, remaining, reset]: [&str; 3], row: Row<'_>) {
    let lines = [("x-ratelimit-limit", limit), ("x-ratelimit-remaining", remaining), ("x-ratelimit-reset", reset)];
    let sent: Vec<_> = lines.into_iter().filter(|(_, value)| *value != "-").collect();
    assert_row(&read(status, &sent), HeaderDialect::XRateLimit, row);
}

#[track_caller]
fn assert_ietf(policy: &str, field: &str, row: Row<'_>) {
    let quota = read(200, &[("ratelimit-policy", policy), ("ratelimit", field)]);
    assert_row(&quota, HeaderDialect::Ietf, row);
}

#[test]
fn a_reset_keeps_its_fraction() {
    assert_x(200, ["100", "5", "29.3"], (Some(100), Some(5), Some(29.3), &[]));
    assert_x(200, ["100", "5", "1795608030500"], (Some(100), Some(5), Some(30.5), &[]));
    assert_x(200, ["100", "5", "1h2m3.5s"], (Some(100), Some(5), Some(3723.5), &[]));
}

#[test]
fn a_reset_may_be_365_days_away_but_not_more() {
    assert_x(200, ["100", "5", "31536000"], (Some(100), Some(5), Some(31_536_000.0), &[]));
    assert_x(200, ["100", "5", "31536000.1"], (Some(100), Some(5), None, &["invalid_reset"]));
    assert_x(200, ["100", "5", "2028-01-01T00:00:00Z"], (Some(100), Some(5), None, &["invalid_reset"]));
}

#[test]
fn reset_has_a_resolution() {
    let resolution = |lines: &[(&'static str, &str)]| read(200, lines).reset_resolution;
    assert_eq!(resolution(&[("x-ratelimit-reset", "7")]), Duration::from_secs(1));
    assert_eq!(resolution(&[("x-ratelimit-reset", "7.5")]), Duration::from_millis(1));
    assert_eq!(resolution(&[("x-ratelimit-reset", "1795608010000")]), Duration::from_millis(1));
    let dated = [("x-ratelimit-reset", "1795608010000"), ("date", "Wed, 25 Nov 2026 12:00:00 GMT")];
    assert_eq!(resolution(&dated), Duration::from_secs(1));
    assert_eq!(resolution(&[("x-ratelimit-limit", "7")]), Duration::ZERO);
}

#[test]
fn an_absolute_time_without_any_clock_is_unknown_and_no_error() {
    let lines =
        headers(&[("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", "1795608010"), ("retry-after", "1795608010")]);
    let quota = parse(StatusCode::OK, &lines, None);
    assert_eq!((quota.remaining, quota.reset, quota.retry_after), (Some(5), None, None));
    assert!(quota.errors.is_empty());

    let dated = headers(&[("x-ratelimit-reset", "1795608010"), ("date", "Wednesday, 25-Nov-26 12:00:00 GMT")]);
    let quota = parse(StatusCode::OK, &dated, None);
    assert_eq!(quota.reset, Some(Duration::from_secs(10)));
    assert_eq!(quota.date, now());
}

#[test]
fn counts_that_are_not_plain_digits_are_errors() {
    for text in ["+5", ".5", "5.", "1e3", "0x64", "50%", "1 000", "1_000", "five", "''", "\"", "\"\"", ";w=60"] {
        assert_x(200, [text, "7", "3"], (None, Some(7), Some(3.0), &["invalid_limit"]));
        assert_x(200, ["100", text, "3"], (Some(100), None, Some(3.0), &["invalid_remaining"]));
    }
    for text in [
        "-1",
        "+5",
        ".5",
        "5.",
        "1e3",
        "NaN",
        "inf",
        "50%",
        "7 s",
        "25 Nov 2026 12:00:30 GMT",
        "7 Wed, 25 Nov 2026 12:00:30 GMT",
    ] {
        assert_x(200, ["100", "7", text], (Some(100), Some(7), None, &["invalid_reset"]));
    }
}

#[test]
fn invalid_utf8_affects_only_its_own_field() {
    let lines = headers(&[
        ("x-ratelimit-limit", &b"100"[..]),
        ("x-ratelimit-remaining", b"\xff\xfe"),
        ("x-ratelimit-reset", b"7\x80"),
        ("retry-after", b"\xc3"),
        ("date", b"\xff"),
        ("age", b"\xff"),
    ]);
    let quota = parse(StatusCode::OK, &lines, now());
    assert_row(
        &quota,
        HeaderDialect::XRateLimit,
        (Some(100), None, None, &["invalid_remaining", "invalid_reset", "invalid_retry_after"]),
    );
}

#[test]
fn counts_from_two_to_the_53_are_unlimited() {
    let most = (1_u64 << 53) - 1;
    assert_x(200, ["9007199254740991", "9007199254740991", "-"], (Some(most), Some(most), None, &[]));
    assert_x(200, ["9007199254740992", "5", "-"], (None, None, None, &[]));
    assert_x(200, ["100", "9007199254740992", "-"], (Some(100), None, None, &[]));
    assert_x(200, ["INFINITE", "5", "7"], (None, None, Some(7.0), &[]));
    assert_x(429, ["None", "0", "7"], (None, None, Some(7.0), &[]));
    assert_x(429, ["-1", "0", "7"], (None, None, Some(7.0), &[]));
}

#[test]
fn a_limit_of_zero_is_a_ban_only_on_a_429() {
    for text in ["0", "0.9", "-0", "000"] {
        assert_x(200, [text, "0", "7"], (None, None, Some(7.0), &[]));
        assert_x(503, [text, "0", "7"], (None, None, Some(7.0), &[]));
        assert_x(429, [text, "0", "7"], (Some(0), Some(0), Some(7.0), &[]));
    }
    assert_x(429, ["0", "-3", "7"], (Some(0), Some(0), Some(7.0), &["clamped"]));
}

#[test]
fn a_remaining_below_zero_needs_a_limit() {
    assert_x(200, ["100", "-0.5", "-"], (Some(100), Some(0), None, &["clamped"]));
    assert_x(200, ["x", "-1", "-"], (None, None, None, &["invalid_limit", "invalid_remaining"]));
    assert_x(200, ["100, 200", "-1", "-"], (None, Some(0), None, &["conflicting_values", "clamped"]));
    assert_x(200, ["100", "-0", "-"], (Some(100), Some(0), None, &[]));
}

#[test]
fn equal_values_count_once() {
    assert_x(200, ["100, 100, 100.0", "42, \"42\"", "7, 7.0, 7s"], (Some(100), Some(42), Some(7.0), &[]));
    assert_x(200, ["-1, unlimited", "5", "-"], (None, None, None, &[]));
    assert_x(200, ["100,", ", 42 ,", ",,7"], (Some(100), Some(42), Some(7.0), &[]));
    assert_x(200, ["100", ",", "7"], (Some(100), None, Some(7.0), &["invalid_remaining"]));
}

#[test]
fn buckets_are_matched_by_position() {
    assert_x(200, ["100, 5000", "99, 7", "1, 60"], (Some(5000), Some(7), Some(60.0), &[]));
    assert_x(200, ["100, 100", "42, 7", "9"], (Some(100), Some(7), Some(9.0), &[]));
    assert_x(200, ["100, 5000", "3, 7", "1, 60, 9"], (Some(100), Some(3), Some(60.0), &["conflicting_values"]));
    assert_x(200, ["100, x", "9, 3", "1, 60"], (None, Some(3), Some(60.0), &["invalid_limit"]));
    assert_x(200, ["100, 5000", "x, 3", "1, 60"], (Some(5000), Some(3), Some(60.0), &["invalid_remaining"]));
    assert_x(200, ["100, 5000", "3, 7", "x, 60"], (Some(100), Some(3), None, &["invalid_reset"]));
    assert_x(429, ["100, 5000", "-5, 0", "1, 60"], (Some(5000), Some(0), Some(60.0), &[]));
    assert_x(200, ["100, 5000, 9", "3, 7", "1"], (None, Some(3), Some(1.0), &["conflicting_values"]));
    assert_x(200, ["-", "3, 7", "1, 60"], (None, Some(3), Some(60.0), &["conflicting_values"]));
}

#[test]
fn an_unlimited_bucket_never_hides_a_limited_one() {
    assert_x(200, ["0, 100", "0, 50", "1, 60"], (Some(100), Some(50), Some(60.0), &[]));
    assert_x(200, ["100, unlimited", "50, unlimited", "1, 60"], (Some(100), Some(50), Some(1.0), &[]));
}

#[test]
fn dates_in_a_list_keep_their_commas() {
    let two = "Wed, 25 Nov 2026 12:00:30 GMT, Wednesday, 25-Nov-26 12:01:00 GMT";
    assert_x(200, ["100, 200", "9, 3", two], (Some(200), Some(3), Some(60.0), &[]));
    assert_x(200, ["100", "9", two], (Some(100), Some(9), Some(60.0), &["conflicting_values"]));
    assert_x(
        200,
        ["100", "9", "2026-11-25T12:00:30Z, Wed Nov 25 12:00:30 2026"],
        (Some(100), Some(9), Some(30.0), &[]),
    );
}

#[test]
fn both_spellings_are_one_family() {
    let quota =
        read(200, &[("x-rate-limit-limit", "100"), ("x-ratelimit-remaining", "42"), ("x-rate-limit-reset", "7")]);
    assert_row(&quota, HeaderDialect::XRateLimit, (Some(100), Some(42), Some(7.0), &[]));

    let quota =
        read(200, &[("x-rate-limit-limit", "100"), ("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "42")]);
    assert_row(&quota, HeaderDialect::XRateLimit, (Some(100), Some(42), None, &[]));

    let quota = read(
        200,
        &[
            ("x-rate-limit-limit", "100"),
            ("x-rate-limit-remaining", "2"),
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", "42"),
        ],
    );
    assert_row(&quota, HeaderDialect::XRateLimit, (Some(100), Some(2), None, &[]));
}

#[test]
fn reset_after_wins_if_usable() {
    let quota = read(200, &[("x-ratelimit-reset", "tomorrow"), ("x-rate-limit-reset-after", "1.5")]);
    assert_row(&quota, HeaderDialect::XRateLimit, (None, None, Some(1.5), &[]));

    let quota = read(200, &[("x-ratelimit-reset", "7"), ("x-ratelimit-reset-after", "-1")]);
    assert_row(&quota, HeaderDialect::XRateLimit, (None, None, Some(7.0), &["invalid_reset"]));
}

#[test]
fn window_parameters_of_a_limit_are_not_the_reset() {
    let window = |limit: &str, remaining: &str| {
        let quota = read(200, &[("ratelimit-limit", limit), ("ratelimit-remaining", remaining)]);
        assert_eq!(quota.reset, None);
        assert!(quota.errors.is_empty(), "{limit}: {:?}", quota.errors);
        (quota.limit, quota.window.map(|window| window.as_secs()))
    };
    assert_eq!(window("100, 100;w=60, 5000;w=3600", "42"), (Some(100), Some(60)));
    assert_eq!(window("100;w=21600", "76;w=21600"), (Some(100), Some(21_600)));
    assert_eq!(window("100;w=60, 5000;w=3600", "42"), (Some(100), Some(60)));
    assert_eq!(window("100;w=60, 5000;w=3600", "42, 7"), (Some(5000), Some(3600)));
    assert_eq!(window("100, 5000;w=3600", "42"), (Some(100), None));
    assert_eq!(window("100, 100;w=60, 100;w=3600", "42"), (Some(100), None));
    assert_eq!(window("100;burst=1000;window=60;comment=\"a;b, c\"", "42"), (Some(100), Some(60)));
}

#[test]
fn the_next_family_is_tried_and_the_error_kept() {
    let x = [("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "42"), ("x-ratelimit-reset", "7")];
    for (name, value, error) in [
        ("ratelimit", "\"default\";t=9", "invalid_ratelimit"),
        ("ratelimit", "", "invalid_ratelimit"),
        ("ratelimit", "limit=100, remaining=", "invalid_ratelimit"),
        ("ratelimit", "foo=1", "invalid_ratelimit"),
        ("ratelimit", "limit=many", "invalid_limit"),
        ("ratelimit-limit", "many", "invalid_limit"),
        ("ratelimit-remaining", "-1", "invalid_remaining"),
        ("ratelimit-reset", "later", "invalid_reset"),
        ("ratelimit-policy", "\"default\";w=10", "invalid_policy"),
        ("ratelimit-policy", "\"default;q=100", "invalid_policy"),
    ] {
        let quota = read(200, &[x[0], x[1], x[2], (name, value)]);
        assert_row(&quota, HeaderDialect::XRateLimit, (Some(100), Some(42), Some(7.0), &[error]));
    }
}

#[test]
fn unlimited_is_usable_so_no_other_family_is_tried() {
    let quota =
        read(200, &[("ratelimit-limit", "unlimited"), ("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "5")]);
    assert_row(&quota, HeaderDialect::IetfLegacy, (None, None, None, &[]));
}

#[test]
fn policy_limit_is_the_fallback_for_unusable_ratelimit() {
    let lines = [("ratelimit-policy", "\"default\";q=100;w=10"), ("ratelimit", "\"default")];
    let quota = read(200, &lines);
    assert_row(&quota, HeaderDialect::Ietf, (Some(100), None, None, &["invalid_ratelimit"]));
    assert_eq!(quota.window, Some(Duration::from_secs(10)));

    let quota = read(200, &[lines[0], lines[1], ("x-ratelimit-remaining", "5")]);
    assert_row(&quota, HeaderDialect::XRateLimit, (None, Some(5), None, &["invalid_ratelimit"]));
}

#[test]
fn structured_items_follow_the_common_rules() {
    let policy = "\"a\";q=100;w=10, \"b\";q=5000;w=3600";
    assert_ietf(policy, "\"a\";r=0;t=5, \"b\";r=0;t=600", (Some(5000), Some(0), Some(600.0), &[]));
    assert_ietf(policy, "\"a\";r=-1;t=5", (Some(100), Some(0), Some(5.0), &["clamped"]));
    assert_ietf(policy, "\"c\";r=-1;t=5", (None, None, Some(5.0), &["invalid_remaining"]));
    assert_ietf(policy, "\"a\";r=1.5;t=5, b;r=7", (Some(5000), Some(7), None, &["invalid_ratelimit"]));
    assert_ietf(policy, "\"a\";r=\"1\", b;r=7", (Some(5000), Some(7), None, &["invalid_ratelimit"]));
    assert_ietf(policy, "(\"a\");r=1, 5;r=1, b;r=7", (Some(5000), Some(7), None, &["invalid_ratelimit"]));
    assert_ietf(policy, "\"a\";r=1;t=-5", (Some(100), Some(1), None, &["invalid_reset"]));
    assert_ietf(policy, "\"a\";r=1;t", (Some(100), Some(1), None, &["invalid_reset"]));
    assert_ietf(policy, "\"a\";r=1;t=1.5", (Some(100), Some(1), Some(1.5), &[]));
    assert_ietf(policy, "\"a\";r=1;t=1795608010", (Some(100), Some(1), Some(10.0), &[]));
    assert_ietf(policy, "\"a\";r=1;t=@1795608010", (Some(100), Some(1), Some(10.0), &[]));
    assert_ietf(policy, "\t\"a\";r=1;t=5 \t", (Some(100), Some(1), Some(5.0), &[]));
}

#[test]
fn policies_follow_the_common_rules() {
    assert_ietf("\"a\";q=0, \"b\";q=100", "\"a\";r=0;t=1, \"b\";r=50;t=2", (Some(100), Some(50), Some(2.0), &[]));
    assert_ietf("\"a\";q=0", "\"a\";r=0;t=1", (None, None, Some(1.0), &[]));
    assert_ietf("\"a\";q=100, \"a\";q=100", "\"a\";r=5", (Some(100), Some(5), None, &[]));
    assert_ietf("\"a\";q=100, \"a\";q=200", "\"a\";r=5", (None, Some(5), None, &["conflicting_values"]));
    assert_ietf("\"a\";q=1.5, b;q=7", "b;r=5", (Some(7), Some(5), None, &["invalid_policy"]));
    assert_ietf("\"a\";q=10;qu=\"requests\"", "\"a\";r=5", (Some(10), Some(5), None, &[]));
    assert_ietf("\"a\";q=10;qu=\"content-bytes\"", "\"a\";r=5", (None, None, None, &[]));
    assert_ietf("100;w=60", "\"a\";r=5", (None, Some(5), None, &[]));
    assert_ietf("\"a", "\"a\";r=5", (None, Some(5), None, &["invalid_policy"]));

    let quota = read(200, &[("ratelimit-policy", "\"a\";q=100, \"b\";q=9")]);
    assert_row(&quota, HeaderDialect::Ietf, (None, None, None, &["conflicting_values"]));
    let quota = read(200, &[("ratelimit-policy", "100;w=60")]);
    assert_eq!(quota, Quota::default());
}

#[test]
fn windows_come_from_the_policy_that_was_used() {
    let window = |policy: &str, field: &str| {
        let quota = read(200, &[("ratelimit-policy", policy), ("ratelimit", field)]);
        quota.window.map(|window| window.as_secs())
    };
    assert_eq!(window("\"a\";q=100;w=10, \"b\";q=9;w=60", "\"b\";r=1"), Some(60));
    assert_eq!(window("\"a\";q=100", "\"a\";r=1"), None);
    assert_eq!(window("\"a\";q=100;w=0", "\"a\";r=1"), None);
    assert_eq!(window("\"a\";q=0;w=10", "\"a\";r=1"), None);
    assert_eq!(window("\"a\";q=100;w=10", "\"b\";r=1"), None);
    assert_eq!(window("100;w=60, 5000;w=3600", "limit=5000, remaining=5"), Some(3600));
}

#[test]
fn draft_07_dictionaries_follow_the_common_rules() {
    let read_field = |field: &str| read(200, &[("ratelimit", field)]);
    for (field, row) in [
        ("limit=100, remaining=50.5, reset=1.5", (Some(100), Some(50), Some(1.5), &[][..])),
        ("limit=\"100\", remaining=-1, reset=\"1m30s\"", (Some(100), Some(0), Some(90.0), &["clamped"])),
        ("limit=unlimited, remaining=5", (None, None, None, &[])),
        ("remaining=5", (None, Some(5), None, &[])),
        ("limit=(100), remaining=5, reset", (None, Some(5), None, &["invalid_limit", "invalid_reset"])),
        ("limit=100, remaining=5, reset=@1795608010, x=?1", (Some(100), Some(5), Some(10.0), &[])),
        ("limit=100;w=60, remaining=5, remaining=7", (Some(100), Some(7), None, &[])),
    ] {
        assert_row(&read_field(field), HeaderDialect::IetfDraft7, row);
    }
    let split = read(200, &[("ratelimit", "limit=100"), ("ratelimit", "remaining=5, reset=3")]);
    assert_row(&split, HeaderDialect::IetfDraft7, (Some(100), Some(5), Some(3.0), &[]));
    let twice =
        read(200, &[("ratelimit", "limit=100, remaining=5, reset=3"), ("ratelimit", "limit=9, remaining=1, reset=2")]);
    assert_row(&twice, HeaderDialect::IetfDraft7, (Some(9), Some(1), Some(2.0), &[]));
}

#[test]
fn retry_after_is_read_on_any_status() {
    for status in [200, 301, 403, 429, 500, 503] {
        let quota = read(status, &[("retry-after", "500ms")]);
        assert_eq!(quota.retry_after, Some(Duration::from_millis(500)));
        assert_eq!(quota.dialect, Some(HeaderDialect::RetryAfter));
        assert!(quota.errors.is_empty());
    }
}

#[test]
fn retry_after_takes_the_longest_of_several() {
    let seconds = |text: &str| {
        let quota = read(429, &[("retry-after", text)]);
        (quota.retry_after.map(|wait| wait.as_secs()), errors(&quota))
    };
    assert_eq!(seconds("30, Wed, 25 Nov 2026 12:00:30 GMT"), (Some(30), vec![]));
    assert_eq!(seconds("5, Wed, 25 Nov 2026 12:00:30 GMT"), (Some(30), vec!["conflicting_values"]));
    assert_eq!(seconds("999999999, 5"), (Some(31_536_000), vec!["conflicting_values", "clamped"]));
    assert_eq!(seconds("9223372037"), (Some(31_536_000), vec!["clamped"]));
    assert_eq!(seconds("400d"), (Some(31_536_000), vec!["clamped"]));
    assert_eq!(seconds("soon, 5"), (Some(5), vec!["invalid_retry_after"]));
    assert_eq!(seconds("31536000"), (Some(31_536_000), vec![]));
    for refused in ["120;x=1", "-0", "+5", "1e3", "5 seconds", "\"\"", "%35"] {
        assert_eq!(seconds(refused), (None, vec!["invalid_retry_after"]), "{refused}");
    }
}

#[test]
fn retry_after_is_the_family_only_if_nothing_else_is_usable() {
    let quota = read(429, &[("x-ratelimit-limit", "?"), ("retry-after", "5")]);
    assert_row(&quota, HeaderDialect::RetryAfter, (None, None, None, &["invalid_limit"]));
    let quota = read(429, &[("x-ratelimit-limit", "unlimited"), ("retry-after", "5")]);
    assert_row(&quota, HeaderDialect::XRateLimit, (None, None, None, &[]));
}

#[test]
fn cached_response_keeps_only_retry_after() {
    let lines = [("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "?"), ("retry-after", "5")];
    for age in ["1", "86400", "99999999999999999999999", "\"7\"", "0, 3"] {
        let quota = read(200, &[lines[0], lines[1], lines[2], ("age", age)]);
        assert_row(&quota, HeaderDialect::XRateLimit, (None, None, None, &["stale", "invalid_remaining"]));
        assert_eq!(quota.retry_after, Some(Duration::from_secs(5)));
    }
    for age in ["0", "0, 0", "", "-5", "old"] {
        let quota = read(200, &[lines[0], lines[1], ("age", age)]);
        assert_row(&quota, HeaderDialect::XRateLimit, (Some(100), None, None, &["invalid_remaining"]));
    }
    assert!(read(200, &[("age", "60")]).errors.is_empty());
}

#[test]
fn date_is_parsed_regardless_of_other_headers() {
    assert_eq!(read(200, &[("date", " Wed Nov 25 12:00:00 2026\t")]).date, now());
    assert_eq!(read(200, &[("date", "2026-11-25T12:00:00Z")]).date, None);
    assert_eq!(read(200, &[("date", "x"), ("date", "Wed, 25 Nov 2026 12:00:00 GMT")]).date, now());
}
