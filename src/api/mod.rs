//! HTTP: what all routes share, then a file for each resource, then the documentation of all of them.

pub mod access_log;
pub mod error;
pub mod http;
pub mod list;
pub mod responses;
pub mod user;

pub mod admin;
pub mod auth;
pub mod dapr;
pub mod health;
pub mod metrics;
pub mod todos;

pub mod docs;
