//! A route of the catalogue as a number: small, cheap to compare, and with a name for a bucket of its own.

use std::sync::LazyLock;

use super::route::templates;

/// A route of the catalogue: method and template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(u16);

/// `route:METHOD template` for each route, in the catalogue's order.
static BUCKET_NAMES: LazyLock<Vec<String>> =
    LazyLock::new(|| templates().map(|(method, template)| format!("route:{method} {template}")).collect());

static TEMPLATES: LazyLock<Vec<&'static str>> = LazyLock::new(|| templates().map(|(_, template)| template).collect());

impl RouteId {
    /// Every request that the catalogue does not know.
    pub const OTHER: Self = Self(u16::MAX);

    /// The route at this place of the catalogue.
    pub(super) fn at(place: usize) -> Self {
        u16::try_from(place).map_or(Self::OTHER, Self)
    }

    /// The template, such as `/v1/users/{user_id}`, or [`OTHER`](super::route::OTHER).
    #[must_use]
    pub fn template(self) -> &'static str {
        TEMPLATES.get(usize::from(self.0)).copied().unwrap_or(super::route::OTHER)
    }

    /// The name of a bucket that this route has for itself, such as `route:GET /v1/organizations`.
    #[must_use]
    pub fn bucket_name(self) -> &'static str {
        BUCKET_NAMES.get(usize::from(self.0)).map_or("route:other", String::as_str)
    }
}
