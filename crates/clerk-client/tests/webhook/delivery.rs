//! Arbitrary bytes as a delivery, and its required properties.
//!
//! Shared by the property tests and the fuzz target `webhook`.

use std::time::{Duration, UNIX_EPOCH};

use clerk_client::webhook::{Event, SigningSecret, Tag, Tolerance, verify};
use http::{HeaderMap, HeaderValue};

const SECRET: &str = "whsec_CANARYf7SKAZopvozCjHEFxTrktz+dM+";
const NAMES: [&str; 6] =
    ["svix-id", "svix-timestamp", "svix-signature", "webhook-id", "webhook-timestamp", "webhook-signature"];
const NOW: u64 = 1_795_608_000;

/// Unsigned headers and a body.
#[derive(Debug)]
pub(crate) struct Delivery {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Delivery {
    /// Lines of `<name index><value>`, then, after an empty line, the body.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let (head, body) = match bytes.windows(2).position(|pair| pair == b"\n\n") {
            Some(end) => (&bytes[..end], &bytes[end + 2..]),
            None => (bytes, &b""[..]),
        };
        let mut headers = HeaderMap::new();
        for line in head.split(|&byte| byte == b'\n') {
            let Some((&index, value)) = line.split_first() else { continue };
            let Ok(value) = HeaderValue::from_bytes(value) else { continue };
            headers.append(NAMES[usize::from(index) % NAMES.len()], value);
        }
        Self { headers, body: body.to_vec() }
    }

    /// Unsigned, it is rejected. Signed, it verifies, and no longer with any bit flipped. Its body is parsed as an
    /// event without a panic in either case.
    pub(crate) fn check(&self) {
        let Ok(secret) = SigningSecret::parse(SECRET) else { panic!("the secret is valid") };
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let verdict = |headers: &HeaderMap, body: &[u8]| {
            verify(std::slice::from_ref(&secret), Tolerance::default(), headers, body, now)
                .map(|verified| verified.matched_secret)
                .map_err(|error| error.as_str())
        };
        assert!(verdict(&self.headers, &self.body).is_err());

        let mut headers = HeaderMap::new();
        headers.insert("svix-id", HeaderValue::from_static("msg_1"));
        headers.insert("svix-timestamp", HeaderValue::from(NOW));
        let Ok(signature) = HeaderValue::from_str(&secret.sign("msg_1", NOW, &self.body)) else {
            panic!("a signature is visible ASCII")
        };
        headers.insert("svix-signature", signature);
        assert_eq!(verdict(&headers, &self.body), Ok(0));

        // The input itself selects the bit.
        if let Some(last) = self.body.len().checked_sub(1) {
            let mut body = self.body.clone();
            let place = body.iter().fold(0, |sum: usize, &byte| sum.wrapping_mul(31) + usize::from(byte)) % (last + 1);
            body[place] ^= 1 << (self.body.len() % 8);
            assert_eq!(verdict(&headers, &body), Err("bad_signature"));
        }

        if let Ok(event) = Event::read(&self.body) {
            for tag in event.tags {
                assert_eq!(tag.to_string().parse::<Tag>().ok().as_ref(), Some(&tag));
            }
        }
    }
}
