//! A route of the catalogue as a number, with the name of its own bucket.

use std::sync::LazyLock;

use super::limits::Bucket;
use super::route::templates;

/// A route of the catalogue, by method and template. Small and cheap to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(u16);

/// `route:METHOD template` for each route, in the catalogue's order.
static BUCKET_NAMES: LazyLock<Vec<String>> =
    LazyLock::new(|| templates().map(|(method, template)| format!("route:{method} {template}")).collect());

static TEMPLATES: LazyLock<Vec<&'static str>> = LazyLock::new(|| templates().map(|(_, template)| template).collect());

static OWN_LIMIT: LazyLock<Vec<bool>> = LazyLock::new(|| {
    let bucket = |(place, (method, template))| Bucket::of_route(RouteId::at(place), method, template);
    templates().enumerate().map(|route| matches!(bucket(route), Bucket::Route(_))).collect()
});

impl RouteId {
    /// Any request that is not in the catalogue.
    pub const OTHER: Self = Self(u16::MAX);

    /// Returns the route at this position of the catalogue.
    pub(super) fn at(place: usize) -> Self {
        u16::try_from(place).map_or(Self::OTHER, Self)
    }

    /// Returns the template, such as `/v1/users/{user_id}`, or [`OTHER`](super::route::OTHER).
    #[must_use]
    pub fn template(self) -> &'static str {
        TEMPLATES.get(usize::from(self.0)).copied().unwrap_or(super::route::OTHER)
    }

    /// Returns whether Clerk says that the route has a limit of its own, which is not published.
    #[must_use]
    pub fn has_own_limit(self) -> bool {
        OWN_LIMIT.get(usize::from(self.0)).is_some_and(|has| *has)
    }

    /// Returns the name of the route's own bucket, such as `route:GET /v1/organizations`.
    #[must_use]
    pub fn bucket_name(self) -> &'static str {
        BUCKET_NAMES.get(usize::from(self.0)).map_or("route:other", String::as_str)
    }
}
