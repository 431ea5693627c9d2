//! The rules of one bucket, and that its limit holds however the network reorders requests.

use proptest::prelude::*;

use super::*;
use clerk_quota::{Bucket, KeyVerdict, Quota, RouteId, Source};

pub(super) const WINDOW: Duration = Duration::from_secs(10);
const BASE: u64 = 1_000_000;

pub(super) fn at(millis: u64) -> Moment {
    Moment::from_unix(Duration::from_millis(BASE + millis))
}

pub(super) fn limiter(limit: u64) -> BucketLimiter {
    BucketLimiter::new(LimitConfig { limit: Some(limit), window: WINDOW })
}

pub(super) fn answer(millis: u64, status: u16, quota: Quota) -> Observation {
    Observation {
        at: at(millis),
        source: Source::Client,
        route: RouteId::OTHER,
        bucket: Bucket::Instance,
        entity: None,
        status,
        usable: true,
        key: KeyVerdict::Valid,
        quota_code: None,
        is_rate_limit: status == 429,
        quota,
        clock_offset_seconds: None,
    }
}

pub(super) fn throttled(millis: u64, retry_after: Option<u64>) -> Observation {
    answer(millis, 429, Quota { retry_after: retry_after.map(Duration::from_secs), ..Quota::default() })
}

fn exchange(limiter: &mut BucketLimiter, millis: u64, observation: &Observation) {
    let explores = limiter.begin(at(millis), 0.5);
    limiter.end(Ending::Answered(observation), (at(millis), explores), observation.at, 0.5);
}

#[test]
fn throttling_blocks_for_retry_after_plus_jitter() {
    for (header, random, from, to) in [
        (Some(9), 0.0, 9_000, 9_000),
        (Some(9), 1.0, 9_200, 9_200),
        (Some(0), 0.0, 100, 100),
        (None, 0.0, 1_000, 1_000),
        (Some(999_999_999), 0.0, 300_000, 300_000),
    ] {
        let mut limiter = limiter(100);
        limiter.observe(&throttled(0, header), random);
        let Admission::At(until) = limiter.admit(at(1), 0, 0.0) else { panic!("{header:?}") };
        assert!((at(from)..=at(to)).contains(&until), "{header:?}: {until:?}");
    }
}

#[test]
fn after_a_block_one_request_goes_ahead_and_the_rest_follow() {
    let mut limiter = limiter(100);
    exchange(&mut limiter, 0, &throttled(10, Some(1)));
    assert_eq!(limiter.admit(at(1_200), 0, 0.0), Admission::Now);
    limiter.begin(at(1_200), 0.5);
    assert_eq!(limiter.admit(at(1_300), 0, 0.0), Admission::OnAnswer);
    let fine = answer(1_300, 200, Quota::default());
    limiter.end(Ending::Answered(&fine), (at(1_200), false), at(1_300), 0.5);
    let mut now = 1_300;
    for _ in 0..10 {
        assert_eq!(limiter.admit(at(now), 0, 0.0), Admission::Now);
        limiter.begin(at(now), 0.5);
        let Admission::At(next) = limiter.admit(at(now), 0, 0.0) else { panic!() };
        assert!(next > at(now) && next <= at(now + 200));
        now += 200;
    }
}

#[test]
fn request_already_in_flight_does_not_cut_the_limit_again() {
    let mut limiter = limiter(100);
    for _ in 0..50 {
        exchange(&mut limiter, 0, &answer(5, 200, Quota::default()));
    }
    for _ in 0..8 {
        limiter.begin(at(6), 0.5);
    }
    for millis in 10..18 {
        limiter.end(Ending::Answered(&throttled(millis, Some(1))), (at(6), false), at(millis), 0.5);
    }
    // 50 answered and 7 in flight when the first 429 arrived.
    assert_eq!(limiter.cap(at(18)), Some(45));
}

#[test]
fn use_by_other_clients_counts_until_the_window_ends() {
    let mut limiter = limiter(100);
    let quota = Quota {
        limit: Some(100),
        remaining: Some(1),
        reset: Some(Duration::from_secs(4)),
        reset_resolution: Duration::from_secs(1),
        ..Quota::default()
    };
    exchange(&mut limiter, 0, &answer(10, 200, quota));
    assert_eq!(limiter.admit(at(20), 0, 0.1), Admission::At(at(4_010)));
    assert_eq!(limiter.admit(at(20), 0, 0.0), Admission::Now);
    limiter.begin(at(20), 0.5);
    assert_eq!(limiter.admit(at(20), 0, 0.0), Admission::At(at(4_010)));
    assert_eq!(limiter.admit(at(4_010), 0, 0.0), Admission::Now);
}

#[test]
fn absurd_server_values_do_not_block_forever() {
    let mut limiter = limiter(100);
    let year = Duration::from_secs(365 * 24 * 3600);
    let quota = Quota { limit: Some(0), remaining: Some(0), reset: Some(year), ..Quota::default() };
    exchange(&mut limiter, 0, &answer(1, 429, quota));
    assert!(limiter.window() <= WINDOW * LONGEST_WINDOWS);
    assert!(limiter.admit(at(400_000), 0, 0.0) == Admission::Now);
}

proptest! {
    /// However the network reorders requests, no period of one window in the server's time contains more than the
    /// limit.
    #[test]
    fn no_window_anywhere_holds_more_than_the_limit(
        limit in 1_u64..30,
        asks in proptest::collection::vec((0_u64..400, 0_u64..3_000, 0.0..=1.0_f64, 0.0..=1.0_f64), 1..300),
    ) {
        let mut limiter = limiter(limit);
        let mut in_flight: Vec<(u64, u64, f64)> = Vec::new();
        let mut counted = Vec::new();
        let mut now = 0;
        for (gap, duration, place, random) in asks {
            now += gap;
            in_flight.sort_by_key(|(end, ..)| *end);
            while in_flight.first().is_some_and(|(end, ..)| *end <= now) {
                let (end, sent, random) = in_flight.remove(0);
                limiter.end(Ending::Lost, (at(sent), false), at(end), random);
            }
            if limiter.admit(at(now), 0, 0.0) == Admission::Now {
                limiter.begin(at(now), random);
                counted.push(now as f64 + duration as f64 * place);
                in_flight.push((now + duration, now, random));
            }
        }
        counted.sort_by(f64::total_cmp);
        for (first, from) in counted.iter().enumerate() {
            let within = counted[first..].iter().filter(|at| **at < from + 10_000.0).count();
            prop_assert!(within as u64 <= limit, "{within} of {limit}");
        }
    }
}
