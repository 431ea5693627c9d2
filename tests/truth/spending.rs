//! Comparisons of consumption by caller, and of saved requests.

use std::collections::BTreeMap;
use std::time::Duration;

use clerk_exporter::sources::Sources;
use clerk_quota::spending::SpendResult;
use clerk_quota::{Bucket, Source, Span};

use crate::model::LIMIT;
use crate::table::{Outcome, Table};
use crate::tape::{Budget, Caller, Sent};
use crate::view::View;
use crate::world::{Policies, Processes, name};

pub(crate) fn compare(view: &View<'_>, table: &mut Table, is_end: bool) {
    requests(view, table);
    responses(view, table);
    top(view, table);
    in_flight(view, table);
    if is_end {
        saved(view, table);
    }
}

fn limited<'a>(view: &View<'a>) -> impl Iterator<Item = &'a Sent> + use<'a> {
    view.own().filter(|sent| sent.budget != Budget::Unlimited)
}

fn requests(view: &View<'_>, table: &mut Table) {
    let result_of = |sent: &Sent| match sent.head {
        Some(head) if head.status == 429 => SpendResult::Refused,
        Some(_) => SpendResult::Served,
        None => SpendResult::Unknown,
    };
    for result in SpendResult::ALL {
        let spent = view.snapshot.spent.iter().filter(|(key, _)| key.result == result);
        let found: u64 = spent.map(|(_, count)| count).sum();
        let read = limited(view).filter(|sent| sent.ended.is_some() && result_of(sent) == result).count();
        table.add("requests by result", Outcome::equal(found as f64, read as f64));
    }
    let mut read: BTreeMap<Caller, u64> = BTreeMap::new();
    for sent in limited(view).filter(|sent| sent.ended.is_some()) {
        *read.entry(sent.caller).or_default() += 1;
    }
    let both = read.get(&Caller::Both).copied().unwrap_or_default();
    for caller in [Caller::Billing, Caller::Import, Caller::Probe] {
        let spent = view.snapshot.spent.iter().filter(|(key, _)| {
            let spender = key.spender;
            let sources = Sources { gateway: view.process.gateway.clone(), ..Sources::default() };
            *sources.caller_name(spender.caller, spender.source) == *name(caller)
        });
        let found: u64 = spent.map(|(_, count)| count).sum();
        let least = read.get(&caller).copied().unwrap_or_default();
        // A list that both wait for is charged to the first.
        let most = if caller == Caller::Probe { least } else { least + both };
        table.add("requests by caller", Outcome::between(found as f64, least as f64, most as f64, least as f64));
    }
}

fn responses(view: &View<'_>, table: &mut Table) {
    let source = if view.process.gateway.is_some() { Source::Gateway } else { Source::Probe };
    let mut read: BTreeMap<(Source, u16), u64> = BTreeMap::new();
    for head in view.own().filter_map(|sent| sent.head) {
        *read.entry((source, head.status)).or_default() += 1;
    }
    let mut found = view.snapshot.responses.clone();
    found.retain(|_, count| *count > 0);
    let outcome = Outcome::right(found == read, || format!("responses {found:?}, and read {read:?}"));
    table.add("responses and 429s", outcome);
    for (bucket, budget) in [(Bucket::Instance, Budget::Instance), (Bucket::UserUpdate, Budget::User)] {
        let found: u64 = view.snapshot.bucket(bucket).map_or(0, |bucket| bucket.throttled.iter().sum());
        let read = view.own().filter(|sent| sent.budget == budget && sent.is_refused_to_us()).count();
        table.add("responses and 429s", Outcome::equal(found as f64, read as f64));
    }
}

/// The last seconds are whole seconds of the clock.
fn top(view: &View<'_>, table: &mut Table) {
    for (span, seconds) in [(Span::Window, 10), (Span::Minute, 60)] {
        let now = view.world.clock.now();
        let shares = view.process.ledger.lock().top(now, span);
        let found: u64 = shares.iter().map(|share| share.requests).sum();
        let from = Duration::from_secs(view.now.as_secs() + 1 - seconds);
        let read = limited(view).filter(|sent| sent.at >= from).count();
        table.add("top, 10 s and 1 m", Outcome::equal(found as f64, read as f64));
    }
}

fn in_flight(view: &View<'_>, table: &mut Table) {
    let found = view.process.outbound.limits.stats().pace.in_flight;
    let open = view.own().filter(|sent| sent.closed.is_none()).count();
    // Requests that query the shared log count as sent before they are; at most as many as the limit.
    let asks = view.case.processes == Processes::Fleet && view.case.policies == Policies::Pace;
    let asking = if asks { LIMIT } else { 0 };
    let (found, open) = (found as f64, open as f64);
    table.add("limiter in flight", Outcome::between(found, open, open + asking as f64, open));
}

/// Each read with a response of Clerk was sent or saved.
fn saved(view: &View<'_>, table: &mut Table) {
    const NAME: &str = "saved requests";
    let Some(gateway) = &view.process.gateway else { return };
    let stats = gateway.stats();
    let found: u64 = stats.instances.iter().filter(|(name, _)| **name == *"test").flat_map(|(_, it)| it.saved).sum();
    if view.case.policies != Policies::Saving {
        return table.add(NAME, Outcome::equal(found as f64, 0.0));
    }
    let calls = *view.process.calls.lock();
    let reads = view.own().filter(|sent| sent.budget == Budget::Instance);
    let (mut sent, mut failed) = (0, 0);
    for read in reads {
        sent += 1;
        // Requests that may have been retried.
        failed += u64::from(read.head.is_none_or(|head| head.status == 429 || read.closed == read.ended));
    }
    let least = calls.reads.saturating_sub(sent + calls.unanswered);
    let most = calls.reads.saturating_sub(sent) + failed;
    table.add(NAME, Outcome::between(found as f64, least as f64, most as f64, calls.reads.saturating_sub(sent) as f64));
}
