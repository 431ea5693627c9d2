//! Walking the tree: sections with known keys, and a report that collects every problem.

use std::path::{Path, PathBuf};

use super::error::{ConfigError, ConfigProblem, Position};
use super::tree::{Node, Value};
use clerk_client::secret::looks_like_secret;

/// Problems and warnings found so far.
pub(super) struct Report {
    file: Option<PathBuf>,
    problems: Vec<ConfigProblem>,
    warnings: Vec<ConfigProblem>,
}

impl Report {
    pub(super) fn new(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned), problems: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn problem(&mut self, place: Option<Position>, key: &str, message: impl Into<String>) {
        let problem = self.entry(place, key, message.into());
        self.problems.push(problem);
    }

    pub(super) fn warning(&mut self, place: Option<Position>, key: &str, message: impl Into<String>) {
        let warning = self.entry(place, key, message.into());
        self.warnings.push(warning);
    }

    fn entry(&self, place: Option<Position>, key: &str, message: String) -> ConfigProblem {
        ConfigProblem { file: self.file.clone(), place, key: key.to_owned(), message }
    }

    /// `value` and the warnings, if nothing is wrong.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<(T, Vec<String>), ConfigError> {
        self.warnings.sort_by_key(|warning| warning.place);
        match value {
            Some(value) if self.problems.is_empty() => {
                Ok((value, self.warnings.iter().map(ConfigProblem::to_string).collect()))
            }
            _ => {
                self.problems.sort_by_key(|problem| problem.place);
                Err(ConfigError { problems: self.problems })
            }
        }
    }
}

/// A value together with its full name.
pub(super) struct Field {
    /// Full name, as `instances[0].probe.interval`.
    pub(super) path: String,
    pub(super) node: Node,
}

impl Field {
    pub(super) const fn place(&self) -> Position {
        self.node.place
    }

    /// Applies a rule to the value; what the rule says becomes a problem at the value's place.
    pub(super) fn check<T>(&self, report: &mut Report, rule: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        rule(&self.node.value).map_err(|message| report.problem(Some(self.place()), &self.path, message)).ok()
    }

    /// As [`check`](Self::check), for values that are text.
    pub(super) fn check_text<T>(&self, report: &mut Report, rule: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.check(report, |value| rule(text_of(value)?))
    }

    /// The text itself, moved out and not copied: it may be a secret.
    pub(super) fn into_text(self, report: &mut Report) -> Option<String> {
        self.check(report, |value| text_of(value).map(|_| ()))?;
        match self.node.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list, each with its index in its name.
    pub(super) fn into_list(self, report: &mut Report) -> Option<Vec<Self>> {
        let Value::List(items) = self.node.value else {
            let message = format!("{} instead of a list; begin each item with `- `", self.node.value.kind());
            report.problem(Some(self.node.place), &self.path, message);
            return None;
        };
        let named = |(index, node)| Self { path: format!("{}[{index}]", self.path), node };
        Some(items.into_iter().enumerate().map(named).collect())
    }
}

fn text_of(value: &Value) -> Result<&str, String> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Null => Err("has no value; write one or remove the key".to_owned()),
        Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
            Err(format!("{} instead of text; put it in quotes", value.kind()))
        }
        Value::List(_) | Value::Map(_) => Err(format!("{} instead of text; write a single value", value.kind())),
    }
}

/// The keys of one section of the file.
pub(super) struct Keys {
    /// The section's name in the documentation; empty for the top of the file.
    pub(super) section: &'static str,
    pub(super) known: &'static [&'static str],
}

/// A mapping whose keys are all known.
pub(super) struct Section {
    pub(super) path: String,
    pub(super) place: Position,
    fields: Vec<(String, Field)>,
}

impl Section {
    /// Opens a mapping. Keys that are not in `keys` are reported and dropped. A section without any key (`probe:`) is
    /// an empty one.
    pub(super) fn open(field: Field, keys: &Keys, schema: &[&Keys], report: &mut Report) -> Option<Self> {
        let Field { path, node: Node { value, place } } = field;
        let entries = match value {
            Value::Map(entries) => entries,
            Value::Null => Vec::new(),
            other => {
                let message = format!(
                    "{} instead of a section; write keys below it, indented, as in `{}: ...`",
                    other.kind(),
                    keys.known[0]
                );
                report.problem(Some(place), &path, message);
                return None;
            }
        };
        let mut fields = Vec::new();
        for (key, node) in entries {
            let Value::Text(name) = key.value else {
                report.problem(Some(key.place), &path, "a key that is not text; write one of the documented keys");
                continue;
            };
            let full = if path.is_empty() { shown(&name).to_owned() } else { format!("{path}.{}", shown(&name)) };
            if keys.known.contains(&name.as_str()) {
                fields.push((name, Field { path: full, node }));
            } else {
                report.problem(Some(key.place), &full, unknown_key(&name, keys, schema));
            }
        }
        Some(Self { path, place, fields })
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Field> {
        let index = self.fields.iter().position(|(name, _)| name == key)?;
        Some(self.fields.swap_remove(index).1)
    }

    /// Whether a key is there and was not taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.fields.iter().any(|(name, _)| name == key)
    }

    /// The full name of one of this section's keys.
    pub(super) fn name_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// A key's name, unless it may be a secret in the wrong place or would garble the message.
fn shown(key: &str) -> &str {
    let is_plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let is_random = key.len() >= 20 && key.bytes().any(|byte| byte.is_ascii_digit());
    if key.is_empty() || key.len() > 40 || !is_plain || is_random || looks_like_secret(key) {
        "(not shown)"
    } else {
        key
    }
}

fn unknown_key(key: &str, keys: &Keys, schema: &[&Keys]) -> String {
    if let Some(home) = schema.iter().find(|other| other.known.contains(&key)) {
        let place = if home.section.is_empty() {
            "at the top of the file".to_owned()
        } else {
            format!("below `{}`", home.section)
        };
        return format!("a key that belongs {place}; move it there");
    }
    let key = key.to_ascii_lowercase().replace('-', "_");
    let nearest =
        keys.known.iter().map(|known| (strsim::levenshtein(&key, known), known)).min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, known)) if distance <= 3 && distance * 2 < known.len() => {
            format!("unknown key; write `{known}`")
        }
        _ => format!("unknown key; the keys here are {}", keys.known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_may_be_secrets_are_not_repeated() {
        for key in ["interval", "further-keys", "a.b"] {
            assert_eq!(shown(key), key);
        }
        for key in ["sk_live_CANARY", "aB3dE6gH9jK2mN5pQ8sT1v", "a b", "a\nb", "", &"k".repeat(41)] {
            assert_eq!(shown(key), "(not shown)");
        }
    }
}
