//! `/auth/login` for the original's clients, `/auth/token` for OAuth2 clients such as Swagger UI's Authorize.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::Value;
use utoipa::ToSchema;

use super::{AccessToken, sessions, tried, without_input};
use crate::api::audit::{self, Event};
use crate::api::caching::ok_not_stored;
use crate::api::error::ApiError;
use crate::api::http::{RawBody, content_type};
use crate::api::responses::{Invalid, InvalidCredentials, OAuthError, TooLarge, Unavailable, UnreadableBody};
use crate::api::state::AppState;
use crate::auth::limits::Origin;
use crate::auth::password::{Turn, Verdict};
use crate::domain::account::User;
use crate::domain::validation::{Fields, ValidationError, is_json, parse_object};
use crate::store::AccountCommand;

/// A username and its password.
#[derive(ToSchema)]
#[schema(example = json!({ "username": "admin", "password": "admin123" }))]
pub struct Credentials {
    /// The account's username.
    username: String,
    /// The account's password.
    #[schema(format = Password)]
    password: String,
}

/// The form of an OAuth2 grant: a password (RFC 6749, section 4.3.2) or a refresh token (section 6).
// Only for the document: the handler reads the form itself, to refuse repeated parameters.
#[allow(dead_code)]
#[derive(ToSchema)]
#[schema(example = json!({ "grant_type": "password", "username": "admin", "password": "admin123" }))]
pub struct TokenRequest {
    /// `password` or `refresh_token`.
    #[schema(pattern = "^(password|refresh_token)$")]
    grant_type: String,
    /// With `password`: the account's username.
    #[schema(required = false)]
    username: String,
    /// With `password`: the account's password.
    #[schema(format = Password, required = false)]
    password: String,
    /// With `refresh_token`: the one from the last answer.
    #[schema(required = false)]
    refresh_token: String,
}

/// Logs in.
///
/// Send name and password as a form or as JSON. Older clients send them in the query, where they end up in the logs of
/// proxies: don't do that in new clients.
#[utoipa::path(
    post, path = "/auth/login", tag = "auth", operation_id = "login", security(()),
    params(
        ("username" = Option<String>, Query, deprecated, description = "The name. Send it in the body instead."),
        ("password" = Option<String>, Query, deprecated, description = "The password. Send it in the body instead."),
    ),
    request_body(
        description = "Name and password, unless they are in the query.",
        content(
            (Credentials = "application/json"),
            (Credentials = "application/x-www-form-urlencoded"),
        ),
    ),
    responses(
        (status = 200, description = "Logged in.", body = AccessToken),
        UnreadableBody, InvalidCredentials, TooLarge, Invalid, Unavailable,
    )
)]
pub async fn login(
    request: HttpRequest,
    state: web::Data<AppState>,
    RawBody(body): RawBody,
) -> Result<HttpResponse, ApiError> {
    let credentials = read_credentials(&request, &body)?;
    let user = log_in(&request, &state, credentials).await?.ok_or(ApiError::InvalidCredentials)?;
    Ok(ok_not_stored().json(AccessToken::issue(&state, &user, None)?.only()))
}

/// Issues tokens (OAuth2).
///
/// The password grant (RFC 6749, section 4.3), which Swagger UI's Authorize uses, begins a session. A refresh token
/// (section 6) continues it: each is used once, and the answer has the next one. If the answer is lost, send the old one
/// again: for a minute it gives the same new one; later only while that is unused, and three times a session. Any other
/// use of a replaced token means that somebody has a copy: the session ends. Sessions end after 30 days without a refresh,
/// and after 180 days.
///
/// Clients should log out on `invalid_grant` only.
#[utoipa::path(
    post, path = "/auth/token", tag = "auth", operation_id = "issueToken", security(()),
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The tokens.", body = AccessToken),
        (
            status = 400, body = OAuthError,
            description = "The request is not one of these grants, or the name, the password or the token is wrong."
        ),
        TooLarge, Unavailable,
    )
)]
pub async fn token(
    request: HttpRequest,
    state: web::Data<AppState>,
    RawBody(body): RawBody,
) -> Result<HttpResponse, ApiError> {
    let mut form = OAuthForm::read(&request, &body)?;
    match form.take("grant_type").as_deref() {
        Some("password") => password_grant(&request, &state, form).await,
        Some("refresh_token") => sessions::refresh(&request, &state, form).await,
        None => Err(refused("invalid_request", "grant_type is missing")),
        Some(_) => Err(refused("unsupported_grant_type", "grant_type must be password or refresh_token")),
    }
}

async fn password_grant(
    request: &HttpRequest,
    state: &AppState,
    mut form: OAuthForm,
) -> Result<HttpResponse, ApiError> {
    let (Some(username), Some(password)) = (form.take("username"), form.take("password")) else {
        return Err(refused("invalid_request", "username or password is missing"));
    };
    let user = log_in(request, state, Credentials { username, password })
        .await?
        .ok_or(refused("invalid_grant", "Invalid username or password"))?;
    let token = sessions::start(request, state, &user).await?;
    let access = AccessToken::issue(state, &user, Some(token.session))?;
    Ok(ok_not_stored().json(access.with_refresh_token(&token)))
}

