//! The windows of one budget over time: assigns observations to windows and closes windows that are over.
//!
//! A window ends at the reset that the server names, else on a grid of whole windows since the UNIX epoch. The
//! complications:
//!
//! - Resets often come in whole seconds, rounded up or down, and responses take time. Two resets that are closer
//!   together than half a window are the same.
//! - Responses to parallel requests arrive out of order. A window therefore stays open for late ones until [`GRACE`]
//!   after its end, next to the window that follows it.
//! - Sliding windows and token buckets have no windows: their reset moves with each request. Once this is detected
//!   ([`Timeline::is_rolling`]), windows of the nominal length follow one another.
//! - A token bucket at low use is full again within about a second, which looks like a very short window. A window is
//!   therefore at least as long as the nominal one, unless more quota came back at its end than an even refill gives
//!   in that time.

use std::time::Duration;

use super::Moment;
pub(super) use super::window::Window;
pub(super) use super::window_kind::Reset;
use super::window_kind::WindowKindDetector;

/// How long a window waits for late responses before it is closed.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// A reset that the server named, with the values reported next to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResetStatement {
    pub reset: Reset,
    pub remaining: Option<u64>,
    pub limit: Option<u64>,
    /// When the request was sent: its window was not over then.
    pub started: Moment,
}

/// The window that an observation belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WindowPosition {
    /// The newest window.
    Current,
    /// The window before it, which still waits for late responses.
    Previous,
    /// A window that is already closed.
    Closed,
}

/// The open windows of one budget.
#[derive(Debug, Clone, Default)]
pub(super) struct Timeline {
    current: Option<Window>,
    previous: Option<Window>,
    /// Number of windows opened so far.
    opened: u64,
    /// End of the newest window.
    last_end: Option<Moment>,
    resets: WindowKindDetector,
    /// Whether the limiter is a sliding counter; `None` if not known.
    is_sliding: Option<bool>,
    /// Whether windows follow the server's resets and not the grid since the UNIX epoch.
    follows_server: bool,
}

impl Timeline {
    /// Finds or opens the window of an observation, by its time or by the reset that the server names.
    ///
    /// `nominal` is the configured window length, or the one that the server reported. Windows that are over by then
    /// are passed to `close`, each exactly once.
    pub(super) fn place(
        &mut self,
        at: Moment,
        reset: Option<ResetStatement>,
        nominal: Duration,
        close: &mut impl FnMut(&Window),
    ) -> WindowPosition {
        self.advance(at, close);
        match reset {
            None => self.place_by_time(at, nominal, close),
            Some(statement) => {
                // The reset was true at some time between start and response: a difference within that time does not
                // mean that it moves.
                let Reset { after, resolution } = statement.reset;
                let took = at.since(statement.started);
                self.resets.watch(at, Reset { after, resolution: resolution.saturating_add(took) });
                if self.is_rolling() {
                    self.place_by_time(at, nominal, close)
                } else {
                    self.place_by_reset(at, statement, nominal, close)
                }
            }
        }
    }

    /// Closes the windows that are over and have waited long enough for late responses.
    pub(super) fn advance(&mut self, now: Moment, close: &mut impl FnMut(&Window)) {
        for slot in [&mut self.previous, &mut self.current] {
            if slot.as_ref().is_some_and(|window| now >= window.end.after(GRACE)) {
                slot.take().iter().for_each(&mut *close);
            }
        }
    }

    /// Closes all open windows, whatever the time.
    pub(super) fn close_all(&mut self, close: &mut impl FnMut(&Window)) {
        for slot in [&mut self.previous, &mut self.current] {
            slot.take().iter().for_each(&mut *close);
        }
    }

    /// Returns the newest window, if it is open.
    pub(super) const fn current(&self) -> Option<&Window> {
        self.current.as_ref()
    }

    /// Returns the window before it, while it waits for late responses.
    pub(super) const fn previous(&self) -> Option<&Window> {
        self.previous.as_ref()
    }

