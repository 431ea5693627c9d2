//! Selects the tightest quota among the values of one or more limiters.

use std::cmp::Reverse;
use std::time::Duration;

use super::error::{HeaderError, HeaderErrors};
use super::list::Column;
use super::number::{Count, Limit};
use super::reset::{Reset, Wait};

/// The values of one header family.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    pub(super) limit: Option<u64>,
    pub(super) remaining: Option<u64>,
    pub(super) reset: Option<Reset>,
    pub(super) window: Option<Duration>,
    /// Whether anything was readable, even just "unlimited". Otherwise the next family is tried.
    pub(super) usable: bool,
    pub(super) errors: HeaderErrors,
}

/// The values of one limiter as sent. `None` if missing or unreadable.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HeaderQuota {
    pub(super) limit: Option<Limit>,
    /// Whether several different limits were sent. The limit is then unknown, but there is one.
    pub(super) limits_differ: bool,
    pub(super) remaining: Option<Count>,
    pub(super) reset: Option<Reset>,
    pub(super) window: Option<Duration>,
}

impl HeaderQuota {
    /// Interprets the counts.
    pub(super) fn interpret(self) -> Reading {
        let mut reading = Reading { reset: self.reset, window: self.window, usable: true, ..Reading::default() };
        match self.limit {
            Some(Limit::Unlimited) => return reading,
            Some(Limit::Requests(limit)) => reading.limit = Some(limit),
            None => {}
        }
        if self.limits_differ {
            reading.errors.insert(HeaderError::ConflictingValues);
        }
        let limited = reading.limit.is_some() || self.limits_differ;
        match self.remaining {
            Some(Count::Exact(remaining)) => reading.remaining = Some(remaining),
            Some(Count::Negative) if limited => {
                reading.remaining = Some(0);
                reading.errors.insert(HeaderError::Clamped);
            }
            Some(Count::Negative) => {
                // Overspent or unlimited: ambiguous without a limit.
                reading.errors.insert(HeaderError::InvalidRemaining);
                reading.usable = self.reset.is_some();
            }
            Some(Count::Unlimited) | None => {}
        }
        reading
    }
}

/// Returns the bucket with the smallest remaining count; among equal ones, the one with the latest reset.
///
/// Buckets without a known remaining count, such as unlimited ones, come last.
pub(super) fn tightest(buckets: impl Iterator<Item = HeaderQuota>) -> Option<Reading> {
    buckets.map(HeaderQuota::interpret).min_by_key(|reading| {
        let after = reading.reset.map(|reset| reset.after);
        (reading.remaining.is_none(), reading.remaining, Reverse(after))
    })
}

/// The fields of a family with separate limit, remaining and reset, each with all its values.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) limits: Column<Option<Limit>>,
    pub(super) remaining: Column<Option<Count>>,
    pub(super) resets: Column<Option<Wait>>,
    /// Windows sent as parameters of a limit.
    pub(super) windows: Column<(Limit, Duration)>,
}

impl Fields {
    pub(super) fn is_absent(&self) -> bool {
        self.limits.is_empty() && self.remaining.is_empty() && self.resets.is_empty()
    }

    /// Resolves multiple values: equally many limits and remaining counts are paired by position. Anything else is one
    /// bucket.
    pub(super) fn read(&self) -> Reading {
        let (resets, mut errors) = self.resets();
        let buckets = self.limits.len();
        let paired = buckets > 1 && buckets == self.remaining.len();
        let by_position = paired && resets.len() == buckets;

        let (shared_reset, differ) = latest(&resets);
        if differ && !by_position {
            errors.insert(HeaderError::ConflictingValues);
        }
        let mut reading = if paired {
            let resets = resets.iter().map(Some).chain(std::iter::repeat(None));
            let buckets = self.limits.iter().zip(self.remaining.iter()).zip(resets);
            tightest(buckets.map(|((limit, remaining), reset)| HeaderQuota {
                limit,
                remaining,
                reset: if by_position { reset.flatten() } else { shared_reset },
                ..HeaderQuota::default()
            }))
            .unwrap_or_default()
        } else {
            let (bucket, bucket_errors) = self.merged(shared_reset);
            errors.extend(bucket_errors);
            bucket.interpret()
        };

        for (invalid, error) in [
            (self.limits.iter().any(|limit| limit.is_none()), HeaderError::InvalidLimit),
            (self.remaining.iter().any(|count| count.is_none()), HeaderError::InvalidRemaining),
        ] {
            if invalid {
                errors.insert(error);
            }
        }
        reading.window = reading.limit.and_then(|limit| window_of(&self.windows, Limit::Requests(limit)));
        reading.usable &= self.limits.iter().any(|limit| limit.is_some())
            || self.remaining.iter().any(|count| count.is_some())
            || self.resets.iter().any(|wait| matches!(wait, Some(Wait::After(_) | Wait::NoClock)));
        reading.errors.extend(errors);
        reading
    }

    /// Returns the resets by position, and their errors.
    ///
    /// A reset too far away is an error, like an unreadable one. A reset that needs a missing clock is only unknown.
    fn resets(&self) -> (Column<Option<Reset>>, HeaderErrors) {
        let wrong = |wait| matches!(wait, None | Some(Wait::TooLong));
        let errors = if self.resets.iter().any(wrong) {
            HeaderErrors::from_iter([HeaderError::InvalidReset])
        } else {
            HeaderErrors::NONE
        };
        (self.resets.iter().map(|wait| wait.and_then(Wait::reset)).collect(), errors)
    }

    /// Treats all values as one bucket. Of different remaining counts, the smallest is used.
    fn merged(&self, reset: Option<Reset>) -> (HeaderQuota, HeaderErrors) {
        let limits: Column<Limit> = self.limits.iter().flatten().collect();
        let remaining: Column<Count> = self.remaining.iter().flatten().collect();
        let mut errors = HeaderErrors::NONE;
        if !remaining.is_empty() && remaining.agreed().is_none() {
            errors.insert(HeaderError::ConflictingValues);
        }
        let limit = limits.agreed();
        let bucket = HeaderQuota {
            limit,
            limits_differ: !limits.is_empty() && limit.is_none(),
            remaining: remaining.iter().min(),
            reset,
            window: None,
        };
        (bucket, errors)
    }
}

/// Returns the latest reset, and whether the resets differ.
fn latest(resets: &Column<Option<Reset>>) -> (Option<Reset>, bool) {
    let known: Column<Duration> = resets.iter().flatten().map(|reset| reset.after).collect();
    let differ = !known.is_empty() && known.agreed().is_none();
    (resets.iter().flatten().max(), differ)
}

/// Returns the window of a limit, if all its values agree.
fn window_of(windows: &Column<(Limit, Duration)>, limit: Limit) -> Option<Duration> {
    let of_limit = windows.iter().filter(|(of, _)| *of == limit);
    of_limit.map(|(_, window)| window).collect::<Column<_>>().agreed()
}
