//! Takes all of a user's todos out, and many in.

pub mod export;
pub mod import;

/// JSON values, each on a line (<https://github.com/ndjson/ndjson-spec>).
const NDJSON: &str = "application/x-ndjson";
