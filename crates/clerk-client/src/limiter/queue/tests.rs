//! Edge cases of the queue.

use super::*;
use crate::limiter::Priority;
use clerk_quota::Limit;

const WINDOW: Duration = Duration::from_secs(10);

fn at(millis: u64) -> Moment {
    Moment::from_unix(Duration::from_millis(1_000_000_000 + millis))
}

/// A queue of a bucket with one request, used up at 0; one more request waits.
fn used_up(options: LimiterOptions) -> (Queue, Key, u64) {
    let options = LimiterOptions { limit: Some(Limit { requests: 1, window: WINDOW }), ..options };
    let mut queue = Queue::new(options, fastrand::Rng::with_seed(1));
    let key = (Bucket::Instance, None);
    let (Enqueued::Go(_, grant), _) = queue.enqueue(key, Priority::High.into(), at(0), at(99_000)) else {
        panic!("there is room")
    };
    queue.end(grant, Ending::Lost, at(0));
    queue.release(|| at(0));
    let (Enqueued::Wait(id), _) = queue.enqueue(key, Priority::High.into(), at(0), at(99_000)) else {
        panic!("the bucket is used up")
    };
    (queue, key, id)
}

#[test]
fn request_due_between_dispatch_and_poll_is_granted() {
    let (mut queue, key, id) = used_up(LimiterOptions::default());
    let (Poll::Wait(Some(Look { at: due, .. })), _) = queue.poll(key, id, at(1)) else {
        panic!("it has to wait for a moment")
    };
    // Dispatched too early, it polls a little later.
    assert_eq!(queue.dispatch(due.before(Duration::from_nanos(1))), [id]);
    let (polled, to_wake) = queue.poll(key, id, due);
    assert!(matches!(polled, Poll::Go(_)), "{polled:?}");
    assert!(to_wake.contains(&id));
    assert_eq!(queue.stats().waiting, 0);
}

#[test]
fn end_of_a_request_dispatches_when_max_in_flight_is_reached() {
    let (mut queue, key, id) = used_up(LimiterOptions { max_in_flight: 1, ..LimiterOptions::default() });
    let other = (Bucket::Invitations, None);
    let (Enqueued::Go(_, grant), _) = queue.enqueue(other, Priority::Low.into(), at(1), at(99_000)) else {
        panic!("another bucket has room")
    };
    let late = at(20_000);
    assert_eq!(queue.poll(key, id, late), (Poll::Wait(None), Vec::new()));
    queue.end(grant, Ending::Lost, late);
    assert!(queue.release(|| late).contains(&id));
    assert!(matches!(queue.poll(key, id, late).0, Poll::Go(_)));
}
