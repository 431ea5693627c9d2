//! Comparisons of current values.

use std::time::Duration;

use clerk_quota::Moment;
use clerk_quota::condition::{Condition, Verdict};
use clerk_quota::snapshot::Basis;

use crate::model::{LIMIT, WINDOW, exhausted_at};
use crate::table::{Outcome, Table, VERDICT};
use crate::tape::{Budget, Sent};
use crate::view::{View, at};
use crate::windows::OVERTAKING;
use crate::world::{Case, Clients, Headers, Processes, World};
use crate::{spending, windows};

/// How long an observation counts for the peak and the verdict.
const PRESENT: Duration = Duration::from_secs(60);
/// Responses in flight when a block began do not end it.
const GRACE: Duration = Duration::from_secs(2);

/// The comparison.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) table: Table,
}

impl Watch {
    pub(crate) fn begin(&mut self, number: usize) {
        self.table.world = number;
    }

    /// Compares the current values of each process.
    pub(crate) fn scrape(&mut self, world: &World) {
        self.compare(world, false);
    }

    /// Compares at the end, when nothing is in flight.
    pub(crate) fn finish(&mut self, world: &World) {
        self.compare(world, true);
    }

    fn compare(&mut self, world: &World, is_end: bool) {
        let (sent, now) = (world.tape.sent(), world.tape.now());
        let foreign: Vec<Duration> =
            world.tape.foreign().into_iter().filter(|(_, allowed)| *allowed).map(|(at, _)| at).collect();
        for process in &world.processes {
            let snapshot = process.ledger.lock().snapshot(world.clock.now());
            let (since, case) = (world.tape.base(), world.case);
            let view = View { world, case, process, snapshot, now, since, sent: &sent, foreign: &foreign };
            let table = &mut self.table;
            table.context = context(case, process.number, now.saturating_sub(since));
            limit(&view, table);
            remaining(&view, table);
            peak(&view, table);
            forecast(&view, table);
            blocked(&view, table);
            verdict(&view, table);
            windows::compare(&view, table);
            spending::compare(&view, table, is_end);
        }
    }
}

fn context(case: Case, process: usize, now: Duration) -> String {
    let Case { limiter, headers, processes, policies, foreign, clients, seed } = case;
    let world = format!("{limiter} {headers:?} {processes:?} {policies:?} foreign {foreign:?} {clients:?} seed {seed}");
    format!("{world}, process {process}, {:.3} s", now.as_secs_f64())
}

fn limit(view: &View<'_>, table: &mut Table) {
    let found = view.bucket().limit;
    table.add("limit", found.map_or(Outcome::Absent, |limit| Outcome::equal(limit as f64, LIMIT as f64)));
}

fn remaining(view: &View<'_>, table: &mut Table) {
    let found = view.bucket().remaining;
    let is_blocked = view.bucket().blocked_until.is_some();
    if view.is_by_headers() {
        let Some(found) = found else { return table.add("remaining, by headers", Outcome::Absent) };
        let outcome = match view.room_since_headers() {
            None => Outcome::Violation(format!("{found} by headers, and no header came")),
            Some((_, most)) => {
                let least = if is_blocked { 0 } else { view.least_by_headers().min(view.room_by_rule()) };
                // A request that was sent first and counted last is subtracted once too often for those in between.
                let least = least.saturating_sub(OVERTAKING);
                Outcome::at_most(found as f64, most as f64, least.min(most) as f64)
            }
        };
        return table.add("remaining, by headers", outcome);
    }
    let Some(found) = found else { return table.add("remaining, counted", Outcome::Absent) };
    let is_known = view.basis() == Some(Basis::Gateway) && view.now >= view.since + WINDOW && !view.is_use_unknown();
    let outcome = if is_known {
        let most = view.room_alone();
        let least = if is_blocked { 0 } else { view.room_by_rule() };
        Outcome::at_most(found as f64, most as f64, least.min(most) as f64)
    } else {
        Outcome::Violation(format!("{found} where the use is not known"))
    };
    table.add("remaining, counted", outcome);
}

fn peak(view: &View<'_>, table: &mut Table) {
    let Some(found) = view.bucket().usage_peak else { return table.add("usage peak", Outcome::Absent) };
    if view.is_use_unknown() {
        return table.add("usage peak", Outcome::Violation(format!("{found} where the use is not known")));
    }
    let from = view.now.saturating_sub(PRESENT - Duration::from_secs(1));
    let counts = view.case.headers == Headers::None;
    let said = |sent: &Sent| sent.head.filter(|head| head.at >= from).and_then(|head| Some(LIMIT - head.said?));
    let said = view.own_instance().filter_map(said).max().unwrap_or_default();
    let is_refused = |from: Duration| {
        view.own_instance().any(|sent| sent.is_refused_to_us() && sent.head.is_some_and(|head| head.at >= from))
    };
    let truth = if is_refused(from) {
        LIMIT
    } else if counts {
        view.own_peak(from).min(LIMIT)
    } else {
        said
    };
    let before = view.now.saturating_sub(PRESENT + Duration::from_secs(2));
    let took = Duration::from_secs(if view.case.clients == Clients::Leave { 4 } else { 1 });
    let told = view.own_instance().filter_map(|sent| Some((sent.head?.at, LIMIT - sent.head?.said?)));
    let told = told.filter(|(at, _)| *at >= before.saturating_sub(WINDOW)).map(|(_, used)| used).max();
    // The stated quota, and the requests sent since without a response.
    let untold = view.most_in_use(before, took);
    let most = if is_refused(before) { LIMIT } else { (told.unwrap_or_default() + untold).min(LIMIT) };
    let (truth, most) = (truth as f64 / LIMIT as f64, most as f64 / LIMIT as f64);
    table.add("usage peak", Outcome::between(found, truth, most.max(truth), truth));
}

