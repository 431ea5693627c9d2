//! The keys of `callers`: applications with tokens, and their shares of the limit.

use std::sync::Arc;
use std::time::Duration;

use super::super::error::Position;
use super::super::file::{Context, SCHEMA};
use super::super::reader::{Field, Keys, Report, Section};
use super::super::tree::Value;
use super::super::validate;
use super::model::CallerConfig;
use super::{MAX_WAITS, secret_file};
use clerk_client::limiter::Priority;
use clerk_client::secret::{Secret, SecretSource};

pub(in super::super) static CALLER: Keys = Keys {
    section: "callers",
    known: &["name", "token_file", "instance", "priority", "min_share", "max_share", "max_wait"],
};

/// Shorter tokens can be guessed.
const MIN_TOKEN_BYTES: usize = 16;

/// Sums of decimal fractions are not exact.
const ROUNDING: f64 = 1e-9;

/// A caller, and where it was read.
pub(super) struct ReadCaller {
    caller: CallerConfig,
    path: String,
    place: Position,
    /// Where its own `max_wait` was read.
    max_wait: Option<(String, Position)>,
}

/// What callers' shares are checked against.
pub(super) struct Surroundings {
    /// Whether requests of any route are paced, at least in shadow mode.
    pub(super) paces: bool,
    /// Share of the limit that is reserved for callers of high priority.
    pub(super) reserve: f64,
    /// The longest window of the instances' limits.
    pub(super) longest_window: Duration,
}

/// Reads the list.
pub(super) fn read(
    section: &mut Section,
    instances: &[Arc<str>],
    context: &Context<'_>,
    report: &mut Report,
) -> Vec<ReadCaller> {
    let fields = section.take("callers").and_then(|field| field.into_list(report)).unwrap_or_default();
    let mut known: Vec<(Secret, String)> = Vec::new();
    let mut callers = Vec::new();
    for field in fields {
        if let Some(caller) = caller(field, instances, context, &mut known, report) {
            callers.push(caller);
        }
    }
    callers
}

fn caller(
    field: Field,
    instances: &[Arc<str>],
    context: &Context<'_>,
    known: &mut Vec<(Secret, String)>,
    report: &mut Report,
) -> Option<ReadCaller> {
    let mut section = Section::open(field, &CALLER, SCHEMA, report)?;
    let (path, place) = (section.path.clone(), section.place);
    let mut required = |key: &str, example: &str, report: &mut Report| {
        let field = section.take(key);
        if field.is_none() {
            report.problem(Some(section.place), &section.name_of(key), format!("missing; write `{key}: {example}`"));
        }
        field
    };
    let name = required("name", "web", report)
        .and_then(|field| field.check_text(report, |text| validate::name(text).map(|()| Arc::from(text))));
    let token = required("token_file", "/run/secrets/web_token", report)
        .and_then(|field| token(&field, context, known, report));
    let instance = required("instance", "prod", report).and_then(|field| {
        field.check_text(report, |text| {
            let found = instances.iter().find(|name| &***name == text);
            found.cloned().ok_or_else(|| "no instance of this name is configured; write the name of one".to_owned())
        })
    });
    let priority = match section.take("priority") {
        Some(field) => field.check_text(report, |text| match text {
            "high" => Ok(Priority::High),
            "low" => Ok(Priority::Low),
            _ => Err("neither high nor low; write `high` or `low`".to_owned()),
        }),
        None => Some(Priority::High),
    };
    let (min_share, max_share) = shares(&mut section, report)?;
    let max_wait = match section.take("max_wait") {
        Some(field) => {
            let wait = field.check(report, |value| validate::duration(value, MAX_WAITS))?;
            Some((wait, (field.path.clone(), field.place())))
        }
        None => None,
    };
    let (max_wait, wait_place) = max_wait.unzip();
    let (name, token, instance, priority) = (name?, token?, instance?, priority?);
    let caller = CallerConfig { name, token, instance, priority, min_share, max_share, max_wait };
    Some(ReadCaller { caller, path, place, max_wait: wait_place })
}

/// `min_share` and `max_share`.
fn shares(section: &mut Section, report: &mut Report) -> Option<(f64, f64)> {
    let min_share = section.take("min_share");
    let (min, max) = (min_share.as_ref(), section.take("max_share"));
    let min = min.map_or(Some(0.0), |field| field.check(report, share));
    let max = max.map_or(Some(1.0), |field| field.check(report, share));
    let (min, max) = (min?, max?);
    if let Some(field) = min_share.filter(|_| min > max) {
        let message = "larger than `max_share`; write a share that is at most as large";
        report.problem(Some(field.place()), &field.path, message);
        return None;
    }
    Some((min, max))
}

