//! Sessions: what refresh tokens belong to, and how they end.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::AccessToken;
use super::login::{OAuthForm, refused};
use crate::api::audit::{self, Event, Revoked};
use crate::api::caching::ok_not_stored;
use crate::api::error::ApiError;
use crate::api::http::RawBody;
use crate::api::responses::{
    Invalid, OAuthError, PersonalTokenRefused, SessionNotFound, TooLarge, Unauthenticated, Unavailable,
};
use crate::api::state::AppState;
use crate::api::user::{LoggedIn, Memory, by_access_token};
use crate::auth::opaque_tokens::{PersonalSecret, RefreshToken};
use crate::domain::account::{User, UserId};
use crate::domain::clock::Timestamp;
use crate::domain::session::{Session, SessionId, SessionKey};
use crate::domain::validation::parse_id;
use crate::store::decide::Refusal;
use crate::store::decide::sessions::SessionOutcome;
use crate::store::error::StoreError;
use crate::store::{AccountCommand, Authority, Means, NewSession, SessionCommand};

/// How much of a `User-Agent` is kept, in characters.
const MAX_USER_AGENT: usize = 100;

/// A device or program that is logged in.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": 7, "created_at": "2025-01-15T10:30:00.000Z", "used_at": "2025-01-15T11:00:00.000Z",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64)", "current": true,
}))]
pub struct SessionDetails {
    /// Ends the session at `DELETE /auth/sessions/{id}`.
    #[schema(value_type = i64)]
    id: SessionId,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was refreshed last, or began.
    #[schema(value_type = String, format = DateTime)]
    used_at: Timestamp,
    /// The first 100 characters of the `User-Agent` that logged in; null if none was sent, or not in ASCII.
    #[schema(value_type = Option<String>)]
    user_agent: Option<Arc<str>>,
    /// Whether this request belongs to it.
    current: bool,
}

/// The form of a revocation (RFC 7009, section 2.1).
// Only for the document: the handler reads the form itself, to refuse repeated parameters.
#[allow(dead_code)]
#[derive(ToSchema)]
#[schema(example = json!({ "token": "tdr_7_c5a1f09b3de24e6788796a5b4c3d2e1f0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0" }))]
pub struct Revocation {
    /// A refresh token, an access token or a personal access token.
    #[schema(min_length = 1)]
    token: String,
    /// Ignored.
    #[schema(required = false)]
    token_type_hint: String,
}

/// Begins a session of an account that has logged in, and returns its first refresh token.
pub(super) async fn start(request: &HttpRequest, state: &AppState, user: &User) -> Result<RefreshToken, ApiError> {
    let agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let (key, secret) = (SessionKey(rand::random()), rand::random());
    let command = SessionCommand::Start(NewSession {
        user: user.id,
        key: key.clone(),
        // The session's id is not part of what is hashed.
        first: RefreshToken::first(SessionId::default(), &key, secret).hash(),
        user_agent: agent.map(|agent| agent.chars().take(MAX_USER_AGENT).collect::<String>().into()),
    });
    match state.store.apply_to_session(Some(Authority::of(user, Means::Login)), command).await {
        Ok(SessionOutcome::Started(session)) => Ok(RefreshToken::first(session.id, &key, secret)),
        Ok(_) => Err(ApiError::internal("a session can't begin", "the store answered something else")),
        // The password, or what the account may do, was changed while the password was being checked.
        Err(StoreError::Refused(_)) => Err(refused("invalid_grant", "Invalid username or password")),
        Err(error) => Err(error.into()),
    }
}

/// The refresh token grant (RFC 6749, section 6).
pub(super) async fn refresh(
    request: &HttpRequest,
    state: &AppState,
    mut form: OAuthForm,
) -> Result<HttpResponse, ApiError> {
    let text = form.take("refresh_token").ok_or(refused("invalid_request", "refresh_token is missing"))?;
    let invalid = || ApiError::from(StoreError::Refused(Refusal::InvalidGrant));
    let token = RefreshToken::parse(&text).ok_or_else(invalid)?;
    state.store.catch_up().await?;
    // A guess doesn't get into the store's queue.
    let session = state.store.session(token.session).await?.filter(|session| token.belongs_to(&session.key));
    let session = session.ok_or_else(invalid)?;
    if let Err(limited) = state.limits.refresh(session.id) {
        let user = state.store.account(session.user).await?;
        return Err(audit::limited(request, state, limited, user.as_deref()));
    }
    match state.store.apply_to_session(None, SessionCommand::Refresh(token.clone())).await? {
        SessionOutcome::Refreshed { user, is_late } => {
            if is_late {
                audit::record(request, state, Event::LateRefresh(&user, token.session));
            }
            let access = AccessToken::issue(state, &user, Some(token.session))?;
            Ok(ok_not_stored().json(access.with_refresh_token(&token.successor(&session.key))))
        }
        SessionOutcome::Reused(user) => {
            audit::record(request, state, Event::TokenReused(&user, token.session));
            Err(invalid())
        }
        _ => Err(ApiError::internal("a session can't be refreshed", "the store answered something else")),
    }
}

