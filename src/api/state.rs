//! The state that all requests share.

use std::sync::Arc;

use actix_web::{HttpRequest, web};

use super::client::TrustedProxies;
use super::dapr::Subscription;
use super::error::ApiError;
use super::health::Readiness;
use super::large_lists::LargeLists;
use super::metrics::MetricsAccess;
use super::per_user::PerUser;
use super::turns::Turns;
use crate::auth::limits::Limits;
use crate::auth::password::Passwords;
use crate::auth::token::Keys;
use crate::domain::clock::Clock;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// What handlers and extractors work with. [`super::configure`] registers it together with the routes, which can't be
/// registered without it, so every handler can take `web::Data<AppState>`.
pub struct AppState {
    /// Todos, accounts and the change log.
    pub store: Arc<Store>,
    /// Hashes and checks passwords.
    pub passwords: Passwords,
    /// Issues and verifies access tokens.
    pub keys: Keys,
    /// The wall clock.
    pub clock: Clock,
    /// Whether anybody may create an account.
    pub registration_open: bool,
    /// How often passwords can be tried, and more.
    pub limits: Limits,
    /// Whose word is taken for where a request comes from.
    pub proxies: TrustedProxies,
    /// Counters and histograms of the whole process.
    pub metrics: Arc<Metrics>,
    /// Who may read the metrics.
    pub metrics_access: MetricsAccess,
    /// The subscription to the service's own events.
    pub subscription: Subscription,
    /// Whose lists are being selected, and whose changes are being read.
    pub turns: Turns,
    /// Long lists that are being sent.
    pub lists: LargeLists,
    /// Imports, which keep what they import in memory.
    pub imports: PerUser,
    /// Streams of events.
    pub streams: PerUser,
    /// What `/health/ready` depends on besides the store.
    pub readiness: Readiness,
}

impl AppState {
    /// The state behind `request`, for extractors. It is there wherever [`super::configure`] registered the routes.
    pub(super) fn of(request: &HttpRequest) -> Result<&Self, ApiError> {
        Self::shared(request).map(|state| state.get_ref())
    }

    /// The same, for those that keep it.
    pub(super) fn shared(request: &HttpRequest) -> Result<&web::Data<Self>, ApiError> {
        let state = request.app_data::<web::Data<Self>>();
        state.ok_or_else(|| ApiError::internal("a request can't be served", "its route has no state"))
    }
}
