//! The service in process: every test starts its own, on a free port, and talks to it over HTTP.
//! The modules mirror the URLs. With TEST_POSTGRES set, each service has a schema of that Postgres, otherwise a file of
//! SQLite; what is about files is in `on_sqlite`.

// clippy.toml allows these in test functions; here, the functions they call are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod app;
mod client;
#[path = "../database/mod.rs"]
mod database;
mod follow;
#[path = "../replica/mod.rs"]
mod replica;
mod sidecar;

mod access_log;
mod accounts;
mod admin;
mod audit;
mod auth;
mod authorization;
mod batch;
mod bench;
mod bulk;
mod clock;
mod conditions;
mod config_start;
mod connection;
mod cors;
mod document;
mod fields;
mod floors;
mod fuzz;
mod headers;
mod health;
mod idempotency;
mod limits;
mod lists;
mod live;
mod log_names;
mod metrics;
mod model;
mod page;
mod paths;
mod rate_limits;
mod relay;
mod sessions;
mod slow_clients;
mod subscription;
mod sync;
mod todos;
mod transfer;
mod trash;
mod undo;
mod users;

use todo_backend::config;
