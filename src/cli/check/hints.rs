//! What to do about each problem that `check` finds.

use super::{CLOCK_OFFSET_MATTERS, Row, Verdict};
use crate::config::Config;
use crate::probe::{self, Finding};

/// What to do about each problem.
pub(super) fn hints(config: &Config, row: &Row, finding: &Finding) -> Vec<String> {
    let mut hints = Vec::new();
    match (&finding.answer, finding.failure) {
        (Ok(answer), Some(failure)) => hints.push(format!(
            "status {}{}: {}",
            answer.status.as_u16(),
            answer.errors.code().map(|code| format!(" ({code})")).unwrap_or_default(),
            probe::hint(failure, answer)
        )),
        (Err(error), _) => hints.push(format!("{error}: {}", probe::request_hint(error))),
        (Ok(_), None) => {}
    }
    if row.verdict == Verdict::UseUnknown {
        hints.push(format!(
            "key valid, use unknown: Clerk sends no quota headers, and a probe cannot see other clients' usage. To see \
             it, send the applications' requests through the gateway (section `gateway`). The limit comes from {}",
            row.limit_source
        ));
    }
    if row.verdict == Verdict::Low {
        let percent = (config.low_threshold * 1000.0).round() / 10.0;
        hints.push(format!("less than {percent} % of the limit is left: see what calls Clerk most"));
    }
    if !row.header_errors.is_empty() {
        hints.push(format!("malformed quota headers: {}; is there a proxy in between?", row.header_errors.join(", ")));
    }
    if let Some(offset) = row.clock_offset_seconds.filter(|offset| offset.abs() > CLOCK_OFFSET_MATTERS) {
        hints.push(format!("this machine's clock is off by {:.0} s: check its time synchronisation", -offset));
    }
    hints
}
