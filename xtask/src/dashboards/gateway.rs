//! The gateway: consumers of the quota, and the gateway's decisions.

use serde_json::json;

use super::panel::{FEW_WANTED, HEADROOM, NEUTRAL, NONE_WANTED, Panel};
use super::{Board, basis, cells, spending};

pub(super) fn dashboard() -> Board {
    let requests = "clerk_gateway_requests_total{@}";
    Board::new(
        "clerk-gateway",
        "Clerk rate limits: gateway",
        "The routes and callers that use the quota of Clerk's Backend API, and what the gateway saves and queues. \
         Needs applications that send requests through the gateway of clerk-exporter.",
    )
    .variable("clerk_instance", "Clerk Instance", "clerk_instance_info{#}", true)
    .variable("caller", "Caller", requests, true)
    .variable("route", "Route", requests, true)
    .row("Right now")
    .line(4, now())
    .row("Top consumers")
    .line(9, [(12, top_routes()), (12, top_callers())])
    .line(9, [(12, routes()), (12, callers())])
    .line(9, [(24, spenders_table())])
    .row("Decisions and policies")
    .line(8, [(9, decisions()), (9, shadow_decisions()), (6, policies())])
    .line(8, [(8, saved()), (8, unseen()), (8, webhooks())])
    .line(8, [(12, cache_hits()), (12, cache_errors())])
    .line(6, [(12, budget_shared()), (12, redis_refused())])
    .row("Queue and retries")
    .line(8, [(8, queue_depth()), (8, queue_wait()), (8, retries())])
    .row("Responses and latency")
    .line(8, [(8, codes()), (8, latency()), (8, slow_routes())])
}

const RATE: &str = "[$__rate_interval]";

fn now() -> [(usize, Panel); 6] {
    [
        (
            4,
            Panel::stat(
                "Requests from callers",
                "Requests that applications send to the gateway.",
                "sum(rate(clerk_gateway_requests_total{@,caller=~\"$caller\",route=~\"$route\"}[$__rate_interval]))",
            )
            .unit("reqps")
            .decimals(1)
            .with_course()
            .no_value("no gateway"),
        ),
        (
            4,
            Panel::stat(
                "Requests saved",
                "Share of the requests in this time range that needed no request to Clerk: answered by the cache, \
                 coalesced or batched.",
                "sum(increase(clerk_gateway_saved_requests_total{@}[$__range])) \
                 / (sum(increase(clerk_gateway_requests_total{@}[$__range])) > 0)",
            )
            .share()
            .decimals(0)
            .thresholds(NEUTRAL)
            .no_value("no gateway"),
        ),
        (
            4,
            Panel::stat(
                "429s to callers",
                "Responses with status 429 to applications in this time range, from Clerk or from the gateway.",
                "sum(increase(clerk_gateway_requests_total{@,caller=~\"$caller\",route=~\"$route\",code=\"429\"}[$__range])) \
                 or 0 * sum(increase(clerk_gateway_requests_total{@}[$__range]))",
            )
            .decimals(0)
            .thresholds(NONE_WANTED)
            .runbook("ClerkRateLimitThrottled")
            .no_value("no gateway"),
        ),
        (
            4,
            Panel::stat("Queued now", "Requests waiting in the gateway's queue.", "sum(clerk_gateway_queue_depth{@})")
                .decimals(0)
                .thresholds(FEW_WANTED)
                .with_course()
                .runbook("ClerkGatewayQueueSaturated")
                .no_value("no gateway"),
        ),
        (
            4,
            Panel::stat(
                "Shed requests",
                "Requests that the gateway shed in this time range because they would have waited too long, or because \
                 their caller is paused or has used its own cap.",
                "sum(increase(clerk_gateway_decisions_total{@,decision=\"shed\"}[$__range]))",
            )
            .decimals(0)
            .thresholds(NONE_WANTED)
            .runbook("ClerkGatewayShedding")
            .no_value("no gateway"),
        ),
        (
            4,
            Panel::stat(
                "Lowest headroom",
                &format!(
                    "The lowest remaining share of a limit in the last minute. {}",
                    basis::SAID
                ),
                &basis::headroom("", "@"),
            )
            .named("{{basis}}")
            .share()
            .decimals(0)
            .thresholds(HEADROOM)
            .with_course()
            .runbook("ClerkRateLimitLow")
            .no_value("use unknown"),
        ),
    ]
}

