//! Passwords, rules for them, limits of trying them, and tokens.

mod hmac;
pub mod limits;
pub mod opaque_tokens;
pub mod password;
pub mod password_rules;
pub mod token;
