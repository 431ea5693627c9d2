//! `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), structured fields as in RFC 9651.
//!
//! `RateLimit` is a dictionary in draft 07 (`limit=100, remaining=50, reset=30`) and a list of named items since
//! draft 08 (`"default";r=50;t=30`). Each form is a family of its own.

use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;
use sfv::{BareItem, Dictionary, Item, List, ListEntry, Parser};

use super::error::{HeaderError, HeaderErrors};
use super::header_quota::{Fields, HeaderQuota, Reading, tightest};
use super::list::{Column, lines, trim};
use super::number::{Count, Limit};
use super::reset::{Clock, Wait};
use super::x_ratelimit::window_of_seconds;

static RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The two structured fields of a response.
#[derive(Debug)]
pub(super) struct Structured {
    field: Field,
    /// Named policies, since draft 08.
    policies: Vec<Policy>,
    /// Policies of earlier drafts, bare numbers such as `100;w=60`, which only describe windows.
    windows: Column<(Limit, Duration)>,
    policy_unreadable: bool,
    /// Errors of the fields as a whole.
    pub(super) errors: HeaderErrors,
}

/// The form of `RateLimit`.
#[derive(Debug)]
enum Field {
    Absent,
    Unreadable,
    /// Since draft 08.
    List(List),
    /// Draft 07, one dictionary per line.
    Dictionaries(Vec<Dictionary>),
}

#[derive(Debug)]
struct Policy {
    name: String,
    quota: Limit,
    window: Option<Duration>,
    /// Whether the quota counts requests, rather than bytes or connections.
    requests: bool,
}

impl Structured {
    /// Neither field is present.
    pub(super) const fn absent() -> Self {
        Self {
            field: Field::Absent,
            policies: Vec::new(),
            windows: Column::new(),
            policy_unreadable: false,
            errors: HeaderErrors::NONE,
        }
    }

    pub(super) fn read(headers: &HeaderMap, throttled: bool) -> Self {
        let mut fields = Self { field: Field::read(headers), ..Self::absent() };
        if matches!(fields.field, Field::Unreadable) {
            fields.errors.insert(HeaderError::InvalidRatelimit);
        }
        if headers.contains_key(&RATELIMIT_POLICY) {
            fields.read_policies(headers, throttled);
        }
        fields
    }

    fn read_policies(&mut self, headers: &HeaderMap, throttled: bool) {
        let Some(list) = parse_list(headers, &RATELIMIT_POLICY) else {
            self.policy_unreadable = true;
            self.errors.insert(HeaderError::InvalidPolicy);
            return;
        };
        for entry in &list {
            if let ListEntry::Item(item) = entry {
                if let BareItem::Integer(quota) = item.bare_item {
                    let limit = Limit::new(Count::from_signed(i64::from(quota)), throttled);
                    self.windows.extend(window(item).map(|window| (limit, window)));
                    continue;
                }
                if let Some(policy) = Policy::read(item, throttled) {
                    self.policies.push(policy);
                    continue;
                }
            }
            self.errors.insert(HeaderError::InvalidPolicy);
        }
    }

    /// Reads the family `ietf`; `None` if the response does not use it.
    pub(super) fn ietf(&self, clock: &Clock) -> Option<Reading> {
        match &self.field {
            Field::Absent => self.policies_only(),
            Field::Unreadable => Some(Reading::default()),
            Field::List(list) => Some(self.service_limits(list, clock)),
            Field::Dictionaries(_) => None,
        }
    }

    /// Reads the limit from policies alone, without `RateLimit`; `None` without policies.
    pub(super) fn policies_only(&self) -> Option<Reading> {
        if self.policies.is_empty() {
            return self.policy_unreadable.then(Reading::default);
        }
        let of_requests = || self.policies.iter().filter(|policy| policy.requests);
        let bucket = bucket_of(of_requests());
        let known = bucket.limit.is_some();
        Some(Reading { usable: known, ..tightest(std::iter::once(bucket)).unwrap_or_default() })
    }

    fn service_limits(&self, list: &List, clock: &Clock) -> Reading {
        let mut errors = HeaderErrors::NONE;
        let mut buckets = Vec::with_capacity(list.len());
        for entry in list {
            let Some((name, remaining, item)) = service_limit(entry) else {
                errors.insert(HeaderError::InvalidRatelimit);
                continue;
            };
            let named = || self.policies.iter().filter(|policy| policy.name == name);
            if !counts_requests(item) || named().any(|policy| !policy.requests) {
                continue;
            }
            let wait = item.params.get("t").map(|t| Wait::from_bare_item(t, clock));
            if matches!(wait, Some(None | Some(Wait::TooLong))) {
                errors.insert(HeaderError::InvalidReset);
            }
            buckets.push(HeaderQuota {
                remaining: Some(remaining),
                reset: wait.flatten().and_then(Wait::reset),
                ..bucket_of(named())
            });
        }
        let mut reading = tightest(buckets.into_iter()).unwrap_or_default();
        reading.errors.extend(errors);
        reading
    }

