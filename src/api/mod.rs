//! HTTP: what all routes share, then a file for each resource, then the documentation of all of them and the page.

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
pub mod page;

use actix_web::web;

use http::{MAX_BODY_LEN, unknown_path};
use state::AppState;

use crate::config::Config;

/// Registers all routes, and the state that their handlers take; those of the documentation and of the page unless they are
/// switched off.
pub fn configure(state: web::Data<AppState>, settings: &Config) -> impl FnOnce(&mut web::ServiceConfig) {
    let (with_docs, with_page) = (settings.docs, settings.page);
    move |config| {
        if with_docs {
            config.configure(docs::configure);
        }
        if with_page {
            config.configure(page::configure);
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