fn forecast(view: &View<'_>, table: &mut Table) {
    const NAME: &str = "seconds to exhaustion";
    let Some(found) = view.bucket().to_exhaustion else { return table.add(NAME, Outcome::Absent) };
    let found = found.as_secs_f64();
    if view.bucket().blocked_until.is_some() && found == 0.0 {
        return table.add(NAME, Outcome::Exact);
    }
    let (known, per_second, slowest) = if view.is_by_headers() {
        let statements = view.statements();
        let (Some((known, room)), Some(newest)) = (view.room_since_headers(), statements.last()) else { return };
        if !view.case.is_grid() {
            // Only the limiter knows where its window begins.
            return;
        }
        let newest = newest.head.map_or(view.now, |head| head.at);
        // Requests sent since are used, too.
        let newest = view.own_instance().map(|sent| sent.at).fold(newest, Duration::max);
        let passed = newest.saturating_sub(crate::model::grid(view.now)).as_secs_f64();
        let used = (LIMIT - room) as f64;
        let pace = used / passed.max(0.1);
        // At that rate nothing may be left by now: then nothing more is sent, and the rate until now applies.
        let is_over = newest + Duration::from_secs_f64(room as f64 / pace.max(0.01)) <= view.now;
        let until = if is_over { view.now } else { newest };
        // Clerk's resets are whole seconds, and so is the known start of the window.
        let longest = until.saturating_sub(crate::model::grid(view.now)).as_secs_f64() + 1.0;
        (known, pace, used / longest)
    } else {
        let look_back = Duration::from_secs(2);
        // The rate of counted requests: rejected ones do not count.
        let is_lately = |sent: &&Sent| sent.at > view.now.saturating_sub(look_back) && !sent.is_refused_to_us();
        let lately = view.own_instance().filter(is_lately).count();
        let pace = lately as f64 / look_back.as_secs_f64();
        (view.counted(), pace, pace)
    };
    let limiter = view.known_limiter();
    let truth = exhausted_at(limiter, &known, view.now, per_second);
    let latest = exhausted_at(limiter, &known, view.now, slowest);
    // One request; and Clerk's resets are whole seconds.
    let one = 1.0 / slowest.max(0.01) + if view.is_by_headers() { 1.0 } else { 0.0 };
    let outcome = match (truth, latest) {
        // It lasts longer than a window: a warning too early.
        (None, _) | (_, None) => Outcome::Bound((WINDOW.as_secs_f64() - found).max(0.0)),
        (Some(truth), Some(latest)) => Outcome::between(found, 0.0, latest.as_secs_f64() + one, truth.as_secs_f64()),
    };
    table.add(NAME, outcome);
}

fn blocked(view: &View<'_>, table: &mut Table) {
    let mut heads: Vec<_> = view.own_instance().filter_map(|sent| sent.head).collect();
    heads.sort_by_key(|head| head.at);
    let (mut until, mut since) = (None, None);
    for head in heads {
        if let (429, Some(wait)) = (head.status, head.retry_after) {
            until = until.max(Some(head.at + wait));
            since = since.max(Some(head.at));
        } else if since.is_some_and(|since| head.at >= since + GRACE) {
            (until, since) = (None, None);
        }
    }
    let truth = until.filter(|until| *until > view.now);
    let found = view.bucket().blocked_until.map(at);
    let outcome = match (found, truth) {
        (None, None) => Outcome::Absent,
        (Some(found), Some(truth)) => Outcome::equal(found.as_secs_f64(), truth.as_secs_f64()),
        (found, truth) => Outcome::Violation(format!("{found:?}, and by Clerk's word {truth:?}")),
    };
    table.add("blocked until", outcome);
}

fn verdict(view: &View<'_>, table: &mut Table) {
    let found = Condition::of(&view.snapshot, Moment::from_unix(view.now)).verdict;
    let limited = view.own().filter(|sent| sent.budget != Budget::Unlimited && sent.is_refused_to_us());
    let refused = limited.filter_map(|sent| sent.head).map(|head| head.at).max();
    let is_refused = refused.is_some_and(|at| view.now < at + PRESENT);
    let basis = view.basis();
    let is_basis_right = match basis {
        Some(Basis::Headers) => view.case.headers != Headers::None,
        Some(Basis::Gateway) => matches!(view.case.processes, Processes::Sole | Processes::Fleet),
        Some(Basis::Probe | Basis::Configured) => view.bucket().remaining.is_none(),
        Some(Basis::Client | Basis::Mixed | Basis::Telemetry | Basis::Sampled) | None => false,
    };
    let is_right = is_basis_right
        && match found {
            Verdict::Throttled | Verdict::Blocked => {
                is_refused || view.snapshot.buckets.iter().any(|it| it.blocked_until.is_some())
            }
            // A window with a 429 was low, too, and may have ended later.
            Verdict::Low => {
                !is_refused
                    && (!view.is_use_unknown() || refused.is_some_and(|at| view.now < at + PRESENT + WINDOW + GRACE))
            }
            Verdict::Fine => !is_refused && basis.is_some_and(Basis::knows_use) && !windows::is_low_lately(view),
            Verdict::UseUnknown => !is_refused && view.bucket().remaining.is_none(),
        };
    table.add(VERDICT, Outcome::right(is_right, || format!("{found:?} on {basis:?}, last 429 {refused:?}")));
}
