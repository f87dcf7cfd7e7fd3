//! Permissions as types in a handler's signature: each exists only for a valid token of an active account.

use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use futures_util::future::LocalBoxFuture;

use super::access_log::Actor;
use super::error::ApiError;
use super::limits;
use super::state::AppState;
use crate::auth::opaque_tokens::PersonalSecret;
use crate::auth::token::Claims;
use crate::domain::account::{Role, User};
use crate::domain::clock::Timestamp;
use crate::domain::session::{Scope, SessionId};
use crate::store::{Authority, Means};

/// The account whose todos the request is about.
pub struct AuthUser {
    /// The account.
    pub user: Arc<User>,
    /// The token of the request.
    pub authority: Authority,
    /// When it expires; none: never.
    pub expires_at: Option<Timestamp>,
}

impl FromRequest for AuthUser {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            // RFC 9110, section 9.2.1: safe methods change nothing.
            let is_read = request.method().is_safe();
            let memory = if is_read { Memory::CaughtUp } else { Memory::AsItIs };
            let Caller { user, authority, scope, expires_at } = authenticate(&request, memory).await?;
            if scope == Some(Scope::Read) && !is_read {
                return Err(ApiError::ReadOnlyToken);
            }
            count(&request, &user)?;
            Ok(Self { user, authority, expires_at })
        })
    }
}

/// The account that has logged in: with an access token, not with a personal one.
pub struct LoggedIn {
    /// The account.
    pub user: Arc<User>,
    /// The token of the request.
    pub authority: Authority,
}

impl LoggedIn {
    /// The session of the access token, if it has one.
    pub fn session(&self) -> Option<SessionId> {
        match self.authority.means {
            Means::Session(id) => Some(id),
            Means::Login | Means::Personal(_) => None,
        }
    }
}

impl FromRequest for LoggedIn {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let Caller { user, authority, scope, .. } = authenticate(&request, Memory::CaughtUp).await?;
            if scope.is_some() { Err(ApiError::PersonalToken) } else { Ok(Self { user, authority }) }
        })
    }
}

/// An account that has logged in and may use the routes under `/admin`.
pub struct Admin {
    /// The account.
    pub user: Arc<User>,
    /// The token of the request.
    pub authority: Authority,
}

impl FromRequest for Admin {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, logged_in) = (request.clone(), LoggedIn::from_request(request, payload));
        Box::pin(async move {
            let LoggedIn { user, authority } = logged_in.await?;
            count(&request, &user)?;
            match user.role {
                Role::Admin => Ok(Self { user, authority }),
                Role::User => Err(ApiError::Forbidden),
            }
        })
    }
}

/// Counts a request of an account. Not those under `/auth`: whoever floods the service with a stolen token must not keep
/// the account's owner from ending it.
fn count(request: &HttpRequest, user: &User) -> Result<(), ApiError> {
    let state = AppState::of(request)?;
    state.limits.request_of(user.id).map_err(|limited| limits::refuse(state, limited))
}

/// Whose token it is.
pub(super) struct Caller {
    pub user: Arc<User>,
    pub authority: Authority,
    /// What a personal access token allows; none: it is an access token.
    scope: Option<Scope>,
    /// When it expires; none: never.
    expires_at: Option<Timestamp>,
}

/// Whether the token of a request that was allowed would still be.
pub(super) async fn is_still_allowed(request: &HttpRequest) -> Result<bool, ApiError> {
    match authenticate(request, Memory::CaughtUp).await {
        Ok(_) => Ok(true),
        Err(ApiError::InvalidToken) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a token is looked for in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// It has what was committed before the request, by whatever process: what is read after it is strict.
    CaughtUp,
    /// It may be some milliseconds old, if the token is there. Whether it is still valid is looked at again when the request's
    /// commands are decided; what a handler reads before that, it has to catch up for.
    AsItIs,
}

async fn authenticate(request: &HttpRequest, memory: Memory) -> Result<Caller, ApiError> {
    let token = bearer(request).ok_or(ApiError::NotAuthenticated)?;
    let state = AppState::of(request)?;
    let caller = match PersonalSecret::parse(token) {
        Some(secret) => by_personal_token(state, &secret, memory).await?,
        None => by_access_token(state, token, memory).await?,
    };
    let caller = caller.ok_or(ApiError::InvalidToken)?;
    request.extensions_mut().insert(Actor(Arc::clone(&caller.user.username)));
    Ok(caller)
}

/// Whose access token it is, if it is valid.
pub(super) async fn by_access_token(state: &AppState, token: &str, memory: Memory) -> Result<Option<Caller>, ApiError> {
    let now = state.clock.now();
    let Ok(claims) = state.keys.verify(token, now.seconds()) else { return Ok(None) };
    if memory == Memory::AsItIs
        && let Some(caller) = of_claims(state, &claims, now).await?
    {
        return Ok(Some(caller));
    }
    state.store.catch_up().await?;
    of_claims(state, &claims, now).await
}

async fn of_claims(state: &AppState, claims: &Claims, now: Timestamp) -> Result<Option<Caller>, ApiError> {
    let holds = |user: &Arc<User>| user.is_active() && user.token_epoch == claims.epoch && *user.username == claims.sub;
    let Some(user) = state.store.account(claims.uid).await?.filter(holds) else { return Ok(None) };
    let means = match claims.sid {
        None => Means::Login,
        Some(id) => match state.store.session(id).await? {
            Some(session) if session.user == user.id && !session.is_expired(now) => Means::Session(id),
            _ => return Ok(None),
        },
    };
    let authority = Authority::of(&user, means);
    let expires_at = Some(Timestamp::of_seconds(claims.exp));
    Ok(Some(Caller { user, authority, scope: None, expires_at }))
}

async fn by_personal_token(
    state: &AppState,
    secret: &PersonalSecret,
    memory: Memory,
) -> Result<Option<Caller>, ApiError> {
    if memory == Memory::AsItIs
        && let Some(caller) = of_personal_token(state, secret).await?
    {
        return Ok(Some(caller));
    }
    state.store.catch_up().await?;
    of_personal_token(state, secret).await
}

async fn of_personal_token(state: &AppState, secret: &PersonalSecret) -> Result<Option<Caller>, ApiError> {
    let now = state.clock.now();
    let token = state.store.personal_token(&secret.hash()).await?.filter(|token| !token.is_expired(now));
    let Some(token) = token else { return Ok(None) };
    let Some(user) = state.store.account(token.user).await?.filter(|user| user.is_active()) else { return Ok(None) };
    state.store.personal_token_used(token.id, now);
    let authority = Authority::of(&user, Means::Personal(token.id));
    Ok(Some(Caller { user, authority, scope: Some(token.scope), expires_at: token.expires_at }))
}

/// The token of `Authorization: Bearer TOKEN`; the scheme's case doesn't matter (RFC 9110, section 11.1).
pub fn bearer(request: &HttpRequest) -> Option<&str> {
    let mut values = request.headers().get_all(header::AUTHORIZATION);
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
