//! `/` and `/health`, as the seed answers them.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::http::Endpoint;

/// The crate's version, which is the API's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The name that the seed gives itself.
pub const APP_NAME: &str = "Todo Backend API with Auth";

/// The routes at the root.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(Endpoint::at("/").get(root).done()).service(Endpoint::at("/health").get(health).done());
}

async fn root() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "Todo backend running" }))
}

async fn health() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "healthy", "version": VERSION, "app": APP_NAME }))
}