/// Revokes a token (RFC 7009).
///
/// A refresh token, or an access token of a session, ends the whole session; a personal access token is revoked.
/// Whoever has a token may revoke it. An invalid token is answered 200, too. An access token from `POST /auth/login`
/// belongs to no session and can't be revoked alone: `unsupported_token_type`.
#[utoipa::path(
    post, path = "/auth/revoke", tag = "auth", operation_id = "revokeToken", security(()),
    request_body(content = Revocation, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token is not valid any more."),
        (status = 400, body = OAuthError, description = "No token was sent, or it can't be revoked."),
        TooLarge, Unavailable,
    )
)]
pub async fn revoke(
    request: HttpRequest,
    state: web::Data<AppState>,
    RawBody(body): RawBody,
) -> Result<HttpResponse, ApiError> {
    let token = OAuthForm::read(&request, &body)?.take("token");
    let token = token.ok_or(refused("invalid_request", "token is missing"))?;
    if let Some((user, revoked)) = revocation(&state, &token).await? {
        let command = match revoked {
            Revoked::Session(session) => SessionCommand::End { user, session },
            Revoked::PersonalToken(token) => SessionCommand::RevokeToken { user, token },
        };
        match state.store.apply_to_session(None, command).await.map_err(ApiError::from) {
            Ok(_) => {
                let user = state.store.account(user).await?;
                let name = user.as_ref().map_or("-", |user| user.username.as_ref());
                audit::record(&request, &state, Event::Revoked(name, revoked));
            }
            // Somebody else was faster.
            Err(ApiError::SessionNotFound | ApiError::TokenNotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ok_not_stored().finish())
}

/// Whose token it is, and what it belongs to; `None`: it is not valid anyway.
async fn revocation(state: &AppState, token: &str) -> Result<Option<(UserId, Revoked)>, ApiError> {
    if let Some(token) = RefreshToken::parse(token) {
        state.store.catch_up().await?;
        let session = state.store.session(token.session).await?;
        let session = session.filter(|session| token.belongs_to(&session.key));
        return Ok(session.map(|session| (session.user, Revoked::Session(session.id))));
    }
    if let Some(secret) = PersonalSecret::parse(token) {
        state.store.catch_up().await?;
        let token = state.store.personal_token(&secret.hash()).await?;
        return Ok(token.map(|token| (token.user, Revoked::PersonalToken(token.id))));
    }
    let Some(caller) = by_access_token(state, token, Memory::CaughtUp).await? else { return Ok(None) };
    match caller.authority.means {
        Means::Session(session) => Ok(Some((caller.user.id, Revoked::Session(session)))),
        Means::Login | Means::Personal(_) => Err(refused(
            "unsupported_token_type",
            "This access token belongs to no session: log out everywhere instead",
        )),
    }
}

/// Logs out everywhere.
///
/// All access tokens and sessions of the account end. Personal access tokens stay.
#[utoipa::path(
    post, path = "/auth/logout-all", tag = "auth", operation_id = "logOutEverywhere",
    security(("bearer" = []), ("password" = [])),
    responses(
        (status = 204, description = "Logged out everywhere."),
        Unauthenticated, PersonalTokenRefused, Unavailable,
    )
)]
pub async fn log_out(
    request: HttpRequest,
    caller: LoggedIn,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let LoggedIn { user, authority } = caller;
    state.store.apply_to_account(Some(authority), AccountCommand::LogOut(user.id)).await?;
    audit::record(&request, &state, Event::LoggedOutEverywhere(&user));
    Ok(HttpResponse::NoContent().finish())
}

/// Lists the sessions of the account.
///
/// One for each `POST /auth/token` with a password; `POST /auth/login` begins none.
#[utoipa::path(
    get, path = "/auth/sessions", tag = "auth", operation_id = "listSessions",
    security(("bearer" = []), ("password" = [])),
    responses(
        (status = 200, description = "The sessions, by id.", body = Vec<SessionDetails>),
        Unauthenticated, PersonalTokenRefused,
    )
)]
pub async fn list(caller: LoggedIn, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let (now, current) = (state.clock.now(), caller.session());
    let sessions = state.store.sessions(caller.user.id).await?;
    let details = |session: &Arc<Session>| SessionDetails {
        id: session.id,
        created_at: session.created_at,
        used_at: session.used_at(),
        user_agent: session.user_agent.clone(),
        current: current == Some(session.id),
    };
    let alive = sessions.iter().filter(|session| !session.is_expired(now));
    Ok(ok_not_stored().json(alive.map(details).collect::<Vec<_>>()))
}

/// Ends a session.
///
/// Its access tokens and its refresh token end with it, at once.
#[utoipa::path(
    delete, path = "/auth/sessions/{id}", tag = "auth", operation_id = "endSession",
    security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The session's id.", example = 7)),
    responses(
        (status = 204, description = "The session has ended."),
        Unauthenticated, PersonalTokenRefused, SessionNotFound, Invalid, Unavailable,
    )
)]
pub async fn end(
    request: HttpRequest,
    caller: LoggedIn,
    id: web::Path<String>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let session = parse_id(&id)?.map(SessionId).ok_or(ApiError::SessionNotFound)?;
    let command = SessionCommand::End { user: caller.user.id, session };
    state.store.apply_to_session(Some(caller.authority), command).await?;
    audit::record(&request, &state, Event::SessionEnded(&caller.user, session));
    Ok(HttpResponse::NoContent().finish())
}
