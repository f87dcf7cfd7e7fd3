//! The log of what happens to accounts, under a name of its own: who logged in or failed to, what was changed, what ended.
//! Each line has the client's address and the request's id. Never a password, a token or a query.

use std::fmt;

use actix_web::{HttpMessage, HttpRequest};
use log::Level;

use super::access_log::RequestId;
use super::error::ApiError;
use super::limits;
use super::state::AppState;
use crate::auth::limits::Limited;
use crate::domain::account::User;
use crate::domain::session::{PersonalTokenId, Scope, SessionId};

/// What happened. docs/operations.md lists them.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A right password.
    LoggedIn(&'a User),
    /// A wrong name or password, or an account that can't be used. `None`: there is no such account; the name that was
    /// sent could be a password in the wrong field.
    LoginFailed(Option<&'a User>),
    /// An imported or outdated hash was replaced.
    Rehashed(&'a User),
    /// The same failed: the next login tries again.
    NotRehashed(&'a User),
    /// A limit was reached.
    Limited(&'a Limited, Option<&'a User>),
    /// An account was created by its owner.
    Registered(&'a User),
    /// The password that was asked for again was wrong.
    WrongPassword(&'a User),
    /// A password was changed by its owner.
    PasswordChanged(&'a User),
    /// An account was deleted by its owner.
    AccountDeleted(&'a User),
    /// All access tokens and sessions of an account were ended.
    LoggedOutEverywhere(&'a User),
    /// A session was ended by its owner.
    SessionEnded(&'a User, SessionId),
    /// A session or token was revoked by whoever had it.
    Revoked(&'a str, Revoked),
    /// A refresh token was used again, late but not too often.
    LateRefresh(&'a User, SessionId),
    /// A refresh token was used again after it was replaced.
    TokenReused(&'a User, SessionId),
    /// A personal access token was created.
    TokenCreated(&'a User, PersonalTokenId, Scope),
    /// A personal access token was revoked by its owner.
    TokenRevoked(&'a User, PersonalTokenId),
    /// An account was created by an admin.
    UserCreated {
        /// The new account.
        user: &'a User,
        /// Who created it.
        by: &'a User,
    },
    /// An account's role, state or password was changed by an admin.
    UserChanged {
        /// The account.
        user: &'a User,
        /// What was changed.
        what: &'a str,
        /// Who changed it.
        by: &'a User,
    },
    /// An account was deleted by an admin.
    UserDeleted {
        /// The account.
        user: &'a User,
        /// Who deleted it.
        by: &'a User,
    },
}

/// What was revoked.
#[derive(Debug, Clone, Copy)]
pub enum Revoked {
    /// A session.
    Session(SessionId),
    /// A personal access token.
    PersonalToken(PersonalTokenId),
}

impl Event<'_> {
    /// A short name, for filters.
    fn name(&self) -> &'static str {
        match self {
            Self::LoggedIn(_) => "login_ok",
            Self::LoginFailed(_) => "login_failed",
            Self::Rehashed(_) => "rehashed",
            Self::NotRehashed(_) => "not_rehashed",
            Self::Limited(..) => "limited",
            Self::Registered(_) => "registered",
            Self::WrongPassword(_) => "wrong_password",
            Self::PasswordChanged(_) => "password_changed",
            Self::AccountDeleted(_) => "account_deleted",
            Self::LoggedOutEverywhere(_) => "logged_out_everywhere",
            Self::SessionEnded(..) => "session_ended",
            Self::Revoked(..) => "revoked",
            Self::LateRefresh(..) => "late_refresh",
            Self::TokenReused(..) => "token_reused",
            Self::TokenCreated(..) => "token_created",
            Self::TokenRevoked(..) => "token_revoked",
            Self::UserCreated { .. } => "user_created",
            Self::UserChanged { .. } => "user_changed",
            Self::UserDeleted { .. } => "user_deleted",
        }
    }

    fn level(&self) -> Level {
        match self {
            Self::LoggedIn(_)
            | Self::Rehashed(_)
            | Self::Registered(_)
            | Self::SessionEnded(..)
            | Self::Revoked(..) => Level::Info,
            _ => Level::Warn,
        }
    }

    /// The limit that was reached.
    fn limit(&self) -> &str {
        match self {
            Self::Limited(limited, _) => limited.policy,
            _ => "",
        }
    }

    /// The admin who did it.
    fn by(&self) -> &str {
        match self {
            Self::UserCreated { by, .. } | Self::UserChanged { by, .. } | Self::UserDeleted { by, .. } => &by.username,
            _ => "",
        }
    }

    /// The account that it is about.
    fn user(&self) -> &str {
        match self {
            Self::LoggedIn(user)
            | Self::Rehashed(user)
            | Self::NotRehashed(user)
            | Self::Registered(user)
            | Self::WrongPassword(user)
            | Self::PasswordChanged(user)
            | Self::AccountDeleted(user)
            | Self::LoggedOutEverywhere(user)
            | Self::SessionEnded(user, _)
            | Self::LateRefresh(user, _)
            | Self::TokenReused(user, _)
            | Self::TokenCreated(user, ..)
            | Self::TokenRevoked(user, _)
            | Self::UserCreated { user, .. }
            | Self::UserChanged { user, .. }
            | Self::UserDeleted { user, .. } => &user.username,
            Self::LoginFailed(user) => user.map_or("(unknown)", |user| &user.username),
            Self::Limited(_, user) => user.map_or("-", |user| &user.username),
            Self::Revoked(user, _) => user,
        }
    }
}

/// What a line says. The first one is the original's.
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user();
        match self {
            Self::LoggedIn(_) => write!(f, "User logged in successfully: {user}"),
            Self::LoginFailed(_) => write!(f, "Failed login attempt for user: {user}"),
            Self::Rehashed(_) => {
                write!(f, "The password of user {user} has a new hash, because the old one was weaker")
            }
            Self::NotRehashed(_) => write!(f, "The password of user {user} keeps its weaker hash for now"),
            Self::Limited(limited, _) => {
                write!(f, "The limit {} is reached for user: {user}, for {} s", limited.policy, limited.retry_after)
            }
            Self::Registered(_) => write!(f, "User registered: {user}"),
            Self::WrongPassword(_) => write!(f, "Wrong password from user: {user}"),
            Self::PasswordChanged(_) => write!(f, "Password changed by user: {user}"),
            Self::AccountDeleted(_) => write!(f, "Account deleted by user: {user}"),
            Self::LoggedOutEverywhere(_) => write!(f, "Logged out everywhere: {user}"),
            Self::SessionEnded(_, session) => write!(f, "Session {session} ended by user: {user}"),
            Self::Revoked(_, Revoked::Session(session)) => {
                write!(f, "Session {session} of user {user} was revoked by whoever had its token")
            }
            Self::Revoked(_, Revoked::PersonalToken(token)) => {
                write!(f, "Personal access token {token} of user {user} was revoked by whoever had it")
            }
            Self::LateRefresh(_, session) => write!(
                f,
                "A refresh token of user {user} was used again after a minute, in session {session}: its answer was lost, \
                 or somebody has a copy"
            ),
            Self::TokenReused(_, session) => write!(
                f,
                "A refresh token of user {user} was used again after it was replaced: somebody has a copy, so session \
                 {session} has ended"
            ),
            Self::TokenCreated(_, token, scope) => {
                write!(f, "Personal access token {token} ({}) created by user: {user}", scope.name())
            }
            Self::TokenRevoked(_, token) => write!(f, "Personal access token {token} revoked by user: {user}"),
            Self::UserCreated { user, by } => {
                let role = user.role.name();
                write!(f, "User {} was created with the role {role} by user: {}", user.username, by.username)
            }
            Self::UserChanged { what, by, .. } => {
                write!(f, "User {user} was changed ({what}) by user: {}", by.username)
            }
            Self::UserDeleted { by, .. } => write!(f, "User {user} was deleted by user: {}", by.username),
        }
    }
}

/// Logs what happened in `request`.
pub fn record(request: &HttpRequest, state: &AppState, event: Event<'_>) {
    let level = event.level();
    if !log::log_enabled!(level) {
        return;
    }
    let address = state.proxies.client(request).address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let extensions = request.extensions();
    let request_id = extensions.get::<RequestId>().map_or("-", |id| id.0.to_str().unwrap_or("-"));
    let (name, user, address) = (event.name(), event.user(), address.as_str());
    let (limit, by) = (event.limit(), event.by());
    log::log!(
        level, event = name, user, by, limit, address, request_id;
        "{event} address={address} request_id={request_id}"
    );
}

/// Logs and counts that a limit was reached, by a request about the account `user`.
pub fn limited(request: &HttpRequest, state: &AppState, limited: Limited, user: Option<&User>) -> ApiError {
    record(request, state, Event::Limited(&limited, user));
    limits::refuse(state, limited)
}