    /// Returns the window at a position; `None` for a closed one.
    pub(super) const fn window_mut(&mut self, place: WindowPosition) -> Option<&mut Window> {
        match place {
            WindowPosition::Current => self.current.as_mut(),
            WindowPosition::Previous => self.previous.as_mut(),
            WindowPosition::Closed => None,
        }
    }

    /// Returns the open window with this number.
    pub(super) fn numbered(&mut self, number: u64) -> Option<&mut Window> {
        [&mut self.current, &mut self.previous].into_iter().flatten().find(|window| window.number == number)
    }

    /// Returns whether no window is open.
    pub(super) const fn is_idle(&self) -> bool {
        self.current.is_none() && self.previous.is_none()
    }

    /// Returns whether the server's resets move with each request, so that they are not ends of windows.
    pub(super) const fn is_rolling(&self) -> bool {
        self.resets.is_rolling()
    }

    /// Returns whether windows slide: a window's use is then the most in any time of one window length.
    pub(super) const fn slides(&self) -> bool {
        self.is_sliding_counter() || self.is_rolling()
    }

    /// Sets whether the limiter is a sliding counter; `None` if not known.
    pub(super) const fn set_sliding(&mut self, is_sliding: Option<bool>) {
        self.is_sliding = is_sliding;
    }

    /// Returns whether the limiter is known to be a sliding counter.
    pub(super) const fn is_sliding_counter(&self) -> bool {
        matches!(self.is_sliding, Some(true))
    }

    /// Returns whether the limiter may weigh the previous window, as a sliding counter does.
    pub(super) const fn may_be_sliding_counter(&self) -> bool {
        !matches!(self.is_sliding, Some(false))
    }

    /// Returns the longest time to a reset that the server named.
    pub(super) const fn longest_reset(&self) -> Duration {
        self.resets.longest()
    }

    /// Returns the window length: the nominal one, or the longest reset if the server's windows are longer.
    pub(super) fn length(&self, nominal: Duration) -> Duration {
        let rounding = Duration::from_secs(1);
        let longest = self.resets.longest();
        if self.is_rolling() || longest <= nominal + rounding { nominal } else { longest }
    }

