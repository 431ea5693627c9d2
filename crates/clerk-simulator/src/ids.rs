//! Identifiers like Clerk's: a prefix and a KSUID of 27 base62 characters, encoded from numbers and decodable.

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
pub(super) const KSUID_LENGTH: usize = 27;
const GROUP_DIGITS: usize = 5;
/// 62 to the power of [`GROUP_DIGITS`].
const GROUP_BASE: u64 = 916_132_832;
/// KSUIDs count seconds from here (2014-05-13T16:53:20Z), as <https://github.com/segmentio/ksuid> defines.
const KSUID_EPOCH_SECONDS: u64 = 1_400_000_000;

/// Returns a well-distributed number that depends only on `seed` and `value` (the SplitMix64 finalizer).
pub(super) fn mix(seed: u64, value: u64) -> u64 {
    let mut z = seed ^ value.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Returns a number that depends only on `seed` and `text` (FNV-1a, then mixed).
pub(super) fn mix_text(seed: u64, text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    mix(seed, hash)
}

/// Returns `prefix` and the KSUID of a time (seconds since the UNIX epoch) and 128 bits.
pub(super) fn ksuid(prefix: &str, seconds: u64, high: u64, low: u64) -> String {
    let seconds = u32::try_from(seconds.saturating_sub(KSUID_EPOCH_SECONDS)).unwrap_or(u32::MAX);
    let mut words = [seconds, upper(high), lower(high), upper(low), lower(low)];
    let mut digits = [b'0'; KSUID_LENGTH];
    // Long division by several digits at once: this is the most expensive step of writing a user.
    for group in digits.rchunks_mut(GROUP_DIGITS) {
        let mut remainder = 0_u64;
        for word in &mut words {
            let value = (remainder << 32) | u64::from(*word);
            *word = lower(value / GROUP_BASE);
            remainder = value % GROUP_BASE;
        }
        for digit in group.iter_mut().rev() {
            *digit = ALPHABET[usize::try_from(remainder % 62).unwrap_or(0)];
            remainder /= 62;
        }
    }
    let mut id = String::with_capacity(prefix.len() + KSUID_LENGTH);
    id.push_str(prefix);
    id.extend(digits.iter().map(|digit| char::from(*digit)));
    id
}

/// Decodes the 128 bits of an identifier from [`ksuid`]; `None` if it has another prefix or form.
pub(super) fn ksuid_payload(prefix: &str, id: &str) -> Option<(u64, u64)> {
    let digits = id.strip_prefix(prefix)?.as_bytes();
    if digits.len() != KSUID_LENGTH {
        return None;
    }
    let mut words = [0_u32; 5];
    for digit in digits {
        let mut carry = digit_value(*digit)?;
        for word in words.iter_mut().rev() {
            let value = u64::from(*word) * 62 + carry;
            *word = lower(value);
            carry = value >> 32;
        }
        if carry > 0 {
            return None;
        }
    }
    let [_, a, b, c, d] = words.map(u64::from);
    Some(((a << 32) | b, (c << 32) | d))
}

fn digit_value(digit: u8) -> Option<u64> {
    let value = match digit {
        b'0'..=b'9' => digit - b'0',
        b'A'..=b'Z' => digit - b'A' + 10,
        b'a'..=b'z' => digit - b'a' + 36,
        _ => return None,
    };
    Some(u64::from(value))
}

/// A permutation of the 64-bit numbers that depends on a seed: a Feistel network of four rounds.
///
/// It makes numbers look random and is reversible, so that an identifier maps back to its number without a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permutation {
    seed: u64,
}

impl Permutation {
    const ROUNDS: u64 = 4;

    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    pub(super) fn apply(self, value: u64) -> u64 {
        let (mut left, mut right) = (upper(value), lower(value));
        for round in 0..Self::ROUNDS {
            (left, right) = (right, left ^ self.round(round, right));
        }
        (u64::from(left) << 32) | u64::from(right)
    }

    pub(super) fn undo(self, value: u64) -> u64 {
        let (mut left, mut right) = (upper(value), lower(value));
        for round in (0..Self::ROUNDS).rev() {
            (left, right) = (right ^ self.round(round, left), left);
        }
        (u64::from(left) << 32) | u64::from(right)
    }

    fn round(self, round: u64, half: u32) -> u32 {
        upper(mix(self.seed, (round << 32) | u64::from(half)))
    }
}

fn upper(value: u64) -> u32 {
    lower(value >> 32)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
fn lower(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ksuid_decodes_to_its_numbers(seconds in 0_u64..6_000_000_000, high: u64, low: u64) {
            let id = ksuid("user_", seconds, high, low);
            prop_assert_eq!(id.len(), "user_".len() + KSUID_LENGTH);
            prop_assert_eq!(ksuid_payload("user_", &id), Some((high, low)));
        }

        #[test]
        fn permutation_is_reversible(seed: u64, value: u64) {
            let permutation = Permutation::new(seed);
            prop_assert_eq!(permutation.undo(permutation.apply(value)), value);
        }

        #[test]
        fn decoding_any_text_does_not_panic(text in ".{0,40}") {
            let _ = ksuid_payload("user_", &format!("user_{text}"));
        }
    }

    #[test]
    fn ksuid_matches_known_values() {
        // The smallest and the largest KSUID.
        assert_eq!(ksuid("", KSUID_EPOCH_SECONDS, 0, 0), "000000000000000000000000000");
        let largest = ksuid("", KSUID_EPOCH_SECONDS + u64::from(u32::MAX), u64::MAX, u64::MAX);
        assert_eq!(largest, "aWgEPTl1tmebfsQzFP4bxwgy80V");
        assert_eq!(ksuid_payload("", "aWgEPTl1tmebfsQzFP4bxwgy80W"), None, "the next value does not fit 160 bits");
    }
}
