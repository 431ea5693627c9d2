//! Billing months: from one billing day to the next, in UTC.

use std::time::Duration;

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveTime};

/// The day of the month on which a billing month starts, 1 to 31.
///
/// In a month that is shorter, it is the month's last day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BillingDay(u8);

impl BillingDay {
    /// The first of the month.
    pub const FIRST: Self = Self(1);

    /// Creates a billing day; `None` if it is not 1 to 31.
    #[must_use]
    pub const fn new(day: u8) -> Option<Self> {
        if matches!(day, 1..=31) { Some(Self(day)) } else { None }
    }

    /// Returns the day, 1 to 31.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Returns the start of the billing month that begins in the calendar month of `date`.
    fn start_in_month_of(self, date: NaiveDate) -> NaiveDate {
        let day = self.0.min(date.num_days_in_month());
        date.with_day(u32::from(day)).unwrap_or(date)
    }
}

impl Default for BillingDay {
    fn default() -> Self {
        Self::FIRST
    }
}

/// A billing month. Its bounds are times of the wall clock since the UNIX epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BillingMonth {
    /// The first moment, midnight UTC of the billing day.
    pub start: Duration,
    /// The first moment of the next month.
    pub end: Duration,
}

impl BillingMonth {
    /// Returns the month that contains this time of the wall clock, given as the time since the UNIX epoch.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use clerk_quota::metered::{BillingDay, BillingMonth};
    ///
    /// // 2028-02-29 12:00:00 UTC: a month that starts on the 31st starts on the last day of February.
    /// let noon = Duration::from_secs(1_835_438_400);
    /// let month = BillingMonth::containing(noon, BillingDay::new(31).expect("a day from 1 to 31"));
    /// assert_eq!(noon - month.start, Duration::from_secs(12 * 3600));
    /// assert_eq!(month.end - month.start, Duration::from_secs(31 * 24 * 3600));
    /// ```
    #[must_use]
    pub fn containing(wall: Duration, day: BillingDay) -> Self {
        // Times that the calendar does not know are as good as the epoch: no clock shows them.
        let seconds = i64::try_from(wall.as_secs()).unwrap_or_default();
        let date = DateTime::from_timestamp(seconds, 0).unwrap_or_default().date_naive();
        let one = Months::new(1);
        let this = day.start_in_month_of(date);
        let (start, end) = if date >= this {
            (this, neighbour(date.checked_add_months(one), day, this))
        } else {
            (neighbour(date.checked_sub_months(one), day, this), this)
        };
        Self { start: midnight(start), end: midnight(end) }
    }

    /// Returns whether this time of the wall clock lies in the month.
    #[must_use]
    pub fn contains(&self, wall: Duration) -> bool {
        self.start <= wall && wall < self.end
    }
}

/// Returns the start of the billing month in the calendar month of `date`; `start` where the calendar ends.
fn neighbour(date: Option<NaiveDate>, day: BillingDay, start: NaiveDate) -> NaiveDate {
    date.map_or(start, |date| day.start_in_month_of(date))
}

/// Returns the start of a day in UTC; the UNIX epoch for earlier days.
fn midnight(date: NaiveDate) -> Duration {
    let seconds = date.and_time(NaiveTime::MIN).and_utc().timestamp();
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}
