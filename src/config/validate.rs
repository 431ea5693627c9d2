//! Validation of single values. Messages state the remedy and never repeat the value.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use http::uri::PathAndQuery;

use super::model::{Plan, ProbeWhen};
use super::tree::Value;
use clerk_client::secret::{io_reason, looks_like_secret, looks_like_secret_path, may_be_secret};
use clerk_quota::{Bucket, Route, route};
use prometheus_web::{ListenAddress, ParseListenAddressError};

const MAX_NAME_CHARS: usize = 64;

/// Up to this number, every integer has an exact `f64`.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

/// A duration with a unit, within `range`.
pub(super) fn duration(value: &Value, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let text = match value {
        Value::Text(text) => text,
        Value::Integer(seconds @ 1..=86_400) => {
            return Err(format!("a duration without a unit; write `{seconds}s` for seconds"));
        }
        Value::Integer(_) | Value::Float(_) => {
            return Err("a duration without a unit; write a number with a unit, as in `15s`".to_owned());
        }
        other => return Err(format!("{} instead of a duration; write it as in `15s` or `1m30s`", other.kind())),
    };
    super::duration::parse(text, &range)
}

/// A number that is meant as a share of a whole.
pub(super) fn share(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(number) => Ok(*number),
        Value::Integer(number) => Ok(*number as f64),
        other => Err(format!("{} instead of a number; write `0.1` for 10 %", other.kind())),
    }
}

/// The share of the limit below which a window is low.
pub(super) fn low_threshold(value: &Value) -> Result<f64, String> {
    let number = share(value)?;
    if number > 0.0 && number < 1.0 {
        Ok(number)
    } else if (1.0..100.0).contains(&number) {
        Err(format!("not between 0 and 1; write `{}` for {number} %", number / 100.0))
    } else {
        Err("not between 0 and 1; write `0.1` for 10 %".to_owned())
    }
}

/// A whole number of at least 1.
pub(super) fn count(value: &Value, example: u64) -> Result<u64, String> {
    match value {
        Value::Integer(number) if *number >= 1 => {
            u64::try_from(*number).map_err(|_| format!("too large; write a number such as `{example}`"))
        }
        // Helm and other tools write large numbers this way: `1e+06`, `1000000.0`.
        Value::Float(number) if *number >= 1.0 && number.fract() == 0.0 => {
            // Larger integers are not exact as `f64`, so that the intended number is unknown.
            if *number > LARGEST_EXACT {
                return Err(format!("too large; write a number such as `{example}`"));
            }
            format!("{number:.0}").parse().map_err(|_| format!("too large; write a number such as `{example}`"))
        }
        Value::Integer(_) | Value::Float(_) => {
            Err(format!("not a whole number above 0; write one such as `{example}`"))
        }
        other => Err(format!("{} instead of a number; write one such as `{example}`", other.kind())),
    }
}

/// A size in bytes, with or without a unit.
pub(super) fn bytes(value: &Value, range: RangeInclusive<u64>) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    const EXAMPLE: &str = "write a number and a unit, as in `64MiB`";
    let Value::Text(text) = value else {
        return Err(format!("{} instead of a size; {EXAMPLE}", value.kind()));
    };
    let size = UNITS.into_iter().find_map(|(unit, factor)| {
        let number = text.trim().strip_suffix(unit)?.trim_end();
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(factor))
    });
    let size = size.ok_or_else(|| format!("not a size; {EXAMPLE}"))?;
    if range.contains(&size) {
        return Ok(size);
    }
    let fault = if size < *range.start() { "too small" } else { "too large" };
    Err(format!("{fault}; write a size from {}MiB to {}MiB", range.start() >> 20, range.end() >> 20))
}

/// The share of the limit reserved for callers of high priority.
pub(super) fn reserve(value: &Value) -> Result<f64, String> {
    let number = share(value)?;
    if (0.0..=0.5).contains(&number) {
        Ok(number)
    } else {
        Err("not between 0 and 0.5; write `0.1` for 10 %".to_owned())
    }
}

/// A boolean.
pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        _ => Err("neither true nor false; write `true` or `false`".to_owned()),
    }
}

