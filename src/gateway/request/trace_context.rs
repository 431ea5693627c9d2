//! Request fields that carry the context of a trace, or its baggage.
//!
//! Clerk is a foreign service. The ids of a trace mean nothing to it, and baggage may hold anything that an application
//! put there: user names, tenants, flags (W3C Baggage, section 5, warns of exactly this).

use http::HeaderMap;

/// What a field carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TracingField {
    /// Ids, sampling and the state of vendors.
    Context,
    /// Names and values that applications choose. Never sent to Clerk.
    Baggage,
}

impl TracingField {
    /// Returns what a field with this name, in lower case, carries: the fields of the propagators of OpenTelemetry (W3C,
    /// B3, Jaeger, OpenTracing, X-Ray), of the vendors' SDKs, and of their predecessors.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "traceparent"
            | "tracestate"
            | "b3"
            | "uber-trace-id"
            | "sentry-trace"
            | "newrelic"
            | "grpc-trace-bin"
            | "elastic-apm-traceparent"
            | "x-amzn-trace-id"
            | "x-cloud-trace-context"
            | "x-ot-span-context"
            | "request-id"
            | "request-context" => Some(Self::Context),
            // Datadog's tags may contain the user.
            "baggage" | "correlation-context" | "jaeger-baggage" | "x-datadog-tags" => Some(Self::Baggage),
            _ if ["ot-baggage-", "uberctx-"].iter().any(|start| name.starts_with(start)) => Some(Self::Baggage),
            _ if ["x-b3-", "x-datadog-", "ot-tracer-"].iter().any(|start| name.starts_with(start)) => {
                Some(Self::Context)
            }
            _ => None,
        }
    }
}

/// Removes baggage and, unless it is to be kept, the context.
pub(super) fn remove(headers: &mut HeaderMap, keeps_context: bool) {
    let is_removed = |name: &&http::HeaderName| match TracingField::of(name.as_str()) {
        Some(TracingField::Baggage) => true,
        Some(TracingField::Context) => !keeps_context,
        None => false,
    };
    let removed: Vec<_> = headers.keys().filter(is_removed).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const CONTEXT: [&str; 12] = [
        "traceparent",
        "tracestate",
        "b3",
        "x-b3-traceid",
        "x-b3-spanid",
        "uber-trace-id",
        "ot-tracer-traceid",
        "x-amzn-trace-id",
        "x-datadog-trace-id",
        "x-cloud-trace-context",
        "sentry-trace",
        "elastic-apm-traceparent",
    ];
    const BAGGAGE: [&str; 6] =
        ["baggage", "ot-baggage-user", "uberctx-user", "jaeger-baggage", "correlation-context", "x-datadog-tags"];
    const OTHERS: [&str; 5] = ["x-request-id", "x-correlation-id", "authorization", "b3x", "x-trace"];

    #[test]
    fn baggage_always_goes_and_context_unless_kept() {
        for (keeps_context, kept) in [(false, &OTHERS[..]), (true, &[&OTHERS[..], &CONTEXT].concat())] {
            let mut headers = HeaderMap::new();
            for name in OTHERS.iter().chain(&CONTEXT).chain(&BAGGAGE) {
                headers.append(*name, HeaderValue::from_static("1"));
                headers.append(*name, HeaderValue::from_static("2"));
            }
            remove(&mut headers, keeps_context);
            let mut names: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
            let mut expected = kept.to_vec();
            names.sort_unstable();
            expected.sort_unstable();
            assert_eq!(names, expected);
            assert_eq!(headers.len(), 2 * kept.len());
        }
    }
}
