//! What a gateway is made of, as it is given.

pub(super) mod options;
pub(super) mod policy;
