//! Several spans of one call count once, in any order of arrival.

use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;

use super::support::{World, call};

/// A span of a trace, with a parent.
fn child(id: u64, parent: u64) -> Span {
    let parent_span_id = if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() };
    Span { trace_id: vec![9; 16], parent_span_id, ..call(id) }
}

#[test]
fn inner_span_counts_in_both_orders() {
    for order in [[child(1, 0), child(2, 1)], [child(2, 1), child(1, 0)]] {
        let world = World::new("api.clerk.com");
        let [first, second] = order;
        world.send(vec![first]);
        world.send(vec![second]);
        assert_eq!(world.results(), [("accepted", 1), ("nested", 1)]);
        assert_eq!(world.counted(), 1);
    }
}

#[test]
fn inner_span_is_the_one_that_is_counted() {
    let world = World::new("api.clerk.com");
    let mut outer = child(1, 0);
    outer.attributes[1] = super::support::text("url.full", "https://api.clerk.com/v1/users");
    world.send(vec![outer, child(2, 1)]);
    assert_eq!(world.spent().into_keys().collect::<Vec<_>>(), ["unknown GET /v1/users/count served"]);
}

#[test]
fn attempts_below_one_span_count_each() {
    let world = World::new("api.clerk.com");
    world.send(vec![child(1, 0), child(2, 1), child(3, 1), child(4, 1)]);
    assert_eq!(world.results(), [("accepted", 3), ("nested", 1)].map(|it| it), "one per attempt");
    assert_eq!(world.counted(), 3);
}

#[test]
fn span_to_another_host_is_no_inner_span() {
    let world = World::with(&[("main", &["api.clerk.com", "other.test"])], |options| options);
    let mut inner = child(2, 1);
    inner.attributes[1] = super::support::text("url.full", "https://other.test/v1/users");
    world.send(vec![inner, child(1, 0)]);
    assert_eq!(world.results(), [("accepted", 2)]);
}

#[test]
fn same_span_id_in_another_trace_is_another_span() {
    let world = World::new("api.clerk.com");
    world.send(vec![call(1), Span { trace_id: vec![3; 16], ..call(1) }, call(1)]);
    assert_eq!(world.results(), [("accepted", 2), ("duplicate", 1)]);
}

/// A forest: each span's parent is an earlier one, or none. The calls are the spans without children.
fn forest() -> impl Strategy<Value = (Vec<u64>, Vec<usize>)> {
    proptest::collection::vec(any::<u64>(), 1..24).prop_flat_map(|choices| {
        let parents: Vec<u64> = choices.iter().enumerate().map(|(place, choice)| choice % (place as u64 + 1)).collect();
        let order: Vec<usize> = (0..parents.len()).collect();
        (Just(parents), Just(order).prop_shuffle())
    })
}

proptest! {
    #[test]
    fn any_order_counts_each_call_once((parents, order) in forest(), batch in 1_usize..5, repeat in any::<bool>()) {
        let world = World::new("api.clerk.com");
        let spans: Vec<Span> = order.iter().map(|place| child(*place as u64 + 1, parents[*place])).collect();
        for spans in spans.chunks(batch) {
            world.send(spans.to_vec());
        }
        if repeat {
            world.send(spans.clone());
        }
        let calls = (1..=parents.len() as u64).filter(|id| !parents.contains(id)).count() as u64;
        prop_assert_eq!(world.counted(), calls);
        let total: u64 = world.results().iter().map(|(_, count)| count).sum();
        prop_assert_eq!(total, spans.len() as u64 * if repeat { 2 } else { 1 });
    }
}
