//! Comparisons of closed windows, and of the usage by other clients.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use clerk_simulator::{LimiterKind, SimulatedBucket};

use crate::model::{LIMIT, WINDOW, grid, in_last_window};
use crate::table::{Outcome, Table};
use crate::tape::Budget;
use crate::view::{View, times};
use crate::world::{Clients, Foreign, Headers, Processes};

/// Windows wait this long for late responses.
const GRACE: Duration = Duration::from_secs(2);

/// Maximum number of requests that overtake each other.
pub(crate) const OVERTAKING: u64 = 4;

/// A window of the grid in which the process sent requests.
#[derive(Debug, Clone, Copy, Default)]
struct Truth {
    /// Its requests that Clerk did not reject.
    own: u64,
    /// The same for all processes.
    all: u64,
    /// The most of them that started within a period as long as a window, if the limiter may weigh the previous window.
    stretch: u64,
    /// Whether a response arrived before the window closed.
    is_told: bool,
    /// Whether there was a 429.
    is_refused: bool,
    /// The lowest remaining quota by the limiter's record.
    least: u64,
}

impl Truth {
    fn is_low(&self) -> bool {
        self.least * 10 < LIMIT
    }

    fn used(&self) -> f64 {
        1.0 - self.least as f64 / LIMIT as f64
    }

    /// By the count of the process or of its fleet.
    fn is_low_by_count(&self, is_fleet: bool) -> bool {
        let count = if is_fleet { self.all } else { self.own }.max(self.stretch);
        self.is_refused || LIMIT.saturating_sub(count) * 10 < LIMIT
    }
}

/// The windows of the grid in which the process sent requests, by their start.
fn truths(view: &View<'_>) -> BTreeMap<Duration, Truth> {
    let mut windows: BTreeMap<Duration, Truth> = BTreeMap::new();
    for sent in view.own_instance() {
        let window = windows.entry(grid(sent.at)).or_insert(Truth { least: LIMIT, ..Truth::default() });
        window.is_told |= sent.head.is_some_and(|head| head.at < grid(sent.at) + WINDOW + GRACE);
        window.is_refused |= sent.is_refused_to_us();
        window.own += u64::from(!sent.is_refused_to_us());
        window.all += u64::from(!sent.is_refused_to_us());
    }
    for sent in view.theirs().filter(|sent| !sent.is_refused_to_us()) {
        if let Some(window) = windows.get_mut(&grid(sent.at)) {
            window.all += 1;
        }
    }
    // A limiter that pacing took for a sliding counter is treated as one until that is refuted.
    if view.case.limiter == LimiterKind::SlidingCounter || view.is_recognised() {
        let all = view.sent.iter().filter(|sent| sent.budget == Budget::Instance && !sent.is_refused_to_us());
        let all: Vec<Duration> = all.map(|sent| sent.at).collect();
        for (place, at) in all.iter().enumerate() {
            if let Some(window) = windows.get_mut(&grid(*at)) {
                window.stretch = window.stretch.max(in_last_window(&all[..=place], *at));
            }
        }
    }
    let truth = view.world.simulator.truth();
    let recorded = truth.instances.iter().filter_map(|instance| instance.bucket(SimulatedBucket::Instance));
    for record in recorded.flat_map(|bucket| &bucket.windows) {
        if let Some(window) = windows.get_mut(&record.start.duration_since(UNIX_EPOCH).unwrap()) {
            window.least = if record.refused > 0 { 0 } else { u64::from(record.least_remaining) };
        }
    }
    windows
}

/// Windows of a limiter whose windows begin with their first request, if the process sent requests in them.
fn from_first(view: &View<'_>) -> Vec<Truth> {
    let mut events: Vec<(Duration, bool, bool)> = view
        .sent
        .iter()
        .filter(|sent| sent.budget == Budget::Instance)
        .filter_map(|sent| sent.counted.map(|(at, allowed)| (at, allowed, sent.by == view.process.number)))
        .chain(view.world.tape.foreign().into_iter().map(|(at, allowed)| (at, allowed, false)))
        .collect();
    events.sort_by_key(|(at, ..)| *at);
    let mut windows: Vec<(Duration, Truth)> = Vec::new();
    for (at, is_allowed, is_own) in events {
        if windows.last().is_none_or(|(start, _)| at >= *start + WINDOW) {
            windows.push((at, Truth { least: LIMIT, ..Truth::default() }));
        }
        let Some((_, window)) = windows.last_mut() else { continue };
        window.least = if is_allowed { window.least.saturating_sub(1) } else { 0 };
        window.own += u64::from(is_own);
    }
    let own = windows.into_iter().filter(|(_, window)| window.own > 0);
    own.map(|(start, window)| untold_taken_off(view, start, window)).collect()
}