    fn place_by_reset(
        &mut self,
        at: Moment,
        statement: ResetStatement,
        nominal: Duration,
        close: &mut impl FnMut(&Window),
    ) -> WindowPosition {
        let reset = statement.reset;
        let end = at.after(reset.after);
        let tolerance = self.tolerance(reset, at.since(statement.started), nominal);
        let length = self.length(nominal);
        let is_short = |last: Moment| end < last.after(length.saturating_sub(tolerance));
        if let Some(current) = &mut self.current {
            // A response may arrive after the end of the window in which its request was sent.
            let is_open = at < current.end.after(reset.resolution) || statement.started < current.end;
            if is_open && end.distance(current.end) <= tolerance {
                let is_guess = std::mem::take(&mut current.is_guess);
                let sure_end = statement.started.after(reset.after).before(reset.resolution);
                if is_guess && sure_end > current.end {
                    // The server's window lasts beyond the estimated end: its report is about this window, too.
                    current.end = end;
                    self.last_end = Some(end);
                    self.follows_server = true;
                } else if self.follows_server && end > at {
                    current.end = current.end.min(end);
                    self.last_end = Some(current.end);
                }
                return WindowPosition::Current;
            }
            // A window that the server never named may end elsewhere; requests sent after its estimated end are not
            // part of it.
            let is_late = |previous: &Window| {
                end.distance(previous.end) <= tolerance && !(previous.is_guess && statement.started >= previous.end)
            };
            if self.previous.as_ref().is_some_and(is_late) {
                return WindowPosition::Previous;
            }
            if current.is_guess && at < current.end && end > at && !(self.follows_server && is_short(current.start)) {
                // The window was estimated, and the server names its end.
                current.is_guess = false;
                current.end = end;
                current.start =
                    end.before(length).max(self.previous.as_ref().map_or_else(Moment::default, |it| it.end));
                self.last_end = Some(end);
                self.follows_server = true;
                return WindowPosition::Current;
            }
            let has_refilled = has_refilled(current, at, statement, nominal);
            if end < current.end {
                if current.seen.is_some_and(|(_, last)| at <= last) {
                    return WindowPosition::Closed;
                }
                if reset.after < nominal / 2 && !has_refilled {
                    return self.place_by_time(at, nominal, close);
                }
                // The server's windows restart with this reset, such as after a restart of the server.
                self.resets.restart(at, reset);
            } else if self.follows_server && is_short(current.end) && !has_refilled {
                return self.place_by_time(at, nominal, close);
            }
        } else if self.last_end.is_some_and(|last| statement.started < last && end.distance(last) <= tolerance) {
            // The response is so late that its window is closed.
            return WindowPosition::Closed;
        } else if self.follows_server && self.last_end.is_some_and(|last| last <= at && is_short(last)) {
            return self.place_by_time(at, nominal, close);
        }
        let length = self.length(nominal);
        let start = self.last_end.filter(|last| *last <= at).unwrap_or_default().max(end.before(length)).min(at);
        self.follows_server = true;
        self.open(start, end.max(at), close);
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
        // Windows continue from the last end that the server named, else they lie on the grid since the UNIX epoch.
        let anchor = if self.follows_server { self.last_end.unwrap_or_default() } else { Moment::default() };
        let length = self.length(nominal).max(Duration::from_millis(1));
        if at < anchor {
            return WindowPosition::Closed;
        }
        let passed = at.since(anchor).as_nanos() / length.as_nanos();
        let start = anchor.after(multiple(length, passed));
        self.open(start, start.after(length), close);
        if let Some(window) = &mut self.current {
            window.is_guess = true;
        }
        WindowPosition::Current
    }

    fn open(&mut self, start: Moment, end: Moment, close: &mut impl FnMut(&Window)) {
        self.previous.take().iter().for_each(&mut *close);
        self.opened += 1;
        self.previous = self.current.replace(Window::new(self.opened, start, end));
        self.last_end = Some(end);
    }

    /// Returns the distance below which two ends are the same.
    ///
    /// It is half a window, or what rounding and the response time can make of one end, as long as the longest reset
    /// so far is short.
    fn tolerance(&self, reset: Reset, took: Duration, nominal: Duration) -> Duration {
        let blur = reset.resolution.saturating_add(took).min(nominal / 2);
        (self.resets.longest().min(nominal) / 2).max(reset.resolution).max(blur)
    }
}

/// Returns whether more quota came back since the last report than an even refill gives: then the window did end.
fn has_refilled(window: &Window, at: Moment, statement: ResetStatement, nominal: Duration) -> bool {
    let (Some(remaining), Some(limit), Some(least)) = (statement.remaining, statement.limit, window.least_left())
    else {
        return false;
    };
    let since = window.seen.map_or(Duration::ZERO, |(first, _)| at.since(first));
    let refill = limit as f64 * since.as_secs_f64() / nominal.as_secs_f64().max(0.001);
    remaining as f64 > least as f64 + refill + 1.0
}

