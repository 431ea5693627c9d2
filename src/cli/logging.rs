//! The log: to standard error, logfmt or JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::{LogFormat, LogLevel};

/// Starts logging. Does nothing if there is a log already.
pub(super) fn start(level: LogLevel, format: LogFormat) {
    let registry = tracing_subscriber::registry().with(filter(level));
    let started = match format {
        LogFormat::Logfmt => registry.with(logfmt()).try_init(),
        LogFormat::Json => {
            let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
            registry.with(json).try_init()
        }
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started by somebody else");
    }
}

/// Other libraries speak up only when something is wrong, or when everything is wanted.
fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::new(match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "warn,clerk_exporter=debug",
        LogLevel::Info => "warn,clerk_exporter=info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    })
}

fn logfmt<S>() -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    tracing_logfmt::builder().with_target(false).layer().with_writer(std::io::stderr)
}
