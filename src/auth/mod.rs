//! Passwords, rules for them, and tokens.

mod hmac;
pub mod opaque_tokens;
pub mod password;
pub mod password_rules;
pub mod token;