/// Returns `length * times`, saturating; the result fits for windows since the epoch.
fn multiple(length: Duration, times: u128) -> Duration {
    let nanos = length.as_nanos().saturating_mul(times);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Statement;

    const TEN: Duration = Duration::from_secs(10);

    fn moment(seconds: f64) -> Moment {
        Moment::from_unix(Duration::from_secs_f64(seconds))
    }

    /// Plays `(time, reset in whole seconds)` and returns the times of the first and last observation of each window.
    fn windows(steps: &[(f64, Option<u64>)]) -> Vec<(f64, f64)> {
        play(steps.iter().map(|(at, reset)| (*at, *reset, None)))
    }

    /// Plays `(time, reset in whole seconds, remaining of 100)`.
    fn stated(steps: &[(f64, u64, u64)]) -> Vec<(f64, f64)> {
        play(steps.iter().map(|(at, reset, remaining)| (*at, Some(*reset), Some(*remaining))))
    }

    fn play(steps: impl Iterator<Item = (f64, Option<u64>, Option<u64>)>) -> Vec<(f64, f64)> {
        let mut timeline = Timeline::default();
        let mut closed = Vec::new();
        let mut close = |window: &Window| {
            let (first, last) = window.seen.unwrap();
            closed.push((first.unix_seconds(), last.unix_seconds()));
        };
        for (at, reset, remaining) in steps {
            let at = moment(at);
            let reset =
                reset.map(|after| Reset { after: Duration::from_secs(after), resolution: Duration::from_secs(1) });
            let limit = remaining.map(|_| 100);
            let statement = reset.map(|reset| ResetStatement { reset, remaining, limit, started: at });
            let place = timeline.place(at, statement, TEN, &mut close);
            if let Some(window) = timeline.window_mut(place) {
                window.see(at);
            }
            if let (Some(window), Some(remaining)) = (timeline.window_mut(place), remaining) {
                let end = reset.map(|reset| (at.after(reset.after), reset.resolution));
                window.report(&Statement { at, remaining, limit, end, sure_end: None, unreported: 0 }, 0);
            }
        }
        timeline.advance(moment(1e6), &mut close);
        assert!(timeline.is_idle());
        closed
    }

    #[test]
    fn windows_without_resets_lie_on_the_epoch_grid() {
        assert_eq!(windows(&[(101.0, None), (109.9, None), (110.0, None)]), [(101.0, 109.9), (110.0, 110.0)]);
    }

    #[test]
    fn resets_rounded_up_are_one_window() {
        // The window ends at 103.5; the server rounds up.
        let steps = [(94.0, Some(10)), (97.2, Some(7)), (103.4, Some(1)), (103.6, Some(10)), (113.4, Some(1))];
        assert_eq!(windows(&steps), [(94.0, 103.4), (103.6, 113.4)]);
    }

    #[test]
    fn resets_rounded_down_are_one_window() {
        let steps = [(94.0, Some(9)), (97.2, Some(6)), (103.4, Some(0)), (103.6, Some(9)), (113.4, Some(0))];
        assert_eq!(windows(&steps), [(94.0, 103.4), (103.6, 113.4)]);
    }

    #[test]
    fn window_shorter_than_nominal_closes_at_the_server_reset() {
        // Half of the limit is used in each window and back at its end: no token bucket refills so fast.
        let steps = [(100.1, 2, 90), (101.9, 1, 50), (102.0, 2, 99), (103.9, 1, 50), (104.1, 2, 99)];
        assert_eq!(stated(&steps), [(100.1, 101.9), (102.0, 103.9), (104.1, 104.1)]);
    }

    #[test]
    fn idle_token_bucket_has_nominal_windows() {
        // One request every two seconds for a minute, each refilled within one second.
        let steps: Vec<_> = (0..30).map(|step| (1000.0 + f64::from(step) * 2.0, 1, 99)).collect();
        let closed = stated(&steps);
        assert!((6..=7).contains(&closed.len()), "{closed:?}");
    }

    #[test]
    fn window_longer_than_nominal_closes_at_the_server_reset() {
        let steps = [(100.0, Some(60)), (130.0, Some(30)), (159.5, Some(1)), (160.0, Some(60))];
        assert_eq!(windows(&steps), [(100.0, 159.5), (160.0, 160.0)]);
    }

    #[test]
    fn late_response_counts_in_its_own_window() {
        // The response of the old window (reset 1) arrives after two of the new one.
        let steps = [(100.0, Some(10)), (110.1, Some(10)), (110.4, Some(10)), (110.5, Some(0)), (111.0, Some(9))];
        assert_eq!(windows(&steps), [(100.0, 110.5), (110.1, 111.0)]);
    }

    #[test]
    fn response_of_a_closed_window_is_ignored() {
        let mut timeline = Timeline::default();
        let mut count = 0;
        let mut close = |_: &Window| count += 1;
        timeline.place(moment(100.0), None, TEN, &mut close);
        timeline.place(moment(125.0), None, TEN, &mut close);
        assert_eq!(timeline.place(moment(105.0), None, TEN, &mut close), WindowPosition::Closed);
        assert_eq!(count, 1);
    }

    #[test]
    fn moving_reset_gives_nominal_windows() {
        // A token bucket under load: full again 8 s after each request.
        let steps: Vec<_> = (0..600).map(|step| (1000.0 + f64::from(step) * 0.1, Some(8))).collect();
        let closed = windows(&steps);
        assert!((6..=8).contains(&closed.len()), "{closed:?}");
        let tail = &closed[2..closed.len() - 1];
        assert!(tail.iter().all(|(first, last)| last - first < 10.0 && last - first > 9.0), "{closed:?}");
    }

    #[test]
    fn sliding_log_under_load_gives_nominal_windows() {
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
    fn slow_responses_are_not_a_rolling_window() {
        let mut timeline = Timeline::default();
        for (started, at) in [(110.1, 110.1), (110.5, 111.8), (110.6, 113.6), (110.7, 115.5), (110.8, 117.5)] {
            let reset = Reset { after: TEN, resolution: Duration::from_secs(1) };
            let statement = ResetStatement { reset, remaining: None, limit: None, started: moment(started) };
            timeline.place(moment(at), Some(statement), TEN, &mut |_| {});
        }
        assert!(!timeline.is_rolling());
    }

    #[test]
    fn slow_response_counts_in_the_window_of_its_start() {
        let mut timeline = Timeline::default();
        for (started, at, reset) in [(100.1, 100.2, 10), (109.3, 111.4, 1)] {
            let reset = Reset { after: Duration::from_secs(reset), resolution: Duration::from_secs(1) };
            let statement = ResetStatement { reset, remaining: None, limit: None, started: moment(started) };
            timeline.place(moment(at), Some(statement), TEN, &mut |_| {});
        }
        assert_eq!(timeline.opened, 1);
        // The window is closed by then, and no new one opens.
        let reset = Reset { after: Duration::from_secs(1), resolution: Duration::from_secs(1) };
        let statement = ResetStatement { reset, remaining: None, limit: None, started: moment(109.4) };
        assert_eq!(timeline.place(moment(112.6), Some(statement), TEN, &mut |_| {}), WindowPosition::Closed);
    }

    #[test]
    fn end_tolerance_covers_rounding_and_response_time() {
        // The window ends at 110.0; the first reset is short and rounded up.
        let mut timeline = Timeline::default();
        let mut closed = 0;
        for (started, at, reset) in [(108.3, 108.4, 2), (109.95, 110.1, 1), (110.3, 110.4, 10)] {
            timeline.place(moment(started), None, TEN, &mut |_| closed += 1);
            let reset = Reset { after: Duration::from_secs(reset), resolution: Duration::from_secs(1) };
            let statement = ResetStatement { reset, remaining: None, limit: None, started: moment(started) };
            timeline.place(moment(at), Some(statement), TEN, &mut |_| closed += 1);
        }
        assert_eq!(closed, 0);
        assert_eq!(timeline.opened, 2);
    }

    #[test]
    fn contradicting_reset_starts_a_new_window() {
        let steps = [(100.0, Some(3600)), (101.0, Some(9)), (105.0, Some(5)), (110.5, Some(10))];
        assert_eq!(windows(&steps), [(100.0, 100.0), (101.0, 105.0), (110.5, 110.5)]);
    }

    #[test]
    fn windows_without_reset_continue_from_the_last_server_end() {
        let steps = [(103.0, Some(5)), (107.9, None), (108.1, None), (117.9, None), (118.1, Some(10))];
        assert_eq!(windows(&steps), [(103.0, 107.9), (108.1, 117.9), (118.1, 118.1)]);
    }
}