/// A listen address: of this machine, or any if the port is protected. `exposed` says why others must not reach it, and
/// what to write.
pub(super) fn listen_address(text: &str, is_protected: bool, exposed: &str) -> Result<ListenAddress, String> {
    let address: ListenAddress = text.parse().map_err(|error: ParseListenAddressError| {
        if may_be_secret(text) {
            "not a listen address; write HOST:PORT or unix:/PATH".to_owned()
        } else {
            error.to_string()
        }
    })?;
    if address.is_local() || is_protected { Ok(address) } else { Err(exposed.to_owned()) }
}

/// A file name.
pub(super) fn file_name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err("empty; write the name of a file".to_owned())
    } else if text.contains("://") {
        Err("a URL; write the name of a file".to_owned())
    } else if looks_like_secret_path(text) {
        Err("contains a key; write the name of a file".to_owned())
    } else {
        Ok(())
    }
}

/// An alias, which becomes a label value.
pub(super) fn name(text: &str) -> Result<(), String> {
    const EXAMPLE: &str = "write an alias such as `prod`";
    if text.is_empty() {
        Err(format!("empty; {EXAMPLE}"))
    } else if looks_like_secret(text) {
        Err(format!("looks like a key, and names are shown in metrics; {EXAMPLE}"))
    } else if text.chars().count() > MAX_NAME_CHARS {
        Err(format!("longer than {MAX_NAME_CHARS} characters; write a shorter alias such as `prod`"))
    } else if text.trim() != text {
        Err("leading or trailing white space; remove it".to_owned())
    } else if text.chars().any(is_unprintable) {
        Err(format!("contains an unprintable character; {EXAMPLE}"))
    } else {
        Ok(())
    }
}

/// Control characters, line separators, and invisible characters that make two names look alike.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        )
}

/// Path and query of a probe.
pub(super) fn probe_path(text: &str) -> Result<(), String> {
    const EXAMPLE: &str = "write one such as `/v1/users/count`";
    if looks_like_secret(text) {
        return Err(format!("contains a key, and paths are shown; {EXAMPLE}"));
    }
    if !text.starts_with("/v1/") {
        return Err(format!("does not start with /v1/; {EXAMPLE}"));
    }
    let path = text.split('?').next().unwrap_or(text);
    let has_odd_segment = path[1..].trim_end_matches('/').split('/').any(|part| matches!(part, "" | "." | ".."));
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['#', '\\']);
    if has_odd_segment || !is_plain || text.parse::<PathAndQuery>().is_err() {
        return Err(format!("not a request path; {EXAMPLE}"));
    }
    if matches!(route::find("GET", text.as_bytes()), Route { bucket: Bucket::Route(_), .. }) {
        return Err(format!("has a limit of its own, and Clerk does not allow to poll it; {EXAMPLE}"));
    }
    Ok(())
}

/// The warning for an allowed but questionable probe path.
pub(super) fn probe_path_warning(text: &str) -> Option<&'static str> {
    let path = text.split('?').next().unwrap_or(text).trim_end_matches('/');
    match path {
        "/v1/jwks" => {
            Some("this request does not count against the quota and reveals nothing about it; use `/v1/users/count`")
        }
        "/v1/users" => Some("the response contains personal data; `/v1/users/count` does not"),
        _ => None,
    }
}

/// The name of an environment variable.
pub(super) fn env_name(text: &str) -> Result<(), String> {
    if looks_like_secret(text) {
        return Err("looks like a key; write the name of the environment variable that holds it".to_owned());
    }
    let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    if is_name {
        Ok(())
    } else {
        Err("not the name of an environment variable; write one such as `CLERK_SECRET_KEY`".to_owned())
    }
}

/// The name of a file that contains a key.
pub(super) fn secret_file(text: &str) -> Result<(), String> {
    const EXAMPLE: &str = "write the name of the file that holds the key, such as `/run/secrets/clerk_prod`";
    if text.is_empty() {
        Err(format!("empty; {EXAMPLE}"))
    } else if text.contains("://") {
        Err(format!("a URL; {EXAMPLE}"))
    } else if looks_like_secret_path(text) {
        Err(format!("looks like a key; {EXAMPLE}"))
    } else {
        Ok(())
    }
}

