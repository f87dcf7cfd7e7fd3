//! HTTP: what all routes share, then a file for each resource, then the documentation of all of them.

pub mod access_log;
pub mod audit;
pub mod caching;
pub mod client;
pub mod error;
pub mod http;
pub mod large_lists;
pub mod limits;
pub mod per_user;
mod responses;
pub mod state;
pub mod turns;
pub mod user;

pub mod admin;
pub mod auth;
pub mod dapr;
pub mod health;
pub mod metrics;
pub mod sync;
pub mod todos;

pub mod docs;

use actix_web::web;

use http::{MAX_BODY_LEN, unknown_path};
use state::AppState;

/// Registers all routes, and the state that their handlers take; `with_docs`: also those of the documentation.
pub fn configure(state: web::Data<AppState>, with_docs: bool) -> impl FnOnce(&mut web::ServiceConfig) {
    move |config| {
        if with_docs {
            config.configure(docs::configure);
        }
        config
            .app_data(state)
            .app_data(web::PayloadConfig::new(MAX_BODY_LEN))
            .configure(health::configure)
            .configure(metrics::configure)
            .configure(dapr::configure)
            .service(web::scope("/v1").configure(resources).default_service(web::to(unknown_path)))
            .configure(resources)
            .default_service(web::to(unknown_path));
    }
}

/// The routes that are served at the root and, the same, under `/v1`.
fn resources(config: &mut web::ServiceConfig) {
    config
        .configure(auth::configure)
        .configure(sync::configure)
        .configure(todos::configure)
        .configure(admin::configure);
}
