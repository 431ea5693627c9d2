//! Reads that need no request of their own, and what writes invalidate.

pub(super) mod instance_state;
pub(super) mod read_path;
pub(super) mod shareable;
pub(super) mod upstream_fetch;
pub(super) mod write_invalidation;
