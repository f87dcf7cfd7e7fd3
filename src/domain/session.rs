//! Sessions, which refresh tokens belong to, and personal access tokens.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::account::UserId;
use crate::domain::clock::Timestamp;
use crate::domain::number::number;

number! {
    /// A session's id. Access tokens of the session carry it.
    SessionId
}

number! {
    /// A personal access token's id.
    PersonalTokenId
}

/// A SHA-256 hash of a token: what is stored in its place.
pub type TokenHash = [u8; 32];

/// 32 random bytes of a session, from which its refresh tokens are computed. Erased together with it.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(pub [u8; 32]);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// How long a session lives without being refreshed, in milliseconds.
const MAX_IDLE: i64 = 30 * 86_400_000;
/// How long a session lives at most, in milliseconds.
const MAX_AGE: i64 = 180 * 86_400_000;

/// A device or a program that is logged in: a family of refresh tokens, each the successor of the one before. See
/// [`crate::auth::opaque_tokens`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Access tokens carry it.
    pub id: SessionId,
    /// Who is logged in.
    pub user: UserId,
    /// When it began.
    pub created_at: Timestamp,
    /// The `User-Agent` of the login, cut to 100 characters.
    pub user_agent: Option<Arc<str>>,
    /// With it, a token's successor is computed.
    pub key: SessionKey,
    /// The hash of the latest token, which was not used yet.
    pub latest: TokenHash,
    /// When the tokens before the latest were used for the first time, or the last one after its grace; the last one
    /// first.
    pub rotated_at: Vec<Timestamp>,
    /// How often the token before the latest was used again after its grace.
    pub repeats: u8,
}

impl Session {
    /// When it was last refreshed, or began.
    pub fn used_at(&self) -> Timestamp {
        self.rotated_at.first().copied().unwrap_or(self.created_at)
    }

    /// Whether it is over because of its age, or because it was not used.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now.0 >= self.used_at().0.saturating_add(MAX_IDLE) || now.0 >= self.created_at.0.saturating_add(MAX_AGE)
    }
}

/// What a personal access token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Requests that change nothing.
    Read,
    /// All requests about todos.
    Write,
}

impl Scope {
    /// `read` or `write`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// The scope with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Read, Self::Write].into_iter().find(|scope| scope.name() == name)
    }
}

/// A token for scripts, which lives until its time is over or somebody revokes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonalToken {
    /// What it is revoked by.
    pub id: PersonalTokenId,
    /// Whose todos it is for.
    pub user: UserId,
    /// What its owner calls it.
    pub name: Arc<str>,
    /// What it allows.
    pub scope: Scope,
    /// The hash of the token.
    pub hash: TokenHash,
    /// When it was created.
    pub created_at: Timestamp,
    /// From when on it is not valid any more; `None`: never.
    pub expires_at: Option<Timestamp>,
}

impl PersonalToken {
    /// Whether its time is over.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| now >= expires_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_after_thirty_days_without_use_and_after_180_days_anyway() {
        let day = 86_400_000;
        let at = |rotated_at: &[i64]| Session {
            id: SessionId(1),
            user: UserId(1),
            created_at: Timestamp(0),
            user_agent: None,
            key: SessionKey([0; 32]),
            latest: [0; 32],
            rotated_at: rotated_at.iter().map(|days| Timestamp(days * day)).collect(),
            repeats: 0,
        };
        let expired = |session: &Session, days: i64| {
            [session.is_expired(Timestamp(days * day - 1)), session.is_expired(Timestamp(days * day))]
        };
        assert_eq!(expired(&at(&[]), 30), [false, true]);
        assert_eq!(expired(&at(&[20, 1]), 50), [false, true]);
        assert_eq!(expired(&at(&[170]), 180), [false, true]);
    }
}
