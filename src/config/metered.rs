//! The section `metered`: free parts and prices of the operations that Clerk bills.

use std::ops::RangeInclusive;

use serde::Serialize;

use super::file::SCHEMA;
use super::reader::{Field, Keys, Report, Section};
use super::tree::Value;
use clerk_quota::metered::{BillingDay, MeteredOperation, MeteredPlan};

pub(super) static METERED: Keys = Keys { section: "metered", known: &["billing_day", "free", "price_usd"] };
pub(super) static FREE: Keys = Keys { section: "metered.free", known: OPERATIONS };
pub(super) static PRICE: Keys = Keys { section: "metered.price_usd", known: OPERATIONS };

/// The names of the operations, as in the label `operation`.
const OPERATIONS: &[&str] = &[
    MeteredOperation::ApiKeyVerify.as_str(),
    MeteredOperation::ApiKeyCreate.as_str(),
    MeteredOperation::M2mVerify.as_str(),
    MeteredOperation::M2mCreate.as_str(),
];

/// Up to this number, metrics have every integer exactly.
const MAX_FREE: u64 = 1 << 53;

/// Prices of one operation in USD. A higher one is a price of many.
const PRICES: RangeInclusive<f64> = 0.0..=1000.0;

/// Reads a `metered` section; missing keys are taken from `base`.
pub(super) fn read(field: Field, base: MeteredPlan, report: &mut Report) -> MeteredPlan {
    let mut plan = base;
    let Some(mut section) = Section::open(field, &METERED, SCHEMA, report) else { return plan };
    if let Some(field) = section.take("billing_day") {
        plan.billing_day = field.check(report, billing_day).unwrap_or(plan.billing_day);
    }
    if let Some(field) = section.take("free") {
        each(field, &FREE, report, &mut plan.free, free);
    }
    if let Some(field) = section.take("price_usd") {
        each(field, &PRICE, report, &mut plan.price_usd, |value, _| price(value));
    }
    plan
}

/// Reads the value of each operation in the section.
fn each<T>(
    field: Field,
    keys: &Keys,
    report: &mut Report,
    values: &mut [T; MeteredOperation::ALL.len()],
    read: impl Fn(&Value, usize) -> Result<T, String>,
) {
    let Some(mut section) = Section::open(field, keys, SCHEMA, report) else { return };
    for operation in MeteredOperation::ALL {
        let index = operation.index();
        let field = section.take(operation.as_str());
        if let Some(value) = field.and_then(|field| field.check(report, |value| read(value, index))) {
            values[index] = value;
        }
    }
}

fn billing_day(value: &Value) -> Result<BillingDay, String> {
    const EXAMPLE: &str = "write the day on which your billing month starts, such as `1`";
    let day = match value {
        Value::Integer(day) => u8::try_from(*day).ok(),
        // Helm writes whole numbers this way.
        Value::Float(day) => (1..=31_u8).find(|it| f64::from(*it) == *day),
        other => return Err(format!("{} instead of a day of the month; {EXAMPLE}", other.kind())),
    };
    day.and_then(BillingDay::new).ok_or_else(|| format!("not a day from 1 to 31; {EXAMPLE}"))
}

fn free(value: &Value, index: usize) -> Result<u64, String> {
    let example = MeteredPlan::PUBLISHED.free[index];
    let number = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Float(number) if *number >= 0.0 && number.fract() == 0.0 => format!("{number:.0}").parse().ok(),
        Value::Float(_) => None,
        other => return Err(format!("{} instead of a number; write one such as `{example}`", other.kind())),
    };
    let number = number.filter(|number| *number <= MAX_FREE);
    number.ok_or_else(|| format!("not a whole number from 0 to 2^53; write one such as `{example}`"))
}

fn price(value: &Value) -> Result<f64, String> {
    const EXAMPLE: &str = "write the price of one operation in USD, such as `0.00001`";
    let price = match value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        other => return Err(format!("{} instead of a price; {EXAMPLE}", other.kind())),
    };
    if PRICES.contains(&price) { Ok(price) } else { Err(format!("not from 0 to 1000; {EXAMPLE}")) }
}

/// The section as text.
#[derive(Serialize)]
pub(super) struct MeteredView {
    billing_day: u8,
    free: OperationsView<u64>,
    price_usd: OperationsView<f64>,
}

#[derive(Serialize)]
struct OperationsView<T> {
    api_key_verify: T,
    api_key_create: T,
    m2m_verify: T,
    m2m_create: T,
}

impl MeteredView {
    pub(super) fn of(plan: &MeteredPlan) -> Self {
        Self {
            billing_day: plan.billing_day.get(),
            free: OperationsView::of(plan.free),
            price_usd: OperationsView::of(plan.price_usd),
        }
    }
}

impl<T> OperationsView<T> {
    fn of([api_key_verify, api_key_create, m2m_verify, m2m_create]: [T; MeteredOperation::ALL.len()]) -> Self {
        Self { api_key_verify, api_key_create, m2m_verify, m2m_create }
    }
}