/// The series of the selected callers and routes.
const CHOSEN: &str = r#"@,caller=~"$caller",route=~"$route""#;
/// What the panels count.
const SPENT: &str = "Requests that Clerk may have counted, including retries and rejected ones, excluding cache hits.";

fn top_routes() -> Panel {
    Panel::bars(
        "Top routes",
        &format!(
            "The ten routes with the most requests in this time range. {SPENT} Routes are templates, without user IDs."
        ),
        &format!("topk(10, {})", spending::in_range("method, route", CHOSEN)),
        "{{method}} {{route}}",
    )
    .decimals(0)
    .thresholds(&[(f64::MIN, "blue")])
    .no_value(spending::UNKNOWN)
}

fn top_callers() -> Panel {
    Panel::bars(
        "Top callers",
        &format!(
            "The ten callers with the most requests in this time range. {SPENT} A caller is a configured name, or else \
             the name of the SDK; in traces, the name of the service."
        ),
        &format!("topk(10, {})", spending::in_range("caller", CHOSEN)),
        "{{caller}}",
    )
    .decimals(0)
    .thresholds(&[(f64::MIN, "blue")])
    .no_value(spending::UNKNOWN)
}

/// Requests to the gateway by these labels.
fn pace(labels: &str) -> String {
    format!("sum by ({labels}) (rate(clerk_gateway_requests_total{{@,caller=~\"$caller\",route=~\"$route\"}}{RATE}))")
}

fn routes() -> Panel {
    Panel::graph(
        "Requests per minute, by route",
        &format!("The ten routes with the most requests in the preceding minute. {SPENT}"),
    )
    .query(&format!("topk(10, {})", spending::present("method, route", CHOSEN)), "{{method}} {{route}}")
    .min(0.0)
    .stacked()
    .legend(&["mean", "max"])
    .no_value(spending::UNKNOWN)
}

fn callers() -> Panel {
    Panel::graph(
        "Requests per minute, by caller",
        &format!("The ten callers with the most requests in the preceding minute. {SPENT}"),
    )
    .query(&format!("topk(10, {})", spending::present("caller", CHOSEN)), "{{caller}}")
    .min(0.0)
    .stacked()
    .legend(&["mean", "max"])
    .no_value(spending::UNKNOWN)
}

fn spenders_table() -> Panel {
    let labels = "clerk_instance, caller, method, route";
    let spent = spending::in_range(labels, CHOSEN);
    let share = format!("{spent} / on (clerk_instance) group_left () {}", spending::in_range("clerk_instance", "@"));
    let ended = |result: &str| spending::in_range(labels, &format!("{CHOSEN},result=\"{result}\""));
    Panel::table(
        "Callers and routes",
        &format!(
            "Requests in this time range, in descending order. {SPENT} Share: of the requests of that instance. \
             Rejected: status 429. No response: Clerk may have counted the request."
        ),
    )
    .label("clerk_instance", "Clerk instance", cells::instance_link())
    .label("caller", "Caller", json!({}))
    .label("method", "Method", json!({ "custom.width": 90 }))
    .label("route", "Route", json!({ "custom.width": 380 }))
    .column("Requests", &spent, cells::number())
    .column("Share", &share, cells::gauge(&[(f64::MIN, "blue")]))
    .column("Rejected", &ended("refused"), cells::count(NONE_WANTED))
    .column("No response", &ended("unknown"), cells::count(FEW_WANTED))
    .sorted("Requests", true)
    .no_value(spending::UNKNOWN)
}

fn shadow_decisions() -> Panel {
    Panel::graph(
        "Shadow decisions",
        "Decisions of the policies in `shadow` mode, had they been on: `shed` would have been rejected, `queued` would \
         have waited, the others would have been saved or retried. Compare before you switch a policy on.",
    )
    .query(&format!("sum by (decision) (rate(clerk_gateway_shadow_decisions_total{{@}}{RATE}))"), "{{decision}}")
    .field("shed", json!({ "color": { "mode": "fixed", "fixedColor": "red" } }))
    .unit("reqps")
    .min(0.0)
    .legend(&["mean", "max"])
    .no_value("no gateway")
}

