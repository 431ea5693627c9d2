//! The keys of the section `telemetry`.

mod model;
pub(super) mod redacted;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;

pub use model::TelemetryConfig;

use super::file::{Context, SCHEMA};
use super::reader::{Field, Keys, Report, Section};
use super::tree::Value;
use super::{InstanceConfig, validate};
use clerk_client::secret::looks_like_secret;
use prometheus_web::{ListenAddress, WebConfigSource};

pub(super) static TELEMETRY: Keys = Keys {
    section: "telemetry",
    known: &[
        "listen_address",
        "web_config_file",
        "hosts",
        "complete",
        "instance_attribute",
        "instances",
        "caller_attribute",
        "lateness",
        "sampling_ratio",
    ],
};

/// The default listen address: the port of OTLP/HTTP.
pub const DEFAULT_LISTEN_ADDRESS: &str = "127.0.0.1:4318";

const DEFAULT_LATENESS: Duration = Duration::from_secs(15);
const LATENESSES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(120);

/// Resource attributes of the deployment: the current name and the old one, in OpenTelemetry's conventions.
const ENVIRONMENT_ATTRIBUTES: [&str; 2] = ["deployment.environment.name", "deployment.environment"];
const CALLER_ATTRIBUTE: &str = "service.name";

const MAX_ATTRIBUTE_BYTES: usize = 128;

/// Reads the section.
pub(super) fn read(
    field: Field,
    instances: &[&InstanceConfig],
    context: &Context<'_>,
    report: &mut Report,
) -> Option<TelemetryConfig> {
    let mut section = Section::open(field, &TELEMETRY, SCHEMA, report)?;
    let place = section.place;
    let web_config = section.take("web_config_file").map(|field| web_config_file(&field, context, report));
    // For an unusable file, one problem is enough.
    let is_protected =
        web_config.as_ref().is_some_and(|file| file.as_ref().is_none_or(|(_, authenticates)| *authenticates));
    let listen = listen_address(&mut section, is_protected, report);
    let hosts = section.take("hosts").map_or_else(Vec::new, |field| texts(field, report, host));
    let complete = section.take("complete");
    let complete = complete.map_or_else(Vec::new, |field| texts(field, report, |text| instance(text, instances)));
    let instance_attribute = section.take("instance_attribute");
    let says_attribute = instance_attribute.is_some();
    let mut instance_attributes =
        instance_attribute.map_or_else(Vec::new, |field| one_or_several(field, report, attribute));
    if !says_attribute {
        instance_attributes = ENVIRONMENT_ATTRIBUTES.map(Arc::from).into();
    }
    let by_value = section.take("instances").map_or_else(BTreeMap::new, |field| map(field, instances, report));
    let caller_attributes = section.take("caller_attribute");
    let caller_attributes = caller_attributes
        .map_or_else(|| vec![Arc::from(CALLER_ATTRIBUTE)], |field| one_or_several(field, report, attribute));
    let lateness = match section.take("lateness") {
        Some(field) => field.check(report, |value| validate::duration(value, LATENESSES)),
        None => Some(DEFAULT_LATENESS),
    };
    let sampling_ratio = match section.take("sampling_ratio") {
        Some(field) => field.check(report, ratio),
        None => Some(1.0),
    };
    if by_value.is_empty() && shares_host(instances, &hosts) {
        let message = "several instances have the same host, so that spans belong to none of them; write which value \
                       of a resource attribute belongs to which instance, as in `instances: { production: prod }`";
        report.problem(Some(place), &format!("{}.instances", section.path), message);
    }
    Some(TelemetryConfig {
        listen: listen?,
        web_config_file: web_config.flatten().map(|(path, _)| path),
        hosts,
        complete,
        instance_attributes,
        instances: by_value,
        caller_attributes,
        lateness: lateness?,
        sampling_ratio: sampling_ratio?,
    })
}

/// Whether the host of a span does not tell its instance.
fn shares_host(instances: &[&InstanceConfig], hosts: &[Arc<str>]) -> bool {
    let is_shared =
        |one: &InstanceConfig| instances.iter().filter(|it| it.api_url.host() == one.api_url.host()).count();
    match hosts {
        [] => instances.iter().any(|instance| is_shared(instance) > 1),
        _ => instances.len() > 1,
    }
}