/// A PEM file with certificates.
pub(super) fn ca_file(path: &Path) -> Result<(), String> {
    if looks_like_secret_path(&path.display().to_string()) {
        return Err("contains a key; name a PEM file".to_owned());
    }
    let content = std::fs::read(path)
        .map_err(|error| format!("the file cannot be read: {}; name a readable PEM file", io_reason(error.kind())))?;
    let marker = b"-----BEGIN CERTIFICATE-----";
    if content.windows(marker.len()).any(|window| window == marker) {
        Ok(())
    } else {
        Err("the file contains no certificate; name a PEM file with `-----BEGIN CERTIFICATE-----`".to_owned())
    }
}

/// A named limit.
pub(super) fn plan(text: &str) -> Result<Plan, String> {
    Plan::ALL.into_iter().find(|plan| plan.as_str() == text).ok_or_else(|| {
        let names = Plan::ALL.map(|plan| format!("`{}`", plan.as_str())).join(", ");
        format!("not a known plan; write one of {names}")
    })
}

/// When to probe.
pub(super) fn when(text: &str) -> Result<ProbeWhen, String> {
    match text {
        "idle" => Ok(ProbeWhen::Idle),
        "always" => Ok(ProbeWhen::Always),
        "never" => Ok(ProbeWhen::Never),
        _ => Err("neither idle, always nor never; write `idle`, `always` or `never`".to_owned()),
    }
}

/// A lease, or `off`.
pub(super) fn lease(value: &Value, allowed: RangeInclusive<Duration>) -> Result<Option<Duration>, String> {
    match value {
        Value::Bool(false) => Ok(None),
        Value::Text(text) if text == "off" => Ok(None),
        _ => duration(value, allowed).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration(&text("1m30s"), ANY), Ok(Duration::from_secs(90)));
        assert!(duration(&Value::Integer(15), ANY).unwrap_err().contains("write `15s`"));
        assert!(duration(&text("20"), ANY).unwrap_err().contains("write `20s`"));
        assert!(duration(&Value::Null, ANY).unwrap_err().contains("`15s`"));
    }

    #[test]
    fn threshold_in_percent_is_rejected_with_the_ratio() {
        assert_eq!(low_threshold(&Value::Float(0.2)), Ok(0.2));
        assert!(low_threshold(&Value::Integer(10)).unwrap_err().contains("write `0.1` for 10 %"));
        for bad in [Value::Integer(0), Value::Float(-0.1), Value::Integer(100), text("10%"), Value::Null] {
            assert!(low_threshold(&bad).unwrap_err().contains("`0.1`"));
        }
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        for (number, expected) in [(1e6, 1_000_000), (1.0, 1), (5e4, 50_000), (LARGEST_EXACT, 9_007_199_254_740_992)] {
            assert_eq!(count(&Value::Float(number), 100), Ok(expected));
        }
        for number in [1.5, 0.0, -1e6, 0.9, 1e-3] {
            assert!(count(&Value::Float(number), 100).unwrap_err().contains("not a whole number"), "{number}");
        }
        for number in [1e16, 1e300] {
            assert!(count(&Value::Float(number), 100).unwrap_err().contains("too large"), "{number}");
        }
    }

    #[test]
    fn name_must_be_printable_and_not_a_key() {
        for good in ["prod", "Überall 1", "名前", &"x".repeat(64), "a\"b\\c", "{}"] {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        for bad in ["", " a", "a\n", "a\tb", "a\u{200b}", "\u{202e}a", "sk_live_x", "my sk_test_x", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn key_is_rejected_as_file_name_but_similar_path_is_not() {
        assert_eq!(secret_file("/run/secrets/sk_live_prod"), Ok(()));
        assert_eq!(secret_file("keys/prod"), Ok(()));
        assert!(secret_file("sk_live_abcdef").is_err());
        assert!(secret_file("").is_err());
    }

    #[test]
    fn probe_paths_stay_on_the_backend_api() {
        for good in ["/v1/users/count", "/v1/users?limit=1", "/v1/instance", "/v1/jwks/", "/v1/users?query=a/../b"] {
            assert_eq!(probe_path(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/",
            "/v1",
            "v1/users",
            "/v2/users",
            "/v1//users",
            "/v1/../x",
            "/v1/.",
            "/v1/a b",
            "/v1/a#b",
            "/v1/ä",
            "https://x/v1/",
            "/v1/\\x",
            "/v1/a\r\nb",
        ] {
            assert!(probe_path(bad).is_err(), "{bad:?}");
        }
    }
}
