//! The windows of one budget over time: which window an observation belongs to, and when a window is over.
//!
//! A window ends at the server's reset when the server names it, else on a grid of whole windows since the UNIX epoch.
//! What makes this more than a comparison:
//!
//! - Resets often come in whole seconds, rounded up or down, and answers take time. Two resets that lie closer together
//!   than half a window are one.
//! - Answers of parallel requests overtake each other. A window therefore stays open for late ones until [`GRACE`]
//!   after its end, beside the window that follows it.
//! - Sliding windows and token buckets have no windows: their reset moves on with each request. When that is seen
//!   ([`Timeline::is_rolling`]), windows of the nominal length follow one another instead.

use std::time::Duration;

use super::Moment;
pub(super) use super::window_kind::Reset;
use super::window_kind::WindowKindDetector;

/// How long a window waits for late answers before it is closed.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// One window of a budget and the use that was seen in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    /// Greater than those of the windows before it.
    pub number: u64,
    pub start: Moment,
    pub end: Moment,
    /// Requests that were counted here, for budgets of which the server says nothing.
    pub counted: u64,
    /// Requests per window, as the newest answer named it.
    pub limit: Option<u64>,
    /// Fewest requests that the server said were left.
    pub least_remaining: Option<u64>,
    /// Requests of ours before this window that may still have stood in the server's books when it said so: as many as
    /// there were less than a window before that.
    pub counted_before: u64,
    /// Whether an answer was a 429.
    pub throttled: bool,
    /// Time of the first and of the last observation, in order of time.
    pub seen: (Moment, Moment),
}

impl Window {
    /// The server said at some time that so many were left, and `before` requests of ours were then less than a window
    /// and more than this one old.
    pub(super) fn said(&mut self, remaining: u64, before: impl FnOnce() -> u64) {
        match self.least_remaining {
            Some(least) if least < remaining => {}
            Some(least) if least == remaining => {
                if self.counted_before > 0 {
                    self.counted_before = self.counted_before.min(before());
                }
            }
            _ => {
                self.least_remaining = Some(remaining);
                self.counted_before = before();
            }
        }
    }

    fn new(number: u64, start: Moment, end: Moment, at: Moment) -> Self {
        Self {
            number,
            start,
            end,
            counted: 0,
            limit: None,
            least_remaining: None,
            counted_before: 0,
            throttled: false,
            seen: (at, at),
        }
    }
}

/// Where an observation belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WindowPosition {
    /// The newest window.
    Current,
    /// The window before it, which still waits for late answers.
    Previous,
    /// A window that is closed already.
    Closed,
}

/// The open windows of one budget.
#[derive(Debug, Clone, Default)]
pub(super) struct Timeline {
    current: Option<Window>,
    previous: Option<Window>,
    /// Windows that there were.
    opened: u64,
    /// End of the newest window that there was.
    last_end: Option<Moment>,
    resets: WindowKindDetector,
    /// Whether windows follow the server's resets (or the grid of the epoch, where it names none).
    follows_server: bool,
}

impl Timeline {
    /// Finds, or opens, the window that an observation made at `at` belongs to.
    ///
    /// `nominal` is the window's length by configuration, or by the server's own word. Windows that are over by then
    /// are handed to `close`, each exactly once.
    pub(super) fn place(
        &mut self,
        at: Moment,
        reset: Option<Reset>,
        nominal: Duration,
        close: &mut impl FnMut(&Window),
    ) -> WindowPosition {
        self.advance(at, close);
        let place = match reset {
            None => self.place_by_time(at, nominal, close),
            Some(reset) => {
                self.resets.watch(at, reset);
                if self.is_rolling() {
                    self.place_by_time(at, nominal, close)
                } else {
                    self.place_by_reset(at, reset, nominal, close)
                }
            }
        };
        if let Some(window) = self.window_mut(place) {
            window.seen = (window.seen.0.min(at), window.seen.1.max(at));
        }
        place
    }

    /// Closes the windows that are over and have waited long enough for late answers.
    pub(super) fn advance(&mut self, now: Moment, close: &mut impl FnMut(&Window)) {
        for slot in [&mut self.previous, &mut self.current] {
            if slot.as_ref().is_some_and(|window| now >= window.end.after(GRACE)) {
                slot.take().iter().for_each(&mut *close);
            }
        }
    }

    /// Closes what is open, whatever the time.
    pub(super) fn close_all(&mut self, close: &mut impl FnMut(&Window)) {
        for slot in [&mut self.previous, &mut self.current] {
            slot.take().iter().for_each(&mut *close);
        }
    }

    /// The newest window, if it is open.
    pub(super) const fn current(&self) -> Option<&Window> {
        self.current.as_ref()
    }

