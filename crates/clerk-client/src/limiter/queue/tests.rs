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

/// Requests of this queue that ask the distributed limiter.
fn asking(queue: &mut Queue, key: Key, requests: usize, now: Moment) -> Vec<Grant> {
    let enqueue = |_| match queue.enqueue(key, Priority::High.into(), now, at(99_000)).0 {
        Enqueued::Go(_, grant) => Some(grant),
        Enqueued::Wait(_) | Enqueued::Shed(_) => None,
    };
    let at_once: Vec<_> = (0..requests).filter_map(enqueue).collect();
    at_once.into_iter().chain(queue.take_grants().into_iter().map(|(_, grant)| grant)).collect()
}

fn granted(queue: &mut Queue) -> Vec<Grant> {
    queue.take_grants().into_iter().map(|(_, grant)| grant).collect()
}

#[test]
fn requests_ask_one_by_one_after_a_refusal() {
    let options = LimiterOptions::default().limit(Limit { requests: 1000, window: WINDOW });
    let mut queue = Queue::new(options, fastrand::Rng::with_seed(1)).shared(true);
    let key = (Bucket::Instance, None);
    let mut all = asking(&mut queue, key, 20, at(0));
    assert_eq!(all.len(), 20, "nothing was refused yet");
    queue.wait_for_others(key, Rank::High, Duration::from_millis(10), at(0));
    // Those that ask already are refused, too.
    for grant in all.drain(..) {
        queue.end(grant, Ending::Unsent, at(1));
        queue.release(|| at(1));
    }
    assert!(asking(&mut queue, key, 20, at(1)).is_empty(), "all wait");
    queue.dispatch(at(1_000));
    let mut asked = granted(&mut queue);
    assert_eq!(asked.len(), 1);
    for expected in [2, 4, 8] {
        // Each that is admitted lets two others ask.
        let mut next = Vec::new();
        for grant in &mut asked {
            queue.end_asking(grant, Asked::Admitted, at(1_000));
            next.extend(granted(&mut queue));
        }
        assert_eq!(next.len(), expected.min(19));
        asked = next;
    }
}

#[test]
fn request_dropped_while_it_asks_lets_the_next_one_ask() {
    let options = LimiterOptions::default().limit(Limit { requests: 1000, window: WINDOW });
    let mut queue = Queue::new(options, fastrand::Rng::with_seed(1)).shared(true);
    let key = (Bucket::Instance, None);
    let first = asking(&mut queue, key, 1, at(0));
    queue.wait_for_others(key, Rank::High, Duration::from_millis(10), at(0));
    queue.end(first[0], Ending::Unsent, at(0));
    queue.release(|| at(0));
    assert_eq!(asking(&mut queue, key, 5, at(1_000)).len(), 1);
    // The grant is that of a request whose future is gone.
    let (Enqueued::Wait(id), _) = queue.enqueue(key, Priority::High.into(), at(1_000), at(99_000)) else {
        panic!("another one asks")
    };
    queue.leave(key, id, at(1_000));
    assert!(granted(&mut queue).is_empty());
    queue.end(Grant { asks: Some(Rank::High), ..first[0] }, Ending::Unsent, at(1_000));
    queue.release(|| at(1_000));
    assert_eq!(granted(&mut queue).len(), 1);
}

#[test]
fn unreachable_log_lets_all_requests_leave_by_the_share() {
    let options = LimiterOptions::default().limit(Limit { requests: 1000, window: WINDOW });
    let mut queue = Queue::new(options, fastrand::Rng::with_seed(1)).shared(true);
    let key = (Bucket::Instance, None);
    let mut first = asking(&mut queue, key, 1, at(0));
    queue.wait_for_others(key, Rank::High, Duration::from_millis(10), at(0));
    assert!(asking(&mut queue, key, 6, at(1)).is_empty());
    queue.end_asking(&mut first[0], Asked::Unreachable, at(1_000));
    assert_eq!(granted(&mut queue).len(), 6);
}
