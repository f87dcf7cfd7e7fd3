//! `/` and `/health` as the original answers them; `/health/live` and `/health/ready` for probes.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, web};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::http::Endpoint;
use super::state::AppState;
use crate::store::Store;

/// The crate's version, which is the API's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The name that the original reports.
const APP_NAME: &str = "Todo Backend API with Auth";

/// What readiness depends on besides the store.
pub struct Readiness {
    /// True while the sidecar is ready.
    pub sidecar: watch::Receiver<bool>,
    /// Cancelled when the shutdown begins.
    pub stop: CancellationToken,
}

/// The routes at the root.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::new("/").get(root).build())
        .service(Endpoint::new("/health").get(health).build())
        .service(Endpoint::new("/health/live").get(live).build())
        .service(Endpoint::new("/health/ready").get(ready).build());
}

/// The service is running.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "status": "Todo backend running" }))]
pub struct Running {
    /// Always the same text.
    status: &'static str,
}

/// The service is running, with its version.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "status": "healthy", "version": "2.0.0", "app": "Todo Backend API with Auth" }))]
pub struct Healthy {
    /// Always `healthy`.
    status: &'static str,
    /// The service's version.
    version: &'static str,
    /// The service's name.
    app: &'static str,
}

/// Whether the service can do its work.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "status": "degraded", "store": "writable", "sidecar": "away", "pending_events": 3 }))]
pub struct Ready {
    /// `ready`; `degraded`: everything works, but events wait for the sidecar; `unavailable`: send requests elsewhere.
    status: &'static str,
    /// `writable`, or `failing`: changes are answered 503.
    store: &'static str,
    /// `ready`, or `away` when it does not answer or is not ready.
    sidecar: &'static str,
    /// Changes that are not known to be published yet.
    #[schema(minimum = 0)]
    pending_events: usize,
}

/// Reports that the service is running.
///
/// For clients of the service that this one replaces.
#[utoipa::path(
    get, path = "/", tag = "health", operation_id = "getRoot", security(()),
    responses((status = 200, description = "The service is running.", body = Running))
)]
pub async fn root() -> HttpResponse {
    HttpResponse::Ok().append_header((header::VARY, "Accept")).json(Running { status: "Todo backend running" })
}

/// Reports that the service is running, and its version.
///
/// For clients of the service that this one replaces. Probes should use `/health/live` and `/health/ready`.
#[utoipa::path(
    get, path = "/health", tag = "health", operation_id = "getHealth", security(()),
    responses((status = 200, description = "The service is running.", body = Healthy))
)]
pub async fn health() -> HttpResponse {
    HttpResponse::Ok().json(Healthy { status: "healthy", version: VERSION, app: APP_NAME })
}

/// Reports that the process answers.
///
/// A liveness probe: restart the service when it gets no answer.
#[utoipa::path(
    get, path = "/health/live", tag = "health", operation_id = "getLiveness", security(()),
    responses(
        (status = 200, description = "The process answers.", body = Running, example = json!({ "status": "alive" }))
    )
)]
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(Running { status: "alive" })
}

/// Reports whether the service can do its work.
///
/// A readiness probe. Without its sidecar the service is degraded, but ready: changes are stored and published later.
#[utoipa::path(
    get, path = "/health/ready", tag = "health", operation_id = "getReadiness", security(()),
    responses(
        (status = 200, description = "The service works, possibly without its sidecar.", body = Ready),
        (status = 503, description = "The store can't write, or the service is stopping.", body = Ready),
    )
)]
pub async fn ready(state: web::Data<AppState>) -> HttpResponse {
    report(&state.store, &state.readiness)
}

fn report(store: &Store, readiness: &Readiness) -> HttpResponse {
    let (writable, sidecar) = (store.writable(), *readiness.sidecar.borrow());
    let (code, status) = if !writable || readiness.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    } else if sidecar {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::OK, "degraded")
    };
    HttpResponse::build(code).json(Ready {
        status,
        store: if writable { "writable" } else { "failing" },
        sidecar: if sidecar { "ready" } else { "away" },
        pending_events: store.outbox().pending(),
    })
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Config;
    use crate::store::{DemoUsers, Options};

    #[actix_web::test]
    async fn a_service_that_stops_is_unavailable_even_if_all_else_is_well() {
        let config = Config::from_variables([("DATABASE_URL".to_owned(), "sqlite::memory:".to_owned())]).unwrap();
        let options = Options {
            database: &config.database,
            clock: config.clock.clone(),
            demo_users: DemoUsers::None,
            may_upgrade: true,
            retention: config.retention,
            max_todos: config.max_todos_per_user,
            metrics: std::sync::Arc::default(),
        };
        let store = Store::open(options).unwrap();
        for (stopping, sidecar, code, status) in [
            (false, false, 200, "degraded"),
            (false, true, 200, "ready"),
            (true, false, 503, "unavailable"),
            (true, true, 503, "unavailable"),
        ] {
            let sidecar = watch::Sender::new(sidecar);
            let stop = CancellationToken::new();
            if stopping {
                stop.cancel();
            }
            let response = report(&store, &Readiness { sidecar: sidecar.subscribe(), stop });
            assert_eq!(response.status().as_u16(), code, "{status}");
            let body: Value = serde_json::from_slice(&to_bytes(response.into_body()).await.unwrap()).unwrap();
            assert_eq!((&body["status"], &body["store"]), (&json!(status), &json!("writable")));
        }
    }
}