    /// The window at a place; none for one that is closed.
    pub(super) const fn window_mut(&mut self, place: WindowPosition) -> Option<&mut Window> {
        match place {
            WindowPosition::Current => self.current.as_mut(),
            WindowPosition::Previous => self.previous.as_mut(),
            WindowPosition::Closed => None,
        }
    }

    /// Whether nothing is open.
    pub(super) const fn is_idle(&self) -> bool {
        self.current.is_none() && self.previous.is_none()
    }

    /// Whether the server's resets move on with each request, so that they are no ends of windows.
    pub(super) const fn is_rolling(&self) -> bool {
        self.resets.is_rolling()
    }

    /// Length of this budget's windows: the nominal one, or the longest reset if the server's windows are longer.
    pub(super) fn length(&self, nominal: Duration) -> Duration {
        let rounding = Duration::from_secs(1);
        let longest = self.resets.longest();
        if self.is_rolling() || longest <= nominal + rounding { nominal } else { longest }
    }

    fn place_by_reset(
        &mut self,
        at: Moment,
        reset: Reset,
        nominal: Duration,
        close: &mut impl FnMut(&Window),
    ) -> WindowPosition {
        let end = at.after(reset.after);
        let tolerance = self.tolerance(reset, nominal);
        if let Some(current) = &mut self.current {
            if at < current.end.after(reset.resolution) && distance(end, current.end) <= tolerance {
                if self.follows_server && end > at {
                    current.end = current.end.min(end);
                    self.last_end = Some(current.end);
                }
                return WindowPosition::Current;
            }
            if end < current.end {
                if self.previous.as_ref().is_some_and(|previous| distance(end, previous.end) <= tolerance) {
                    return WindowPosition::Previous;
                }
                if at <= current.seen.1 {
                    return WindowPosition::Closed;
                }
                // The server tells another story, such as after a restart: its windows begin anew.
                self.resets.restart(at, reset);
            }
        }
        let length = self.length(nominal);
        let start = self.last_end.filter(|last| *last <= at).unwrap_or_default().max(end.before(length)).min(at);
        self.follows_server = true;
        self.open(start, end.max(at), at, close);
        WindowPosition::Current
    }

    fn place_by_time(&mut self, at: Moment, nominal: Duration, close: &mut impl FnMut(&Window)) -> WindowPosition {
        if let Some(current) = &self.current {
            if at >= current.start && at < current.end {
                return WindowPosition::Current;
            }
            if at < current.start {
                let previous = self.previous.as_ref().filter(|previous| at >= previous.start && at < previous.end);
                return if previous.is_some() { WindowPosition::Previous } else { WindowPosition::Closed };
            }
        }
        // Windows go on from the last one whose end the server named; else they lie on the grid of the epoch.
        let anchor = if self.follows_server { self.last_end.unwrap_or_default() } else { Moment::default() };
        let length = self.length(nominal).max(Duration::from_millis(1));
        if at < anchor {
            return WindowPosition::Closed;
        }
        let passed = at.since(anchor).as_nanos() / length.as_nanos();
        let start = anchor.after(multiple(length, passed));
        self.open(start, start.after(length), at, close);
        WindowPosition::Current
    }

    fn open(&mut self, start: Moment, end: Moment, at: Moment, close: &mut impl FnMut(&Window)) {
        self.previous.take().iter().for_each(&mut *close);
        self.opened += 1;
        self.previous = self.current.replace(Window::new(self.opened, start, end, at));
        self.last_end = Some(end);
    }

    /// Two ends closer than this are one.
    fn tolerance(&self, reset: Reset, nominal: Duration) -> Duration {
        (self.resets.longest().min(nominal) / 2).max(reset.resolution)
    }
}

fn distance(a: Moment, b: Moment) -> Duration {
    if a > b { a.since(b) } else { b.since(a) }
}

