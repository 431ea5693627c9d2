//! Maps a request's method and path to its route template and bucket.
//!
//! Templates become label values, so their number is fixed: a route that is not in the catalogue is [`OTHER`]. A path
//! is matched as servers read it: percent-encoded letters equal plain ones, an encoded slash stays inside its segment,
//! and dot segments and empty segments are resolved (RFC 3986, sections 5.2.4 and 6.2.2).

use std::cmp::Ordering;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::LazyLock;

use percent_encoding::percent_decode;

use super::limits::{Bucket, Scope};
pub use super::path_params::path_params;
use super::route_id::RouteId;

/// The template of every route that is not in the catalogue.
pub const OTHER: &str = "other";

/// The user, organization or membership that a request changes, for buckets with one budget per entity.
///
/// Only a hash: personal identifiers are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entity(pub u64);

/// A request's route and bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The template, such as `/v1/users/{user_id}`, or [`OTHER`].
    pub template: &'static str,
    /// Method and template as a number.
    pub id: RouteId,
    /// The bucket that counts the request.
    pub bucket: Bucket,
    /// The owner of the budget, for buckets of [`Scope::Entity`].
    pub entity: Option<Entity>,
}

impl Route {
    /// A request that is not in the catalogue.
    pub const UNKNOWN: Self = Self { template: OTHER, id: RouteId::OTHER, bucket: Bucket::Instance, entity: None };
}

/// One line per route, `METHOD /v1/path/{parameter}`, from Clerk's OpenAPI description of the Backend API, and what its SDKs
/// request besides.
const PATHS: &str = include_str!("bapi-paths.txt");

/// More segments than any route has: longer paths are unknown.
const MAX_SEGMENTS: usize = 12;

static ROUTES: LazyLock<Node> = LazyLock::new(|| {
    let mut root = Node::default();
    for (place, (method, template)) in templates().enumerate() {
        root.insert(RouteId::at(place), method, template);
    }
    root
});

/// Returns all known routes as `(method, template)`, in the catalogue's order.
pub fn templates() -> impl Iterator<Item = (&'static str, &'static str)> {
    PATHS.lines().filter_map(|line| line.split_once(' '))
}

/// Finds the route of a request. An unknown one is [`OTHER`] in the default bucket.
///
/// `path` is the path of the request target as sent, with or without the leading `/v1`; a query is ignored. HEAD
/// counts as GET.
#[must_use]
pub fn find(method: &str, path: &[u8]) -> Route {
    let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let mut segments: [&[u8]; MAX_SEGMENTS] = [&[]; MAX_SEGMENTS];
    let mut count = 0_usize;
    for segment in path.split(|byte| *byte == b'/') {
        match dots(segment) {
            Dots::Current => {}
            Dots::Parent => count = count.saturating_sub(1),
            Dots::Name if count == MAX_SEGMENTS => return Route::UNKNOWN,
            Dots::Name => {
                segments[count] = segment;
                count += 1;
            }
        }
    }
    let mut segments = &segments[..count];
    if let [first, rest @ ..] = segments
        && equals(first, "v1")
    {
        segments = rest;
    }
    let method = if method == "HEAD" { "GET" } else { method };
    let mut parameters = [&[][..]; MAX_SEGMENTS];
    match ROUTES.find(method, segments, &mut parameters, 0) {
        Some((found, parameter_count)) => Route {
            template: found.template,
            id: found.id,
            bucket: found.bucket,
            entity: (found.bucket.scope() == Scope::Entity).then(|| entity(&parameters[..parameter_count])),
        },
        None => Route::UNKNOWN,
    }
}

#[derive(Debug, Default)]
struct Node {
    /// Sorted by length, then by name: most comparisons end at the length.
    literals: Vec<(&'static str, Node)>,
    parameter: Option<Box<Node>>,
    methods: Vec<Leaf>,
}

#[derive(Debug)]
struct Leaf {
    id: RouteId,
    method: &'static str,
    template: &'static str,
    bucket: Bucket,
}

impl Node {
    fn insert(&mut self, id: RouteId, method: &'static str, template: &'static str) {
        let mut node = self;
        for segment in template.strip_prefix("/v1").unwrap_or(template).split('/').filter(|segment| !segment.is_empty())
        {
            node = if segment.starts_with('{') {
                node.parameter.get_or_insert_default()
            } else {
                let place =
                    match node.literals.binary_search_by(|(name, _)| by_length(name.as_bytes(), segment.as_bytes())) {
                        Ok(place) => place,
                        Err(place) => {
                            node.literals.insert(place, (segment, Self::default()));
                            place
                        }
                    };
                &mut node.literals[place].1
            };
        }
        node.methods.push(Leaf { id, method, template, bucket: Bucket::of_route(id, method, template) });
    }

