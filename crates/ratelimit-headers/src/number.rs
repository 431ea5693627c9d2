//! Request counts: limits and remaining counts.

use sfv::BareItem;

use super::list::unquote;

/// Counts from 2^53 mean "unlimited": servers send the maximum of an integer type for it, and a metric, which is a
/// double, could not represent them exactly.
const UNLIMITED_FROM: u64 = 1 << 53;

/// A count as sent. Ordered from the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Count {
    /// Below zero: overspent as a remaining count, unlimited as a limit.
    Negative,
    /// Below 2^53. Fractions, which token buckets send, are rounded down.
    Exact(u64),
    /// A word for unlimited, or 2^53 and more.
    Unlimited,
}

impl Count {
    /// Parses `[-]digits[.digits]` or a word for unlimited, with optional quotes and white space around.
    ///
    /// The whole text must match: no plus sign, exponent, hexadecimal, percent sign, or non-ASCII digit.
    pub(super) fn from_text(text: &[u8]) -> Option<Self> {
        let text = unquote(text);
        if [&b"unlimited"[..], b"infinite", b"none"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
            return Some(Self::Unlimited);
        }
        let (negative, text) = match text {
            [b'-', text @ ..] => (true, text),
            text => (false, text),
        };
        let number = Number::from_text(text)?;
        if negative && !number.is_zero() {
            return Some(Self::Negative);
        }
        Some(match number.whole() {
            Some(count) if count < UNLIMITED_FROM => Self::Exact(count),
            _ => Self::Unlimited,
        })
    }

    /// Converts a structured-field value, which may also be the same text as a string or token.
    pub(super) fn from_bare_item(item: &BareItem) -> Option<Self> {
        match item {
            BareItem::Integer(integer) => Some(Self::from_signed(i64::from(*integer))),
            BareItem::Decimal(decimal) => {
                let thousandths = i64::from(decimal.as_integer_scaled_1000());
                Some(Self::from_signed(thousandths.div_euclid(1000)))
            }
            BareItem::String(text) => Self::from_text(text.as_str().as_bytes()),
            BareItem::Token(text) => Self::from_text(text.as_str().as_bytes()),
            _ => None,
        }
    }

    pub(super) fn from_signed(count: i64) -> Self {
        match u64::try_from(count) {
            Ok(count) if count < UNLIMITED_FROM => Self::Exact(count),
            Ok(_) => Self::Unlimited,
            Err(_) => Self::Negative,
        }
    }
}

/// The limit of requests in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Unlimited,
    Requests(u64),
}

impl Limit {
    /// Interprets a count as a limit.
    ///
    /// On a 429, 0 is a ban. On any other response, 0 means that no limit applies.
    pub(super) fn new(count: Count, throttled: bool) -> Self {
        match count {
            Count::Negative | Count::Unlimited => Self::Unlimited,
            Count::Exact(0) if !throttled => Self::Unlimited,
            Count::Exact(requests) => Self::Requests(requests),
        }
    }
}

/// An unsigned number `digits[.digits]`, kept as text because header values may exceed any integer type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number<'a> {
    /// Digits without leading zeros; empty for 0.
    whole: &'a [u8],
    /// Digits after the point; `None` without a point.
    fraction: Option<&'a [u8]>,
}

impl<'a> Number<'a> {
    pub(super) fn from_text(text: &'a [u8]) -> Option<Self> {
        let (number, rest) = Self::from_prefix(text)?;
        rest.is_empty().then_some(number)
    }

    /// Parses a number at the start of a text and returns it with the rest.
    pub(super) fn from_prefix(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (whole, rest) = split_digits(text);
        if whole.is_empty() {
            return None;
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => {
                let (fraction, rest) = split_digits(rest);
                (Some(fraction), rest)
            }
            rest => (None, rest),
        };
        if fraction.is_some_and(<[u8]>::is_empty) {
            return None;
        }
        let zeros = whole.iter().take_while(|digit| **digit == b'0').count();
        let whole = &whole[zeros..];
        Some((Self { whole, fraction }, rest))
    }

    /// Returns the part before the point; `None` if it exceeds `u64`.
    pub(super) fn whole(self) -> Option<u64> {
        self.whole.iter().try_fold(0_u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
    }

    /// Returns the part after the point in billionths, rounded up to avoid early retries: up to 1 000 000 000.
    pub(super) fn billionths(self) -> u64 {
        const DIGITS: usize = 9;
        let fraction = self.fraction.unwrap_or_default();
        let kept = fraction
            .iter()
            .copied()
            .chain(std::iter::repeat(b'0'))
            .take(DIGITS)
            .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
        let cut = fraction.iter().skip(DIGITS).any(|digit| *digit != b'0');
        kept + u64::from(cut)
    }

    pub(super) fn has_fraction(self) -> bool {
        self.fraction.is_some()
    }

    fn is_zero(self) -> bool {
        self.whole.is_empty() && self.fraction.unwrap_or_default().iter().all(|digit| *digit == b'0')
    }
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_digits_with_an_optional_fraction() {
        for (text, count) in [
            ("0", 0),
            ("007", 7),
            ("39.9", 39),
            ("100.0", 100),
            (" \"42\"\t", 42),
            ("-0", 0),
            ("-0.00", 0),
            ("9007199254740991", 9_007_199_254_740_991),
            ("9007199254740991.9", 9_007_199_254_740_991),
        ] {
            assert_eq!(Count::from_text(text.as_bytes()), Some(Count::Exact(count)), "{text}");
        }
    }

    #[test]
    fn huge_counts_and_words_are_unlimited() {
        for text in ["9007199254740992", "18446744073709551616", &"9".repeat(400), "unlimited", "Infinite", "\"NONE\""]
        {
            assert_eq!(Count::from_text(text.as_bytes()), Some(Count::Unlimited), "{text}");
        }
    }

    #[test]
    fn negative_fraction_is_negative() {
        for text in ["-1", "-0.5", "-99999999999999999999999"] {
            assert_eq!(Count::from_text(text.as_bytes()), Some(Count::Negative), "{text}");
        }
    }

    #[test]
    fn invalid_counts_are_rejected() {
        for text in [
            "", "-", "+5", ".5", "5.", "5.-1", "1e3", "0x64", "50%", "1 000", "1_000", "--1", "- 1", "NaN", "inf",
            "Infinity", "null", "\u{0663}", "\u{a0}5", "5\0", "'5'", "\"5", "1.2.3",
        ] {
            assert_eq!(Count::from_text(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn fractions_round_up_to_the_next_billionth() {
        let billionths = |text: &'static str| Number::from_text(text.as_bytes()).unwrap().billionths();
        assert_eq!(billionths("1"), 0);
        assert_eq!(billionths("1.5"), 500_000_000);
        assert_eq!(billionths("1.0000000001"), 1);
        assert_eq!(billionths("1.0000000000"), 0);
        assert_eq!(billionths("1.9999999999"), 1_000_000_000);
    }
}
