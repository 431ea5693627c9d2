//! The section of the telemetry source as text.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::redacted::{Text, duration, path, text};
use super::model::TelemetryConfig;

#[derive(Serialize)]
pub(in super::super) struct TelemetryView {
    listen_address: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    web_config_file: Option<Text>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<Text>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    complete: Vec<Text>,
    instance_attribute: Vec<Text>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    instances: BTreeMap<String, Text>,
    caller_attribute: Vec<Text>,
    lateness: String,
    sampling_ratio: f64,
}

impl TelemetryView {
    pub(in super::super) fn of(telemetry: &TelemetryConfig) -> Self {
        let texts = |names: &[std::sync::Arc<str>]| names.iter().map(text).collect();
        Self {
            listen_address: text(&telemetry.listen),
            web_config_file: telemetry.web_config_file.as_deref().map(path),
            hosts: texts(&telemetry.hosts),
            complete: texts(&telemetry.complete),
            instance_attribute: texts(&telemetry.instance_attributes),
            instances: telemetry.instances.iter().map(|(value, name)| (value.to_string(), text(name))).collect(),
            caller_attribute: texts(&telemetry.caller_attributes),
            lateness: duration(telemetry.lateness),
            sampling_ratio: telemetry.sampling_ratio,
        }
    }
}
