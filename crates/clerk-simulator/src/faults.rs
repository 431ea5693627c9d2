//! Faults between a client and Clerk, on demand or at random.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

const MAX_RULES: usize = 100;
const MAX_LATENCY: Duration = Duration::from_secs(600);
const MAX_BODY_BYTES: u64 = 1 << 30;

/// All faults to inject.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Seconds by which the `Date` header and absolute resets are ahead of the simulator's clock; negative: behind.
    #[serde(default)]
    pub clock_skew_seconds: i64,
    /// Rules, tried in this order for every request under `/v1`. Latencies add up; of the faults that replace the
    /// response, the first that applies wins.
    #[serde(default)]
    pub rules: Vec<FaultRule>,
}

/// One fault and the requests that it affects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// The fault.
    pub fault: Fault,
    /// Share of the matching requests that are affected, 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// Removes the rule after this many requests. `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Only requests whose path starts with this, for example `/v1/users`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Only requests with this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only requests with a key of this instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Whether the request is checked, counted and carried out before its response is lost. `None`: depends on the
    /// kind of fault. A counted request that the limiter rejects gets its 429, not the fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<bool>,
}

fn always() -> f64 {
    1.0
}

/// A kind of fault. In JSON its name is in `kind`, for example `{"kind": "status", "status": 503, "body": "html"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// A delayed response. The request is counted when it is processed, after the delay.
    Latency {
        /// Delay in milliseconds, at most 600 000.
        millis: u64,
    },
    /// Another status: an error from Clerk (counted) or a page from the edge (not counted). Status 200 gives a page or
    /// an empty body where JSON is expected.
    Status {
        /// 200, or 400 to 599.
        status: u16,
        /// What the response contains.
        #[serde(default)]
        body: FaultBody,
    },
    /// A 429 that does not come from the limiter. Not counted.
    Throttled {
        /// Value of `Retry-After`: `0`, a date, or invalid text. `None`: no such header.
        #[serde(default)]
        retry_after: Option<String>,
        /// What the response contains.
        #[serde(default)]
        body: FaultBody,
    },
    /// The connection breaks within the response body. Not counted.
    Reset {
        /// Body bytes that arrive before. With 0, not even the status arrives on a socket.
        #[serde(default)]
        after_bytes: u32,
    },
    /// Quota headers that cannot be parsed, on an otherwise correct response (counted).
    MalformedQuotaHeaders {},
    /// A body that is far larger than any of Clerk's. Counted.
    HugeBody {
        /// Size in bytes, at most 1 GiB.
        bytes: u64,
    },
    /// The same, compressed to about a thousandth. Counted.
    GzipBomb {
        /// Decompressed size in bytes, at most 1 GiB.
        bytes: u64,
    },
    /// A 302 to another location. Not counted.
    Redirect {
        /// The `Location` header.
        location: String,
    },
    /// A 403 because a quota of the plan is used up. Counted.
    QuotaExceeded {
        /// Clerk's error code.
        #[serde(default = "user_quota_exceeded")]
        code: String,
    },
}

fn user_quota_exceeded() -> String {
    "user_quota_exceeded".to_owned()
}

/// What the response of a fault contains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultBody {
    /// Clerk's error as JSON.
    #[default]
    Clerk,
    /// An HTML page, as the edge sends it.
    Html,
    /// An empty body.
    Empty,
}

/// The reason why faults were rejected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FaultError {
    /// There are more rules than the simulator supports.
    #[error("too many fault rules: at most {MAX_RULES}; remove old ones first")]
    TooManyRules,
    /// A value of a rule is out of range.
    #[error("fault rule {index}: {problem}")]
    Invalid {
        /// Position of the rule in the list, from 0.
        index: usize,
        /// What is wrong and which values are valid.
        problem: &'static str,
    },
}

impl Fault {
    /// Returns a rule that applies this fault to every request.
    #[must_use]
    pub fn always(self) -> FaultRule {
        FaultRule {
            fault: self,
            probability: 1.0,
            times: None,
            path_prefix: None,
            method: None,
            instance: None,
            counted: None,
        }
    }

    /// Returns a rule that applies this fault to the next `times` requests.
    #[must_use]
    pub fn times(self, times: u32) -> FaultRule {
        FaultRule { times: Some(times), ..self.always() }
    }

