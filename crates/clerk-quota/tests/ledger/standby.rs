//! Instances that another process probes.

use clerk_quota::{AttemptEnd, CallerId, InstanceLedger, MethodLabel, RequestStart, Settings, Source, route};

use crate::{at, instance, plain, settings, throttled};

/// A ledger of an exporter without a gateway.
fn probed() -> InstanceLedger {
    InstanceLedger::new(Settings { sources: vec![Source::Probe], ..settings("test") })
}

#[test]
fn standby_knows_nothing_and_counts_from_0_when_it_takes_over() {
    let mut ledger = probed();
    ledger.record(&throttled(1.0, 5));
    ledger.set_standby(true);
    let snapshot = ledger.snapshot(at(2.0));
    assert!(snapshot.is_standby && !snapshot.is_observed() && !snapshot.is_probed());
    assert_eq!((snapshot.up, snapshot.throttled_at, snapshot.responses[&(Source::Probe, 429)]), (None, None, 0));
    ledger.set_standby(true);
    ledger.set_standby(false);
    let snapshot = ledger.snapshot(at(60.0));
    assert!(snapshot.is_observed() && snapshot.is_probed());
    assert_eq!((snapshot.up, snapshot.responses[&(Source::Probe, 429)]), (None, 0));
    ledger.record(&plain(61.0, 200));
    assert_eq!(ledger.snapshot(at(62.0)).up, Some(true));
    assert_eq!(instance(&mut ledger, 90.0).windows, 1, "only of its own time");
}

#[test]
fn request_from_before_is_not_counted_after_taking_over() {
    let mut ledger = probed();
    let (route, method) = (route::find("GET", b"/v1/users/count"), MethodLabel::Get);
    let request = RequestStart { at: at(1.0), source: Source::Probe, caller: CallerId::UNNAMED, route, method };
    let attempt = ledger.begin(&request);
    ledger.set_standby(true);
    ledger.set_standby(false);
    ledger.end(attempt, at(40.0), AttemptEnd::Answered(&throttled(40.0, 5)));
    let snapshot = ledger.snapshot(at(41.0));
    assert_eq!((snapshot.up, snapshot.throttled_at, snapshot.spent.len()), (None, None, 0));
}

#[test]
fn gateway_s_numbers_remain_on_a_standby() {
    let mut ledger = InstanceLedger::new(settings("test"));
    ledger.record(&throttled(1.0, 5));
    ledger.set_standby(true);
    let snapshot = ledger.snapshot(at(2.0));
    assert!(snapshot.is_standby && snapshot.is_observed() && !snapshot.is_probed());
    assert_eq!(snapshot.throttled_at, Some(at(1.0)));
    ledger.set_standby(false);
    assert_eq!(ledger.snapshot(at(3.0)).throttled_at, Some(at(1.0)));
}
