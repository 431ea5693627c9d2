//! Values of flags. Errors say what to write instead.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::duration;

/// Beyond a day, a changed file would seem to be ignored.
const RELOAD_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// From closing at once to what orchestrators wait for at most.
const SHUTDOWN_DELAYS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);

/// The range of `probe.interval` in the configuration.
const PROBE_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

pub(super) fn shutdown_delay(text: &str) -> Result<Duration, String> {
    duration::parse_or_seconds(text, &SHUTDOWN_DELAYS)
}

pub(super) fn reload_interval(text: &str) -> Result<Duration, String> {
    duration::parse_or_seconds(text, &RELOAD_INTERVALS)
}

pub(in crate::cli) fn probe_interval(text: &str) -> Result<Duration, String> {
    duration::parse_or_seconds(text, &PROBE_INTERVALS)
}

/// A path that begins with a slash, has no characters that axum reads as a parameter, and is not taken.
pub(super) fn telemetry_path(text: &str) -> Result<String, String> {
    if crate::admin::PATHS.contains(&text) {
        return Err("another page has this path; write another one, such as /metrics".to_owned());
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte));
    if text.starts_with('/') && text.len() > 1 && plain && !text.starts_with("/-/") && !text.contains("//") {
        Ok(text.to_owned())
    } else {
        Err("write a path of letters, digits and - _ . ~ that begins with a slash, such as /metrics".to_owned())
    }
}
