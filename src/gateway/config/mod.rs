//! The gateway's options and policies.

pub(super) mod options;
pub(super) mod policy;
