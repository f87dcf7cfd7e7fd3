//! `/metrics`, for Prometheus, and who may read it.

use actix_web::{HttpRequest, HttpResponse, web};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use super::http::Endpoint;
use super::state::AppState;
use super::user::bearer;
use crate::config::{Config, Secret};
use crate::telemetry::metrics::CONTENT_TYPE;

/// Registers `/metrics`.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(Endpoint::new("/metrics").get(metrics).build());
}

/// Who may read the metrics.
pub struct MetricsAccess {
    everybody: bool,
    token: Option<Secret>,
}

impl MetricsAccess {
    /// With DEBUG=True, everybody; otherwise this machine, and clients that send the token.
    pub fn new(config: &Config) -> Self {
        Self { everybody: config.debug, token: config.metrics_token.clone() }
    }

    fn allows(&self, request: &HttpRequest) -> bool {
        // The address of the connection itself: proxies' headers can be forged.
        let local = request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
        let sent = bearer(request).unwrap_or_default().as_bytes();
        let token = self.token.as_ref().map(|token| token.expose().as_bytes());
        self.everybody || local || token.is_some_and(|token| sent.ct_eq(token).into())
    }
}

/// All metrics as Prometheus reads them.
async fn metrics(request: HttpRequest, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    if !state.metrics_access.allows(&request) {
        return Err(ApiError::NotAuthenticated);
    }
    state.metrics.samples.sidecar_ready.set(i64::from(*state.readiness.sidecar.borrow()));
    let sampled = {
        let state = state.clone();
        tokio::task::spawn_blocking(move || state.store.sample(state.clock.now())).await
    };
    if !matches!(sampled, Ok(Ok(()))) {
        log::warn!("the store can't be sampled for the metrics: {sampled:?}");
    }
    let text = state.metrics.encode();
    let text = text.map_err(|error| ApiError::internal("the metrics can't be written", error))?;
    Ok(HttpResponse::Ok().content_type(CONTENT_TYPE).body(text))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

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
}