/// A window of a limiter with different windows, with the lowest possible value: requests without a statement may be
/// subtracted from a neighbour's.
fn untold_taken_off(view: &View<'_>, start: Duration, window: Truth) -> Truth {
    let near = start.saturating_sub(GRACE)..start + WINDOW + GRACE;
    let untold =
        view.own_instance().filter(|sent| sent.head.is_none_or(|it| it.said.is_none()) && near.contains(&sent.at));
    Truth { least: window.least.saturating_sub(untold.count() as u64), ..window }
}

/// Counts windows that are closed for certain, those that may be, and those that have begun.
fn count(windows: &BTreeMap<Duration, Truth>, now: Duration, is_it: impl Fn(&Duration, &Truth) -> bool) -> [f64; 3] {
    let until =
        |begin: Duration| windows.iter().filter(|(start, it)| **start + begin <= now && is_it(start, it)).count();
    [WINDOW + GRACE, WINDOW, Duration::ZERO].map(|begin| until(begin) as f64)
}

pub(crate) fn compare(view: &View<'_>, table: &mut Table) {
    let (bucket, now) = (view.bucket(), view.now);
    let windows = truths(view);
    let is_counted = view.case.headers == Headers::None;
    let is_fleet = view.case.processes == Processes::Fleet;
    let found = [bucket.windows, bucket.low_windows, bucket.exhausted_windows].map(|count| count as f64);
    // If Clerk is slow, its headers are less exact about the window's end.
    let is_slow = !is_counted && view.case.clients == Clients::Leave;
    if is_counted || view.case.is_grid() && !is_slow {
        // A window without any response is unknown if only responses report the usage.
        let is_known = is_counted && !view.is_use_unknown();
        let [sure, ..] = count(&windows, now, |_, window| is_known || window.is_told);
        let [_, maybe, _] = count(&windows, now, |_, _| true);
        table.add("windows", Outcome::between(found[0], sure, maybe, maybe));
    }
    let whole = |start: &Duration| *start >= view.since;
    let is_exact = is_counted && view.is_sole() && view.case.is_grid() && view.case.foreign == Foreign::None;
    let names = ["low windows", "exhausted windows"];
    for (place, name) in names.into_iter().enumerate() {
        let is_bad = |window: &Truth| if place == 0 { window.is_low() } else { window.least == 0 };
        let by_count = |window: &Truth| {
            let count = if is_fleet { window.all } else { window.own }.max(window.stretch);
            let is_known = is_counted && !view.is_use_unknown();
            let exhausted = window.is_refused || is_known && count >= LIMIT;
            exhausted || place == 0 && is_known && window.is_low_by_count(is_fleet)
        };
        let outcome = if is_exact {
            let [sure, maybe, _] = count(&windows, now, |start, window| {
                // Of the window in which it started, it only knows rejections.
                is_bad(window) && whole(start) || window.is_refused
            });
            Outcome::between(found[place + 1], sure, maybe, maybe)
        } else if view.case.is_grid() {
            let [_, most, _] = count(&windows, now, |_, window| is_bad(window));
            Outcome::at_most(found[place + 1], most, 0.0)
        } else if is_counted {
            let [_, most, _] = count(&windows, now, |_, window| by_count(window));
            Outcome::at_most(found[place + 1], most, 0.0)
        } else if view.case.limiter == LimiterKind::FixedFromFirst {
            // Requests that overtake each other are subtracted once too often.
            let mut windows = from_first(view);
            windows.iter_mut().for_each(|window| window.least = window.least.saturating_sub(OVERTAKING));
            let most = windows.iter().filter(|window| is_bad(window)).count() as f64;
            // If responses do not state the window's end, or only to some seconds, a bad window may lie in two of the
            // ledger's.
            let parts = if view.case.headers == Headers::Partial || is_slow { 2.0 } else { 1.0 };
            Outcome::between(found[place + 1], 0.0, most * parts, most)
        } else {
            // Only a sliding limiter knows where its bad period begins: it may lie in two windows. And recognizing the
            // sliding takes a while.
            let taken_off = |start: &Duration, window: &Truth| is_bad(&untold_taken_off(view, *start, *window));
            let [.., most] = count(&windows, now, taken_off);
            Outcome::between(found[place + 1], 0.0, most * 2.0 + 2.0, most)
        };
        table.add(name, outcome);
    }
    histogram(view, table, &windows, is_exact);
    unseen(view, table);
}

