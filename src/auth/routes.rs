//! `/auth/login` for the seed's clients, `/auth/token` for OAuth2 clients such as Swagger UI's Authorize.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::accounts::User;
use super::password::{NotChecked, Passwords};
use super::token::Keys;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::http::{Endpoint, RawBody};
use crate::store::Store;
use crate::validation::{Fields, Problem, parse_object};

/// The routes under `/auth`.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::at("/auth/login").post(login).done())
        .service(Endpoint::at("/auth/token").post(token).done());
}

/// What checking a login needs.
struct Desk<'a> {
    store: &'a Store,
    passwords: &'a Passwords,
    keys: &'a Keys,
    clock: &'a Clock,
}

struct Credentials {
    username: String,
    password: String,
}

async fn login(
    request: HttpRequest,
    store: web::Data<Store>,
    passwords: web::Data<Passwords>,
    keys: web::Data<Keys>,
    clock: web::Data<Clock>,
    RawBody(body): RawBody,
) -> Result<HttpResponse, ApiError> {
    let credentials = read_credentials(&request, &body)?;
    let desk = Desk { store: &store, passwords: &passwords, keys: &keys, clock: &clock };
    let (user, token) = desk.log_in(credentials).await?.ok_or(ApiError::InvalidCredentials)?;
    log::info!("User logged in successfully: {}", user.username);
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(json!({ "access_token": token, "token_type": "bearer" })))
}

/// The password grant (RFC 6749, section 4.3).
async fn token(
    request: HttpRequest,
    store: web::Data<Store>,
    passwords: web::Data<Passwords>,
    keys: web::Data<Keys>,
    clock: web::Data<Clock>,
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
    let desk = Desk { store: &store, passwords: &passwords, keys: &keys, clock: &clock };
    let (user, token) = desk
        .log_in(Credentials { username, password })
        .await?
        .ok_or(refused("invalid_grant", "Invalid username or password"))?;
    log::info!("User logged in successfully: {}", user.username);
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(json!({
        "access_token": token,
        "token_type": "bearer",
        "expires_in": keys.ttl().as_secs(),
    })))
}

impl Desk<'_> {
    /// The account and a new token, if name and password are right.
    async fn log_in(&self, credentials: Credentials) -> Result<Option<(Arc<User>, String)>, ApiError> {
        let Credentials { username, password } = credentials;
        let user = self.store.user_by_name(&username);
        let right =
            self.passwords.check(password, user.as_ref().map(|user| user.password_hash.as_ref())).await.map_err(
                |problem| match problem {
                    NotChecked::Busy => ApiError::Busy,
                    NotChecked::Failed => ApiError::Internal,
                },
            )?;
        let Some(user) = user.filter(|_| right) else {
            // The name alone could be a password typed into the wrong field: only a short beginning is logged.
            log::warn!("Failed login attempt for user: {}", username.chars().take(64).collect::<String>());
            return Ok(None);
        };
        let token = self.keys.issue(&user, self.clock.now().seconds()).map_err(|problem| {
            log::error!("a token can't be issued: {problem}");
            ApiError::Internal
        })?;
        Ok(Some((user, token)))
    }
}

/// Name and password: from the query as the seed's clients send them, or from a form or JSON body.
fn read_credentials(request: &HttpRequest, body: &[u8]) -> Result<Credentials, ApiError> {
    if body.is_empty() || has_credentials(request.query_string()) {
        let mut query = last_wins(request.query_string().as_bytes());
        return named("query", query.remove("username"), query.remove("password"));
    }
    if is_form(request) {
        let mut form = last_wins(body);
        return named("body", form.remove("username"), form.remove("password"));
    }
    let mut fields = Fields::new(parse_object(body)?);
    let (username, password) = (fields.string("username", 0, usize::MAX), fields.string("password", 0, usize::MAX));
    fields.finish()?;
    named("body", username, password)
}

fn has_credentials(query: &str) -> bool {
    let query = last_wins(query.as_bytes());
    query.contains_key("username") || query.contains_key("password")
}

/// Both, or a `missing` for each that is not there. A body is not shown in it: it may hold the password.
fn named(place: &'static str, username: Option<String>, password: Option<String>) -> Result<Credentials, ApiError> {
    match (username, password) {
        (Some(username), Some(password)) => Ok(Credentials { username, password }),
        (username, password) => {
            let missing = [("username", username.is_none()), ("password", password.is_none())];
            let missing = missing.into_iter().filter(|(_, missing)| *missing);
            Err(ApiError::Invalid(missing.map(|(name, _)| Problem::missing(&[place, name], Value::Null)).collect()))
        }
    }
}

fn is_form(request: &HttpRequest) -> bool {
    let sent = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = sent.split(';').next().unwrap_or_default().trim();
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
