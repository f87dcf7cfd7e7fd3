//! `/auth/login` for the original's clients, `/auth/token` for OAuth2 clients such as Swagger UI's Authorize.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::ApiError;
use super::http::{Endpoint, RawBody, content_type};
use super::responses::{Invalid, InvalidCredentials, OAuthError, TooLarge, Unavailable, UnreadableBody};
use super::state::AppState;
use crate::auth::password::CheckError;
use crate::domain::account::User;
use crate::domain::validation::{Fields, ValidationError, is_json, parse_object};

/// Largest login body that is read, in bytes. Anybody can send one, so it may take only a little memory.
const MAX_CREDENTIALS_LEN: usize = 16 << 10;

/// The routes under `/auth`.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::new("/auth/login").body_limit(MAX_CREDENTIALS_LEN).post(login).build())
        .service(Endpoint::new("/auth/token").body_limit(MAX_CREDENTIALS_LEN).post(token).build());
}

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

/// The form of an OAuth2 password grant (RFC 6749, section 4.3.2).
// Only for the document: the handler reads the form itself, to refuse repeated parameters.
#[allow(dead_code)]
#[derive(ToSchema)]
#[schema(example = json!({ "grant_type": "password", "username": "admin", "password": "admin123" }))]
pub struct PasswordGrant {
    /// Always `password`.
    #[schema(pattern = "^password$")]
    grant_type: String,
    /// The account's username.
    username: String,
    /// The account's password.
    #[schema(format = Password)]
    password: String,
}

/// The answer to a login.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2ln", "token_type": "bearer" }))]
pub struct AccessToken {
    /// A JWT: send it as `Authorization: Bearer TOKEN`.
    access_token: String,
    /// Always `bearer`.
    token_type: &'static str,
    /// Only from `/auth/token`: how long the token is valid, in seconds.
    #[schema(value_type = u64, required = false, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
}

impl AccessToken {
    fn new(access_token: String, expires_in: Option<u64>) -> Self {
        Self { access_token, token_type: "bearer", expires_in }
    }
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
    let (user, token) = log_in(&state, credentials).await?.ok_or(ApiError::InvalidCredentials)?;
    log::info!("User logged in successfully: {}", user.username);
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(AccessToken::new(token, None)))
}

/// Logs in the way OAuth2 clients do.
///
/// The password grant (RFC 6749, section 4.3), which Swagger UI's Authorize uses.
#[utoipa::path(
    post, path = "/auth/token", tag = "auth", operation_id = "issueToken", security(()),
    request_body(content = PasswordGrant, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Logged in.", body = AccessToken),
        (
            status = 400, body = OAuthError,
            description = "The request is not a password grant, or the name or password is wrong."
        ),
        TooLarge, Unavailable,
    )
)]
pub async fn token(
    request: HttpRequest,
    state: web::Data<AppState>,
    RawBody(body): RawBody,
) -> Result<HttpResponse, ApiError> {
    let refused = |code, description| ApiError::OAuth { code, description };
    if !is_form(&request) {
        return Err(refused("invalid_request", "The body must be application/x-www-form-urlencoded"));
    }
    let mut form = parse_form(&body).ok_or(refused("invalid_request", "A parameter is sent twice or not readable"))?;
    // A parameter without a value counts as not sent (RFC 6749, section 3.2).
    form.retain(|_, value| !value.is_empty());
    match form.get("grant_type").map(String::as_str) {
        Some("password") => {}
        None => return Err(refused("invalid_request", "grant_type is missing")),
        Some(_) => return Err(refused("unsupported_grant_type", "grant_type must be password")),
    }
    let (Some(username), Some(password)) = (form.remove("username"), form.remove("password")) else {
        return Err(refused("invalid_request", "username or password is missing"));
    };
    let (user, token) = log_in(&state, Credentials { username, password })
        .await?
        .ok_or(refused("invalid_grant", "Invalid username or password"))?;
    log::info!("User logged in successfully: {}", user.username);
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(AccessToken::new(token, Some(state.keys.ttl().as_secs()))))
}

/// The account and a new token, or `None` if the name or password is wrong.
async fn log_in(state: &AppState, credentials: Credentials) -> Result<Option<(Arc<User>, String)>, ApiError> {
    let Credentials { username, password } = credentials;
    let user = state.store.account_named(&username).await?;
    let stored = user.as_ref().map(|user| user.password_hash.as_ref());
    let is_correct = state.passwords.check(password, stored).await.map_err(|error| match error {
        CheckError::Busy => ApiError::Busy,
        failed => ApiError::internal("a password can't be checked", failed),
    })?;
    let Some(user) = user.filter(|_| is_correct) else {
        // The name could be a password typed into the wrong field: only its beginning is logged.
        log::warn!("Failed login attempt for user: {}", username.chars().take(64).collect::<String>());
        return Ok(None);
    };
    let token = state.keys.issue(&user, state.clock.now().seconds());
    let token = token.map_err(|error| ApiError::internal("a token can't be issued", error))?;
    Ok(Some((user, token)))
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
        // Whatever was sent may contain the password: errors don't show it. (For invalid JSON, `input` is `{}` anyway.)
        ApiError::Invalid(mut errors) => {
            for error in errors.iter_mut().filter(|error| error.kind != "json_invalid") {
                error.input = Value::Null;
            }
            ApiError::Invalid(errors)
        }
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

/// A form's parameters; `None` if one is sent twice (RFC 6749, section 3.2).
fn parse_form(encoded: &[u8]) -> Option<HashMap<String, String>> {
    let pairs = pairs(encoded);
    let count = pairs.len();
    let form: HashMap<String, String> = pairs.into_iter().collect();
    (form.len() == count).then_some(form)
}
