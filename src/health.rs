//! `/` and `/health` as the seed answers them; `/health/live` and `/health/ready` for whoever runs the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::auth::user::bearer;
use crate::clock::Clock;
use crate::config::{Config, Secret};
use crate::error::ApiError;
use crate::http::Endpoint;
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::store::Store;

/// The crate's version, which is the API's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The name that the seed gives itself.
const APP_NAME: &str = "Todo Backend API with Auth";

/// What readiness depends on besides the store.
#[derive(Clone)]
pub struct Readiness {
    /// True while the sidecar is ready.
    pub sidecar: watch::Receiver<bool>,
    /// True from the begin of the shutdown on.
    pub stopping: Arc<AtomicBool>,
}

/// The routes at the root.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::at("/").get(root).done())
        .service(Endpoint::at("/health").get(health).done())
        .service(Endpoint::at("/health/live").get(live).done())
        .service(Endpoint::at("/health/ready").get(ready).done())
        .service(Endpoint::at("/metrics").get(metrics).done());
}

/// That the service runs.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "status": "Todo backend running" }))]
pub struct Running {
    /// Always the same.
    status: &'static str,
}

/// That the service runs, and which.
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
    /// `ready` or `away`.
    sidecar: &'static str,
    /// Changes that are not known as published yet.
    #[schema(minimum = 0)]
    pending_events: usize,
}

/// Says that the service runs.
///
/// As the service that this one replaces.
#[utoipa::path(
    get, path = "/", tag = "health", operation_id = "getRoot", security(()),
    responses((status = 200, description = "It runs.", body = Running))
)]
pub async fn root() -> HttpResponse {
    HttpResponse::Ok().json(Running { status: "Todo backend running" })
}

/// Says that the service runs, and its version.
///
/// As the service that this one replaces. Probes better use `/health/live` and `/health/ready`.
#[utoipa::path(
    get, path = "/health", tag = "health", operation_id = "getHealth", security(()),
    responses((status = 200, description = "It runs.", body = Healthy))
)]
pub async fn health() -> HttpResponse {
    HttpResponse::Ok().json(Healthy { status: "healthy", version: VERSION, app: APP_NAME })
}

/// Says that the process answers.
///
/// A liveness probe: restart the service when this is not answered.
#[utoipa::path(
    get, path = "/health/live", tag = "health", operation_id = "getLiveness", security(()),
    responses((status = 200, description = "It answers.", body = Running, example = json!({ "status": "alive" })))
)]
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(Running { status: "alive" })
}

