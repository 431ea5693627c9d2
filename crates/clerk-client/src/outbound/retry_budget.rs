//! How many retries the traffic can bear. Pure: time is passed in.

use std::time::Duration;

use clerk_quota::Moment;

/// Part of a retry that each request pays for.
const SHARE: f64 = 0.2;

/// Retries that are at hand from the start, and that little traffic gets back over time.
const FLOOR: f64 = 10.0;

/// Most that is ever saved up: a long calm must not pay for a storm.
const MOST: f64 = 20.0;

/// Time in which one retry comes back while there are fewer than the floor.
const TRICKLE: Duration = Duration::from_secs(10);

/// Retries are at most a fifth of the requests, plus a few, so that an outage is not made worse by those who suffer it.
///
/// The idea is that of Finagle's and tower's retry budgets. This one runs on passed-in time.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    balance: f64,
    trickled_at: Moment,
}

impl RetryBudget {
    /// A budget that holds its floor.
    #[must_use]
    pub const fn new(now: Moment) -> Self {
        Self { balance: FLOOR, trickled_at: now }
    }

    /// A request is made, whose retries are yet to come.
    pub fn deposit(&mut self) {
        self.balance = (self.balance + SHARE).min(MOST);
    }

    /// Pays for a retry; false if there is nothing left.
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

    /// `retries` paid of three that each of a thousand requests asks for.
    fn paid(millis_between: u64) -> usize {
        let mut budget = RetryBudget::new(at(0));
        let mut paid = 0;
        for request in 0..1000 {
            budget.deposit();
            let now = Moment::from_unix(Duration::from_millis(request * millis_between));
            paid += (0..3).filter(|_| budget.withdraw(now)).count();
        }
        paid
    }

    #[test]
    fn a_thousand_failing_requests_give_about_two_hundred_retries() {
        assert!((200..=212).contains(&paid(0)), "{}", paid(0));
        assert!((200..=225).contains(&paid(100)), "{}", paid(100));
    }

    #[test]
    fn a_long_calm_saves_up_little() {
        let mut budget = RetryBudget::new(at(0));
        for _ in 0..100_000 {
            budget.deposit();
        }
        assert_eq!((0..100).filter(|_| budget.withdraw(at(1))).count(), 20);
    }

    #[test]
    fn little_traffic_can_retry_again_after_a_while() {
        let mut budget = RetryBudget::new(at(0));
        while budget.withdraw(at(0)) {}
        assert!(!budget.withdraw(at(5)));
        assert!(budget.withdraw(at(20)));
    }
}
