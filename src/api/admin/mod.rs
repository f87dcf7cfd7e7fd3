//! `/admin`: what operators do about events and accounts. For the role admin.

pub mod events;
pub mod users;

use actix_web::web;

use super::http::Endpoint;

/// The routes under `/admin`.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::new("/admin/events/parked").get(events::parked).build())
        .service(Endpoint::new("/admin/events/republish").post(events::republish).build())
        .service(Endpoint::new("/admin/events/{id}/retry").post(events::retry).build())
        .service(Endpoint::new("/admin/events/{id}/skip").post(events::skip).build())
        .service(Endpoint::new("/admin/users").get(users::list).post(users::create).build())
        .service(
            Endpoint::new("/admin/users/{id}").get(users::read).patch(users::update).delete(users::delete).build(),
        );
}
