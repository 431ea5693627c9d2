//! Any bytes as a cached response from Redis: invalid, or unchanged after a round trip.

#![no_main]

use clerk_client::secret;
use libfuzzer_sys::fuzz_target;

/// The private modules that read it.
#[path = "../../crates/clerk-client/src/cache"]
mod cache {
    #[allow(dead_code, reason = "it is more than reading")]
    mod codec;
    #[allow(dead_code, unreachable_pub, reason = "it is more than reading")]
    mod encryption;
    #[allow(dead_code, unreachable_pub, reason = "it is more than reading")]
    mod entry;

    use bytes::Bytes;
    use clerk_client::cache::CacheKey;

    use crate::secret::{Secret, SecretSource};
    use codec::{decode, encode};
    use encryption::Encryption;

    pub(super) fn check(data: &[u8]) {
        let key = SecretSource::Inline(Secret::new("A".repeat(43) + "="));
        let seal = Encryption::new(&key, &[]).expect("a key of 32 bytes");
        assert!(
            decode(Bytes::copy_from_slice(data), Some(&seal), b"place").is_none(),
            "encrypted entries are unforgeable"
        );
        let Some(record) = decode(Bytes::copy_from_slice(data), None, b"place") else { return };
        let written = encode(&record, None, b"place").expect("a parsed entry can be encoded");
        let again = decode(written.clone().into(), None, b"place").expect("and read");
        assert_eq!(encode(&again, None, b"place").as_ref(), Some(&written));
    }

    fn millis(duration: std::time::Duration) -> u64 {
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
    }
}

fuzz_target!(|data: &[u8]| cache::check(data));
