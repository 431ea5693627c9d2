//! Where a PromQL expression selects series, in order to rewrite it there. It knows what the rules use, not all of PromQL.

use std::iter::from_fn;

/// Words that are followed by a list of labels.
const LABEL_LISTS: [&str; 6] = ["by", "group_left", "group_right", "ignoring", "on", "without"];
/// Words between two expressions, or before a duration.
const OPERATORS: [&str; 5] = ["and", "bool", "offset", "or", "unless"];

/// A selector such as `name{matchers}[range]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Selector<'a> {
    /// The name of the metric.
    pub(crate) metric: &'a str,
    /// What stands between the braces.
    pub(crate) matchers: &'a str,
    /// What stands between the brackets.
    pub(crate) range: Option<&'a str>,
}

impl<'a> Selector<'a> {
    /// The labels that its matchers compare.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut rest = self.matchers;
        from_fn(move || {
            let end = rest.find(['=', '!'])?;
            let label = rest[..end].trim_matches([' ', ',']);
            let text = &rest[end + rest[end..].find('"')?..];
            rest = &text[quoted(text)..];
            Some(label)
        })
    }
}

/// The length of the quoted text at the start of `text`.
fn quoted(text: &str) -> usize {
    let mut inside = text.char_indices();
    let Some((_, quote)) = inside.next() else { return 0 };
    while let Some((at, next)) = inside.next() {
        match next {
            '\\' => drop(inside.next()),
            _ if next == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length up to and including `end`, which may also stand in quotes before it.
fn up_to(text: &str, end: char) -> usize {
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        match next {
            '"' | '\'' => at += quoted(&text[at..]),
            _ if next == end => return at + end.len_utf8(),
            _ => at += next.len_utf8(),
        }
    }
    text.len()
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | ':')
}

/// The expression with each selector replaced by what `replace` makes of it; `None` keeps it.
pub(crate) fn rewrite(expression: &str, mut replace: impl FnMut(Selector<'_>) -> Option<String>) -> String {
    let mut text = String::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' => quoted(rest),
            '[' => up_to(rest, ']'),
            '0'..='9' => rest.find(|next: char| !is_name(next) && next != '.').unwrap_or(rest.len()),
            _ if is_name(first) => {
                let name = &rest[..rest.find(|next| !is_name(next)).unwrap_or(rest.len())];
                let after = &rest[name.len()..];
                let opens = after.trim_start().starts_with('(');
                let aggregates = LABEL_LISTS.iter().any(|word| after.trim_start().starts_with(&format!("{word} (")));
                if LABEL_LISTS.contains(&name) && opens {
                    name.len() + up_to(after, ')')
                } else if OPERATORS.contains(&name) || opens || aggregates {
                    name.len()
                } else {
                    let (selector, length) = selector(rest, name.len());
                    if let Some(other) = replace(selector) {
                        text.push_str(&other);
                        rest = &rest[length..];
                        continue;
                    }
                    length
                }
            }
            _ => first.len_utf8(),
        };
        text.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    text
}

/// The selector at the start of `text`, whose name has this length, and its own length.
fn selector(text: &str, name: usize) -> (Selector<'_>, usize) {
    let mut end = name;
    let mut matchers = "";
    if text[end..].starts_with('{') {
        let length = up_to(&text[end..], '}');
        matchers = text[end + 1..end + length].trim_end_matches('}');
        end += length;
    }
    let mut range = None;
    if text[end..].starts_with('[') {
        let length = up_to(&text[end..], ']');
        range = Some(text[end + 1..end + length].trim_end_matches(']'));
        end += length;
    }
    (Selector { metric: &text[..name], matchers, range }, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selectors(expression: &str) -> Vec<String> {
        let mut found = Vec::new();
        let same = rewrite(expression, |selector| {
            let labels: Vec<&str> = selector.labels().collect();
            found.push(format!("{} {labels:?} {:?}", selector.metric, selector.range));
            None
        });
        assert_eq!(same, expression);
        found
    }

    #[test]
    fn selectors_are_distinguished_from_everything_else() {
        let expression = r#"
            sum without (a) (rate(m_total{b="}x{", c=~"y,\"=z"}[5m] offset 5m)) / on (d, e) group_left ()
            max by (job) (n:o:p > 0) unless last_over_time((q{h!~"1"})[1h:5m]) and time() - r >= bool 1e3
            or label_replace(s, "t", "u", "", "")
        "#;
        assert_eq!(
            selectors(expression),
            ["m_total [\"b\", \"c\"] Some(\"5m\")", "n:o:p [] None", "q [\"h\"] None", "r [] None", "s [] None",]
        );
    }

    #[test]
    fn selectors_are_replaced_with_matchers_and_range() {
        let text = rewrite(r#"a{b="c"}[5m] + on () d"#, |selector| Some(format!("<{}>", selector.metric)));
        assert_eq!(text, "<a> + on () <d>");
    }
}
