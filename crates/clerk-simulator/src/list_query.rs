//! The queries of lists other than that of users.

use axum::extract::Query;
use http::Uri;
use serde::Serialize;
use serde_json::Value;

use super::error::ApiError;

/// Clerk's largest page, and its default.
const MAX_LIMIT: usize = 500;
const DEFAULT_LIMIT: usize = 10;

/// The parameters of a list.
#[derive(Debug)]
pub(super) struct ListQuery {
    pairs: Vec<(String, String)>,
    limit: usize,
    offset: usize,
}

/// The items of one page, and the number of all.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) total: usize,
}

#[derive(Serialize)]
struct Body<'a, T> {
    data: &'a [T],
    total_count: usize,
}

impl ListQuery {
    /// Parses the query. Unknown parameters are ignored.
    ///
    /// # Errors
    ///
    /// 422 for a `limit` or `offset` that Clerk would reject.
    pub(super) fn of(uri: &Uri) -> Result<Self, ApiError> {
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            return Err(ApiError::parameter("form_param_format_invalid", "", "the query is not form-encoded"));
        };
        let mut query = Self { pairs, limit: DEFAULT_LIMIT, offset: 0 };
        query.limit = query.number("limit", 1, MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
        query.offset = query.number("offset", 0, usize::MAX)?.unwrap_or(0);
        Ok(query)
    }

    /// Returns the first value of a parameter; an empty one counts as missing.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Returns all values of a parameter, of both notations: repeated, and separated by commas.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let values = self.pairs.iter().filter(move |(key, _)| key == name);
        values.flat_map(|(_, value)| value.split(',')).filter(|value| !value.is_empty())
    }

    /// Returns whether a value is among those of a parameter, or the parameter was not given.
    pub(super) fn allows(&self, name: &str, value: &str) -> bool {
        let mut wanted = self.all(name).peekable();
        wanted.peek().is_none() || wanted.any(|wanted| wanted.strip_prefix(['+', ' ']).unwrap_or(wanted) == value)
    }

    /// Returns whether a parameter is `true`.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Returns the field to sort by, and whether the order is descending.
    pub(super) fn order(&self) -> Option<(&str, bool)> {
        let text = self.get("order_by")?;
        Some(match text.strip_prefix('-') {
            Some(field) => (field, true),
            None => (text.strip_prefix(['+', ' ']).unwrap_or(text), false),
        })
    }

    /// Returns the items of the page that the query asks for.
    pub(super) fn page<T>(&self, all: impl Iterator<Item = T>) -> Page<T> {
        let mut items = Vec::new();
        let mut total = 0;
        for item in all {
            if total >= self.offset && items.len() < self.limit {
                items.push(item);
            }
            total += 1;
        }
        Page { items, total }
    }

    fn number(&self, name: &str, least: usize, most: usize) -> Result<Option<usize>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        // The Python SDK writes numbers of some endpoints as `10.0`.
        let value = value.strip_suffix(".0").unwrap_or(value);
        value.parse().ok().filter(|number| (least..=most).contains(number)).map(Some).ok_or_else(|| {
            let message = format!("{name} must be a whole number of at least {least}, and limit at most {MAX_LIMIT}");
            ApiError::parameter("form_param_value_invalid", name, message)
        })
    }
}

impl<T: Serialize> Page<T> {
    /// The form `{"data": […], "total_count": n}`.
    pub(super) fn counted(&self) -> Value {
        to_value(&Body { data: &self.items, total_count: self.total })
    }

    /// An array, or the counted form if the query has `paginated=true`.
    pub(super) fn array_or_counted(&self, query: &ListQuery) -> Value {
        if query.is_set("paginated") { self.counted() } else { to_value(&self.items) }
    }
}

/// Serializes plain data, which does not fail.
pub(super) fn to_value(data: &impl Serialize) -> Value {
    serde_json::to_value(data).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> ListQuery {
        ListQuery::of(&format!("/v1/x?{text}").parse().unwrap()).unwrap()
    }

    #[test]
    fn page_has_the_items_and_the_number_of_all() {
        let page = query("limit=2&offset=1").page(0..5);
        assert_eq!((page.items.as_slice(), page.total), (&[1, 2][..], 5));
        assert_eq!(query("").page(0..50).items.len(), DEFAULT_LIMIT);
        assert_eq!(query("offset=9&limit=3.0").page(0..5).total, 5);
    }

    #[test]
    fn arrays_accept_both_notations() {
        for text in ["status=a&status=b", "status=a,b"] {
            let query = query(text);
            assert!(query.allows("status", "a") && query.allows("status", "b") && !query.allows("status", "c"));
        }
        assert!(query("").allows("status", "c"));
    }

    #[test]
    fn limits_out_of_range_are_rejected() {
        for text in ["limit=0", "limit=501", "offset=-1", "limit=x"] {
            let error = ListQuery::of(&format!("/v1/x?{text}").parse().unwrap()).unwrap_err();
            assert_eq!(error.code(), "form_param_value_invalid", "{text}");
        }
    }
}
