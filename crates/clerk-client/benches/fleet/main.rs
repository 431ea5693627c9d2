//! A fleet of gateways that share one instance's limit: in simulated time, and over a real redis-server. Prints the
//! tables of `docs/scale.md`.
//!
//! Words after `--bench` choose tables: `simulated`, `lost`, `calls`, `real`.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "its result")]

mod server;
mod simulated;

use std::time::Duration;

use clerk_client::limiter::CountingKind;
use clerk_simulator::LimiterKind;

use server::{Cost, RealFleet, costs, lease_cost};
use simulated::{Fleet, WINDOW, measure};

fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    // As in criterion: without `--bench` only check that it runs.
    let is_whole = words.iter().any(|word| word == "--bench");
    let tables = ["simulated", "lost", "calls", "real"];
    let chosen =
        |table: &str| words.iter().any(|word| word == table) || !words.iter().any(|word| tables.contains(&&**word));
    let sizes: &[usize] = if is_whole { &[1, 10, 100, 1000] } else { &[5] };
    if chosen("simulated") {
        simulated(sizes, is_whole);
    }
    if chosen("lost") {
        lost(sizes, is_whole);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if chosen("calls") {
        runtime.block_on(calls(is_whole));
    }
    if chosen("real") {
        runtime.block_on(real(sizes, is_whole));
    }
}

fn at(sorted: &[Duration], share: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
    let place = (sorted.len().saturating_sub(1) as f64 * share) as usize;
    sorted.get(place).map_or(0.0, Duration::as_secs_f64)
}

fn simulated(sizes: &[usize], is_whole: bool) {
    println!("Simulated, measured for 60 s after 60 s\n");
    println!(
        "| limit in 10 s | demand | gateways | came | answered | shed | 429s | most in a window | of the limit | \
         script calls/s | calls per request | largest log | p50 s | p90 s | p99 s | answered by a gateway, least, mean, most |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let limits: &[u64] = if is_whole { &[1000, 100] } else { &[100] };
    let demands: &[f64] = if is_whole { &[0.5, 1.0, 3.0] } else { &[3.0] };
    let length = if is_whole { WINDOW * 6 } else { WINDOW };
    for limit in limits {
        for demand in demands {
            for gateways in sizes {
                let fleet = Fleet {
                    gateways: *gateways,
                    limit: *limit,
                    demand: *demand,
                    limiter: LimiterKind::SlidingWindow,
                    warm_up: length,
                    length,
                    is_log_lost: false,
                };
                let measured = measure(fleet);
                let (least, most) = (measured.by_gateway[0], measured.by_gateway[gateways - 1]);
                println!(
                    "| {limit} | {demand} | {gateways} | {} | {} | {} | {} | {} | {:.0} % | {:.0} | {:.1} | {} | {:.2} | {:.2} | {:.2} | {least}, {:.1}, {most} ({:?}) |",
                    measured.came,
                    measured.answered,
                    measured.shed,
                    measured.throttled,
                    measured.most_in_window,
                    measured.used * 100.0,
                    measured.calls_per_second(length),
                    measured.calls_per_request(),
                    measured.largest_log,
                    at(&measured.waits, 0.5),
                    at(&measured.waits, 0.9),
                    at(&measured.waits, 0.99),
                    measured.answered as f64 / *gateways as f64,
                    measured.counting,
                );
            }
        }
    }
    println!();
}

fn lost(sizes: &[usize], is_whole: bool) {
    println!("Simulated, the log is lost after 60 s, measured for 60 s from then on\n");
    println!("| limit in 10 s | gateways | of the limit | most that Clerk accepted in a window | 429s |");
    println!("|---|---|---|---|---|");
    let length = if is_whole { WINDOW * 6 } else { WINDOW };
    for limit in [1000, 100] {
        for gateways in sizes {
            let fleet = Fleet {
                gateways: *gateways,
                limit,
                demand: 3.0,
                limiter: LimiterKind::SlidingWindow,
                warm_up: length,
                length,
                is_log_lost: true,
            };
            let measured = measure(fleet);
            println!(
                "| {limit} | {gateways} | {:.0} % | {} | {} |",
                measured.used * 100.0,
                measured.most_in_window,
                measured.throttled
            );
        }
    }
    println!();
}

async fn calls(is_whole: bool) {
    println!("A real redis-server: microseconds for a call with a full log, in the script and of CPU time\n");
    println!("| how Clerk counts | entries | bytes of the log | bytes per entry | admitted | refused | end |");
    println!("|---|---|---|---|---|---|---|");
    let limits: &[u64] = if is_whole { &[100, 1000, 10_000, 100_000] } else { &[100] };
    let calls = if is_whole { 8_000 } else { 200 };
    for counting in [CountingKind::Exact, CountingKind::Unknown, CountingKind::SlidingCounter] {
        for limit in limits {
            let costs = costs(*limit, counting, calls).await;
            let text = |cost: Cost| format!("{:.0}, {:.0}", cost.script, cost.cpu);
            println!(
                "| {counting:?} | {} | {} | {:.0} | {} | {} | {} |",
                costs.entries,
                costs.log_bytes,
                costs.log_bytes as f64 / costs.entries as f64,
                text(costs.admitted),
                text(costs.refused),
                text(costs.ended)
            );
        }
    }
    let Cost { script, cpu } = lease_cost(calls).await;
    println!("\nTo renew a lease: {script:.1} in the script, {cpu:.1} of CPU time\n");
}

async fn real(sizes: &[usize], is_whole: bool) {
    println!("A real redis-server and a fleet in real time, demand three times the limit\n");
    println!(
        "| limit in 10 s | how Clerk counts | gateways | script calls/s | µs in the script, of CPU | of a core | of the limit | most in a window | \
         entries | bytes of the log | bytes of all data | reachable | p50 s | p99 s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let (warm_up, length) = if is_whole { (WINDOW * 2, WINDOW * 2) } else { (WINDOW / 20, WINDOW / 10) };
    let largest = &sizes[sizes.len() - 1..];
    let runs: &[(u64, CountingKind, &[usize])] = if is_whole {
        &[
            (1000, CountingKind::Exact, sizes),
            (1000, CountingKind::SlidingCounter, largest),
            (100, CountingKind::Exact, largest),
        ]
    } else {
        &[(100, CountingKind::Exact, sizes)]
    };
    for (limit, counting, sizes) in runs {
        for gateways in *sizes {
            let (gateways, limit, counting) = (*gateways, *limit, *counting);
            let fleet = RealFleet { gateways, limit, demand: 3.0, counting, warm_up, length };
            let measured = fleet.measure().await;
            println!(
                "| {limit} | {counting:?} | {gateways} | {:.0} | {:.0}, {:.0} | {:.0} % | {:.0} % | {} | {} | {} | {} | {} | {:.2} | {:.2} |",
                measured.calls,
                measured.cost.script,
                measured.cost.cpu,
                measured.calls * measured.cost.cpu / 1e4,
                measured.used * 100.0,
                measured.most_in_window,
                measured.entries,
                measured.log_bytes,
                measured.data_bytes,
                measured.reachable,
                at(&measured.waits, 0.5),
                at(&measured.waits, 0.99),
            );
        }
    }
}