/// Says whether the service can do its work.
///
/// A readiness probe. Without its sidecar the service is degraded, but ready: changes are stored and published later.
#[utoipa::path(
    get, path = "/health/ready", tag = "health", operation_id = "getReadiness", security(()),
    responses(
        (status = 200, description = "It works, perhaps without its sidecar.", body = Ready),
        (status = 503, description = "The store can't write, or the service is stopping.", body = Ready),
    )
)]
pub async fn ready(store: web::Data<Store>, readiness: web::Data<Readiness>) -> HttpResponse {
    let (writable, sidecar) = (store.writable(), *readiness.sidecar.borrow());
    let (code, status) = if !writable || readiness.stopping.load(Ordering::Relaxed) {
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

/// Who may read the metrics.
pub struct MetricsAccess {
    everybody: bool,
    token: Option<Secret>,
}

impl MetricsAccess {
    /// As the settings say: with DEBUG=True everybody; otherwise whoever has the token, and the machine itself.
    pub fn new(config: &Config) -> Self {
        Self { everybody: config.debug, token: config.metrics_token.clone() }
    }

    fn allows(&self, request: &HttpRequest) -> bool {
        // The connection's own address: headers of proxies can be forged.
        let local = request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
        let sent = bearer(request).unwrap_or_default().as_bytes();
        let token = self.token.as_ref().map(|token| token.expose().as_bytes());
        self.everybody || local || token.is_some_and(|token| sent.ct_eq(token).into())
    }
}

/// Metrics for Prometheus.
async fn metrics(
    request: HttpRequest,
    access: web::Data<MetricsAccess>,
    store: web::Data<Store>,
    readiness: web::Data<Readiness>,
    metrics: web::Data<Metrics>,
    clock: web::Data<Clock>,
) -> Result<HttpResponse, ApiError> {
    if !access.allows(&request) {
        return Err(ApiError::NotAuthenticated);
    }
    metrics.samples.sidecar_ready.set(i64::from(*readiness.sidecar.borrow()));
    let now = clock.now();
    let sampled = tokio::task::spawn_blocking(move || store.sample(now)).await;
    if !matches!(sampled, Ok(Ok(()))) {
        log::warn!("the store can't be sampled for the metrics: {sampled:?}");
    }
    let text = metrics.encode().map_err(|problem| {
        log::error!("the metrics can't be written: {problem}");
        ApiError::Internal
    })?;
    Ok(HttpResponse::Ok().content_type(CONTENT_TYPE).body(text))
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use actix_web::test::TestRequest;
    use serde_json::{Value, json};

    use super::*;
    use crate::store::Options;

    /// Whether `peer` may read the metrics when it sends these headers.
    fn allows(settings: &[(&str, &str)], peer: &str, headers: &[(&'static str, &str)]) -> bool {
        let production =
            [("DEBUG", "False"), ("SECRET_KEY", "0123456789abcdef0123456789abcdef"), ("APP_API_TOKEN", "app-token")];
        let variables = production.iter().filter(|(name, _)| !settings.iter().any(|(set, _)| set == name));
        let variables = variables.chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut request = TestRequest::get().peer_addr(peer.parse().unwrap());
        for header in headers {
            request = request.insert_header(*header);
        }
        MetricsAccess::new(&Config::from_variables(variables).unwrap()).allows(&request.to_http_request())
    }

    #[test]
    fn in_production_metrics_are_for_this_machine_and_for_the_token() {
        let token = [("METRICS_TOKEN", "right-token")];
        for local in ["127.0.0.1:9", "127.8.8.8:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
            assert!(allows(&[], local, &[]) && allows(&token, local, &[]), "{local}");
        }
        for other in ["192.0.2.7:9", "10.0.0.1:9", "[2001:db8::1]:9", "[::ffff:192.0.2.7]:9", "0.0.0.0:9"] {
            assert!(!allows(&[], other, &[]), "{other}");
            assert!(!allows(&[], other, &[("Authorization", "Bearer right-token")]), "no token opens it to {other}");
            assert!(allows(&token, other, &[("Authorization", "Bearer right-token")]), "{other}");
            for wrong in ["Bearer wrong", "Bearer right-toke", "Bearer right-tokens", "Basic right-token", "Bearer "] {
                assert!(!allows(&token, other, &[("Authorization", wrong)]), "{wrong} from {other}");
            }
            for forged in ["X-Forwarded-For", "Forwarded", "X-Real-IP"] {
                assert!(!allows(&token, other, &[(forged, "127.0.0.1")]), "{forged} from {other}");
            }
        }
    }

    #[test]
    fn in_development_everybody_may_read_metrics() {
        assert!(allows(&[("DEBUG", "True")], "192.0.2.7:9", &[]));
    }

    #[actix_web::test]
    async fn a_service_that_stops_is_unavailable_whatever_else_is_well() {
        let config = Config::from_variables([("DATABASE_URL".to_owned(), "sqlite::memory:".to_owned())]).unwrap();
        let options = Options {
            database: &config.database,
            clock: config.clock.clone(),
            demo_password_hash: None,
            retention: config.retention,
            metrics: Arc::new(Metrics::new()),
        };
        let store = web::Data::new(Store::open(options).unwrap());
        for (stopping, sidecar, code, status) in [
            (false, false, 200, "degraded"),
            (false, true, 200, "ready"),
            (true, false, 503, "unavailable"),
            (true, true, 503, "unavailable"),
        ] {
            let sidecar = watch::Sender::new(sidecar);
            let stopping = Arc::new(AtomicBool::new(stopping));
            let readiness = web::Data::new(Readiness { sidecar: sidecar.subscribe(), stopping });
            let response = ready(store.clone(), readiness).await;
            assert_eq!(response.status().as_u16(), code, "{status}");
            let body: Value = serde_json::from_slice(&to_bytes(response.into_body()).await.unwrap()).unwrap();
            assert_eq!((&body["status"], &body["store"]), (&json!(status), &json!("writable")));
        }
    }
}
