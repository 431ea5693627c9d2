//! Operations that Clerk bills: who uses them, and what the month will cost.

use serde_json::json;

use super::panel::{Panel, USAGE};
use super::{cells, spending};

/// The labels of the counter, except `source`.
const OWN: &str = "clerk_instance, operation, caller";

const WEEK: (&str, &str) = ("7d", "604800");

/// Operations of a time range, by these labels.
fn operations(labels: &str, range: (&str, &str)) -> String {
    spending::counted("clerk_metered_operations_total", OWN, labels, "@", range)
}

/// The month so far by operation. Gateways without a common Redis add up; all others know the same.
fn month() -> String {
    let here = "on (job, instance, clerk_instance)";
    format!(
        "(sum by (operation) (clerk_metered_month_operations{{@}} and {here} clerk_gateway_queue_depth{{@}} \
         unless {here} clerk_gateway_budget_shared{{@}}) or max by (operation) (clerk_metered_month_operations{{@}}))"
    )
}

/// At the end of the month, at the rate of the last 7 days; without the month so far, 30 days at this rate.
fn forecast() -> String {
    let (month, week) = (month(), operations("operation", WEEK));
    let left = "scalar(clamp_max(clamp_min(max(clerk_metered_month_end_timestamp_seconds{@}) - time(), 0), 2678400))";
    format!("({month} + on (operation) {week} / 604800 * {left} or {month} or {week} * 30 / 7)")
}

/// Callers, by operation.
pub(super) fn callers() -> Panel {
    Panel::table(
        "Metered operations by caller",
        "Verifications and creations of API keys and of M2M tokens that Clerk may have billed, at most: failed ones and \
         those without a response count too. Operations that nothing here sees are missing.",
    )
    .label("operation", "Operation", json!({ "custom.width": 140 }))
    .label("caller", "Caller", json!({}))
    .column("Hour", &operations("operation, caller", ("1h", "3600")), cells::number())
    .column("7 days", &operations("operation, caller", WEEK), cells::number())
    .column("Time range", &operations("operation, caller", ("$__range", "$__range_s")), cells::number())
    .sorted("7 days", true)
    .no_value("No such operation was seen")
    .runbook("ClerkMeteredUsageNearFreeTier")
}

/// The month so far and its forecast, against the free part.
pub(super) fn billing_month() -> Panel {
    let free = "max by (operation) (clerk_metered_free_operations{@})";
    let forecast = forecast();
    Panel::table(
        "Billing month, and its forecast",
        "Metered operations of the billing month so far, at most, and at its end at the rate of the last 7 days. Without \
         a state folder and without Redis the month so far is unknown, and the forecast is 30 days at this rate. The \
         bill is 0 within the free part. Free parts and prices are those of the configuration.",
    )
    .label("operation", "Operation", json!({ "custom.width": 140 }))
    .column("So far", &month(), cells::number())
    .column("Free", free, cells::number())
    .column("Used", &format!("{month} / on (operation) ({free} > 0)", month = month()), cells::gauge(USAGE))
    .column("Forecast", &forecast, cells::number())
    .column(
        "Bill",
        &format!(
            "clamp_min({forecast} - on (operation) {free}, 0) \
             * on (operation) max by (operation) (clerk_metered_operation_price_usd{{@}})"
        ),
        cells::usd(),
    )
    .sorted("Bill", true)
    .no_value("–")
    .runbook("ClerkMeteredUsageNearFreeTier")
}
