//! Passwords and access tokens.

mod hmac;
pub mod password;
pub mod token;
