//! The verdict on an instance that pages, checks and logs share.

use clerk_quota::condition::{Condition, Trouble, Verdict};
use clerk_quota::{InstanceLedger, KeyVerdict, Observation, ProbeFailure};

use crate::{at, counting, exchange, named, plain, throttled};
use std::time::Duration;

fn condition(ledger: &mut InstanceLedger, seconds: f64) -> Condition {
    Condition::of(&ledger.snapshot(at(seconds)), at(seconds))
}

#[test]
fn probes_without_headers_give_unknown_use() {
    let mut ledger = counting();
    ledger.record(&Observation { key: KeyVerdict::Valid, ..plain(1.0, 200) });
    let found = condition(&mut ledger, 2.0);
    assert_eq!((found.verdict, found.trouble, found.describe().as_str()), (Verdict::UseUnknown, None, "use unknown"));
}

#[test]
fn known_remaining_quota_decides_the_verdict() {
    let mut ledger = counting();
    exchange(&mut ledger, &named(1.0, 50, 9));
    assert_eq!(condition(&mut ledger, 2.0).verdict, Verdict::Fine);
    exchange(&mut ledger, &named(3.0, 5, 7));
    assert_eq!(condition(&mut ledger, 4.0).verdict, Verdict::Low);
    exchange(&mut ledger, &named(12.0, 99, 8));
    assert_eq!(condition(&mut ledger, 13.0).verdict, Verdict::Low, "it was low less than a minute ago");
    exchange(&mut ledger, &named(75.0, 99, 5));
    assert_eq!(condition(&mut ledger, 76.0).verdict, Verdict::Fine);
}

#[test]
fn rejection_blocks_and_shows_for_a_minute() {
    let mut ledger = counting();
    ledger.record(&throttled(1.0, 5));
    let blocked = condition(&mut ledger, 2.0);
    assert_eq!((blocked.verdict, blocked.trouble), (Verdict::Blocked, Some(Trouble::Throttled)));
    assert_eq!(condition(&mut ledger, 30.0).verdict, Verdict::Throttled);
    // The window of the rejection was low.
    assert_eq!(condition(&mut ledger, 65.0).verdict, Verdict::Low);
    assert_eq!(condition(&mut ledger, 71.0).verdict, Verdict::UseUnknown);
}

#[test]
fn trouble_names_the_cause_of_failures() {
    for (failure, expected) in [
        (ProbeFailure::Timeout, Some(Trouble::Network)),
        (ProbeFailure::Dns, Some(Trouble::Network)),
        (ProbeFailure::UnexpectedContent, Some(Trouble::Network)),
        (ProbeFailure::Status, Some(Trouble::Clerk)),
        (ProbeFailure::Key, Some(Trouble::Key)),
        (ProbeFailure::Secret, None),
    ] {
        let mut ledger = counting();
        ledger.record_probe(Duration::from_millis(5), Err(failure));
        assert_eq!(condition(&mut ledger, 2.0).trouble, expected, "{failure:?}");
        exchange(&mut ledger, &named(3.0, 50, 9));
        assert_eq!(condition(&mut ledger, 4.0).trouble, None, "a request was served since");
    }
    let mut ledger = counting();
    exchange(&mut ledger, &Observation { usable: false, ..plain(1.0, 503) });
    assert_eq!(condition(&mut ledger, 2.0).describe(), "Clerk is failing");
    exchange(&mut ledger, &Observation { usable: false, key: KeyVerdict::Invalid, ..plain(3.0, 401) });
    assert_eq!(condition(&mut ledger, 4.0).describe(), "key refused");
}
