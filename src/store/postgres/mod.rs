//! Todos in a Postgres database.

pub mod tls;
