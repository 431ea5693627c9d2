//! A partial PromQL parser for the rules: the series in a query, the functions around them, and the labels. Prometheus
//! itself checks the syntax.

/// A series selector in a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    /// Label, operator and value.
    pub(crate) matchers: Vec<(String, String, String)>,
    /// The range in brackets, if any.
    pub(crate) range: Option<String>,
    /// Functions and aggregations around it, outermost first.
    pub(crate) calls: Vec<String>,
}

/// The parts of a query.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) selectors: Vec<Selector>,
    /// Labels in `by`, `without`, `on`, `ignoring`, `group_left` and `group_right`.
    pub(crate) grouping: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Number,
    /// The contents of brackets.
    Range(String),
    Mark(char),
}

const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

/// Parses a query of a dashboard, including macros and variables.
pub(crate) fn read(query: &str) -> Query {
    let tokens = tokens(query);
    let mut result = Query::default();
    let mut calls: Vec<String> = Vec::new();
    // The name that the next parenthesis belongs to: `sum by (a) (b)` has words in between.
    let mut pending: Option<String> = None;
    let mut position = 0;
    while let Some(token) = tokens.get(position) {
        position += 1;
        let next = tokens.get(position);
        match token {
            Token::Word(word) if GROUPING.contains(&word.as_str()) => {
                if next == Some(&Token::Mark('(')) {
                    position += 1;
                    while let Some(token) = tokens.get(position).filter(|token| **token != Token::Mark(')')) {
                        if let Token::Word(label) = token {
                            result.grouping.push(label.clone());
                        }
                        position += 1;
                    }
                    position += 1;
                }
            }
            Token::Word(word) if OPERATORS.contains(&word.as_str()) => {}
            Token::Word(word) => match next {
                Some(Token::Mark('(')) => pending = Some(word.clone()),
                Some(Token::Word(following)) if GROUPING.contains(&following.as_str()) && !word.contains('_') => {
                    pending = Some(word.clone());
                }
                _ => {
                    let (matchers, end) = matchers(&tokens, position);
                    position = end;
                    let range = match tokens.get(position) {
                        Some(Token::Range(range)) => Some(range.clone()),
                        _ => None,
                    };
                    let calls = calls.iter().filter(|call| !call.is_empty()).cloned().collect();
                    result.selectors.push(Selector { metric: word.clone(), matchers, range, calls });
                }
            },
            Token::Mark('(') => calls.push(pending.take().unwrap_or_default()),
            Token::Mark(')') => {
                calls.pop();
            }
            Token::Text(_) | Token::Number | Token::Range(_) | Token::Mark(_) => {}
        }
    }
    result
}

fn matchers(tokens: &[Token], start: usize) -> (Vec<(String, String, String)>, usize) {
    let mut matchers = Vec::new();
    if tokens.get(start) != Some(&Token::Mark('{')) {
        return (matchers, start);
    }
    let mut position = start + 1;
    while let Some(token) = tokens.get(position) {
        position += 1;
        match token {
            Token::Mark('}') => break,
            Token::Word(label) => {
                let mut operator = String::new();
                while let Some(Token::Mark(mark)) = tokens.get(position) {
                    operator.push(*mark);
                    position += 1;
                }
                if let Some(Token::Text(value)) = tokens.get(position) {
                    matchers.push((label.clone(), operator, value.clone()));
                }
            }
            Token::Text(_) | Token::Number | Token::Range(_) | Token::Mark(_) => {}
        }
    }
    (matchers, position)
}

fn tokens(query: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = query.chars().peekable();
    while let Some(first) = rest.next() {
        let mut take = |more: &dyn Fn(char) -> bool| {
            let mut text = String::from(first);
            while let Some(next) = rest.next_if(|next| more(*next)) {
                text.push(next);
            }
            text
        };
        let token = match first {
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                Token::Word(take(&|next| next.is_ascii_alphanumeric() || "_:".contains(next)))
            }
            '0'..='9' => {
                take(&|next| next.is_ascii_alphanumeric() || next == '.');
                Token::Number
            }
            '"' => {
                let text = take(&|next| next != '"');
                rest.next();
                Token::Text(text[1..].to_owned())
            }
            // A macro such as `$__range` after `offset`.
            '$' => {
                take(&|next| next.is_ascii_alphanumeric() || next == '_');
                Token::Number
            }
            '[' => {
                let text = take(&|next| next != ']');
                rest.next();
                Token::Range(text[1..].to_owned())
            }
            _ if first.is_whitespace() => continue,
            _ => Token::Mark(first),
        };
        tokens.push(token);
    }
    tokens
}

#[test]
fn selectors_are_found_with_their_functions() {
    let query = read(
        r#"histogram_quantile(0.5, sum by (le) (rate(a_bucket{x=~"$x",y!="1"}[$__rate_interval]))) and on (z) max(b) > 2 * time()"#,
    );
    let [a, b] = query.selectors.as_slice() else { panic!("{query:?}") };
    assert_eq!(a.metric, "a_bucket");
    let matcher = |label: &str, operator: &str, value: &str| (label.to_owned(), operator.to_owned(), value.to_owned());
    assert_eq!(a.matchers, [matcher("x", "=~", "$x"), matcher("y", "!=", "1")]);
    assert_eq!(a.range.as_deref(), Some("$__rate_interval"));
    assert_eq!(a.calls, ["histogram_quantile", "sum", "rate"]);
    assert_eq!((b.metric.as_str(), b.calls.as_slice()), ("b", &["max".to_owned()][..]));
    assert_eq!(query.grouping, ["le", "z"]);
}

#[test]
fn operators_and_arithmetic_are_not_selectors() {
    let query = read("count(a > time()) or 0 * count(b) unless (c_d / on (e, f) group_left (g) (h{} > bool 0))");
    let names: Vec<&str> = query.selectors.iter().map(|selector| selector.metric.as_str()).collect();
    assert_eq!(names, ["a", "b", "c_d", "h"]);
    assert_eq!(query.grouping, ["e", "f", "g"]);
}
