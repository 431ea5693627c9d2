//! Who goes when, at the edges.

use super::*;
use clerk_quota::Limit;

const WINDOW: Duration = Duration::from_secs(10);

fn at(millis: u64) -> Moment {
    Moment::from_unix(Duration::from_millis(1_000_000_000 + millis))
}

/// A queue before a budget of one request, which has been used up at 0; one more waits.
fn used_up(options: LimiterOptions) -> (Queue, Key, u64) {
    let options = LimiterOptions { limit: Some(Limit { requests: 1, window: WINDOW }), ..options };
    let mut queue = Queue::new(options, fastrand::Rng::with_seed(1));
    let key = (Bucket::Instance, None);
    let (Enqueued::Go(_, grant), _) = queue.enqueue(key, Priority::High, at(0), at(99_000)) else {
        panic!("there is room")
    };
    queue.end(grant, Ending::Lost, at(0));
    queue.release(|| at(0));
    let (Enqueued::Wait(id), _) = queue.enqueue(key, Priority::High, at(0), at(99_000)) else {
        panic!("there is no room")
    };
    (queue, key, id)
}

#[test]
fn whose_moment_comes_between_a_call_and_a_look_goes() {
    let (mut queue, key, id) = used_up(LimiterOptions::default());
    let (Poll::Wait(Some(due)), _) = queue.poll(key, id, at(1)) else { panic!("it has to wait for a moment") };
    // Called a little too early, it looks a little later.
    assert_eq!(queue.dispatch(due.before(Duration::from_nanos(1))), [id]);
    let (polled, to_wake) = queue.poll(key, id, due);
    assert!(matches!(polled, Poll::Go(_)), "{polled:?}");
    assert!(to_wake.contains(&id));
    assert_eq!(queue.stats().waiting, 0);
}

#[test]
fn where_too_many_are_in_flight_the_end_of_one_calls() {
    let (mut queue, key, id) = used_up(LimiterOptions { max_in_flight: 1, ..LimiterOptions::default() });
    let other = (Bucket::Invitations, None);
    let (Enqueued::Go(_, grant), _) = queue.enqueue(other, Priority::Low, at(1), at(99_000)) else {
        panic!("another budget has room")
    };
    let late = at(20_000);
    assert_eq!(queue.poll(key, id, late), (Poll::Wait(None), Vec::new()));
    queue.end(grant, Ending::Lost, late);
    assert!(queue.release(|| late).contains(&id));
    assert!(matches!(queue.poll(key, id, late).0, Poll::Go(_)));
}
