//! The tags of a read, from its path.

use super::{Tag, tags_of_route};
use clerk_quota::route::path_params;

/// What the response to a GET shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadTags {
    /// The tags, never empty: a response that no event covers has [`Tag::Everything`], which a write may change.
    pub tags: Vec<Tag>,
    /// Whether events report changes of the response.
    pub is_covered: bool,
}

/// Returns what the response to a GET of this path shows; `None` for an unknown route, and for a path whose parameters
/// cannot be read.
///
/// ```
/// use clerk_client::webhook::{Tag, tags_of_read};
///
/// let user = tags_of_read("/v1/users/{user_id}", "/v1/users/user_1").ok_or("not a path of this route")?;
/// assert_eq!((user.tags, user.is_covered), (vec![Tag::Everything, Tag::User("user_1".into())], true));
/// let keys = tags_of_read("/v1/jwks", "/v1/jwks").ok_or("not a path of this route")?;
/// assert_eq!((keys.tags, keys.is_covered), (vec![Tag::Everything], false));
/// # Ok::<(), &str>(())
/// ```
#[must_use]
pub fn tags_of_read(template: &str, path: &str) -> Option<ReadTags> {
    let params = path_params(template, path)?;
    let params: Vec<&str> = params.iter().map(AsRef::as_ref).collect();
    let mut tags = tags_of_route(template, &params);
    let is_covered = !tags.is_empty();
    if !is_covered {
        tags.push(Tag::Everything);
        if ["/v1/api_keys", "/v1/m2m_tokens"].iter().any(|tokens| template.starts_with(tokens)) {
            tags.push(Tag::Tokens);
        }
    }
    Some(ReadTags { tags, is_covered })
}
