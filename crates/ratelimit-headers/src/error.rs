//! Errors in quota headers, as a closed set.

use std::fmt;

/// An error in the quota headers of a response.
///
/// An error never hides readable fields. Errors are reported in the order of the variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HeaderError {
    /// The response came from a cache (`Age` above 0), so its outdated numbers were dropped.
    Stale,
    /// `RateLimit` does not parse, or one of its items has no integer `r`.
    InvalidRatelimit,
    /// `RateLimit-Policy` does not parse, or one of its items has no name or no integer `q`.
    InvalidPolicy,
    /// A limit is not a number.
    InvalidLimit,
    /// A remaining count is not a number, or is negative while no limit is known.
    InvalidRemaining,
    /// A reset is unreadable, negative, or more than 365 days away.
    InvalidReset,
    /// A field was sent several times with contradictory values.
    ConflictingValues,
    /// A value was clamped: a negative remaining count to 0, a `Retry-After` to 365 days.
    Clamped,
    /// `Retry-After` is unreadable or negative.
    InvalidRetryAfter,
}

impl HeaderError {
    /// All errors, in the order of reporting.
    pub const ALL: [Self; 9] = [
        Self::Stale,
        Self::InvalidRatelimit,
        Self::InvalidPolicy,
        Self::InvalidLimit,
        Self::InvalidRemaining,
        Self::InvalidReset,
        Self::ConflictingValues,
        Self::Clamped,
        Self::InvalidRetryAfter,
    ];

    /// The name in metric labels and JSON, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::InvalidRatelimit => "invalid_ratelimit",
            Self::InvalidPolicy => "invalid_policy",
            Self::InvalidLimit => "invalid_limit",
            Self::InvalidRemaining => "invalid_remaining",
            Self::InvalidReset => "invalid_reset",
            Self::ConflictingValues => "conflicting_values",
            Self::Clamped => "clamped",
            Self::InvalidRetryAfter => "invalid_retry_after",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of [`HeaderError`]s, cheap to copy.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderErrors(u16);

impl HeaderErrors {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Adds an error.
    pub const fn insert(&mut self, error: HeaderError) {
        self.0 |= error.bit();
    }

    /// Adds the errors of another set.
    pub const fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether the error is in the set.
    #[must_use]
    pub const fn contains(self, error: HeaderError) -> bool {
        self.0 & error.bit() != 0
    }

    /// Whether there are no errors.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first error in the order of [`HeaderError::ALL`].
    #[must_use]
    pub fn first(self) -> Option<HeaderError> {
        self.iter().next()
    }

    /// The errors in the order of [`HeaderError::ALL`].
    pub fn iter(self) -> impl Iterator<Item = HeaderError> {
        HeaderError::ALL.into_iter().filter(move |error| self.contains(*error))
    }
}

impl fmt::Debug for HeaderErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<HeaderError> for HeaderErrors {
    fn from_iter<I: IntoIterator<Item = HeaderError>>(errors: I) -> Self {
        let mut set = Self::NONE;
        for error in errors {
            set.insert(error);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_iterated_in_reporting_order() {
        let set: HeaderErrors = HeaderError::ALL.into_iter().rev().collect();
        assert!(set.iter().eq(HeaderError::ALL));
        assert!(HeaderError::ALL.is_sorted());
        assert_eq!(set.first(), Some(HeaderError::Stale));
    }

    #[test]
    fn empty_set_has_no_first_error() {
        assert!(HeaderErrors::NONE.is_empty());
        assert_eq!(HeaderErrors::NONE.first(), None);
    }
}
