//! Clocks, callers and instances of senders.

use std::collections::BTreeMap;
use std::time::Duration;

use clerk_exporter::telemetry::senders::{CallerNames, MAX_LEAD, Sender, SenderClocks};
use clerk_quota::Moment;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::support::{NOW, World, call, number, span, text};

const CLERK: [(&str, &[&str]); 1] = [("main", &["api.clerk.com"])];

fn moment(millis: u64) -> Moment {
    Moment::from_unix(NOW + Duration::from_millis(millis))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

/// A call that ended this long after now, by its sender's clock.
fn ahead(id: u64, by: Duration) -> Span {
    Span { end_time_unix_nano: nanos(NOW + by), ..call(id) }
}

fn service(name: &str) -> Vec<KeyValue> {
    vec![text("service.name", name)]
}

#[test]
fn clock_that_is_ahead_is_set_back_for_a_minute() {
    let mut clocks = SenderClocks::new(10);
    let key = std::hash::RandomState::new();
    let (one, two) = (Sender::of(&service("one"), &key), Sender::of(&service("two"), &key));
    let second = Duration::from_secs(1);
    assert_eq!(clocks.correct(moment(0), one, [moment(0).after(3 * second)].into_iter()), 3 * second);
    assert_eq!(clocks.correct(moment(1000), one, [moment(0)].into_iter()), 3 * second, "it is remembered");
    assert_eq!(clocks.correct(moment(1000), two, [moment(0)].into_iter()), Duration::ZERO, "for that sender");
    assert_eq!(clocks.correct(moment(59_000), one, std::iter::empty()), 3 * second);
    assert_eq!(clocks.correct(moment(71_000), one, std::iter::empty()), Duration::ZERO, "and forgotten");
    let far = moment(80_000).after(MAX_LEAD).after(second);
    let ends = [far, moment(82_000)].into_iter();
    assert_eq!(clocks.correct(moment(80_000), one, ends), 2 * second, "an absurd end is left out");
}

#[test]
fn number_of_senders_is_bounded() {
    let mut clocks = SenderClocks::new(10);
    let key = std::hash::RandomState::new();
    for number in 0..1000 {
        let sender = Sender::of(&service(&number.to_string()), &key);
        let lead = clocks.correct(moment(0), sender, [moment(500)].into_iter());
        assert_eq!(lead, Duration::from_millis(500), "the spans at hand are corrected");
    }
    assert_eq!(clocks.forgotten(), 990);
}

#[test]
fn sender_is_known_by_what_identifies_it() {
    let key = std::hash::RandomState::new();
    let of = |attributes: &[KeyValue]| Sender::of(attributes, &key);
    let base = [text("service.name", "a"), text("host.name", "h"), number("process.pid", 1)];
    let reordered = [base[2].clone(), base[0].clone(), text("other", "x"), base[1].clone()];
    assert_eq!(of(&base), of(&reordered));
    assert_ne!(of(&base), of(&[base[0].clone(), base[1].clone(), number("process.pid", 2)]));
    assert_ne!(of(&[text("service.name", "x")]), of(&[text("host.name", "x")]));
}

#[test]
fn spans_of_a_fast_clock_are_not_in_the_future() {
    let world = World::with(&CLERK, |options| options);
    world.send_from(service("web"), vec![ahead(1, Duration::from_secs(60)), ahead(2, Duration::from_secs(58))]);
    world.send_from(service("web"), vec![ahead(3, Duration::from_secs(59))]);
    assert_eq!(world.results(), [("accepted", 3)]);
    let stats = world.telemetry.stats();
    assert_eq!(stats.delay_seconds.count(), 3);
    assert!(stats.delay_seconds.sum() < 4.0, "0, 2 and 1 s: {}", stats.delay_seconds.sum());
}

#[test]
fn span_beyond_the_largest_lead_is_in_the_future() {
    let world = World::with(&CLERK, |options| options);
    world.send(vec![ahead(1, MAX_LEAD + Duration::from_secs(5)), call(2)]);
    assert_eq!(world.results(), [("accepted", 1), ("future", 1)]);
}

#[test]
fn delay_is_from_end_to_arrival() {
    let world = World::with(&CLERK, |options| options);
    world.send(vec![call(1)]);
    world.send(vec![call(1)]);
    let delays = world.telemetry.stats().delay_seconds;
    assert_eq!(delays.count(), 1, "a duplicate has no delay");
    assert!((5.0..7.0).contains(&delays.sum()), "{}", delays.sum());
}

#[test]
fn caller_is_made_of_the_configured_attributes() {
    let mut names = CallerNames::new(10);
    let attributes = ["service.name", "deployment", "service.version"].map(std::sync::Arc::from);
    let long = "x".repeat(65);
    for (resource, expected) in [
        (vec![], "unknown"),
        (service("web"), "web"),
        (vec![text("service.version", "1.2"), text("service.name", "web")], "web/1.2"),
        (vec![text("service.name", "web"), text("deployment", " eu-1 "), text("service.version", "2")], "web/eu-1/2"),
        (service(""), "unknown"),
        (service("unknown_service:node"), "unknown_service:node"),
        (service("unknown_service:/home/me/bin/node"), "unknown_service:node"),
        (vec![number("service.name", 1)], "unknown"),
        (service("sk_live_4bMbJyWZ2vnLx0aQCANARY"), "other"),
        (service("line\nbreak"), "other"),
        (service("\"quoted\""), "other"),
        (service("gr\u{f6}\u{df}e"), "other"),
        (service(&long), "other"),
        (service("other"), "other"),
    ] {
        let id = names.find(&resource, &attributes);
        assert_eq!(&*names.name(id), expected, "{resource:?}");
    }
}

#[test]
fn number_of_callers_is_bounded() {
    let world = World::with(&CLERK, |mut options| {
        options.limits.max_callers = 3;
        options
    });
    for id in 1..=10 {
        world.send_from(service(&format!("app-{id}")), vec![call(id)]);
    }
    let callers: Vec<_> = world.spent().into_keys().map(|key| key.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(callers, ["app-1", "app-2", "app-3", "other"]);
    assert_eq!(world.telemetry.stats().dropped_callers, 7);
}

#[test]
fn resource_names_the_instance() {
    let world = World::with(&[("prod", &["api.clerk.com"]), ("dev", &["api.clerk.com"])], |mut options| {
        options.instance_values = BTreeMap::from([
            ("production".into(), "prod".into()),
            ("preview".into(), "dev".into()),
            ("gone".into(), "no such instance".into()),
        ]);
        options
    });
    let resources = [
        vec![text("deployment.environment.name", "production")],
        vec![text("deployment.environment", "preview")],
        vec![text("deployment.environment", "preview"), text("deployment.environment.name", "production")],
        vec![text("deployment.environment.name", "staging")],
        vec![text("deployment.environment.name", "gone")],
        vec![],
    ];
    for (id, resource) in (1..).zip(resources) {
        world.send_from(resource, vec![call(id)]);
    }
    assert_eq!(world.results(), [("accepted", 3), ("unattributed", 3)]);
    assert_eq!(world.spent_of("prod").values().sum::<u64>(), 2);
    assert_eq!(world.spent_of("dev").values().sum::<u64>(), 1);
}

#[test]
fn instance_is_a_candidate_only_for_its_hosts() {
    let world = World::with(&[("prod", &["api.clerk.com"]), ("dev", &["clerk.test"])], |mut options| {
        options.instance_values = BTreeMap::from([("preview".into(), "dev".into())]);
        options
    });
    let preview = || vec![text("deployment.environment.name", "preview")];
    let local = span(2, vec![text("http.request.method", "GET"), text("url.full", "https://clerk.test/v1/users")]);
    world.send_from(preview(), vec![call(1), local]);
    assert_eq!(world.results(), [("accepted", 1), ("unattributed", 1)]);
}

#[test]
fn host_alone_names_the_instance_if_it_has_only_one() {
    let world = World::with(&[("prod", &["api.clerk.com"]), ("dev", &["clerk.test", "api.clerk.com:8443"])], |it| it);
    let to = |id, url: &str| span(id, vec![text("http.request.method", "GET"), text("url.full", url)]);
    world.send(vec![call(1), to(2, "https://clerk.test/v1/users"), to(3, "https://api.clerk.com:8443/v1/users")]);
    assert_eq!(world.results(), [("accepted", 3)]);
    assert_eq!(world.spent_of("prod").values().sum::<u64>(), 1);
    assert_eq!(world.spent_of("dev").values().sum::<u64>(), 2);
    let shared = World::with(&[("prod", &["api.clerk.com"]), ("dev", &["https://api.clerk.com"])], |it| it);
    shared.send(vec![call(1)]);
    assert_eq!(shared.results(), [("unattributed", 1)]);
}

#[test]
fn configuration_can_change() {
    let world = World::with(&CLERK, |options| options);
    world.send_from(service("web"), vec![call(1)]);
    let changed = super::support::options(&world.ledger, &[("main", &["api.clerk.com", "clerk.test"])]);
    world.telemetry.configure(changed).unwrap();
    let local = span(2, vec![text("http.request.method", "GET"), text("url.full", "https://clerk.test/v1/users")]);
    world.send_from(service("web"), vec![call(1), local]);
    assert_eq!(world.results(), [("accepted", 2), ("duplicate", 1)]);
    let mut wrong = super::support::options(&world.ledger, &CLERK);
    wrong.sampling_ratio = 0.0;
    assert!(world.telemetry.configure(wrong).is_err());
}
