//! The metrics and labels in a PromQL expression. Not a full parser: it panics on anything it does not support, instead
//! of skipping it.

use std::collections::BTreeSet;

/// The names in an expression.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Each selector: the metric, and the labels of its matchers.
    pub(crate) selectors: Vec<(String, BTreeSet<String>)>,
    /// Labels after by, without, on, ignoring, group_left and group_right.
    pub(crate) grouping: BTreeSet<String>,
}

/// The functions and aggregations in rules and runbooks. Add new ones here.
const FUNCTIONS: [&str; 18] = [
    "abs",
    "absent",
    "avg_over_time",
    "clamp_max",
    "clamp_min",
    "count",
    "increase",
    "label_replace",
    "last_over_time",
    "max",
    "max_over_time",
    "min",
    "min_over_time",
    "rate",
    "sort_desc",
    "sum",
    "sum_over_time",
    "time",
];
const LABEL_LISTS: [&str; 6] = ["by", "group_left", "group_right", "ignoring", "on", "without"];
const OPERATORS: [&str; 5] = ["and", "bool", "offset", "or", "unless"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    Text,
    Number,
    Sign(char),
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(first) = rest.next() {
        match first {
            _ if first.is_whitespace() => {}
            '"' | '\'' => {
                while let Some(next) = rest.next() {
                    match next {
                        '\\' => drop(rest.next()),
                        _ if next == first => break,
                        _ => {}
                    }
                }
                tokens.push(Token::Text);
            }
            '0'..='9' => {
                // A number or a duration.
                while rest.next_if(|next| next.is_ascii_alphanumeric() || *next == '.').is_some() {}
                tokens.push(Token::Number);
            }
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                let mut name = String::from(first);
                while let Some(next) = rest.next_if(|next| next.is_ascii_alphanumeric() || matches!(next, '_' | ':')) {
                    name.push(next);
                }
                tokens.push(Token::Name(name));
            }
            _ => tokens.push(Token::Sign(first)),
        }
    }
    tokens
}

/// The names in an expression.
pub(crate) fn names(expression: &str) -> Names {
    let mut found = Names::default();
    let mut rest = tokens(expression).into_iter().peekable();
    while let Some(token) = rest.next() {
        let name = match token {
            Token::Name(name) => name,
            Token::Sign('[') => {
                assert!(rest.by_ref().any(|token| token == Token::Sign(']')), "open bracket in {expression}");
                continue;
            }
            Token::Sign('{') => panic!("a selector without a metric in {expression}"),
            Token::Sign(_) | Token::Number | Token::Text => continue,
        };
        if LABEL_LISTS.contains(&name.as_str()) {
            assert_eq!(rest.next(), Some(Token::Sign('(')), "{name} without a list in {expression}");
            let list = rest.by_ref().take_while(|token| *token != Token::Sign(')'));
            found.grouping.extend(list.filter_map(label));
        } else if rest.peek() == Some(&Token::Sign('(')) || FUNCTIONS.contains(&name.as_str()) {
            let known = FUNCTIONS.contains(&name.as_str()) || OPERATORS.contains(&name.as_str());
            assert!(known, "unknown function {name} in {expression}");
        } else if !OPERATORS.contains(&name.as_str()) {
            let mut matchers = BTreeSet::new();
            if rest.next_if(|token| *token == Token::Sign('{')).is_some() {
                // Label, operator (one or two characters), text, comma.
                matchers.extend(rest.by_ref().take_while(|token| *token != Token::Sign('}')).filter_map(label));
            }
            found.selectors.push((name, matchers));
        }
    }
    found
}

fn label(token: Token) -> Option<String> {
    match token {
        Token::Name(name) => Some(name),
        Token::Text | Token::Number | Token::Sign(_) => None,
    }
}

#[test]
fn metrics_and_labels_are_distinguished_from_functions() {
    let expression = r#"
        sum without (a) (rate(m_total{b="}x{", c=~'y\'}'}[5m] offset 5m)) / on (d, e) group_left (f) (n:o:p > 0)
        unless ignoring (g) last_over_time(q{h!="1"}[1h]) and time() - r >= bool 1e3
    "#;
    let set = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect::<BTreeSet<_>>();
    let selectors = [("m_total", set(&["b", "c"])), ("n:o:p", set(&[])), ("q", set(&["h"])), ("r", set(&[]))];
    let selectors = selectors.map(|(metric, labels)| (metric.to_owned(), labels)).to_vec();
    assert_eq!(names(expression), Names { selectors, grouping: set(&["a", "d", "e", "f", "g"]) });
}

#[test]
#[should_panic(expected = "unknown function topk")]
fn unknown_function_panics() {
    names("topk(3, m)");
}
