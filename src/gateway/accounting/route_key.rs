//! A route as a key of counters.

/// A template, compared by its address for speed. Counters of two addresses with the same text are added up when read.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct RouteKey(pub(in crate::gateway) &'static str);

impl PartialEq for RouteKey {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for RouteKey {}

impl std::hash::Hash for RouteKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.as_ptr().hash(state);
    }
}
