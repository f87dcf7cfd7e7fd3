//! Who can have todos: accounts, roles, and the three demo users of development.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::number::number;

number! {
    /// An account's immutable id. A username may change hands, an id never does.
    UserId
}

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Its own todos.
    User,
    /// Its own todos, and the routes under `/admin`.
    Admin,
}

impl Role {
    /// The role's name in tokens and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// The role with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::User, Self::Admin].into_iter().find(|role| role.name() == name)
    }
}

/// An account and its credentials.
#[derive(Debug, Clone)]
pub struct User {
    /// Immutable: todos and tokens refer to it.
    pub id: UserId,
    /// Unique among existing accounts.
    pub username: Arc<str>,
    /// A PHC string (argon2id).
    pub password_hash: Box<str>,
    /// Decides which routes the account may use.
    pub role: Role,
}

/// An account that development has from the start.
pub struct DemoUser {
    /// The name to log in with.
    pub username: &'static str,
    /// The password, which is published.
    pub password: &'static str,
    /// Decides which routes the account may use.
    pub role: Role,
}

/// The original's demo users. They exist only with DEBUG=True: without it, they are neither created nor loaded.
pub const DEMO_USERS: [DemoUser; 3] = [
    DemoUser { username: "admin", password: "admin123", role: Role::Admin },
    DemoUser { username: "user", password: "user123", role: Role::User },
    DemoUser { username: "demo", password: "demo123", role: Role::User },
];
