//! What the service is about: plain types and pure rules, without I/O and without a framework.

pub mod account;
pub mod change;
pub mod clock;
pub mod etag;
pub mod network;
mod number;
pub mod session;
pub mod sync_token;
pub mod todo;
pub mod trace;
pub mod validation;
