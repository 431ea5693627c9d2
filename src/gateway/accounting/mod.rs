//! Counters of requests, by caller.

pub(super) mod access_log;
pub(super) mod access_record;
pub(super) mod caller_registry;
pub(super) mod counters;
pub(super) mod credential_shape;
pub(super) mod decision;
pub(super) mod request_record;
pub(super) mod route_key;
pub(super) mod stats;
