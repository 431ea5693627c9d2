//! Setters of option structs.

/// Implements a setter for each field of an option struct. The structs are `#[non_exhaustive]`, so that a new field breaks
/// no user; setters are how users fill them.
macro_rules! setters {
    ($type:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        impl $type {
            $(
                #[doc = concat!("Sets [`", stringify!($type), "::", stringify!($field), "`].")]
                $(#[$attribute])*
                #[must_use]
                pub fn $field(mut self, $field: $kind) -> Self {
                    self.$field = $field.into();
                    self
                }
            )*
        }
    };
}

pub(crate) use setters;
