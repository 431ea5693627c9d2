//! Query strings.

use std::fmt::Display;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// A path to which query parameters are added.
#[derive(Debug)]
pub(super) struct Query {
    text: String,
    has_query: bool,
}

impl Query {
    /// The path may have a query already.
    pub(super) fn of(path: &str) -> Self {
        Self { text: path.to_owned(), has_query: path.contains('?') }
    }

    pub(super) fn push(&mut self, name: &str, value: impl Display) {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        encode(name, &mut self.text);
        self.text.push('=');
        encode(&value.to_string(), &mut self.text);
    }

    pub(super) fn push_some(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.push(name, value);
        }
    }

    pub(super) fn into_path(self) -> String {
        self.text
    }
}

/// All but the unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn encode(text: &str, out: &mut String) {
    out.extend(utf8_percent_encode(text, RESERVED));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_percent_encoded() {
        let mut query = Query::of("/v1/users");
        query.push("query", "a&b=c d+ä#?/");
        query.push_some("none", None::<u8>);
        query.push("limit", 5);
        assert_eq!(query.into_path(), "/v1/users?query=a%26b%3Dc%20d%2B%C3%A4%23%3F%2F&limit=5");
        let mut query = Query::of("/v1/x?a=1");
        query.push("b", 2);
        assert_eq!(query.into_path(), "/v1/x?a=1&b=2");
    }
}