    /// Depth first, literals before parameters: `/v1/users/count` is never a user called "count", while
    /// `/v1/users/count/ban` is.
    fn find<'a>(
        &self,
        method: &str,
        segments: &[&'a [u8]],
        parameters: &mut [&'a [u8]; MAX_SEGMENTS],
        depth: usize,
    ) -> Option<(&Leaf, usize)> {
        let [segment, rest @ ..] = segments else {
            return self.methods.iter().find(|leaf| leaf.method == method).map(|leaf| (leaf, depth));
        };
        if let Some(child) = self.literal(segment)
            && let Some(found) = child.find(method, rest, parameters, depth)
        {
            return Some(found);
        }
        let child = self.parameter.as_ref()?;
        *parameters.get_mut(depth)? = segment;
        child.find(method, rest, parameters, depth + 1)
    }

    fn literal(&self, segment: &[u8]) -> Option<&Self> {
        if segment.contains(&b'%') {
            return self.literals.iter().find(|(name, _)| equals(segment, name)).map(|(_, child)| child);
        }
        let place = self.literals.binary_search_by(|(name, _)| by_length(name.as_bytes(), segment)).ok()?;
        Some(&self.literals[place].1)
    }
}

enum Dots {
    Current,
    Parent,
    Name,
}

fn dots(segment: &[u8]) -> Dots {
    match segment {
        [] => Dots::Current,
        [b'.' | b'%', ..] if equals(segment, ".") => Dots::Current,
        [b'.' | b'%', ..] if equals(segment, "..") => Dots::Parent,
        _ => Dots::Name,
    }
}

fn by_length(name: &[u8], segment: &[u8]) -> Ordering {
    name.len().cmp(&segment.len()).then_with(|| name.cmp(segment))
}

/// Returns whether a percent-decoded segment is this name.
fn equals(segment: &[u8], name: &str) -> bool {
    segment == name.as_bytes() || (segment.contains(&b'%') && percent_decode(segment).eq(name.bytes()))
}

fn entity(parameters: &[&[u8]]) -> Entity {
    let mut hasher = DefaultHasher::new();
    for parameter in parameters {
        for byte in percent_decode(parameter) {
            hasher.write_u8(byte);
        }
        // Ends the segment: ("ab", "c") and ("a", "bc") are two memberships.
        0xffff_u16.hash(&mut hasher);
    }
    Entity(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn template(method: &str, path: &str) -> &'static str {
        find(method, path.as_bytes()).template
    }

    #[test]
    fn find_returns_every_catalogue_route() {
        let mut count = 0;
        for (method, expected) in templates() {
            let path = expected.replace('{', "x").replace('}', "");
            assert_eq!(template(method, &path), expected, "{method} {path}");
            assert_eq!(template(method, path.strip_prefix("/v1").unwrap()), expected, "without /v1");
            assert_eq!(template(method, &format!("{path}/")), expected, "with a trailing slash");
            count += 1;
        }
        assert_eq!(count, 258);
    }

    #[test]
    fn literals_beat_parameters() {
        assert_eq!(template("GET", "/v1/users/count"), "/v1/users/count");
        assert_eq!(template("POST", "/v1/users/ban"), "/v1/users/ban");
        assert_eq!(template("GET", "/v1/users/user_1"), "/v1/users/{user_id}");
        assert_eq!(template("DELETE", "/v1/users/count"), "/v1/users/{user_id}");
        assert_eq!(template("POST", "/v1/users/count/ban"), "/v1/users/{user_id}/ban");
    }

    #[test]
    fn find_normalizes_paths_as_servers_do() {
        for path in [
            "/v1/users/count?limit=1",
            "/v1/users/count#x",
            "/v1/./users/count",
            "/v1/users/x/../count",
            "/v1/users/x/%2E%2e/count",
            "/../v1/users/count",
            "//v1//users//count//",
            "/v1/%75sers/coun%74",
            "/%761/users/count",
        ] {
            assert_eq!(template("GET", path), "/v1/users/count", "{path}");
        }
        assert_eq!(template("GET", "/v1/users/a%2Fcount"), "/v1/users/{user_id}");
        assert_eq!(template("HEAD", "/v1/users"), "/v1/users");
    }

    #[test]
    fn unknown_routes_are_other() {
        for (method, path) in [
            ("GET", ""),
            ("GET", "/"),
            ("GET", "/v1"),
            ("GET", "/v2/users"),
            ("GET", "/v1/v1/users"),
            ("GET", "/V1/users"),
            ("GET", "/v1/Users"),
            ("get", "/v1/users"),
            ("FOO", "/v1/users"),
            ("OPTIONS", "/v1/users"),
            ("GET", "/v1/users/a/b/c/d/e/f/g/h/i/j/k/l/m/n"),
            ("GET", "/v1/%zz"),
            ("GET", "/v1/%"),
        ] {
            assert_eq!(find(method, path.as_bytes()), Route::UNKNOWN, "{method} {path}");
        }
    }

    #[test]
    fn updates_count_for_the_entity_they_change() {
        let of = |method: &str, path: &str| find(method, path.as_bytes());
        let (first, second) = (of("PATCH", "/v1/users/u1"), of("PATCH", "/v1/users/u2"));
        assert_eq!(first.bucket, Bucket::UserUpdate);
        assert_ne!(first.entity, second.entity);
        assert_eq!(first.entity, of("PUT", "/v1/users/%751/metadata").entity);
        let membership = of("PATCH", "/v1/organizations/ab/memberships/c");
        assert_eq!(membership.bucket, Bucket::MembershipUpdate);
        assert_ne!(membership.entity, of("PATCH", "/v1/organizations/a/memberships/bc").entity);
        assert_eq!(of("GET", "/v1/users/u1").entity, None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_known_template(method in "\\PC{0,8}", path in proptest::collection::vec(any::<u8>(), 0..200)) {
            let route = find(&method, &path);
            prop_assert!(route.template == OTHER || templates().any(|(_, known)| known == route.template));
        }

        #[test]
        fn a_parameter_may_hold_any_bytes(id in proptest::collection::vec(any::<u8>(), 1..60)) {
            prop_assume!(!id.iter().any(|byte| matches!(byte, b'/' | b'?' | b'#')));
            prop_assume!(matches!(dots(&id), Dots::Name) && !equals(&id, "count"));
            let path = [b"/v1/users/", &id[..]].concat();
            prop_assert_eq!(find("GET", &path).template, "/v1/users/{user_id}");
        }
    }
}
