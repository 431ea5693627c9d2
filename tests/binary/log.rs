//! The log: the same keys and values as logfmt and as JSON, and consistent field names in all sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::exporter::{Clerk, Exporter, Folder, KEY, bound_address, command, eventually};

/// Keys and values of a line, in order.
type Line = Vec<(String, String)>;

fn logfmt(line: &str) -> Line {
    let mut pairs = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').unwrap_or_else(|| panic!("no logfmt: {line}"));
        assert!(!key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "key {key:?}: {line}");
        let (value, next) = if after.starts_with('"') {
            let mut values = serde_json::Deserializer::from_str(after).into_iter::<String>();
            let value = values.next().unwrap().unwrap();
            let end = values.byte_offset();
            (value, &after[end..])
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            (after[..end].to_owned(), &after[end..])
        };
        pairs.push((key.to_owned(), value));
        assert!(next.is_empty() || next.starts_with(' '), "{line}");
        rest = next.trim_start_matches(' ');
    }
    pairs
}

fn json(line: &str) -> Line {
    let object: BTreeMap<String, Value> = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    // Keys in text order, and numbers as written.
    let mut pairs: Vec<(usize, Line)> = Vec::new();
    for (key, value) in object {
        let mark = format!("\"{key}\":");
        let at = line.find(&mark).unwrap();
        let text = match value {
            Value::String(text) => text,
            _ => line[at + mark.len()..].split([',', '}']).next().unwrap().to_owned(),
        };
        pairs.push((at, vec![(key, text)]));
    }
    pairs.sort();
    pairs.into_iter().flat_map(|(_, pair)| pair).collect()
}

fn lines(output: &str, is_json: bool) -> Vec<Line> {
    // The output also contains stdout: the addresses of demo and simulator.
    let is_log = |line: &&str| line.starts_with("ts=") || line.starts_with('{');
    output.lines().filter(is_log).map(|line| if is_json { json(line) } else { logfmt(line) }).collect()
}

fn keys(line: &Line) -> Vec<&str> {
    line.iter().map(|(key, _)| key.as_str()).collect()
}

fn value<'a>(line: &'a Line, key: &str) -> Option<&'a str> {
    line.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
}

/// By message: keys, and the values that are the same in each run.
fn shape(lines: &[Line]) -> BTreeMap<String, BTreeSet<Vec<(String, String)>>> {
    let varies = ["ts", "address", "peer", "error", "duration_seconds"];
    let mut shape = BTreeMap::<_, BTreeSet<_>>::new();
    for line in lines {
        let fixed = line.iter().map(|(key, value)| {
            let value = if varies.contains(&key.as_str()) { String::new() } else { value.clone() };
            (key.clone(), value)
        });
        shape.entry(value(line, "msg").unwrap().to_owned()).or_default().insert(fixed.collect());
    }
    shape
}

fn well_formed(lines: &[Line]) {
    assert!(!lines.is_empty());
    for line in lines {
        assert_eq!(keys(line)[..3], ["ts", "level", "msg"], "{line:?}");
        assert!(["error", "warn", "info", "debug", "trace"].contains(&value(line, "level").unwrap()), "{line:?}");
        assert!(value(line, "ts").unwrap().ends_with('Z'), "{line:?}");
        for (key, value) in line.iter().filter(|(key, _)| key.ends_with("_seconds")) {
            let is_plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit() || c == '.');
            assert!(is_plain, "{key}={value} is no plain decimal: {line:?}");
        }
    }
}