/// `length * times` without overflow; a window's length times the number of windows since the epoch fits.
fn multiple(length: Duration, times: u128) -> Duration {
    let nanos = length.as_nanos().saturating_mul(times);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn moment(seconds: f64) -> Moment {
        Moment::from_unix(Duration::from_secs_f64(seconds))
    }

    /// Plays `(time, reset in whole seconds)` and gives the times of the first and last observation of each window.
    fn windows(steps: &[(f64, Option<u64>)]) -> Vec<(f64, f64)> {
        let mut timeline = Timeline::default();
        let mut closed = Vec::new();
        let mut close = |window: &Window| closed.push((window.seen.0.unix_seconds(), window.seen.1.unix_seconds()));
        for (at, reset) in steps {
            let reset =
                reset.map(|after| Reset { after: Duration::from_secs(after), resolution: Duration::from_secs(1) });
            timeline.place(moment(*at), reset, TEN, &mut close);
        }
        timeline.advance(moment(1e6), &mut close);
        assert!(timeline.is_idle());
        closed
    }

    #[test]
    fn without_resets_windows_lie_on_the_grid_of_the_epoch() {
        assert_eq!(windows(&[(101.0, None), (109.9, None), (110.0, None)]), [(101.0, 109.9), (110.0, 110.0)]);
    }

    #[test]
    fn whole_seconds_rounded_up_are_one_window() {
        // The window ends at 103.5; the server rounds up.
        let steps = [(94.0, Some(10)), (97.2, Some(7)), (103.4, Some(1)), (103.6, Some(10)), (113.4, Some(1))];
        assert_eq!(windows(&steps), [(94.0, 103.4), (103.6, 113.4)]);
    }

    #[test]
    fn whole_seconds_rounded_down_are_one_window() {
        let steps = [(94.0, Some(9)), (97.2, Some(6)), (103.4, Some(0)), (103.6, Some(9)), (113.4, Some(0))];
        assert_eq!(windows(&steps), [(94.0, 103.4), (103.6, 113.4)]);
    }

    #[test]
    fn a_window_shorter_than_the_nominal_one_closes_by_the_server_s_word() {
        let steps = [(100.1, Some(2)), (101.9, Some(1)), (102.0, Some(2)), (103.9, Some(1)), (104.1, Some(2))];
        assert_eq!(windows(&steps), [(100.1, 101.9), (102.0, 103.9), (104.1, 104.1)]);
    }

    #[test]
    fn a_window_longer_than_the_nominal_one_closes_by_the_server_s_word() {
        let steps = [(100.0, Some(60)), (130.0, Some(30)), (159.5, Some(1)), (160.0, Some(60))];
        assert_eq!(windows(&steps), [(100.0, 159.5), (160.0, 160.0)]);
    }

    #[test]
    fn a_late_answer_counts_for_the_window_that_it_was_made_in() {
        // The answer of the old window (reset 1) arrives after two of the new one.
        let steps = [(100.0, Some(10)), (110.1, Some(10)), (110.4, Some(10)), (110.5, Some(0)), (111.0, Some(9))];
        assert_eq!(windows(&steps), [(100.0, 110.5), (110.1, 111.0)]);
    }

    #[test]
    fn an_answer_for_a_closed_window_is_left_out() {
        let mut timeline = Timeline::default();
        let mut count = 0;
        let mut close = |_: &Window| count += 1;
        timeline.place(moment(100.0), None, TEN, &mut close);
        timeline.place(moment(125.0), None, TEN, &mut close);
        assert_eq!(timeline.place(moment(105.0), None, TEN, &mut close), WindowPosition::Closed);
        assert_eq!(count, 1);
    }

    #[test]
    fn a_moving_reset_gives_windows_of_the_nominal_length() {
        // A token bucket under load: full again 8 s after each request.
        let steps: Vec<_> = (0..600).map(|step| (1000.0 + f64::from(step) * 0.1, Some(8))).collect();
        let closed = windows(&steps);
        assert!((6..=8).contains(&closed.len()), "{closed:?}");
        let tail = &closed[2..closed.len() - 1];
        assert!(tail.iter().all(|(first, last)| last - first < 10.0 && last - first > 9.0), "{closed:?}");
    }

    #[test]
    fn a_sliding_log_under_load_gives_windows_of_the_nominal_length() {
        // Once the log is full, its oldest request leaves within a second of any moment.
        let steps: Vec<_> = (0_u32..600)
            .map(|step| {
                (1000.0 + f64::from(step) * 0.1, Some(u64::from(100_u32.saturating_sub(step).div_ceil(10).max(1))))
            })
            .collect();
        let closed = windows(&steps);
        assert!((6..=9).contains(&closed.len()), "{closed:?}");
    }

    #[test]
    fn a_new_story_of_the_server_begins_a_new_window() {
        let steps = [(100.0, Some(3600)), (101.0, Some(9)), (105.0, Some(5)), (110.5, Some(10))];
        assert_eq!(windows(&steps), [(100.0, 100.0), (101.0, 105.0), (110.5, 110.5)]);
    }

    #[test]
    fn without_a_reset_windows_go_on_from_the_server_s_last_one() {
        let steps = [(103.0, Some(5)), (107.9, None), (108.1, None), (117.9, None), (118.1, Some(10))];
        assert_eq!(windows(&steps), [(103.0, 107.9), (108.1, 117.9), (118.1, 118.1)]);
    }
}
