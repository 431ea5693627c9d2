//! Reads answered without an upstream request of their own, and invalidation by writes.

pub(super) mod instance_state;
pub(super) mod read_path;
pub(super) mod shadow_batches;
pub(super) mod shareable;
mod shared_response;
pub(super) mod upstream_fetch;
mod verification;
pub(super) mod write_invalidation;
