//! Finds secrets in text: plain, percent-encoded, in base64 (either alphabet, any offset, as in `Basic`
//! credentials), or one of these inside another.

use percent_encoding::percent_decode;

use super::Secret;

/// Modulus of the hashes, the prime 2^61 - 1.
const MODULUS: u64 = (1 << 61) - 1;

/// Nested encodings to decode.
const MAX_DEPTH: u32 = 2;

/// Finds secrets in untrusted text, in common encodings.
///
/// Compares rolling hashes with a base that is random per scanner, then matches in constant time. The duration
/// of a scan therefore reveals nothing about a secret.
///
/// ```
/// use clerk_client::secret::{Secret, SecretScanner};
///
/// let scanner = SecretScanner::new(vec![Secret::new("billing-token".to_owned())]);
/// assert!(scanner.finds(b"/v1/users?token=billing%2Dtoken"));
/// assert!(scanner.finds(b"Basic OmJpbGxpbmctdG9rZW4=")); // curl -u :billing-token
/// assert!(!scanner.finds(b"Basic OmJpbGxpbmctdG9rZW8="));
/// ```
#[derive(Debug, Default)]
pub struct SecretScanner {
    base: u64,
    secrets: Vec<Secret>,
    lengths: Vec<OfLength>,
}

#[derive(Debug)]
struct OfLength {
    length: usize,
    /// Weight of the byte that leaves the window.
    power: u64,
    /// Hashes with the indices of their secrets.
    hashes: Vec<(u64, usize)>,
}

impl SecretScanner {
    /// Creates a scanner for these secrets. Empty ones never match.
    #[must_use]
    pub fn new(secrets: Vec<Secret>) -> Self {
        let mut scanner = Self { base: fastrand::u64(1 << 32..MODULUS), secrets, lengths: Vec::new() };
        for index in 0..scanner.secrets.len() {
            let text = scanner.secrets[index].expose().as_bytes();
            let hash = text.iter().fold(0, |hash, byte| scanner.push(hash, *byte));
            let length = text.len();
            match scanner.lengths.iter_mut().find(|it| it.length == length) {
                Some(same) => same.hashes.push((hash, index)),
                None if length == 0 => {}
                None => {
                    let power = (1..length).fold(1, |power, _| times(power, scanner.base));
                    scanner.lengths.push(OfLength { length, power, hashes: vec![(hash, index)] });
                }
            }
        }
        scanner
    }

    /// Whether the text contains one of the secrets.
    #[must_use]
    pub fn finds(&self, text: &[u8]) -> bool {
        !self.lengths.is_empty() && self.finds_within(text, MAX_DEPTH)
    }

    fn finds_within(&self, text: &[u8], depth: u32) -> bool {
        if self.lengths.iter().any(|of_length| self.is_in(of_length, text)) {
            return true;
        }
        if depth == 0 {
            return false;
        }
        if text.contains(&b'%') && self.finds_within(&percent_decoded(text), depth - 1) {
            return true;
        }
        let shortest = self.lengths.iter().map(|it| it.length).min().unwrap_or_default();
        let runs = text.split(|byte| sextet(*byte).is_none()).filter(|run| run.len() >= shortest / 3 * 4);
        // The encoded text may start at any offset within a run.
        runs.flat_map(|run| (0..4).filter_map(|offset| run.get(offset..)))
            .any(|run| self.finds_within(&base64_decoded(run), depth - 1))
    }

    fn is_in(&self, of_length: &OfLength, text: &[u8]) -> bool {
        let OfLength { length, power, hashes } = of_length;
        let mut hash = 0;
        for (place, byte) in text.iter().enumerate() {
            if let Some(left) = place.checked_sub(*length) {
                hash = (hash + MODULUS - times(u64::from(text[left]) + 1, *power)) % MODULUS;
            }
            hash = self.push(hash, *byte);
            let Some(from) = (place + 1).checked_sub(*length) else { continue };
            let mut same = hashes.iter().filter(|(known, _)| *known == hash);
            if same.any(|(_, secret)| self.secrets[*secret].is(&text[from..=place])) {
                return true;
            }
        }
        false
    }

    fn push(&self, hash: u64, byte: u8) -> u64 {
        (times(hash, self.base) + u64::from(byte) + 1) % MODULUS
    }
}

fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    // Both halves are below 2^61.
    let [low, high] =
        [product & u128::from(MODULUS), product >> 61].map(|half| u64::try_from(half).unwrap_or_default());
    (low + high) % MODULUS
}

/// Returns a text without percent-encoding (RFC 3986, section 2.1); malformed escapes are unchanged.
#[must_use]
pub fn percent_decoded(text: &[u8]) -> Vec<u8> {
    percent_decode(text).collect()
}

/// The value of a base64 character of either alphabet (RFC 4648, sections 4 and 5).
fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

/// Decodes a run of base64 letters of either alphabet; any other byte counts as the letter for zero.
///
/// Written here because the crate `base64` refuses what this must read: a run that is cut at any place, in both alphabets
/// at once, without padding.
#[must_use]
pub fn base64_decoded(run: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(run.len() / 4 * 3 + 2);
    for group in run.chunks(4) {
        let bits = group.iter().fold(0, |bits, byte| bits << 6 | sextet(*byte).unwrap_or_default());
        let bits = bits << (6 * (4 - group.len()));
        decoded.extend_from_slice(&bits.to_be_bytes()[1..group.len().max(1)]);
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanner(texts: &[&str]) -> SecretScanner {
        SecretScanner::new(texts.iter().map(|text| Secret::new((*text).to_owned())).collect())
    }

    fn base64(text: &[u8], alphabet: &[u8; 64]) -> String {
        let mut out = String::new();
        for group in text.chunks(3) {
            let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for place in 0..=group.len() {
                out.push(char::from(alphabet[(bits >> (18 - 6 * place)) as usize & 63]));
            }
        }
        out
    }

    const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    #[test]
    fn secret_is_found_in_every_encoding() {
        let known = ["billing-token~CANARY?", "0123456789abcdef", "fedcba9876543210"];
        let scanner = scanner(&known);
        for token in known {
            for (before, after) in
                [("", ""), ("u:", ""), ("", ":"), ("ab:", ":x"), ("\u{e4}", "\n"), ("{\"t\":\"", "\"}")]
            {
                let plain = format!("{before}{token}{after}");
                let percent: String = plain.bytes().map(|byte| format!("%{byte:02x}")).collect();
                for alphabet in [STANDARD, URL_SAFE] {
                    let encoded = base64(plain.as_bytes(), alphabet);
                    for text in [
                        plain.clone(),
                        percent.clone(),
                        percent.to_uppercase(),
                        percent.replace('%', "%25"),
                        format!("Basic {encoded}"),
                        format!("Basic {encoded}=="),
                        format!("/v1/users/{encoded}"),
                        format!("x{encoded}"),
                        format!("a=1&xy={encoded}&b=2"),
                        encoded.replace('A', "%41"),
                        base64(percent.as_bytes(), alphabet),
                        base64(encoded.as_bytes(), alphabet),
                    ] {
                        assert!(scanner.finds(text.as_bytes()), "{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn similar_text_is_not_a_secret() {
        let scanner = scanner(&["0123456789abcdef"]);
        let long = "0123456789abcdeX".repeat(500);
        for text in ["", "0", "0123456789abcde", "0123456789abcdeg", "123456789abcdef0", "%%%2", "====", &long] {
            assert!(!scanner.finds(text.as_bytes()), "{text}");
        }
        assert!(!SecretScanner::default().finds(long.as_bytes()));
    }
}