/// A share of the limit.
fn share(value: &Value) -> Result<f64, String> {
    let number = validate::share(value)?;
    if number > 0.0 && number <= 1.0 {
        Ok(number)
    } else if number > 1.0 && number <= 100.0 {
        Err(format!("above 1; write `{}` for {number} %", number / 100.0))
    } else {
        Err("not above 0 and at most 1; write `0.2` for 20 %, or remove the key".to_owned())
    }
}

/// A token that is readable and that no other caller has.
fn token(
    field: &Field,
    context: &Context<'_>,
    known: &mut Vec<(Secret, String)>,
    report: &mut Report,
) -> Option<SecretSource> {
    let source = secret_file(field, context, report)?;
    let secret = field.check(report, |_| source.read_with(context.env).map_err(|error| error.to_string()))?;
    field.check(report, |_| match known.iter().find(|(other, _)| other == &secret) {
        Some((_, first)) => Err(format!("the same token as {first}; give each caller a different token")),
        None if secret.expose().len() < MIN_TOKEN_BYTES => {
            Err(format!("a token of less than {MIN_TOKEN_BYTES} bytes; create one with `openssl rand -hex 32`"))
        }
        None => Ok(()),
    })?;
    known.push((secret, field.path.clone()));
    Some(source)
}

/// Checks the callers against each other and against the policies.
pub(super) fn check(callers: Vec<ReadCaller>, surroundings: &Surroundings, report: &mut Report) -> Vec<CallerConfig> {
    let mut different: Vec<&ReadCaller> = Vec::new();
    for read in &callers {
        match different.iter().find(|first| is_of_same_caller(&first.caller, &read.caller)) {
            Some(first) if !has_same_shares(&first.caller, &read.caller) => {
                let message = format!(
                    "the same caller as {} with a different `min_share`, `max_share` or `max_wait`; write the same \
                     values for all of its tokens",
                    first.path
                );
                report.problem(Some(read.place), &read.path, message);
            }
            Some(_) => {}
            None => different.push(read),
        }
    }
    for read in &different {
        check_use(read, surroundings, report);
    }
    check_sums(&different, surroundings.reserve, report);
    callers.into_iter().map(|read| read.caller).collect()
}

fn is_of_same_caller(one: &CallerConfig, other: &CallerConfig) -> bool {
    one.name == other.name && one.instance == other.instance
}

fn has_same_shares(one: &CallerConfig, other: &CallerConfig) -> bool {
    (one.min_share, one.max_share, one.max_wait) == (other.min_share, other.max_share, other.max_wait)
}

/// Whether the shares of a caller have an effect, and the intended one.
fn check_use(read: &ReadCaller, surroundings: &Surroundings, report: &mut Report) {
    let ReadCaller { caller, path, place, max_wait } = read;
    if (caller.min_share > 0.0 || caller.max_share < 1.0) && !surroundings.paces {
        let message =
            "`min_share` and `max_share` act only while `policies.pace` is on; write `pace: on`, or remove them";
        report.problem(Some(*place), path, message);
    }
    // What was lent returns a window after its responses, and a little later.
    let window = (surroundings.longest_window + surroundings.longest_window / 10).min(*MAX_WAITS.end());
    if let (Some(wait), Some((path, place))) = (caller.max_wait, max_wait)
        && caller.min_share > 0.0
        && wait < window
    {
        let window = humantime::format_duration(window);
        let message = format!(
            "too short for lent quota to return, so that a guaranteed request may be rejected; write `{window}` or longer"
        );
        report.warning(Some(*place), path, message);
    }
}

/// The guarantees of an instance's callers and the reserve must fit into the limit.
fn check_sums(callers: &[&ReadCaller], reserve: f64, report: &mut Report) {
    let mut checked: Vec<&Arc<str>> = Vec::new();
    for read in callers.iter().filter(|read| read.caller.min_share > 0.0) {
        let instance = &read.caller.instance;
        if checked.contains(&instance) {
            continue;
        }
        checked.push(instance);
        let own = callers.iter().filter(|read| read.caller.instance == *instance && read.caller.min_share > 0.0);
        let shares: Vec<f64> = own.map(|read| read.caller.min_share).collect();
        let sum = shares.iter().sum::<f64>() + reserve;
        if sum > 1.0 + ROUNDING {
            let terms = shares.iter().map(f64::to_string).collect::<Vec<_>>().join(" + ");
            let message = format!(
                "the guarantees of the instance's callers ({terms}) and `policies.pace.reserve` ({reserve}) add up to \
                 {}, and the limit is 1; write smaller ones",
                rounded(sum)
            );
            report.problem(Some(read.place), &format!("{}.min_share", read.path), message);
        }
    }
}

/// Without the error of a sum.
fn rounded(number: f64) -> String {
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
