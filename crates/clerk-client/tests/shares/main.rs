//! The promises about callers' shares, with random traffic in simulated time, for one process and for several that share
//! their limits. What is promised is looked for in a record of when each request came, left and ended.
//!
//! - A request within its caller's guarantee waits at most one window for what was lent to others.
//! - With such a patience it is never shed, however full the queue is.
//! - No caller ever exceeds its cap, and all together never exceed the limit, in any period of one window.
//! - The limit is used as long as the request of a caller below its cap waits.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]

mod paused;
mod record;
mod traffic;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use record::Others;
use traffic::{Arrivals, Caller, Traffic, WINDOW};

/// A little more than a window: what is guaranteed must not be shed.
const PATIENCE: Duration = Duration::from_secs(12);

/// Two with a guarantee, one of them of low priority and with a cap; one with a cap only; and one without a share.
fn callers(min: f64, low_min: f64, cap: f64) -> [Caller; 4] {
    [
        Caller { name: "sign-in", min_share: min, max_share: 1.0, is_low: false },
        Caller { name: "sync", min_share: low_min, max_share: 0.6, is_low: true },
        Caller { name: "import", min_share: 0.0, max_share: cap, is_low: true },
        Caller { name: "plain", min_share: 0.0, max_share: 1.0, is_low: false },
    ]
}

prop_compose! {
    fn traffic(processes: usize)(
        limit in 10_u64..40,
        min in 0.1_f64..0.5,
        low_min in 0.05_f64..0.4,
        cap in 0.1_f64..0.9,
        arrivals in prop::collection::vec((0_u64..60_000, 0_usize..4, 1_usize..30, 1_u64..400), 4..24),
    ) -> Traffic {
        let arrivals = arrivals.into_iter().map(|(at, caller, count, took)| Arrivals {
            at: Duration::from_millis(at),
            caller,
            count,
            took: Duration::from_millis(took),
        });
        let callers = callers(min, low_min, cap).into();
        let arrivals = arrivals.collect();
        Traffic { limit, callers, arrivals, processes, patience: PATIENCE, is_counting_known: true }
    }
}

/// The same traffic in each run.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn promises_hold_in_one_process(traffic in traffic(1)) {
        let record = traffic.run();
        record.check_guarantees(Others::Earlier, Duration::from_millis(700))?;
        record.check_caps()?;
        record.check_limit()?;
        record.check_use(Duration::from_millis(20))?;
    }

    #[test]
    fn promises_hold_over_several_processes(traffic in traffic(3)) {
        let record = traffic.run();
        record.check_guarantees(Others::All, Duration::from_millis(1_500))?;
        record.check_caps()?;
        record.check_limit()?;
        record.check_use(Duration::from_millis(1_300))?;
    }

    /// As long as the server may count with a sliding counter, quota may take up to two windows to return.
    #[test]
    fn promises_hold_before_it_is_known_how_the_server_counts(traffic in traffic(1)) {
        let record = Traffic { is_counting_known: false, patience: WINDOW * 2 + PATIENCE, ..traffic }.run();
        record.check_guarantees(Others::Earlier, WINDOW + Duration::from_millis(700))?;
        record.check_caps()?;
        record.check_limit()?;
    }
}

/// The checks find something: the same traffic without shares breaks each promise that shares are for.
#[test]
fn promises_do_not_hold_without_shares() {
    let burst =
        |at, caller, count| Arrivals { at: Duration::from_secs(at), caller, count, took: Duration::from_millis(9) };
    let arrivals = vec![burst(0, 3, 80), burst(1, 0, 5), burst(30, 2, 12)];
    let callers = callers(0.4, 0.1, 0.3).into();
    let (patience, is_counting_known) = (PATIENCE, true);
    let traffic = Traffic { limit: 20, callers, arrivals, processes: 1, patience, is_counting_known };
    let record = traffic.run_without_shares();
    assert!(record.check_guarantees(Others::Earlier, Duration::from_millis(700)).is_err());
    assert!(record.check_guarantees(Others::All, Duration::from_millis(700)).is_err());
    assert!(record.check_caps().is_err());
    assert!(record.check_limit().is_ok() && record.check_use(Duration::from_millis(20)).is_ok());
}

fn scenario(
    limit: u64,
    processes: usize,
    (cap, patience): (f64, u64),
    arrivals: &[(u64, usize, usize)],
) -> Vec<(usize, bool)> {
    let arrivals = arrivals.iter().map(|(at, caller, count)| Arrivals {
        at: Duration::from_millis(*at),
        caller: *caller,
        count: *count,
        took: Duration::from_millis(100),
    });
    let callers = callers(0.2, 0.1, cap).into();
    let patience = Duration::from_secs(patience);
    let traffic =
        Traffic { limit, callers, arrivals: arrivals.collect(), processes, patience, is_counting_known: true };
    let requests = traffic.run().requests;
    requests.iter().map(|request| (request.caller, request.ended.is_some())).collect()
}

const SIGN_IN: usize = 0;
const IMPORT: usize = 2;
const PLAIN: usize = 3;

#[test]
fn caller_beyond_its_guarantee_waits_in_order_as_others_do() {
    // Its guarantee is back at 14 s only, but there is room at 10 s.
    let arrivals = [(0, PLAIN, 16), (4_000, SIGN_IN, 4), (8_900, PLAIN, 2), (9_000, SIGN_IN, 2)];
    for processes in [1, 2] {
        let requests = scenario(20, processes, (0.1, 2), &arrivals);
        assert!(requests.iter().all(|(_, is_sent)| *is_sent), "{processes} {requests:?}");
    }
}

#[test]
fn caller_at_its_guaranteed_rate_is_not_shed() {
    // When each comes, the one of a window before still counts for a moment.
    let own = (0..10).map(|number| (number * 5_000, SIGN_IN, 1));
    let others = (1..50).map(|number| (number * 1_000 + 500, PLAIN, 8));
    let mut arrivals: Vec<_> = own.chain(others).collect();
    arrivals.sort_unstable();
    for processes in [1, 2] {
        let requests = scenario(10, processes, (0.1, 12), &arrivals);
        let shed = |caller: usize| requests.iter().filter(|(other, is_sent)| *other == caller && !is_sent).count();
        assert_eq!(shed(SIGN_IN), 0, "{processes}");
        assert!(shed(PLAIN) > 100, "there is a backlog");
    }
}

#[test]
fn caller_at_its_cap_leaves_the_queue_to_others() {
    // 12 leave, and as many wait as the queue takes.
    let requests = scenario(20, 1, (0.6, 12), &[(0, IMPORT, 30), (500, PLAIN, 20)]);
    let sent = |caller: usize| requests.iter().filter(|(other, is_sent)| *other == caller && *is_sent).count();
    assert_eq!(sent(PLAIN), 20);
    assert!(sent(IMPORT) > 12, "some waited");
}