#[tokio::test]
async fn logfmt_and_json_carry_the_same_keys_and_values() {
    let clerk = Clerk::start().await;
    let folder = Folder::new();
    folder.write("key", KEY);
    let config = format!(
        "probe: {{ interval: 1s }}\ninstances:\n  - {{ name: prod, secret_key_file: key, api_url: \"{}\" }}\n",
        clerk.url()
    );
    let path = folder.write("clerk-exporter.yml", &config);
    let mut shapes = Vec::new();
    for (format, is_json) in [("--log.format=logfmt", false), ("--log.format=json", true)] {
        let exporter = Exporter::with_config(&path, &["--log.level=debug", format]).await;
        let probed = async || exporter.output().contains("probed").then_some(());
        eventually("a probe", probed).await;
        let (status, output) = exporter.stopped().await;
        assert!(status.success(), "{output}");
        let lines = lines(&output, is_json);
        well_formed(&lines);
        let probe = lines.iter().find(|line| value(line, "msg") == Some("probed")).unwrap();
        assert_eq!(
            keys(probe)[3..],
            ["clerk_instance", "status", "duration_seconds", "quota_limit", "quota_remaining"],
            "{probe:?}"
        );
        assert_eq!(value(probe, "clerk_instance"), Some("prod"));
        shapes.push(shape(&lines));
    }
    for message in ["starting", "listening for HTTP clients", "probes succeed", "stopped"] {
        let [logfmt, json] = [&shapes[0], &shapes[1]].map(|shape| {
            // The remaining quota depends on the run.
            shape
                .get(message)
                .unwrap_or_else(|| panic!("no line {message}: {shape:?}"))
                .iter()
                .map(|line| {
                    line.iter()
                        .map(|(key, value)| {
                            (key.clone(), if key == "quota_remaining" { String::new() } else { value.clone() })
                        })
                        .collect::<Vec<_>>()
                })
                .collect::<BTreeSet<_>>()
        });
        assert_eq!(logfmt, json, "{message}");
    }
}

#[tokio::test]
async fn simulator_log_names_the_simulator() {
    let mut shapes = Vec::new();
    for (format, is_json) in [("--log.format=logfmt", false), ("--log.format=json", true)] {
        let arguments = ["simulate", "--listen-address=127.0.0.1:0", format];
        let simulator = Exporter::spawn(command(&arguments), bound_address).await;
        let (status, output) = simulator.stopped().await;
        assert!(status.success(), "{output}");
        let lines = lines(&output, is_json);
        well_formed(&lines);
        let listening = lines.iter().find(|line| value(line, "msg") == Some("listening for HTTP clients")).unwrap();
        assert_eq!(keys(listening)[3..], ["address", "tls", "server"]);
        assert_eq!(value(listening, "server"), Some("simulator"));
        shapes.push(shape(&lines));
    }
    assert_eq!(shapes[0], shapes[1]);
}

/// The arguments of a macro: the parts between top-level commas.
fn arguments(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut is_text) = (vec![String::new()], 0, false);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let part = parts.last_mut().unwrap();
        match c {
            '\\' if is_text => {
                part.push(c);
                part.extend(rest.next());
                continue;
            }
            '"' => is_text = !is_text,
            '(' | '[' | '{' if !is_text => depth += 1,
            ')' if !is_text && depth == 0 => break,
            ')' | ']' | '}' if !is_text => depth -= 1,
            ',' if !is_text && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The field names of an event, which precede its message.
fn fields(text: &str) -> Vec<String> {
    let before = arguments(text).into_iter().take_while(|part| !part.starts_with('"'));
    let name = |part: String| {
        let name = part.split_once('=').map_or(part.as_str(), |(name, _)| name).trim();
        name.trim_start_matches(['%', '?']).to_owned()
    };
    before.map(name).collect()
}

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !["tests", "target"].contains(&path.file_name().unwrap().to_str().unwrap()) {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let code = code.collect::<Vec<_>>().join("\n");
            // Unit tests may log anything.
            let code = code.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
            found.push((path.display().to_string(), code));
        }
    }
}

#[test]
fn log_fields_have_consistent_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "crates"] {
        sources(&root.join(folder), &mut files);
    }
    let mut seen = BTreeSet::new();
    for (path, code) in files {
        for level in ["error!(", "warn!(", "info!(", "debug!(", "trace!("] {
            for (at, _) in code.match_indices(level) {
                let before = code[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    continue;
                }
                for field in fields(&code[at + level.len()..]) {
                    let is_snake = field.starts_with(|c: char| c.is_ascii_lowercase())
                        && field.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                    assert!(is_snake, "{path}: {level} has a field {field:?}, which is not in snake_case");
                    // One name per concept; durations name their unit.
                    let others =
                        ["instance", "name", "seconds", "duration", "elapsed", "took", "millis", "level", "msg", "ts"];
                    assert!(!others.contains(&field.as_str()), "{path}: field {field}");
                    seen.insert(field);
                }
            }
        }
    }
    for field in ["clerk_instance", "error", "duration_seconds", "server", "bucket"] {
        assert!(seen.contains(field), "the search is broken: no {field} in {seen:?}");
    }
}

#[test]
fn fields_of_an_event_end_at_its_message() {
    let event = "clerk_instance = %name(a, \")\"), error = %why, ?task, count, \"no, {x}\", x = 1); other";
    assert_eq!(fields(event), ["clerk_instance", "error", "task", "count"]);
}
