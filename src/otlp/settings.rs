//! OpenTelemetry's environment variables, as far as the SDK does not read them itself.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>

use std::path::PathBuf;
use std::time::Duration;

const DISABLED: &str = "OTEL_SDK_DISABLED";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
/// The variable for traces, then the one for all signals.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const CERTIFICATES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
const CLIENT_KEYS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"];
const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";

/// How spans are sent. Endpoint, headers, compression, resource and sampler are read by the SDK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSettings {
    /// Certificate authorities of the collector in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest time for one request to the collector.
    pub timeout: Duration,
    /// How long the first span of a batch waits for others.
    pub delay: Duration,
    /// Most spans that wait; further ones are dropped.
    pub max_waiting: usize,
    /// Most spans in one request.
    pub max_batch: usize,
}

impl Default for TraceSettings {
    /// The defaults of OpenTelemetry.
    fn default() -> Self {
        Self {
            ca_file: None,
            timeout: Duration::from_secs(10),
            delay: Duration::from_secs(5),
            max_waiting: 2048,
            max_batch: 512,
        }
    }
}

/// A variable has a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// Another exporter than OTLP.
    #[error("{EXPORTER}={0}: only otlp is available; write otlp, or none to send no spans")]
    Exporter(String),
    /// Another protocol.
    #[error("{variable}={value}: spans are sent as http/protobuf, usually to port 4318; write http/protobuf")]
    Protocol {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// Not a number in range.
    #[error("{variable}={value}: write a whole number above 0")]
    Number {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// Client certificates are not available.
    #[error(
        "{0}: client certificates are not available; use a header (OTEL_EXPORTER_OTLP_HEADERS) or a local collector"
    )]
    ClientCertificate(&'static str),
    /// The exporter could not be set up.
    #[error(
        "the exporter of spans cannot be set up: {0}; check OTEL_EXPORTER_OTLP_ENDPOINT, such as http://localhost:4318"
    )]
    Exporting(String),
}

impl TraceSettings {
    /// Reads the settings from a lookup of variables; `None` if no spans are to be sent, which is the default. They are sent
    /// if an endpoint is named, or with `OTEL_TRACES_EXPORTER=otlp`.
    ///
    /// # Errors
    /// Returns an error for the first value that cannot be used.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, OtlpError> {
        // An empty value is the same as none (the specification's rule for all of them).
        let get = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, get(name)?)));
        if get(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match get(EXPORTER).as_deref() {
            None if first(ENDPOINTS).is_none() => return Ok(None),
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => return Err(OtlpError::Exporter(other.to_owned())),
        }
        if let Some((variable, value)) = first(PROTOCOLS).filter(|(_, value)| value != "http/protobuf") {
            return Err(OtlpError::Protocol { variable, value });
        }
        if let Some((variable, _)) = first(CLIENT_KEYS) {
            return Err(OtlpError::ClientCertificate(variable));
        }
        let number = |found: Option<(&'static str, String)>| -> Result<Option<u32>, OtlpError> {
            let Some((variable, value)) = found else { return Ok(None) };
            match value.parse() {
                Ok(number) if number > 0 => Ok(Some(number)),
                _ => Err(OtlpError::Number { variable, value }),
            }
        };
        let named = |name: &'static str| get(name).map(|value| (name, value));
        let default = Self::default();
        let millis = |found: Option<u32>, default| found.map_or(default, |found| Duration::from_millis(found.into()));
        let count = |found: Option<u32>, default| found.and_then(|found| found.try_into().ok()).unwrap_or(default);
        let max_waiting = count(number(named(QUEUE))?, default.max_waiting);
        Ok(Some(Self {
            ca_file: first(CERTIFICATES).map(|(_, path)| path.into()),
            timeout: millis(number(first(TIMEOUTS))?, default.timeout),
            delay: millis(number(named(DELAY))?, default.delay),
            max_waiting,
            max_batch: count(number(named(BATCH))?, default.max_batch).min(max_waiting),
        }))
    }

    /// Reads the settings from the environment of the process.
    ///
    /// # Errors
    /// As [`TraceSettings::from_variables`].
    pub fn from_environment() -> Result<Option<Self>, OtlpError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<TraceSettings>, OtlpError> {
        TraceSettings::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const ON: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");

    #[test]
    fn spans_are_sent_only_if_asked() {
        let on = Ok(Some(TraceSettings::default()));
        for (variables, expected) in [
            (&[][..], Ok(None)),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], Ok(None)),
            (&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m")], Ok(None)),
            (&[ON], on.clone()),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/v1/traces")], on.clone()),
            (&[("OTEL_TRACES_EXPORTER", "otlp")], on.clone()),
            (&[ON, ("OTEL_TRACES_EXPORTER", "none")], Ok(None)),
            (&[ON, ("OTEL_SDK_DISABLED", "TRUE")], Ok(None)),
            (&[ON, ("OTEL_SDK_DISABLED", "1")], on),
        ] {
            assert_eq!(read(variables), expected, "{variables:?}");
        }
    }

    #[test]
    fn variables_of_traces_come_before_those_of_all_signals() {
        let found = read(&[
            ON,
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
        ]);
        let expected = TraceSettings {
            ca_file: Some("/ca.pem".into()),
            timeout: Duration::from_secs(2),
            delay: Duration::from_millis(100),
            max_waiting: 64,
            max_batch: 64,
        };
        assert_eq!(found, Ok(Some(expected)));
    }

    #[test]
    fn unusable_values_are_errors_that_name_the_variable() {
        for (variable, value) in [
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_BSP_SCHEDULE_DELAY", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ] {
            let error = read(&[ON, (variable, value)]).unwrap_err().to_string();
            assert!(error.contains(variable), "{error}");
        }
    }
}
