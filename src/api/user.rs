//! Permissions as types in a handler's signature: an [`AuthUser`] exists only for a valid token of an active account.

use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use futures_util::future::LocalBoxFuture;

use super::access_log::Actor;
use super::error::ApiError;
use super::state::AppState;
use crate::domain::account::{Role, User};

/// The account that makes the request.
pub struct AuthUser(pub Arc<User>);

impl FromRequest for AuthUser {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let user = authenticate(&request).await?;
            request.extensions_mut().insert(Actor(Arc::clone(&user.username)));
            Ok(Self(user))
        })
    }
}

/// The account that makes the request, which may use the routes under `/admin`.
pub struct Admin(pub Arc<User>);

impl FromRequest for Admin {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let user = AuthUser::from_request(request, payload);
        Box::pin(async {
            let AuthUser(user) = user.await?;
            match user.role {
                Role::Admin => Ok(Self(user)),
                Role::User => Err(ApiError::Forbidden),
            }
        })
    }
}

async fn authenticate(request: &HttpRequest) -> Result<Arc<User>, ApiError> {
    let token = bearer(request).ok_or(ApiError::NotAuthenticated)?;
    let state = AppState::of(request)?;
    let claims = state.keys.verify(token, state.clock.now().seconds()).map_err(|_| ApiError::InvalidToken)?;
    let holds = |user: &Arc<User>| user.is_active() && user.token_epoch == claims.epoch && *user.username == claims.sub;
    let user = state.store.account(claims.uid).await?.filter(holds);
    user.ok_or(ApiError::InvalidToken)
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
