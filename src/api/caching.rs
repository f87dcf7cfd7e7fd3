//! What caches may do with answers (RFC 9111).

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder};

/// A 200 that no cache may keep.
pub fn ok_not_stored() -> HttpResponseBuilder {
    not_stored(StatusCode::OK)
}

/// A 201 that no cache may keep.
pub fn created_not_stored() -> HttpResponseBuilder {
    not_stored(StatusCode::CREATED)
}

fn not_stored(status: StatusCode) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    response
}

/// Adds headers that keep one user's data out of caches that others share.
pub fn private(response: &mut HttpResponseBuilder) -> &mut HttpResponseBuilder {
    response.insert_header((header::CACHE_CONTROL, "private, no-cache"));
    response.append_header((header::VARY, "Authorization, Accept"))
}