    fn is_counted(&self) -> bool {
        match self {
            Self::Status { body, .. } => *body == FaultBody::Clerk,
            Self::Throttled { .. } | Self::Reset { .. } | Self::Redirect { .. } => false,
            Self::Latency { .. }
            | Self::MalformedQuotaHeaders {}
            | Self::HugeBody { .. }
            | Self::GzipBomb { .. }
            | Self::QuotaExceeded { .. } => true,
        }
    }

    fn problem(&self) -> Option<&'static str> {
        let is_header = |text: &str| HeaderValue::from_str(text).is_ok();
        match self {
            Self::Latency { millis } if Duration::from_millis(*millis) > MAX_LATENCY => {
                Some("`millis` must be at most 600000")
            }
            Self::Status { status, .. } if !matches!(status, 200 | 400..=599) => {
                Some("`status` must be 200 or from 400 to 599")
            }
            Self::Throttled { retry_after: Some(text), .. } if !is_header(text) => {
                Some("`retry_after` contains characters that headers do not allow")
            }
            Self::HugeBody { bytes } | Self::GzipBomb { bytes } if *bytes > MAX_BODY_BYTES => {
                Some("`bytes` must be at most 1073741824")
            }
            Self::Redirect { location } if location.is_empty() || !is_header(location) => {
                Some("`location` is empty or contains characters that headers do not allow")
            }
            Self::QuotaExceeded { code } if code.is_empty() || code.len() > 100 => {
                Some("`code` must have 1 to 100 characters")
            }
            _ => None,
        }
    }
}

impl Faults {
    /// Checks that every value is in range.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first invalid rule and the valid values.
    pub fn check(&self) -> Result<(), FaultError> {
        if self.rules.len() > MAX_RULES {
            return Err(FaultError::TooManyRules);
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let problem = rule.fault.problem().or_else(|| {
                let in_range = (0.0..=1.0).contains(&rule.probability);
                (!in_range).then_some("`probability` must be from 0 to 1")
            });
            if let Some(problem) = problem {
                return Err(FaultError::Invalid { index, problem });
            }
        }
        Ok(())
    }
}

impl From<FaultRule> for Faults {
    fn from(rule: FaultRule) -> Self {
        Self { clock_skew_seconds: 0, rules: vec![rule] }
    }
}

/// The effects of faults on one request.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) latency: Duration,
    pub(super) malformed_quota_headers: bool,
    /// The fault that replaces the response, and whether the request counts all the same.
    pub(super) replacement: Option<(Fault, bool)>,
}

/// The active faults, and the random number generator.
#[derive(Debug)]
pub(super) struct FaultPlan {
    faults: Faults,
    rng: fastrand::Rng,
}

