//! The Postgres store: how connections are made, and a file for each kind of work on them.

mod admin;
pub mod backend;
mod commit;
pub(super) mod connection;
pub mod database;
mod erase;
pub mod error;
mod history;
mod idempotency;
mod leases;
mod load;
pub mod maintenance;
mod polls;
mod reader;
mod retention;
pub(super) mod rows;
pub(super) mod schema;
mod tail;
pub mod tls;
mod used;
