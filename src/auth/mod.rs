//! Accounts, passwords and access tokens.

pub mod accounts;
pub mod password;
pub mod routes;
pub mod token;
pub mod user;
