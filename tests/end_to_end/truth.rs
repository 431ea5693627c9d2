//! The simulated Clerk's record of its own limiter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::client;

/// Ends of an instance's windows in which less than a tenth of the limit was left, by the simulator's record, oldest
/// first. The last one may still be open, with its end in the future.
pub(crate) async fn low_windows(record: &str, instance: &str) -> Vec<SystemTime> {
    let answer = client().get(format!("{record}?events=0")).send().await.unwrap().text().await.unwrap();
    let truth: Value = serde_json::from_str(&answer).unwrap();
    let named = |list: &Value, key: &str, name: &str| {
        list.as_array().unwrap().iter().find(|item| item[key] == name).cloned().unwrap_or_default()
    };
    let bucket = named(&named(&truth["instances"], "name", instance)["buckets"], "bucket", "instance");
    let number = |value: &Value| value.as_u64().unwrap();
    let windows = bucket["windows"].as_array().unwrap().iter();
    let low = windows.filter(|window| number(&window["least_remaining"]) * 10 < number(&window["limit"]));
    low.map(|window| UNIX_EPOCH + Duration::from_secs_f64(window["end"].as_f64().unwrap())).collect()
}