    /// Reads the family `ietf-draft7`; `None` if the response does not use it.
    pub(super) fn draft7(&self, throttled: bool, clock: &Clock) -> Option<Reading> {
        let Field::Dictionaries(dictionaries) = &self.field else {
            return None;
        };
        let member = |key: &'static str| {
            dictionaries.iter().filter_map(move |dictionary| {
                dictionary.get(key).map(|entry| match entry {
                    ListEntry::Item(item) => Some(&item.bare_item),
                    ListEntry::InnerList(_) => None,
                })
            })
        };
        let limit = |item| Count::from_bare_item(item).map(|count| Limit::new(count, throttled));
        let fields = Fields {
            limits: member("limit").map(|item| item.and_then(limit)).collect(),
            remaining: member("remaining").map(|item| item.and_then(Count::from_bare_item)).collect(),
            resets: member("reset").map(|item| item.and_then(|item| Wait::from_bare_item(item, clock))).collect(),
            windows: self.windows.iter().collect(),
        };
        Some(fields.read())
    }

    /// Returns the windows of bare policies by limit, for the families without names.
    pub(super) fn windows(&self) -> impl Iterator<Item = (Limit, Duration)> {
        self.windows.iter()
    }
}

impl Field {
    fn read(headers: &HeaderMap) -> Self {
        if !headers.contains_key(&RATELIMIT) {
            return Self::Absent;
        }
        if let Some(list) = parse_list(headers, &RATELIMIT) {
            return Self::List(list);
        }
        match parse_dictionaries(headers, &RATELIMIT) {
            Some(dictionaries) => Self::Dictionaries(dictionaries),
            None => Self::Unreadable,
        }
    }
}

impl Policy {
    /// Returns `None` without a name or an integer `q`, both of which the draft requires.
    fn read(item: &Item, throttled: bool) -> Option<Self> {
        let quota = item.params.get("q")?.as_integer()?;
        Some(Self {
            name: name(&item.bare_item)?.to_owned(),
            quota: Limit::new(Count::from_signed(i64::from(quota)), throttled),
            window: window(item),
            requests: counts_requests(item),
        })
    }
}

/// Returns name, remaining count and item of a `RateLimit` entry; `None` without a name or an integer `r`.
fn service_limit(entry: &ListEntry) -> Option<(&str, Count, &Item)> {
    let ListEntry::Item(item) = entry else {
        return None;
    };
    let remaining = item.params.get("r")?.as_integer()?;
    Some((name(&item.bare_item)?, Count::from_signed(i64::from(remaining)), item))
}

/// Combines the policies of one name. A name should occur once; otherwise the values must agree.
fn bucket_of<'a>(policies: impl Iterator<Item = &'a Policy>) -> HeaderQuota {
    let mut quotas = Column::new();
    let mut windows = Column::new();
    for policy in policies {
        quotas.push(policy.quota);
        windows.push(policy.window);
    }
    let limit = quotas.agreed();
    HeaderQuota {
        limit,
        limits_differ: !quotas.is_empty() && limit.is_none(),
        window: match limit {
            Some(Limit::Requests(_)) => windows.agreed().flatten(),
            Some(Limit::Unlimited) | None => None,
        },
        ..HeaderQuota::default()
    }
}

/// Returns the name of a policy: a string, or a token in one draft.
fn name(item: &BareItem) -> Option<&str> {
    match item {
        BareItem::String(name) => Some(name.as_str()),
        BareItem::Token(name) => Some(name.as_str()),
        _ => None,
    }
}

/// Whether the unit is requests: the default unless `qu` names another (`content-bytes`, `concurrent-requests`).
fn counts_requests(item: &Item) -> bool {
    item.params.get("qu").is_none_or(|unit| name(unit) == Some("requests"))
}

fn window(item: &Item) -> Option<Duration> {
    let seconds = i64::from(item.params.get("w")?.as_integer()?);
    window_of_seconds(u64::try_from(seconds).ok()?)
}

/// Parses all lines of a list field as one list; `None` on any error, because RFC 9651, section 4.2, then rejects the
/// whole field.
fn parse_list(headers: &HeaderMap, name: &HeaderName) -> Option<List> {
    let mut list = List::new();
    for line in lines(headers, name) {
        list = Parser::new(trim(line)).parse_list_with_visitor(list).ok()?;
    }
    (!list.is_empty()).then_some(list)
}

/// Parses each line of a dictionary field separately: in one dictionary, the last line would silently win.
fn parse_dictionaries(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<Dictionary>> {
    let dictionaries = lines(headers, name)
        .map(|line| Parser::new(trim(line)).parse::<Dictionary>().ok())
        .collect::<Option<Vec<_>>>()?;
    let known =
        |dictionary: &Dictionary| ["limit", "remaining", "reset"].iter().any(|key| dictionary.contains_key(*key));
    dictionaries.iter().any(known).then_some(dictionaries)
}
