//! Free parts, prices and billing days of operations that Clerk bills.

use clerk_exporter::config::Config;
use clerk_quota::metered::{BillingDay, MeteredPlan};

use crate::{INSTANCE, good, parse, with_instance_lines};

fn plans(yaml: &str) -> Vec<MeteredPlan> {
    good(yaml).instances.iter().map(|instance| instance.metered).collect()
}

fn day(day: u8) -> BillingDay {
    BillingDay::new(day).unwrap()
}

#[test]
fn published_figures_are_the_default() {
    assert_eq!(plans(INSTANCE), [MeteredPlan::PUBLISHED]);
    let config = Config::from_environment(&|name| (name == "CLERK_SECRET_KEY").then(|| "sk_test_CANARY0".into()));
    assert_eq!(config.unwrap().instances[0].metered, MeteredPlan::PUBLISHED);
    let MeteredPlan { billing_day, free, price_usd } = MeteredPlan::PUBLISHED;
    assert_eq!((billing_day, free), (day(1), [100_000, 1000, 100_000, 2500]));
    assert_eq!(price_usd, [0.000_01, 0.001, 0.000_01, 0.001]);
}

#[test]
fn instance_overrides_single_keys_of_the_top() {
    let yaml = "
metered:
  billing_day: 31
  free: { api_key_verify: 5e5, m2m_create: 0 }
  price_usd: { m2m_verify: 0.00002, api_key_create: 1 }
instances:
  - { name: a, secret_key_env: A }
  - name: b
    secret_key_env: B
    metered: { billing_day: 15.0, free: { api_key_verify: 7 }, price_usd: {} }
";
    let a = MeteredPlan {
        billing_day: day(31),
        free: [500_000, 1000, 100_000, 0],
        price_usd: [0.000_01, 1.0, 0.000_02, 0.001],
    };
    let b = MeteredPlan { billing_day: day(15), free: [7, 1000, 100_000, 0], ..a };
    assert_eq!(plans(yaml), [a, b]);
    // The dump of the configuration in force says the same.
    let dump = good(yaml).masked_yaml();
    assert_eq!(plans(&dump), [a, b], "{dump}");
}

#[test]
fn metered_mistakes_have_position_key_and_remedy() {
    let cases = [
        (
            "metered: { billing_day: 0 }",
            "4:29: instances[0].metered.billing_day: not a day from 1 to 31; write the day on which your billing month starts, such as `1`",
        ),
        (
            "metered: { billing_day: 1.5 }",
            "4:29: instances[0].metered.billing_day: not a day from 1 to 31; write the day on which your billing month starts, such as `1`",
        ),
        (
            "metered: { billing_day: first }",
            "4:29: instances[0].metered.billing_day: text instead of a day of the month; write the day on which your billing month starts, such as `1`",
        ),
        (
            "metered: { free: { api_key_create: -1 } }",
            "4:40: instances[0].metered.free.api_key_create: not a whole number from 0 to 2^53; write one such as `1000`",
        ),
        (
            "metered: { free: { m2m_verify: 1e300 } }",
            "4:36: instances[0].metered.free.m2m_verify: not a whole number from 0 to 2^53; write one such as `100000`",
        ),
        (
            "metered: { free: 100000 }",
            "4:22: instances[0].metered.free: a number instead of a section; write keys below it, indented, as in `api_key_verify: ...`",
        ),
        (
            "metered: { price_usd: { m2m_create: free } }",
            "4:41: instances[0].metered.price_usd.m2m_create: text instead of a price; write the price of one operation in USD, such as `0.00001`",
        ),
        (
            "metered: { price_usd: { m2m_create: -0.1 } }",
            "4:41: instances[0].metered.price_usd.m2m_create: not from 0 to 1000; write the price of one operation in USD, such as `0.00001`",
        ),
        ("metered: { price_usd: { m2m_create: .nan } }", "4:41: not a finite number; write one such as 0.1"),
        (
            "metered: { free: { m2m_verifi: 1 } }",
            "4:24: instances[0].metered.free.m2m_verifi: unknown key; write `m2m_verify`",
        ),
        (
            "metered: { m2m_verify: 1 }",
            "4:16: instances[0].metered.m2m_verify: a key that belongs below `metered.free`; move it there",
        ),
    ];
    for (lines, expected) in cases {
        let error = parse(&with_instance_lines(lines)).unwrap_err();
        assert!(error.contains(expected), "{lines}\n{error}\n{expected}");
    }
}