/// The file, and whether it authenticates clients.
fn web_config_file(field: &Field, context: &Context<'_>, report: &mut Report) -> Option<(PathBuf, bool)> {
    let path = field.check_text(report, |text| validate::file_name(text).map(|()| context.path(text)))?;
    field.check(report, |_| {
        let source = WebConfigSource::open(&path).map_err(|error| error.to_string())?;
        Ok((path.clone(), source.authenticates()))
    })
}

/// An address of this machine, or any with authentication: spans would change the numbers of the alerts.
fn listen_address(section: &mut Section, is_protected: bool, report: &mut Report) -> Option<ListenAddress> {
    let Some(field) = section.take("listen_address") else {
        return DEFAULT_LISTEN_ADDRESS.parse().ok();
    };
    let exposed = format!(
        "other hosts can reach this address and report what they like; write an address of this machine such as \
         `{DEFAULT_LISTEN_ADDRESS}`, or a `web_config_file` with passwords or client certificates"
    );
    field.check_text(report, |text| validate::listen_address(text, is_protected, &exposed))
}

/// A list of checked texts.
fn texts<T>(field: Field, report: &mut Report, rule: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    let items = field.into_list(report).unwrap_or_default();
    items.iter().filter_map(|item| item.check_text(report, &rule)).collect()
}

/// One checked text, or a list of them.
fn one_or_several<T>(field: Field, report: &mut Report, rule: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    if matches!(field.node.value, Value::List(_)) {
        return texts(field, report, rule);
    }
    field.check_text(report, rule).into_iter().collect()
}

/// Which value of the attribute belongs to which instance.
fn map(field: Field, instances: &[&InstanceConfig], report: &mut Report) -> BTreeMap<Arc<str>, Arc<str>> {
    let (path, place) = (field.path.clone(), field.place());
    let Value::Map(entries) = field.node.value else {
        let message = "not a section; write values of the attribute below it, as in `production: prod`";
        report.problem(Some(place), &path, message);
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for (key, node) in entries {
        let key = Field { path: path.clone(), node: key };
        let Some(value) = key.check_text(report, |text| validate::name(text).map(|()| Arc::from(text))) else {
            continue;
        };
        let name = Field { path: path.clone(), node };
        if let Some(name) = name.check_text(report, |text| instance(text, instances)) {
            found.insert(value, name);
        }
    }
    found
}

fn instance(text: &str, instances: &[&InstanceConfig]) -> Result<Arc<str>, String> {
    let found = instances.iter().find(|instance| &*instance.name == text);
    let found = found.map(|instance| Arc::clone(&instance.name));
    found.ok_or_else(|| "no instance of this name is configured; write the name of one".to_owned())
}

fn host(text: &str) -> Result<Arc<str>, String> {
    const EXAMPLE: &str = "write a host, or a host and a port, such as `api.clerk.com`";
    if looks_like_secret(text) {
        return Err(format!("looks like a key; {EXAMPLE}"));
    }
    let authority: Authority = text.parse().map_err(|_| format!("not a host; {EXAMPLE}"))?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(format!("not a host; {EXAMPLE}"));
    }
    Ok(Arc::from(text.to_ascii_lowercase()))
}

fn attribute(text: &str) -> Result<Arc<str>, String> {
    const EXAMPLE: &str = "write the name of a resource attribute, such as `service.name`";
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
    if text.is_empty() || text.len() > MAX_ATTRIBUTE_BYTES || !is_plain || looks_like_secret(text) {
        return Err(format!("not an attribute's name; {EXAMPLE}"));
    }
    Ok(Arc::from(text))
}

fn ratio(value: &Value) -> Result<f64, String> {
    let number = validate::share(value)?;
    if number > 0.0 && number <= 1.0 {
        return Ok(number);
    }
    Err("not above 0 and at most 1; write `0.1` if applications report every tenth request".to_owned())
}