fn histogram(view: &View<'_>, table: &mut Table, windows: &BTreeMap<Duration, Truth>, is_exact: bool) {
    const NAME: &str = "window usage histogram";
    let found = view.bucket().window_usage.as_ref().filter(|histogram| histogram.count() > 0);
    let Some(found) = found else { return table.add(NAME, Outcome::Absent) };
    if view.is_use_unknown() {
        return table.add(NAME, Outcome::Violation("a use where none is known".to_owned()));
    }
    let sum = |grace: Duration, used: &dyn Fn(&Truth) -> f64| -> f64 {
        let over = windows.iter().filter(|(start, _)| **start + WINDOW + grace <= view.now);
        let over = over.filter(|(start, _)| !is_exact || **start >= view.since);
        over.map(|(_, window)| used(window)).sum()
    };
    let is_counted = view.case.headers == Headers::None;
    let is_fleet = view.case.processes == Processes::Fleet;
    let outcome = if is_exact {
        let sums = [GRACE, Duration::ZERO].map(|grace| sum(grace, &Truth::used));
        Outcome::between(found.sum(), sums[0], sums[1], sums[1])
    } else if view.case.is_grid() {
        Outcome::at_most(found.sum(), sum(Duration::ZERO, &Truth::used), 0.0)
    } else if is_counted {
        let used = |window: &Truth| {
            let count = if is_fleet { window.all } else { window.own }.max(window.stretch);
            if window.is_refused { 1.0 } else { (count as f64 / LIMIT as f64).min(1.0) }
        };
        Outcome::at_most(found.sum(), sum(Duration::ZERO, &used), 0.0)
    } else {
        return;
    };
    table.add(NAME, outcome);
}

fn unseen(view: &View<'_>, table: &mut Table) {
    const NAME: &str = "unseen requests";
    if view.process.gateway.is_none() {
        return;
    }
    let Some(found) = view.bucket().unseen else { return table.add(NAME, Outcome::Absent) };
    // Without shared counting, the other process is an other client, too; and a 429 reveals nothing there.
    let is_part = view.case.processes == Processes::Part;
    if is_part && view.case.headers == Headers::None {
        return table.add(NAME, Outcome::Violation(format!("{found} beside processes that are not counted")));
    }
    let mut others = view.foreign.to_vec();
    if is_part {
        others.extend(times(view.theirs()));
        others.sort_unstable();
    }
    // A 429 concerns two windows; a header as many as the limiter covers, plus the response time.
    let remembers_two = view.case.headers == Headers::None || view.case.limiter == LimiterKind::SlidingCounter;
    let windows = if remembers_two { 2 } else { 1 };
    let stretch = WINDOW * windows + WINDOW / 50 * windows + Duration::from_secs(4);
    let from = view.now.saturating_sub(Duration::from_secs(62));
    let within = |end: &Duration| {
        let begin = end.saturating_sub(stretch);
        others.partition_point(|at| at <= end) - others.partition_point(|at| *at < begin)
    };
    let most = others.iter().filter(|at| **at >= from).map(within).max().unwrap_or_default();
    table.add(NAME, Outcome::at_most(found as f64, most as f64, 0.0));
}

/// Whether a low window that the process knows of ended in the last minute.
pub(crate) fn is_low_lately(view: &View<'_>) -> bool {
    let is_counted = view.case.headers == Headers::None;
    let is_fleet = view.case.processes == Processes::Fleet;
    let is_exact = is_counted && view.is_sole() && view.case.is_grid() && view.case.foreign == Foreign::None;
    truths(view).iter().any(|(start, window)| {
        let end = *start + WINDOW;
        let is_lately = end + GRACE <= view.now && view.now < end + Duration::from_secs(60);
        let is_low = if is_exact { window.is_low() } else { window.own > 90 };
        let is_known = is_counted && !is_fleet && !view.is_use_unknown() && *start >= view.since;
        let is_low = is_low && is_known;
        is_lately && is_low
    })
}
