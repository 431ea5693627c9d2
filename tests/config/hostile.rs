//! Malicious files, and keys in the wrong place.

use std::path::Path;

use clerk_exporter::config::Config;

use crate::{env, parse, with_instance_lines};

/// A key at any wrong place is never shown.
#[test]
fn misplaced_key_is_never_shown() {
    const KEY: &str = "sk_live_CANARY4bMbJyWZ2vnLx0aQ";
    let full_of_mistakes = "low_threshold: 0.1\n\
        tls_config: { ca_file: /dev/null }\n\
        probe: { interval: 15s, timeout: 5s, path: /v1/users/count, when: idle }\n\
        users: { schedule: '0 0 * * * *' }\n\
        instances:\n\
        - { name: a, secret_key: KEY, further_secret_key_files: [x], api_url: 'https://x', plan: pro, users_limit: 1 }\n\
        - { name: b, secret_key_env: B, limit: { requests: 1, window: 10s } }\n\
        - { name: c, secret_key_file: /nonexistent, secret_key: KEY }\n";
    let good = "low_threshold: 0.1\n\
        probe: { interval: 15s, timeout: 5s, path: /v1/users/count, when: idle }\n\
        users: { schedule: '0 0 * * * *' }\n\
        instances:\n\
        - { name: a, secret_key: KEY, api_url: 'https://proxy.example/some/path', plan: pro, users_limit: 1 }\n\
        - { name: b, secret_key_env: B, limit: { requests: 100, window: 10s } }\n";
    let shows = |text: &str| {
        let parsed = Config::parse(text, Path::new("c.yml"), &env);
        match &parsed {
            Ok(config) => format!("{config:?} {config:#?} {} {:?}", config.masked_yaml(), config.warnings),
            Err(error) => format!("{error} {error:?} {error:#?}"),
        }
    };
    assert!(shows(&good.replace("KEY", KEY)).starts_with("Config {"));
    let mut texts = vec![full_of_mistakes.replace("KEY", KEY), good.replace("KEY", KEY)];
    // The key replaces every word of the file, with and without quotes, and as invalid YAML.
    let is_word = |c: char| c.is_alphanumeric() || "_.:".contains(c);
    for template in [full_of_mistakes, good] {
        let words = template.split(|c| !is_word(c)).filter(|word| !word.is_empty());
        for word in words {
            for replacement in
                [KEY.to_owned(), format!("'{KEY}'"), format!("[{KEY}, \"{KEY}"), format!("*{KEY}"), format!("!{KEY}")]
            {
                texts.push(template.replacen(word, &replacement, 1).replace("KEY", KEY));
                texts.push(template.replace("KEY", KEY).replace(word, &replacement));
            }
        }
    }
    for text in &texts {
        let shown = shows(text);
        assert!(!shown.contains("CANARY"), "{shown}\n\n{text}");
    }
    assert!(texts.len() > 100);
}

#[test]
fn hostile_files_are_rejected() {
    let laughs = (1..30).map(|n| format!("a{n}: &a{n} [*a{m}, *a{m}, *a{m}, *a{m}]\n", m = n - 1)).collect::<String>();
    let texts = [
        "[".repeat(200_000),
        format!("probe: {}", "{a: ".repeat(200_000)),
        "- ".repeat(100_000),
        format!("a0: &a0 x\n{laughs}"),
        "a: &a [*a]\n".to_owned(),
        format!("a0: &a0 x\n{}", (1..500).map(|n| format!("a{n}: &a{n} [*a{}]\n", n - 1)).collect::<String>()),
        "\u{0}\u{feff}\u{2028}".to_owned(),
        format!("low_threshold: {}", "9".repeat(10_000)),
        with_instance_lines("probe: { interval: 18446744073709551615s }"),
        with_instance_lines("limit: { requests: 99999999999999999999999, window: 1s }"),
    ];
    for text in texts {
        assert!(parse(&text).is_err(), "{}", text.chars().take(60).collect::<String>());
    }
}

proptest::proptest! {
    #[test]
    fn random_text_does_not_panic_the_reader(text in "(\\PC|\n|  |: |- |name|probe|instances:\n){0,60}") {
        let _ = parse(&text);
        let _ = parse(&with_instance_lines(&text));
    }

    #[test]
    fn random_value_does_not_panic_a_rule(text in "\\PC{0,30}") {
        let quoted = serde_json::Value::from(text).to_string();
        for key in ["interval", "schedule", "timeout", "path", "when"] {
            let _ = parse(&with_instance_lines(&format!("probe: {{ {key}: {quoted} }}")));
        }
        for key in ["api_url", "plan", "users", "further_secret_key_files"] {
            let _ = parse(&with_instance_lines(&format!("{key}: {quoted}")));
        }
    }

    #[test]
    fn random_schedule_does_not_panic_the_checks(text in "[0-9*/,#LW?@+ -]{0,24}") {
        let _ = parse(&with_instance_lines(&format!("probe: {{ schedule: \"{text}\" }}")));
    }
}
