//! One request, from its first byte to the last byte of its response.

pub(super) mod error_response;
pub(super) mod headers;
pub(super) mod identify;
mod logged_request;
pub(super) mod own_paths;
pub(super) mod pipeline;
pub(super) mod routing_table;
mod trace_context;
pub(super) mod transaction;
pub(super) mod turn;
pub(super) mod upload;
pub(super) mod upstream_request;
pub(super) mod webhooks;
