//! Encoding of entries for Redis.
//!
//! ```text
//! version   1 byte: 1
//! cipher    1 byte: 0 plain, 1 encrypted
//! content   plain, or encrypted (see `encryption`):
//!   fetched at                  8 bytes, milliseconds since 1970
//!   stale while revalidate      8 bytes, milliseconds, the part of the TTL after freshness
//!   stale if error              8 bytes, the same
//!   status                      2 bytes
//!   headers                     2 bytes, how many; each with
//!     name                      2 bytes length, text
//!     value                     4 bytes length, bytes
//!   body                        the rest
//! ```
//!
//! Numbers are big-endian. An entry that cannot be decoded (another version, or broken) is removed and fetched again.

use std::time::{Duration, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::encryption::Encryption;
use super::entry::{CachedResponse, Record};
use super::millis;

const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const SEALED: u8 = 1;

/// Encodes an entry. Decoding needs the same `context`. `None` if the headers are too many or too large, or encryption
/// fails.
pub(super) fn encode(record: &Record, seal: Option<&Encryption>, context: &[u8]) -> Option<Vec<u8>> {
    let content = content(record)?;
    let mut bytes = Vec::with_capacity(content.len() + 2 + Encryption::OVERHEAD);
    bytes.push(VERSION);
    match seal {
        None => {
            bytes.push(PLAIN);
            bytes.extend_from_slice(&content);
        }
        Some(seal) => {
            bytes.push(SEALED);
            bytes.extend_from_slice(&seal.encrypt(content, context)?);
        }
    }
    Some(bytes)
}

/// Decodes an entry. With encryption configured, a plain entry is rejected: another party may have written it.
pub(super) fn decode(mut bytes: Bytes, seal: Option<&Encryption>, context: &[u8]) -> Option<Record> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let content = match (bytes.try_get_u8().ok()?, seal) {
        (PLAIN, None) => bytes,
        (SEALED, Some(seal)) => seal.decrypt(&bytes, context)?,
        _ => return None,
    };
    read(content)
}

fn content(record: &Record) -> Option<Vec<u8>> {
    let answer = &record.answer;
    let headers: usize = answer.headers().iter().map(|(name, value)| 6 + name.as_str().len() + value.len()).sum();
    let mut bytes = Vec::with_capacity(28 + headers + answer.body().len());
    bytes.put_u64(millis(answer.fetched_at().duration_since(UNIX_EPOCH).unwrap_or_default()));
    bytes.put_u64(millis(record.stale_while_revalidate));
    bytes.put_u64(millis(record.stale_if_error));
    bytes.put_u16(answer.status().as_u16());
    bytes.put_u16(u16::try_from(answer.headers().len()).ok()?);
    for (name, value) in answer.headers() {
        bytes.put_u16(u16::try_from(name.as_str().len()).ok()?);
        bytes.put_slice(name.as_str().as_bytes());
        bytes.put_u32(u32::try_from(value.len()).ok()?);
        bytes.put_slice(value.as_bytes());
    }
    bytes.put_slice(answer.body());
    Some(bytes)
}

fn read(mut bytes: Bytes) -> Option<Record> {
    let fetched_at = UNIX_EPOCH.checked_add(Duration::from_millis(bytes.try_get_u64().ok()?))?;
    let stale_while_revalidate = Duration::from_millis(bytes.try_get_u64().ok()?);
    let stale_if_error = Duration::from_millis(bytes.try_get_u64().ok()?);
    let status = StatusCode::from_u16(bytes.try_get_u16().ok()?).ok()?;
    let count = bytes.try_get_u16().ok()?;
    let mut headers = HeaderMap::new();
    for _ in 0..count {
        let length = bytes.try_get_u16().ok()?;
        let name = HeaderName::from_bytes(&take(&mut bytes, length.into())?).ok()?;
        let length = bytes.try_get_u32().ok()?;
        let value = HeaderValue::from_bytes(&take(&mut bytes, usize::try_from(length).ok()?)?).ok()?;
        headers.try_append(name, value).ok()?;
    }
    let answer = CachedResponse::new(status, headers, bytes, fetched_at);
    Some(Record { answer, stale_while_revalidate, stale_if_error })
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(headers: &[(&str, &[u8])], body: &[u8]) -> Record {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        let fetched_at = UNIX_EPOCH + Duration::from_millis(1_795_608_000_123);
        Record {
            answer: CachedResponse::new(StatusCode::OK, map, Bytes::copy_from_slice(body), fetched_at),
            stale_while_revalidate: Duration::from_secs(30),
            stale_if_error: Duration::from_secs(600),
        }
    }

    fn assert_same(one: &Record, other: &Record) {
        let parts = |record: &Record| {
            let Record { answer, stale_while_revalidate, stale_if_error } = record.clone();
            let headers: Vec<_> = answer.headers().clone().into_iter().collect();
            (
                answer.status(),
                headers,
                answer.body().clone(),
                answer.fetched_at(),
                stale_while_revalidate,
                stale_if_error,
            )
        };
        assert_eq!(parts(one), parts(other));
    }

    #[test]
    fn encoding_matches_the_documented_format() {
        let bytes = encode(&record(&[("a", b"\xff")], b"body"), None, b"").unwrap();
        let expected = [
            &[1, 0][..],
            &1_795_608_000_123_u64.to_be_bytes(),
            &30_000_u64.to_be_bytes(),
            &600_000_u64.to_be_bytes(),
            &[0, 200, 0, 1, 0, 1, b'a', 0, 0, 0, 1, 0xff],
            b"body",
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn other_versions_and_ciphers_are_rejected() {
        let mut bytes = encode(&record(&[], b""), None, b"").unwrap();
        for (place, value) in [(0, 0), (0, 2), (1, 1), (1, 2)] {
            let before = std::mem::replace(&mut bytes[place], value);
            assert!(decode(bytes.clone().into(), None, b"").is_none());
            bytes[place] = before;
        }
        assert!(decode(bytes.into(), None, b"").is_some());
    }

    proptest! {
        #[test]
        fn entry_round_trips_and_truncated_head_is_rejected(
            headers in proptest::collection::vec(("[a-z-]{1,20}", proptest::collection::vec(32..=126_u8, 0..40)), 0..12),
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
            let record = record(&headers, &body);
            let bytes = encode(&record, None, b"").unwrap();
            assert_same(&decode(bytes.clone().into(), None, b"").unwrap(), &record);
            let head = bytes.len() - body.len();
            for end in 0..head {
                prop_assert!(decode(Bytes::copy_from_slice(&bytes[..end]), None, b"").is_none());
            }
        }

        #[test]
        fn arbitrary_bytes_are_decoded_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = [&[VERSION, PLAIN][..], &bytes].concat();
            let _ = decode(bytes.clone().into(), None, b"");
            bytes.drain(..2);
            let _ = decode(bytes.into(), None, b"");
        }
    }
}
