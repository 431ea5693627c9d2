//! Lines of the log: `ts`, `level`, `msg`, then the fields. logfmt and JSON have the same keys and values.

use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::args::LogFormat;

/// Writes each event as one line, without spans and targets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines(pub LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        let first = [("ts", time), ("level", level), ("msg", fields.message)];
        let first = first.into_iter().map(|(key, text)| (key.to_owned(), Value::Text(text)));
        let mut line = String::new();
        for (key, value) in first.chain(fields.others) {
            match self.0 {
                LogFormat::Logfmt => write!(line, "{}{key}={}", if line.is_empty() { "" } else { " " }, value.plain())?,
                LogFormat::Json => {
                    let mark = if line.is_empty() { '{' } else { ',' };
                    write!(line, "{mark}{}:{}", quoted(&key), value.json())?;
                }
            }
        }
        let end = match self.0 {
            LogFormat::Logfmt => "",
            LogFormat::Json => "}",
        };
        writeln!(writer, "{line}{end}")
    }
}

/// The value of a field.
#[derive(Debug)]
enum Value {
    /// A number or a boolean, as in JSON.
    Bare(String),
    Text(String),
}

impl Value {
    fn json(&self) -> String {
        match self {
            Self::Bare(text) => text.clone(),
            Self::Text(text) => quoted(text),
        }
    }

    /// For logfmt: quoted where necessary, with the escapes of JSON, which readers of logfmt understand.
    fn plain(&self) -> String {
        let needs_quotes = |c: char| c <= ' ' || c.is_control() || matches!(c, '=' | '"' | '\\');
        match self {
            Self::Text(text) if text.is_empty() || text.contains(needs_quotes) => quoted(text),
            Self::Bare(text) | Self::Text(text) => text.clone(),
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The fields of an event, in order.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(String, Value)>,
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        let name = field.name();
        // Metadata of records of the crate `log`.
        if name.starts_with("log.") {
            return;
        }
        // Names of other libraries may have dots; raw identifiers have a prefix.
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.others.push((name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"), value));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push(field, Value::Text(value.to_owned()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Bare(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Bare(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Bare(value.to_string()));
    }

    /// As a plain decimal: 0.000037386, never 3.7386e-5.
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        let text = value.to_string();
        self.push(field, if value.is_finite() { Value::Bare(text) } else { Value::Text(text) });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The one line of these events, without its time.
    fn line(format: LogFormat, log_something: impl Fn()) -> String {
        let log = Log::default();
        let writer = log.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(Lines(format)).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log_something);
        let text = String::from_utf8(log.0.lock().clone()).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "{line}");
        let from = line.find("level").unwrap();
        line[from..].to_owned()
    }

    fn log_all() {
        tracing::warn!(
            clerk_instance = "prod",
            duration_seconds = 3.7386e-5,
            large = 1e21,
            whole = 2.0,
            nothing = f64::NAN,
            count = 7u64,
            offset = -7i64,
            is_shared = true,
            absent = None::<u64>,
            path.with.dots = "a=\"b\"\nc",
            empty = "",
            error = %"x\u{7}y",
            "probes {}", "fail"
        );
    }

    #[test]
    fn logfmt_has_plain_decimals_and_necessary_quotes() {
        assert_eq!(
            line(LogFormat::Logfmt, log_all),
            r#"level=warn msg="probes fail" clerk_instance=prod duration_seconds=0.000037386 large=1000000000000000000000 "#
                .to_owned()
                + r#"whole=2 nothing=NaN count=7 offset=-7 is_shared=true path_with_dots="a=\"b\"\nc" empty="" error="x\u0007y""#
        );
    }

    #[test]
    fn json_has_the_keys_values_and_order_of_logfmt() {
        assert_eq!(
            line(LogFormat::Json, log_all),
            r#"level":"warn","msg":"probes fail","clerk_instance":"prod","duration_seconds":0.000037386,"#.to_owned()
                + r#""large":1000000000000000000000,"whole":2,"nothing":"NaN","count":7,"offset":-7,"is_shared":true,"#
                + r#""path_with_dots":"a=\"b\"\nc","empty":"","error":"x\u0007y"}"#
        );
    }
}
