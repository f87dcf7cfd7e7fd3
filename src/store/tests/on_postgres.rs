//! What only Postgres does.
