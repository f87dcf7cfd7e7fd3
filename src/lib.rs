//! A Todo backend whose every change is durable before it is answered and published to Kafka through its Dapr sidecar.
//!
//! The idea that keeps it small: a mutation appends one [`store::Change`] to a durable, ordered log, in the same
//! transaction as the todo itself. Everything else reads: lists and single todos come from a map in memory, the relay
//! publishes the log to the sidecar, the subscription takes the events back.
//!
//! ```text
//! request -> AuthUser -> handler -> Command -> store: decide, commit with the group (fsync), map, reply
//! socket -> connection (one request at a time) -> actix -> access_log -> route
//! change log -> relay -> DaprClient -> daprd -> Kafka -> daprd -> POST /events/todos (subscription)
//! ```
//!
//! Who may know whom: `validation`, `clock`, `trace`, `todos::model` and `auth::accounts` know nobody. `store` knows
//! these and nothing of HTTP. `connection` knows no route. Routes know `auth`, `store` and `error`, never the relay or
//! Dapr. `events::relay` knows `store` and `events::dapr`. Only `app` knows everything, and only `cli`, which `main`
//! runs, knows `app`.

pub mod access_log;
pub mod app;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
pub mod docs;
pub mod error;
pub mod events;
pub mod health;
pub mod healthcheck;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod store;
pub mod todos;
pub mod trace;
pub mod validation;
