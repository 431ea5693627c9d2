//! Whether the documented access rights suffice for a script.

/// The number of calls in a script, all of which the documented rights allow.
///
/// # Panics
/// Panics if one of them is not allowed.
pub(super) fn check(script: &str) -> usize {
    let rule = clerk_client::redis::acl_rule(clerk_client::redis::DEFAULT_PREFIX);
    let calls = script.split("redis.call('").skip(1).filter_map(|rest| rest.split('\'').next());
    let commands: Vec<String> = calls.map(str::to_ascii_lowercase).collect();
    for command in &commands {
        assert!(rule.split(' ').any(|right| right == format!("+{command}")), "{command} is not in {rule}");
    }
    commands.len()
}
