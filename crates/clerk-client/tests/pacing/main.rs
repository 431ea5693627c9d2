//! The limiter under load, for every counting kind of the server: minutes of simulated time with demand above the
//! limit. The server receives a request at any time between its start and end, and all clocks differ.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bursts;
mod table;
mod wire;
mod world;
