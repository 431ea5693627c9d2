//! Where the password of Redis is.

use std::fs;

use clerk_client::secret::SecretSource;
use clerk_exporter::config::{Config, RedisPasswordConfig};

use crate::{INSTANCE, NO_WARNINGS, env};

fn read(directory: &tempfile::TempDir, lines: &str) -> Config {
    let file = |name: &str, content: &str| fs::write(directory.path().join(name), content).unwrap();
    file("redis", "rediss+cluster://app@cache.internal\n");
    file("password", "CANARYpassword\n");
    let yaml = format!("{lines}\n{INSTANCE}");
    Config::parse(&yaml, &directory.path().join("c.yml"), &env).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn password_is_in_a_file_or_printed_by_a_command() {
    let directory = tempfile::tempdir().unwrap();
    let config = read(&directory, "redis_url_file: redis\nredis_password_file: password");
    assert_eq!(config.warnings, NO_WARNINGS);
    let path = directory.path().join("password");
    let expected = RedisPasswordConfig::File(SecretSource::File(path.clone()));
    assert_eq!(config.redis.as_ref().unwrap().password, Some(expected));
    assert!(config.masked_yaml().contains(&format!("redis_password_file: \"{}\"", path.display())));
    assert_eq!(read(&directory, &top(&config)), config, "it can be read again");
    let command = "redis_url_file: redis\nredis_password_command: [print-token, --user, CANARYpassword]";
    let config = read(&directory, command);
    let words = ["print-token", "--user", "CANARYpassword"].map(str::to_owned).to_vec();
    assert_eq!(config.redis.as_ref().unwrap().password, Some(RedisPasswordConfig::Command(words)));
    let shown = format!("{} {config:?} {:?}", config.masked_yaml(), config.redis.as_ref().unwrap().options().unwrap());
    assert!(shown.contains("print-token") && shown.contains("<secret>") && !shown.contains("CANARY"), "{shown}");
    let moved = "gateway:\n  cache:\n    redis_url_file: redis\n    redis_password_file: password";
    assert!(matches!(read(&directory, moved).redis.unwrap().password, Some(RedisPasswordConfig::File(_))));
}

/// The lines of the dump before the instances.
fn top(config: &Config) -> String {
    config.masked_yaml().split("instances:").next().unwrap().to_owned()
}

#[test]
fn prefix_separates_what_shares_a_redis() {
    let directory = tempfile::tempdir().unwrap();
    let prefix = |config: &Config| config.redis.as_ref().unwrap().options().unwrap().prefix;
    assert_eq!(prefix(&read(&directory, "redis_url_file: redis")), "clerk-exporter:");
    let config = read(&directory, "redis_url_file: redis\nredis_prefix: 'clerk-exporter:team-a:'");
    assert_eq!(prefix(&config), "clerk-exporter:team-a:");
    assert_eq!(read(&directory, &top(&config)), config, "it can be read again");
    let moved = "gateway:\n  cache:\n    redis_url_file: redis\n    redis_prefix: 'x:'";
    assert_eq!(prefix(&read(&directory, moved)), "x:");
    let refused = |lines: &str| {
        let yaml = format!("{lines}\n{INSTANCE}");
        Config::parse(&yaml, &directory.path().join("c.yml"), &env).unwrap_err().to_string()
    };
    for text in ["''", "'a b'", "'{a}'", "'\u{e9}'", &format!("'{}'", "x".repeat(129))] {
        let message = refused(&format!("redis_url_file: redis\nredis_prefix: {text}"));
        assert!(message.contains("2:15: redis_prefix: not 1 to 128 printable characters"), "{message}");
    }
    assert!(refused("redis_prefix: 'x:'").contains("redis_prefix: no effect without a `redis_url_file`"));
}
