//! A Todo backend whose every change is durable before it is answered and published to Kafka through its Dapr sidecar.
//!
//! The idea that keeps it small: a mutation appends one [`domain::change::Change`] to a durable, ordered log, in the
//! same transaction as the todo itself. Everything else reads: lists and single todos come from a map in memory, the
//! relay publishes the log to the sidecar, and clients follow it.
//!
//! It replaces a FastAPI service and keeps its API. Comments call that one *the original*.
//!
//! ```text
//! socket -> connection (one request at a time) -> actix -> access_log -> route
//! request -> AuthUser -> handler -> Command -> store: decide, commit with the group (fsync), publish to the map, answer
//! change log -> /changes, /events, /todos/{id}/history (api::sync)
//! change log -> relay -> DaprClient -> daprd -> Kafka -> daprd -> POST /events/todos (api::dapr)
//! ```
//!
//! CONTRIBUTING.md walks a request and an event through the files.
//!
//! # Floors
//!
//! Dependency rules: a floor uses those below it, never one above (`tests/it/floors.rs` reads this table).
//!
//! ```text
//! main
//! cli          the commands of the binary
//! app          assembles state and routes; the order of start and of shutdown
//! api          HTTP: what all routes share, a file for each resource, what the sidecar calls, the documentation
//! connection   between a socket and actix: one request at a time, limits
//! events       a change as an event, its delivery to the sidecar: dispatcher, relay, Dapr client
//! store        the contract, the decisions, the map, the change log on disk
//! auth         passwords, rules for them, limits of trying them, and tokens
//! telemetry    log lines and metrics
//! config       typed settings
//! domain       todos, changes, accounts, time, traces, validation: plain types and pure rules
//! ```
//!
//! Crates that only some floors may use:
//!
//! ```text
//! actix        main app api connection
//! rusqlite     store
//! reqwest      cli events
//! rustls       events store
//! ring         cli auth api
//! jsonwebtoken auth config
//! tokio        main cli app api connection events store auth
//! tokio_postgres  config store
//! ```

pub mod api;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod connection;
pub mod domain;
pub mod events;
pub mod store;
pub mod telemetry;
