//! Limits retries to a share of the traffic. Pure: time is passed in.

use std::time::Duration;

use clerk_quota::Moment;

/// Retries deposited per request.
const SHARE: f64 = 0.2;

/// Retries available at the start, and regained over time with little traffic.
const FLOOR: f64 = 10.0;

/// Upper bound of the balance, so that a long calm does not allow a burst of retries.
const CAPACITY: f64 = 20.0;

/// Time to regain one retry while the balance is below the floor.
const TRICKLE: Duration = Duration::from_secs(10);

/// Limits retries to a fifth of the requests plus a few, so that retries do not worsen an outage.
///
/// Modelled on the retry budgets of Finagle and tower, with time passed in.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    balance: f64,
    trickled_at: Moment,
}

impl RetryBudget {
    /// Creates a budget with its floor as balance.
    #[must_use]
    pub const fn new(now: Moment) -> Self {
        Self { balance: FLOOR, trickled_at: now }
    }

    /// Adds a request's share.
    pub fn deposit(&mut self) {
        self.balance = (self.balance + SHARE).min(CAPACITY);
    }

    /// Takes one retry; returns `false` if none is left.
    pub fn withdraw(&mut self, now: Moment) -> bool {
        let passed = now.since(self.trickled_at);
        self.trickled_at = self.trickled_at.max(now);
        if self.balance < FLOOR {
            self.balance = (self.balance + passed.as_secs_f64() / TRICKLE.as_secs_f64()).min(FLOOR);
        }
        let enough = self.balance >= 1.0;
        if enough {
            self.balance -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(seconds))
    }

    /// Retries granted to a thousand requests that ask for three each.
    fn granted(millis_between: u64) -> usize {
        let mut budget = RetryBudget::new(at(0));
        let mut granted = 0;
        for request in 0..1000 {
            budget.deposit();
            let now = Moment::from_unix(Duration::from_millis(request * millis_between));
            granted += (0..3).filter(|_| budget.withdraw(now)).count();
        }
        granted
    }

    #[test]
    fn thousand_failing_requests_get_about_two_hundred_retries() {
        assert!((200..=212).contains(&granted(0)), "{}", granted(0));
        assert!((200..=225).contains(&granted(100)), "{}", granted(100));
    }

    #[test]
    fn balance_is_capped_after_a_long_calm() {
        let mut budget = RetryBudget::new(at(0));
        for _ in 0..100_000 {
            budget.deposit();
        }
        assert_eq!((0..100).filter(|_| budget.withdraw(at(1))).count(), 20);
    }

    #[test]
    fn budget_refills_over_time_without_traffic() {
        let mut budget = RetryBudget::new(at(0));
        while budget.withdraw(at(0)) {}
        assert!(!budget.withdraw(at(5)));
        assert!(budget.withdraw(at(20)));
    }
}
