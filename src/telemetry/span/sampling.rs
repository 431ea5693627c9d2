//! The sampling ratio that a span's `tracestate` states.
//!
//! OpenTelemetry's consistent probability sampling puts a rejection threshold of 56 bits into `ot=th:...`, as hex digits
//! without trailing zeros. A span is kept if its randomness is at least the threshold, so the ratio is the part above it.

/// Hex digits of a threshold.
const DIGITS: usize = 14;

/// All thresholds.
const RANGE: u64 = 1 << (4 * DIGITS);

/// Ratios below this are taken for a mistake. The ledger lets a report stand for at most this many requests.
const LEAST: f64 = 1.0 / 65_535.0;

/// Returns the ratio, above 0 and at most 1; `None` if the text states none or an invalid one.
#[expect(clippy::cast_precision_loss, reason = "both are at most 2^56; a ratio needs no more than 53 bits")]
pub(super) fn ratio(trace_state: &str) -> Option<f64> {
    if trace_state.is_empty() {
        return None;
    }
    let members = trace_state.split(',').map(str::trim);
    let value = members.filter_map(|member| member.strip_prefix("ot=")).next()?;
    let digits = value.split(';').find_map(|part| part.strip_prefix("th:"))?;
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.is_empty() || digits.len() > DIGITS || !digits.bytes().all(is_hex) {
        return None;
    }
    let threshold = u64::from_str_radix(digits, 16).ok()? << (4 * (DIGITS - digits.len()));
    let ratio = (RANGE - threshold) as f64 / RANGE as f64;
    (ratio >= LEAST).then_some(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threshold_is_the_rejected_part() {
        for (state, expected) in [
            ("ot=th:0", Some(1.0)),
            ("ot=th:8", Some(0.5)),
            ("ot=th:c", Some(0.25)),
            ("ot=th:fd70a3d70a3d71", Some(0.01)),
            ("vendor=x, ot=rv:abcdefabcdefab;th:e ,b=c", Some(0.125)),
            ("ot=th:80000000000000", Some(0.5)),
            ("", None),
            ("ot=p:8", None),
            ("ot=th:", None),
            ("ot=th:8000000000000000", None),
            ("ot=th:C", None),
            ("ot=th:+8", None),
            ("ot=th:g", None),
            ("xot=th:8", None),
            ("th:8", None),
            ("ot=th:ffffffffffffff", None),
        ] {
            let found = ratio(state);
            assert_eq!(found.is_some(), expected.is_some(), "{state}: {found:?}");
            assert!((found.unwrap_or_default() - expected.unwrap_or_default()).abs() < 1e-9, "{state}: {found:?}");
        }
    }
}
