//! Who can have todos: accounts, their names and roles, and the three demo users of development.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::clock::Timestamp;
use crate::domain::number::number;

number! {
    /// An account's immutable id. A username may change hands, an id never does.
    UserId
}

number! {
    /// Counts what ended an account's tokens: a token of an earlier epoch is not valid any more.
    TokenEpoch
}

impl TokenEpoch {
    /// The epoch after the next event that ends tokens.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A name that an account can have: 1 to 64 letters, digits and `._@+-`, all of ASCII. Names that differ only in case
/// are the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Username(Arc<str>);

impl Username {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 64;
    /// What a name consists of, in words.
    pub const RULE: &'static str = "1 to 64 letters, digits and ._@+-";
    /// The same as a regular expression.
    pub const PATTERN: &'static str = "^[A-Za-z0-9._@+-]{1,64}$";

    /// The name, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte);
        ((1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(allowed)).then(|| Self(text.into()))
    }

    /// The name as it was chosen.
    pub fn into_text(self) -> Arc<str> {
        self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What two names have in common if they are the same.
pub fn name_key(username: &str) -> String {
    username.to_ascii_lowercase()
}

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

/// Whether an account can be used.
// The numbers are those of `users.state` in the database: only append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// It can.
    Active = 0,
    /// Not until an admin enables it again; its todos are kept.
    Disabled = 1,
    /// Never again: its todos are gone, or will be soon. Its name stays taken.
    Deleted = 2,
}

impl AccountState {
    /// All states, each at the index that is its number.
    pub const ALL: [Self; 3] = [Self::Active, Self::Disabled, Self::Deleted];

    /// `active`, `disabled` or `deleted`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
        }
    }
}

/// An account and its credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Immutable: todos and tokens refer to it.
    pub id: UserId,
    /// A [`Username`], which never changes.
    pub username: Arc<str>,
    /// A PHC string (argon2id), or what was imported; empty once the account is deleted.
    pub password_hash: Box<str>,
    /// Decides which routes the account may use.
    pub role: Role,
    /// Decides whether it can be used at all.
    pub state: AccountState,
    /// Only tokens of this epoch are valid.
    pub token_epoch: TokenEpoch,
    /// When it was created.
    pub created_at: Timestamp,
    /// One of the [`DEMO_USERS`], which exist only in development.
    pub is_demo: bool,
    /// Who deleted it, if somebody did.
    pub deleted_by: Option<Arc<str>>,
}

impl User {
    /// Whether it exists, where `demo_users` says whether those do.
    pub fn exists(&self, demo_users: bool) -> bool {
        !self.is_demo || demo_users
    }

    /// Whether it can log in and use the API.
    pub fn is_active(&self) -> bool {
        self.state == AccountState::Active
    }

    /// Whether it can use the routes under `/admin`.
    pub fn is_active_admin(&self) -> bool {
        self.is_active() && self.role == Role::Admin
    }
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

/// The original's demo users. They exist only with DEBUG=True: without it, they are neither created nor found.
pub const DEMO_USERS: [DemoUser; 3] = [
    DemoUser { username: "admin", password: "admin123", role: Role::Admin },
    DemoUser { username: "user", password: "user123", role: Role::User },
    DemoUser { username: "demo", password: "demo123", role: Role::User },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_short() {
        for good in ["a", "A.b_c@d+e-f", "0", &"x".repeat(64), "-", "..", "me@example.org"] {
            assert_eq!(Username::parse(good).unwrap().to_string(), good);
        }
        for bad in ["", &"x".repeat(65), "a b", "ä", "a\n", "a/b", "a:b", "a\0", "аdmin", "ａ", "a\u{202e}b", "a,b"]
        {
            assert_eq!(Username::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_are_compared_without_case() {
        assert_eq!(name_key("Ad.Min"), name_key("aD.mIN"));
        assert_ne!(name_key("a.b"), name_key("a_b"));
    }

    #[test]
    fn numbers_of_states_are_their_indexes() {
        for (index, state) in AccountState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, index);
        }
    }
}
