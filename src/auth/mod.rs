//! Passwords and access tokens.

mod hmac;
pub mod password;
pub mod password_rules;
pub mod token;