impl FaultPlan {
    pub(super) fn new(faults: Faults, seed: u64) -> Self {
        Self { faults, rng: fastrand::Rng::with_seed(seed) }
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(super) fn replace(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Decides what happens to this request. `instance` is `None` if its key is not known.
    pub(super) fn draw(&mut self, method: &Method, path: &str, instance: Option<&str>) -> Effects {
        let mut effects = Effects::default();
        for rule in &mut self.faults.rules {
            let replaces = !matches!(rule.fault, Fault::Latency { .. } | Fault::MalformedQuotaHeaders {});
            if (replaces && effects.replacement.is_some()) || !rule.matches(method, path, instance) {
                continue;
            }
            if rule.probability < 1.0 && self.rng.f64() >= rule.probability {
                continue;
            }
            if let Some(times) = &mut rule.times {
                *times = times.saturating_sub(1);
            }
            match &rule.fault {
                Fault::Latency { millis } => effects.latency += Duration::from_millis(*millis),
                Fault::MalformedQuotaHeaders {} => effects.malformed_quota_headers = true,
                fault => {
                    let counted = rule.counted.unwrap_or_else(|| fault.is_counted());
                    effects.replacement = Some((fault.clone(), counted));
                }
            }
        }
        self.faults.rules.retain(|rule| rule.times != Some(0));
        effects
    }
}

impl FaultRule {
    fn matches(&self, method: &Method, path: &str, instance: Option<&str>) -> bool {
        self.times != Some(0)
            && self.path_prefix.as_deref().is_none_or(|prefix| path.starts_with(prefix))
            && self.method.as_deref().is_none_or(|wanted| method.as_str().eq_ignore_ascii_case(wanted))
            && self.instance.as_deref().is_none_or(|wanted| instance == Some(wanted))
    }
}

/// Returns the status of a fault; 500 for values out of range, which [`Faults::check`] rejects.
pub(super) fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset() -> Fault {
        Fault::Reset { after_bytes: 0 }
    }

    fn is_hit(plan: &mut FaultPlan, path: &str, instance: Option<&str>) -> bool {
        plan.draw(&Method::GET, path, instance).replacement.is_some()
    }

    #[test]
    fn rule_applies_to_matching_requests_up_to_its_count() {
        let rule = FaultRule {
            path_prefix: Some("/v1/users".into()),
            method: Some("get".into()),
            instance: Some("prod".into()),
            ..reset().times(2)
        };
        let mut plan = FaultPlan::new(rule.into(), 1);
        assert!(!is_hit(&mut plan, "/v1/instance", Some("prod")));
        assert!(!is_hit(&mut plan, "/v1/users", Some("other")));
        assert!(!is_hit(&mut plan, "/v1/users", None));
        assert!(plan.draw(&Method::POST, "/v1/users", Some("prod")).replacement.is_none());
        let hits: Vec<_> = (0..4).map(|_| is_hit(&mut plan, "/v1/users/count", Some("prod"))).collect();
        assert_eq!(hits, [true, true, false, false]);
        assert!(plan.faults().rules.is_empty());
    }

    #[test]
    fn probability_is_met_and_repeats_with_the_seed() {
        let rule = FaultRule { probability: 0.25, ..reset().always() };
        let draw = |seed| {
            let mut plan = FaultPlan::new(rule.clone().into(), seed);
            (0..10_000).map(|_| is_hit(&mut plan, "/v1/users", None)).collect::<Vec<_>>()
        };
        let hits = draw(7);
        let count = hits.iter().filter(|hit| **hit).count();
        assert!((2_300..2_700).contains(&count), "{count}");
        assert_eq!(hits, draw(7));
        assert_ne!(hits, draw(8));
    }

    #[test]
    fn latencies_add_up_and_unused_faults_stay() {
        let rules = vec![
            Fault::Latency { millis: 20 }.always(),
            reset().times(1),
            Fault::Latency { millis: 5 }.times(1),
            Fault::Redirect { location: "/elsewhere".into() }.times(1),
        ];
        let mut plan = FaultPlan::new(Faults { rules, ..Faults::default() }, 1);
        let first = plan.draw(&Method::GET, "/v1/users", None);
        assert_eq!(first.latency, Duration::from_millis(25));
        assert_eq!(first.replacement, Some((reset(), false)));
        let second = plan.draw(&Method::GET, "/v1/users", None);
        assert_eq!(second.latency, Duration::from_millis(20));
        assert!(matches!(second.replacement, Some((Fault::Redirect { .. }, false))));
    }

    #[test]
    fn values_out_of_range_are_rejected_by_position() {
        for fault in [
            Fault::Latency { millis: 600_001 },
            Fault::Status { status: 302, body: FaultBody::Html },
            Fault::Throttled { retry_after: Some("1\n2".into()), body: FaultBody::Clerk },
            Fault::HugeBody { bytes: MAX_BODY_BYTES + 1 },
            Fault::Redirect { location: String::new() },
            Fault::QuotaExceeded { code: String::new() },
        ] {
            let faults = Faults { rules: vec![reset().always(), fault.always()], ..Faults::default() };
            assert!(matches!(faults.check(), Err(FaultError::Invalid { index: 1, .. })), "{faults:?}");
        }
        let nan = FaultRule { probability: f64::NAN, ..reset().always() };
        assert!(Faults::from(nan).check().is_err());
        let many = Faults { rules: vec![reset().always(); MAX_RULES + 1], ..Faults::default() };
        assert_eq!(many.check(), Err(FaultError::TooManyRules));
    }

    #[test]
    fn unknown_fields_are_rejected_at_every_level() {
        for json in [
            r#"{"rule": []}"#,
            r#"{"rules": [{"fault": {"kind": "reset"}, "prob": 1}]}"#,
            r#"{"rules": [{"fault": {"kind": "reset", "bytes": 1}}]}"#,
            r#"{"rules": [{"fault": {"kind": "malformed_quota_headers", "x": 1}}]}"#,
            r#"{"rules": [{"fault": {"kind": "explode"}}]}"#,
        ] {
            assert!(serde_json::from_str::<Faults>(json).is_err(), "{json}");
        }
        let faults: Faults =
            serde_json::from_str(r#"{"rules": [{"fault": {"kind": "status", "status": 503}}]}"#).unwrap();
        let expected = Fault::Status { status: 503, body: FaultBody::Clerk }.always();
        assert_eq!(faults, Faults::from(expected));
    }
}
