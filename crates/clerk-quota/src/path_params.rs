//! The values of a route template's parameters.

use std::borrow::Cow;

use crate::route;

/// The values of a template's parameters in a path, percent-decoded.
///
/// `None` for an unknown route, and for a path with empty or dot segments or with bytes that are not UTF-8.
#[must_use]
pub fn path_params<'a>(template: &str, path: &'a str) -> Option<Vec<Cow<'a, str>>> {
    if template == route::OTHER {
        return None;
    }
    let mut values = Vec::new();
    let (mut template, mut path) = (template, path);
    loop {
        let Some((literal, parameter)) = split_before(template, b'{') else {
            return (template == path).then_some(values);
        };
        let rest = path.strip_prefix(literal)?;
        let (segment, rest) = split_before(rest, b'/').unwrap_or((rest, ""));
        match decode(segment)? {
            value if matches!(&*value, "" | "." | "..") => return None,
            value => values.push(value),
        }
        path = rest;
        template = split_before(parameter, b'/').map_or("", |(_, rest)| rest);
    }
}

/// Splits a text before the first such ASCII byte. The texts are short: a search for longer ones costs more.
fn split_before(text: &str, byte: u8) -> Option<(&str, &str)> {
    text.bytes().position(|it| it == byte).and_then(|place| text.split_at_checked(place))
}

/// Decodes a segment (RFC 3986, section 2.1); none if an escape is malformed, which the crate `percent-encoding` would leave
/// as it is.
fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.bytes().any(|byte| byte == b'%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        decoded.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_path_yields_its_parameters() {
        let user = "/v1/users/{user_id}";
        let token = "/v1/users/{user_id}/oauth_access_tokens/{provider}";
        for (template, path, expected) in [
            (user, "/v1/users/user_1", Some(vec!["user_1"])),
            (user, "/v1/users/user%5f1", Some(vec!["user_1"])),
            (user, "/v1/users/a%2Fb", Some(vec!["a/b"])),
            (token, "/v1/users/user_1/oauth_access_tokens/x", Some(vec!["user_1", "x"])),
            ("/v1/users", "/v1/users", Some(vec![])),
            (user, "/v1/users/", None),
            (user, "/v1/users/user_1/", None),
            (user, "/v1//users/user_1", None),
            (user, "/users/user_1", None),
            (user, "/v1/users/%2e", None),
            (user, "/v1/users/%2e%2E", None),
            (user, "/v1/users/%ff", None),
            (user, "/v1/users/%4", None),
            (user, "/v1/users/%zz", None),
            (route::OTHER, "other", None),
        ] {
            let found = path_params(template, path);
            let found: Option<Vec<&str>> = found.as_ref().map(|values| values.iter().map(AsRef::as_ref).collect());
            assert_eq!(found, expected, "{template} {path}");
        }
    }
}
