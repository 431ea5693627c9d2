//! The usual response: one `X-RateLimit-Limit`, `-Remaining` and `-Reset`, each a plain number.
//!
//! A shortcut for programs that parse every response: a quarter of the work, with the result of `x_ratelimit`.

use http::HeaderMap;

use super::header_quota::{HeaderQuota, Reading};
use super::number::{Count, Limit};
use super::reset::{Clock, Wait};

/// Longer numbers may mean "unlimited".
const MOST_DIGITS: usize = 15;

/// Reads the headers; `None` if one is unusual, or none is there. Headers of other families must be absent.
pub(super) fn read(headers: &HeaderMap, throttled: bool, clock: &Clock) -> Option<Reading> {
    let (mut limit, mut remaining, mut reset) = (None, None, None);
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("x-ratelimit") else { continue };
        let place = match name {
            "-limit" => &mut limit,
            "-remaining" => &mut remaining,
            "-reset" => &mut reset,
            _ => return None,
        };
        if place.replace(number(value.as_bytes())?).is_some() {
            return None;
        }
    }
    limit.or(remaining).or(reset)?;
    let reset = match reset {
        None => None,
        Some(number) => Some(Wait::from_number(Some(number), 0, false, clock).reset()?),
    };
    let quota = HeaderQuota {
        limit: limit.map(|limit| Limit::new(Count::Exact(limit), throttled)),
        remaining: remaining.map(Count::Exact),
        reset,
        ..HeaderQuota::default()
    };
    Some(quota.interpret())
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > MOST_DIGITS {
        return None;
    }
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    text.iter().try_fold(0, |number, byte| Some(number * 10 + digit(byte)?))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::Present;
    use crate::x_ratelimit::x_ratelimit;

    const NAMES: [&str; 7] = [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-ratelimit-reset-after",
        "x-ratelimit",
        "date",
        "x-other",
    ];

    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            8 => "[0-9]{1,3}",
            2 => (1_795_000_000_u64..1_796_000_000).prop_map(|number| number.to_string()),
            1 => (1_795_000_000_000_u64..1_796_000_000_000).prop_map(|number| number.to_string()),
            1 => "[0-9]{1,18}",
            1 => "[-+ \"0-9.,;=wx]{0,6}",
            1 => Just("unlimited".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn plain_headers_mean_the_same_as_in_general(
            fields in proptest::collection::vec((0..NAMES.len(), value()), 0..6),
            throttled: bool,
            has_clock: bool,
        ) {
            let mut headers = HeaderMap::new();
            for (place, value) in &fields {
                headers.append(HeaderName::from_static(NAMES[*place]), HeaderValue::from_str(value).unwrap());
            }
            let clock = Clock::new(None, has_clock.then_some(UNIX_EPOCH + Duration::from_secs(1_795_608_000)));
            if let Some(reading) = read(&headers, throttled, &clock) {
                let present = Present::scan(&headers);
                let fields = x_ratelimit(&headers, present, throttled, &clock);
                prop_assert!(!fields.is_absent());
                prop_assert_eq!(format!("{:?}", reading), format!("{:?}", fields.read()));
            }
        }
    }

    #[test]
    fn usual_headers_are_plain() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-ratelimit-limit", "1000"), ("x-ratelimit-remaining", "999"), ("x-ratelimit-reset", "10")]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let reading = read(&headers, false, &Clock::new(None, None)).unwrap();
        assert_eq!((reading.limit, reading.remaining), (Some(1000), Some(999)));
        assert_eq!(reading.reset.map(|reset| reset.after), Some(Duration::from_secs(10)));
        headers.append("x-ratelimit-limit", HeaderValue::from_static("1000"));
        assert!(read(&headers, false, &Clock::new(None, None)).is_none());
    }
}