/// The account, or `None` if the name or password is wrong or the account can't be used. All of these take the time of
/// one check, so that they can't be told apart.
async fn log_in(
    request: &HttpRequest,
    state: &AppState,
    credentials: Credentials,
) -> Result<Option<Arc<User>>, ApiError> {
    let Credentials { username, password } = credentials;
    state.store.catch_up().await?;
    let user = state.store.account_named(&username).await?;
    let (network, now) = (state.proxies.client(request).network, state.clock.now());
    let known = user.as_ref().zip(network).filter(|(user, network)| state.store.is_known_there(user.id, *network, now));
    let (origin, turn) = match known {
        Some((user, network)) => (Origin::Known(user.id, network), Turn::Known(user.id)),
        None => (Origin::Stranger(network), Turn::Stranger),
    };
    let attempt = state.limits.login(&username, origin).map_err(|limited| {
        state.metrics.login("limited");
        audit::limited(request, state, limited, user.as_deref())
    })?;
    // A deleted account has no hash any more.
    let stored = user.as_ref().map(|user| user.password_hash.as_ref()).filter(|hash| !hash.is_empty());
    let (verdict, attempt) = tried(attempt, state.passwords.check(turn, password.clone(), stored).await)?;
    match (user, verdict) {
        (Some(user), Verdict::Right { is_weak }) if user.is_active() => {
            attempt.give_back();
            if let Some(network) = network {
                state.store.logged_in(user.id, network, now);
            }
            if is_weak {
                rehash(request, state, &user, password).await;
            }
            state.metrics.login("ok");
            audit::record(request, state, Event::LoggedIn(&user));
            Ok(Some(user))
        }
        (user, _) => {
            state.metrics.login("failed");
            audit::record(request, state, Event::LoginFailed(user.as_deref()));
            Ok(None)
        }
    }
}

/// Replaces an imported or outdated hash. If that fails, the next login tries again.
async fn rehash(request: &HttpRequest, state: &AppState, user: &User, password: String) {
    let replaced = async {
        let new = state.passwords.hash(Turn::Known(user.id), password).await?;
        let command = AccountCommand::Rehash { id: user.id, old: user.password_hash.clone(), new };
        state.store.apply_to_account(None, command).await.map_err(ApiError::from)
    };
    let replaced: Result<_, ApiError> = replaced.await;
    audit::record(request, state, if replaced.is_ok() { Event::Rehashed(user) } else { Event::NotRehashed(user) });
}

/// Name and password: both from the query as the original's clients send them, or both from a form or JSON body.
fn read_credentials(request: &HttpRequest, body: &[u8]) -> Result<Credentials, ApiError> {
    let mut query = last_wins(request.query_string().as_bytes());
    if body.is_empty() || (query.contains_key("username") && query.contains_key("password")) {
        return both_or_missing("query", query.remove("username"), query.remove("password"));
    }
    if is_form(request) {
        let mut form = last_wins(body);
        return both_or_missing("body", form.remove("username"), form.remove("password"));
    }
    read_json(body, is_json(content_type(request))).map_err(|error| match error {
        // Whatever was sent may contain the password: errors don't show it.
        ApiError::Invalid(errors) => ApiError::Invalid(without_input(errors)),
        other => other,
    })
}

fn read_json(body: &[u8], is_json: bool) -> Result<Credentials, ApiError> {
    let mut fields = Fields::new(parse_object(body, is_json)?);
    let (username, password) = (fields.string("username", 0, usize::MAX), fields.string("password", 0, usize::MAX));
    fields.finish()?;
    both_or_missing("body", username, password)
}

/// Both, or a `missing` error for each that was not sent. The errors don't show the body: it may contain the password.
fn both_or_missing(
    place: &'static str,
    username: Option<String>,
    password: Option<String>,
) -> Result<Credentials, ApiError> {
    match (username, password) {
        (Some(username), Some(password)) => Ok(Credentials { username, password }),
        (username, password) => {
            let missing = [("username", username.is_none()), ("password", password.is_none())];
            let missing = missing.into_iter().filter(|(_, missing)| *missing);
            Err(ApiError::Invalid(
                missing.map(|(name, _)| ValidationError::missing(&[place, name], Value::Null)).collect(),
            ))
        }
    }
}

fn is_form(request: &HttpRequest) -> bool {
    let media_type = content_type(request).split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn pairs(encoded: &[u8]) -> Vec<(String, String)> {
    serde_urlencoded::from_bytes(encoded).unwrap_or_default()
}

fn last_wins(encoded: &[u8]) -> HashMap<String, String> {
    pairs(encoded).into_iter().collect()
}

/// An error of an OAuth2 endpoint.
pub(super) fn refused(code: &'static str, description: &'static str) -> ApiError {
    ApiError::OAuth { code, description }
}

/// The parameters of an OAuth2 request.
pub(super) struct OAuthForm(HashMap<String, String>);

impl OAuthForm {
    /// Reads a form in which no parameter is sent twice (RFC 6749, section 3.2).
    pub(super) fn read(request: &HttpRequest, body: &[u8]) -> Result<Self, ApiError> {
        if !is_form(request) {
            return Err(refused("invalid_request", "The body must be application/x-www-form-urlencoded"));
        }
        let pairs = pairs(body);
        let count = pairs.len();
        let form: HashMap<String, String> = pairs.into_iter().collect();
        if form.len() == count {
            Ok(Self(form))
        } else {
            Err(refused("invalid_request", "A parameter is sent twice or not readable"))
        }
    }

    /// A parameter; one without a value counts as not sent (RFC 6749, section 3.2).
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }
}
