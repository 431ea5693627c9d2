//! `rate_limit`: one token bucket for all requests, as in exporter-toolkit.

use std::time::Duration;

use tokio::time::Instant;

use super::error::Problem;
use super::file;

/// The configured rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateLimit {
    /// Time in which one token is added; not zero.
    interval: Duration,
    /// Capacity of the bucket; at least 1.
    burst: u32,
}

impl RateLimit {
    /// Validates the section; `None` if there is no limit.
    pub(super) fn new(typed: &file::RateLimitSection) -> Result<Option<Self>, Problem> {
        let Some(interval) = &typed.interval else {
            return match typed.burst {
                None | Some(0) => Ok(None),
                Some(_) => Err(Problem::key("rate_limit.interval", "missing; burst alone sets no limit")),
            };
        };
        let interval = humantime::parse_duration(interval).map_err(|_| {
            Problem::key("rate_limit.interval", "not a duration; write a number and a unit, as in 500ms or 1s")
        })?;
        if interval.is_zero() {
            return Ok(None);
        }
        match typed.burst {
            None | Some(0) => {
                Err(Problem::key("rate_limit.burst", "must be at least 1; with 0 every request would be rejected"))
            }
            Some(burst) => Ok(Some(Self { interval, burst })),
        }
    }
}

/// The token bucket, implemented as the generic cell rate algorithm: one point in time instead of a token count.
#[derive(Debug)]
pub(super) struct TokenBucket {
    limit: RateLimit,
    /// When the bucket will be full again.
    full_at: Instant,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub(super) fn new(limit: RateLimit, now: Instant) -> Self {
        Self { limit, full_at: now }
    }

    /// Returns the configured limit.
    pub(super) fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes a token.
    ///
    /// # Errors
    /// Returns the time until the next token if there is none.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now);
        let tolerance = self.limit.interval.saturating_mul(self.limit.burst - 1);
        let missing = full_at - now;
        if missing > tolerance {
            return Err(missing - tolerance);
        }
        self.full_at = full_at + self.limit.interval;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn burst_passes_then_one_request_per_interval() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(RateLimit { interval: SECOND, burst: 3 }, start);
        for _ in 0..3 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(SECOND));
        assert_eq!(bucket.take(start + SECOND / 4), Err(SECOND * 3 / 4));
        assert_eq!(bucket.take(start + SECOND), Ok(()));
        assert_eq!(bucket.take(start + SECOND), Err(SECOND));
    }

    #[test]
    fn idle_bucket_is_full_but_not_above() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(RateLimit { interval: SECOND, burst: 2 }, start);
        let later = start + SECOND * 100;
        assert_eq!(bucket.take(later), Ok(()));
        assert_eq!(bucket.take(later), Ok(()));
        assert!(bucket.take(later).is_err());
    }

    #[test]
    fn incomplete_rate_limit_is_rejected() {
        let typed = |interval: Option<&str>, burst| {
            RateLimit::new(&file::RateLimitSection { interval: interval.map(str::to_owned), burst })
        };
        assert_eq!(typed(Some("500ms"), Some(2)).unwrap(), Some(RateLimit { interval: SECOND / 2, burst: 2 }));
        assert_eq!(typed(None, None).unwrap(), None);
        assert_eq!(typed(Some("0s"), None).unwrap(), None);
        for (result, expected) in [
            (typed(Some("1s"), None), "rate_limit.burst"),
            (typed(Some("1s"), Some(0)), "rate_limit.burst"),
            (typed(None, Some(1)), "rate_limit.interval"),
            (typed(Some("60"), Some(1)), "rate_limit.interval: not a duration"),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