fn policies() -> Panel {
    let modes = cells::words(&[("on", "on", "green"), ("shadow", "shadow", "blue"), ("off", "off", "text")]);
    Panel::table("Policies", "The mode of each policy. Single routes may have other modes.")
        .label("clerk_instance", "Clerk instance", json!({}))
        .label("policy", "Policy", json!({}))
        .label("mode", "Mode", modes)
        .labels_of("max by (clerk_instance, policy, mode) (clerk_gateway_policy_info{@})")
        .sorted("Policy", false)
        .no_value("no gateway")
}

fn decisions() -> Panel {
    Panel::graph(
        "Decisions",
        "Decisions of the gateway. `forwarded` and `retried` use quota; `cache_hit`, `stale`, `coalesced` and \
         `batched` save it; `queued` waited; `shed` was rejected.",
    )
    .query(&format!("sum by (decision) (rate(clerk_gateway_decisions_total{{@}}{RATE}))"), "{{decision}}")
    .field("shed", json!({ "color": { "mode": "fixed", "fixedColor": "red" } }))
    .field("retried", json!({ "color": { "mode": "fixed", "fixedColor": "orange" } }))
    .unit("reqps")
    .min(0.0)
    .legend(&["mean", "max"])
    .no_value("no gateway")
}

fn saved() -> Panel {
    Panel::graph("Requests to Clerk saved", "Requests to Clerk that were saved, by policy.")
        .query(&format!("sum by (by) (rate(clerk_gateway_saved_requests_total{{@}}{RATE}))"), "{{by}}")
        .unit("reqps")
        .min(0.0)
        .stacked()
        .no_value("no gateway")
}

fn unseen() -> Panel {
    Panel::graph(
        "Requests that bypass the gateway",
        "Requests that Clerk counted in the current window and the gateway did not: programs that call Clerk directly \
         with a key of the same instance. Only known if Clerk sends quota headers.",
    )
    .query("max by (clerk_instance, bucket) (clerk_ratelimit_unseen_requests{@})", "{{clerk_instance}} {{bucket}}")
    .min(0.0)
    .no_value("Clerk sends no quota headers, or there is no gateway")
}

fn cache_hits() -> Panel {
    let per_tier = |metric: &str| format!("sum by (tier) (rate(clerk_cache_{metric}_total{{#}}{RATE}))");
    let (hits, misses) = (per_tier("hits"), per_tier("misses"));
    Panel::graph("Cache hits", "Share of the lookups in each cache tier that found a fresh response.")
        .query(&format!("{hits} / ({hits} + {misses} > 0)"), "{{tier}}")
        .share()
        .no_value("No lookup in this time range")
}

fn cache_errors() -> Panel {
    Panel::graph(
        "Cache errors",
        "Failed operations of a cache tier. While a tier is down, requests use the other one and Clerk.",
    )
    .query(&format!("sum by (tier) (rate(clerk_cache_errors_total{{#}}{RATE}))"), "{{tier}}")
    .unit("ops")
    .min(0.0)
    .runbook("ClerkCacheTierDown")
    .no_value("no cache")
}

fn budget_shared() -> Panel {
    Panel::graph(
        "Budget shared",
        "1: gateways share the limit through Redis. 0: at least one cannot, and each uses a fixed part of the limit.",
    )
    .query("min by (clerk_instance) (clerk_gateway_budget_shared{@})", "{{clerk_instance}}")
    .decimals(0)
    .min(0.0)
    .runbook("ClerkBudgetNotShared")
    .no_value("no Redis")
}

fn redis_refused() -> Panel {
    Panel::graph(
        "Rejected by Redis",
        "1: Redis rejects operations, by class: missing permission, wrong password, out of memory and others.",
    )
    .query("max by (class) (clerk_redis_refused{#})", "{{class}}")
    .decimals(0)
    .min(0.0)
    .runbook("ClerkRedisRefused")
    .no_value("no Redis")
}

fn webhooks() -> Panel {
    Panel::graph(
        "Webhook events per minute",
        "Events of Clerk that invalidate cached responses, by outcome. Rejected signatures mean a wrong signing secret \
         or a forged request.",
    )
    .query(&format!("60 * sum by (result) (rate(clerk_webhook_events_total{{#}}{RATE}))"), "{{result}}")
    .decimals(1)
    .min(0.0)
    .stacked_bars()
    .runbook("ClerkWebhookSignatureFailures")
    .no_value("no webhook endpoint")
}

