//! Which answers may be given again, and what of a request they depend on.

use http::header::{CACHE_CONTROL, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that says which version of the Backend API a client speaks.
pub(in crate::gateway) static API_VERSION: HeaderName = HeaderName::from_static("clerk-api-version");

/// Whether an answer may be given to who asks the same later: it does not say no (RFC 9111, section 5.2.2), and does not
/// depend on more of a request than is looked at (section 4.1) or is the same for all who are given it.
pub(in crate::gateway) fn may_be_kept(headers: &HeaderMap) -> bool {
    let elements = |name| {
        let values = headers.get_all(name).iter().map(|value: &HeaderValue| value.to_str().unwrap_or("*"));
        values.flat_map(|value| value.split(',')).map(str::trim)
    };
    let says_no = |directive: &str| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        ["no-store", "private"].iter().any(|no| name.eq_ignore_ascii_case(no))
    };
    let is_known = |field: &str| KNOWN_TO_VARY.iter().any(|known| field.eq_ignore_ascii_case(known));
    !elements(CACHE_CONTROL).any(says_no) && elements(VARY).all(|field| field.is_empty() || is_known(field))
}

/// What an answer may vary by: the first two are part of what is asked for; compression and cookies are never asked for;
/// all keys of an instance see the same; and no browser, which has an origin, has a key.
const KNOWN_TO_VARY: [&str; 6] =
    ["accept", "clerk-api-version", "accept-encoding", "cookie", "authorization", "origin"];
