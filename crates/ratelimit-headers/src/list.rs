//! Splits header values into list elements (RFC 9110, section 5.6.1).

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// Splits a line at commas, trims the elements and skips empty ones.
///
/// Does not split at a comma inside quotes or after the day name of an HTTP date (`Wed, 25 Nov 2026 12:00:30 GMT`).
pub(super) fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let (element, tail) = match comma(text) {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        rest = tail;
        Some(trim(element))
    })
    .filter(|element| !element.is_empty())
}

/// The position of the first comma that separates two elements.
fn comma(text: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted && !is_day_name(trim(&text[..at])) => return Some(at),
            _ => {}
        }
    }
    None
}

fn is_day_name(text: &[u8]) -> bool {
    const DAYS: [&[u8]; 7] = [b"Monday", b"Tuesday", b"Wednesday", b"Thursday", b"Friday", b"Saturday", b"Sunday"];
    DAYS.iter().any(|day| text == *day || text == &day[..3])
}

/// Splits an element at its first `;` outside quotes into the value and the parameters (possibly empty).
pub(super) fn split_parameters(element: &[u8]) -> (&[u8], &[u8]) {
    let mut quoted = false;
    let end = element.iter().position(|byte| {
        quoted ^= *byte == b'"';
        *byte == b';' && !quoted
    });
    match end {
        Some(at) => (trim(&element[..at]), &element[at..]),
        None => (element, &[]),
    }
}

/// Trims spaces and tabs. Unlike `trim_ascii`, keeps line breaks, which headers cannot contain.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(start) = text.iter().position(|byte| !blank(byte)) else {
        return &[];
    };
    let end = text.iter().rposition(|byte| !blank(byte)).unwrap_or(start);
    &text[start..=end]
}

/// Trims white space and one pair of quotes, which some structured-field writers put around numbers.
pub(super) fn unquote(text: &[u8]) -> &[u8] {
    match trim(text) {
        [b'"', inner @ .., b'"'] => trim(inner),
        text => text,
    }
}

/// The values of one field in order. The first, usually the only one, needs no heap allocation.
#[derive(Debug)]
pub(super) struct Column<T> {
    first: Option<T>,
    rest: Vec<T>,
}

impl<T: Copy> Column<T> {
    pub(super) const fn new() -> Self {
        Self { first: None, rest: Vec::new() }
    }

    pub(super) fn push(&mut self, value: T) {
        if self.first.is_none() {
            self.first = Some(value);
        } else {
            self.rest.push(value);
        }
    }

    pub(super) fn extend(&mut self, values: impl IntoIterator<Item = T>) {
        for value in values {
            self.push(value);
        }
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = T> {
        self.first.into_iter().chain(self.rest.iter().copied())
    }

    /// Returns the value if all values are equal.
    pub(super) fn agreed(&self) -> Option<T>
    where
        T: PartialEq,
    {
        self.first.filter(|first| self.rest.iter().all(|value| value == first))
    }
}

impl<T: Copy> FromIterator<T> for Column<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut column = Self::new();
        column.extend(values);
        column
    }
}

/// Returns all values of a field, across lines and spellings of its name.
///
/// An unreadable element stays as `None`, because positions link a limit to its remaining count. A header without any
/// element is one unreadable value; a missing header is an empty column.
pub(super) fn column<T: Copy>(
    headers: &HeaderMap,
    names: &[&HeaderName],
    mut read: impl FnMut(&[u8]) -> Option<T>,
) -> Column<Option<T>> {
    let mut column = Column::new();
    let mut present = false;
    for name in names {
        for line in headers.get_all(*name) {
            present = true;
            for element in elements(line.as_bytes()) {
                column.push(read(element));
            }
        }
    }
    if present && column.is_empty() {
        column.push(None);
    }
    column
}

/// Returns the raw lines of a header.
pub(super) fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<&str> {
        elements(line.as_bytes()).map(|element| std::str::from_utf8(element).unwrap()).collect()
    }

    #[test]
    fn lines_are_split_at_commas_without_empty_elements() {
        assert_eq!(split("1, 2,\t3 ,,"), ["1", "2", "3"]);
        assert_eq!(split(""), [""; 0]);
        assert_eq!(split(" , ,"), [""; 0]);
    }

    #[test]
    fn commas_in_quotes_and_dates_do_not_split() {
        assert_eq!(split(r#""a,b", "c\",d""#), [r#""a,b""#, r#""c\",d""#]);
        assert_eq!(
            split("5, Wed, 25 Nov 2026 12:00:30 GMT, Wednesday, 25-Nov-26 12:00:30 GMT,7"),
            ["5", "Wed, 25 Nov 2026 12:00:30 GMT", "Wednesday, 25-Nov-26 12:00:30 GMT", "7"]
        );
    }

    #[test]
    fn open_quote_extends_to_the_end_of_the_line() {
        assert_eq!(split(r#"1, "2, 3"#), ["1", r#""2, 3"#]);
        assert_eq!(split(r#"1, "2\"#), ["1", r#""2\"#]);
    }

    #[test]
    fn parameters_start_at_the_first_unquoted_semicolon() {
        assert_eq!(split_parameters(b"100 ;w=60;x"), (&b"100"[..], &b";w=60;x"[..]));
        assert_eq!(split_parameters(b"\"a;b\";w=1"), (&b"\"a;b\""[..], &b";w=1"[..]));
        assert_eq!(split_parameters(b";w=1"), (&b""[..], &b";w=1"[..]));
        assert_eq!(split_parameters(b"100"), (&b"100"[..], &b""[..]));
    }

    #[test]
    fn one_pair_of_quotes_is_removed() {
        assert_eq!(unquote(b" \" 100 \"\t"), b"100");
        assert_eq!(unquote(b"\""), b"\"");
        assert_eq!(unquote(b"\"\"100\"\""), b"\"100\"");
    }

    #[test]
    fn column_agrees_only_if_all_values_are_equal() {
        assert_eq!([7, 7, 7].into_iter().collect::<Column<_>>().agreed(), Some(7));
        assert_eq!([7, 8].into_iter().collect::<Column<_>>().agreed(), None);
        assert_eq!(Column::<u8>::new().agreed(), None);
    }
}