fn queue_depth() -> Panel {
    Panel::graph("Queue", "Requests waiting for the rate limit.")
        .query("max by (clerk_instance) (clerk_gateway_queue_depth{@})", "{{clerk_instance}}")
        .decimals(0)
        .min(0.0)
        .no_value("no gateway")
}

/// A quantile of a histogram. Absent without events in the interval; `histogram_quantile` alone would be NaN.
fn quantile(share: &str, metric: &str, by: &str) -> String {
    let (labels, on) =
        if by.is_empty() { ("le".to_owned(), String::new()) } else { (format!("le, {by}"), by.to_owned()) };
    format!(
        "histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{@}}{RATE}))) \
         and on ({on}) sum by ({on}) (rate({metric}_count{{@}}{RATE})) > 0"
    )
}

fn queue_wait() -> Panel {
    Panel::graph("Time in the queue", "Time that queued requests waited.")
        .query(&quantile("0.5", "clerk_gateway_queue_wait_seconds", ""), "median")
        .query(&quantile("0.99", "clerk_gateway_queue_wait_seconds", ""), "99 %")
        .unit("s")
        .min(0.0)
        .no_value("No request waited in this time range")
}

fn retries() -> Panel {
    Panel::graph(
        "Retries per request",
        "Additional requests to Clerk per request, caused by the gateway's retries. If it grows, retries feed the \
         problem. The gateway limits retries to about 20 %. Batches hide a part of them.",
    )
    .query(
        &format!(
            "clamp_min(sum by (clerk_instance) (rate(clerk_ratelimit_requests_total{{@,source=\"gateway\"}}{RATE})) \
             / (sum by (clerk_instance) \
             (rate(clerk_gateway_decisions_total{{@,decision!~\"cache_hit|coalesced|shed|rejected\"}}{RATE})) > 0) \
             - 1, 0)"
        ),
        "{{clerk_instance}}",
    )
    .unit("percentunit")
    .min(0.0)
    .runbook("ClerkGatewayRetryAmplification")
    .no_value("No requests through the gateway in this time range")
}

fn codes() -> Panel {
    Panel::graph("Responses to callers", "Responses to applications, by status.")
        .query(&pace("code"), "{{code}}")
        .fields("byRegexp", "/^2/", json!({ "color": { "mode": "fixed", "fixedColor": "green" } }))
        .fields("byRegexp", "/^429$/", json!({ "color": { "mode": "fixed", "fixedColor": "red" } }))
        .fields("byRegexp", "/^4(?!29)/", json!({ "color": { "mode": "fixed", "fixedColor": "orange" } }))
        .fields("byRegexp", "/^5/", json!({ "color": { "mode": "fixed", "fixedColor": "purple" } }))
        .unit("reqps")
        .min(0.0)
        .stacked()
        .no_value("No requests through the gateway in this time range")
}

fn latency() -> Panel {
    Panel::graph(
        "Latency",
        "Duration of the whole request at the gateway, and of Clerk's part of it. The difference is queueing and \
         retries.",
    )
    .query(&quantile("0.5", "clerk_gateway_request_duration_seconds", ""), "callers, median")
    .query(&quantile("0.99", "clerk_gateway_request_duration_seconds", ""), "callers, 99 %")
    .query(&quantile("0.5", "clerk_gateway_upstream_duration_seconds", ""), "Clerk, median")
    .query(&quantile("0.99", "clerk_gateway_upstream_duration_seconds", ""), "Clerk, 99 %")
    .unit("s")
    .min(0.0)
    .no_value("No requests through the gateway in this time range")
}

fn slow_routes() -> Panel {
    Panel::graph(
        "Slowest routes at Clerk",
        "The 95 % quantile of the duration of requests to Clerk, for the five slowest routes.",
    )
    .query(&format!("topk(5, {})", quantile("0.95", "clerk_gateway_upstream_duration_seconds", "route")), "{{route}}")
    .unit("s")
    .min(0.0)
    .no_value("No requests were forwarded in this time range")
}
