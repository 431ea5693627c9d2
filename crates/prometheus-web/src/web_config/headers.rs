//! `http_server_config.headers`: the five headers that can be set on every response.

use std::collections::BTreeMap;

use axum::http::header::{
    CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS, X_XSS_PROTECTION,
};

use super::error::Problem;

const KEY: &str = "http_server_config.headers";

/// The spelling in the file, the header, and its allowed values if they are a closed set.
const ALLOWED: [(&str, HeaderName, &[&str]); 5] = [
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY, &[]),
    ("Strict-Transport-Security", STRICT_TRANSPORT_SECURITY, &[]),
    ("X-Content-Type-Options", X_CONTENT_TYPE_OPTIONS, &["nosniff"]),
    ("X-Frame-Options", X_FRAME_OPTIONS, &["deny", "sameorigin"]),
    ("X-XSS-Protection", X_XSS_PROTECTION, &[]),
];

/// Validates the headers and converts them for use in responses.
pub(super) fn headers(typed: &BTreeMap<String, String>) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::with_capacity(typed.len());
    for (name, value) in typed {
        let Some((_, header, values)) = ALLOWED.iter().find(|(spelling, _, _)| spelling == name) else {
            let names = ALLOWED.map(|(spelling, _, _)| spelling).join(", ");
            return Err(Problem::key(format!("{KEY}.{name}"), format!("only these headers can be set: {names}")));
        };
        if !values.is_empty() && !values.contains(&value.as_str()) {
            return Err(Problem::key(format!("{KEY}.{name}"), format!("write {}", values.join(" or "))));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| Problem::key(format!("{KEY}.{name}"), "not a valid header value"))?;
        headers.insert(header.clone(), value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<HeaderMap, Problem> {
        headers(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn five_headers_are_accepted() {
        assert_eq!(one("X-Frame-Options", "deny").unwrap()[X_FRAME_OPTIONS], "deny");
        assert_eq!(one("X-XSS-Protection", "0").unwrap()[X_XSS_PROTECTION], "0");
    }

    #[test]
    fn other_headers_and_values_are_rejected_by_name() {
        let cases = [
            (one("Server", "x"), "http_server_config.headers.Server: only these headers"),
            (one("x-frame-options", "deny"), "only these headers"),
            (one("X-Frame-Options", "DENY"), "X-Frame-Options: write deny or sameorigin"),
            (one("X-Content-Type-Options", "x"), "write nosniff"),
            (one("Content-Security-Policy", "a\nb"), "not a valid header value"),
        ];
        for (result, expected) in cases {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
