//! The OpenAPI document and its two viewers, Swagger UI and ReDoc. All assets are in this binary, none come from a CDN.

pub mod openapi;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{self, Bytes};
use utoipa_swagger_ui::SwaggerFile;

use crate::api::error::ApiError;
use crate::api::http::Endpoint;

/// ReDoc 2.5.4, from the npm package `redoc` (MIT, see redoc/LICENSE.txt). It would fetch its vendor's logo from a CDN;
/// an empty image replaces it.
static REDOC_JS: LazyLock<String> = LazyLock::new(|| {
    include_str!("redoc/redoc.standalone.js").replace(
        "https://cdn.redoc.ly/redoc/logo-mini.svg",
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='0' height='0'/%3E",
    )
});

/// Both pages run only scripts of this origin. They set inline styles; ReDoc searches in a worker created from a blob.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src blob:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// The standalone bundle renders into the `redoc` element.
const REDOC_PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Todo Backend API</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<style>body { margin: 0; }</style>
</head>
<body>
<redoc spec-url="openapi.json" hide-download-button></redoc>
<script src="redoc/redoc.standalone.js"></script>
</body>
</html>
"#;

/// The routes of the document and its viewers.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::new("/openapi.json").get(document).build())
        .service(Endpoint::new("/docs").get(swagger_page).build())
        .service(Endpoint::new("/docs/{file}").get(swagger_file).build())
        .service(Endpoint::new("/redoc").get(redoc_page).build())
        .service(Endpoint::new("/redoc/redoc.standalone.js").get(redoc_script).build());
}

async fn document() -> Result<HttpResponse, ApiError> {
    let json = openapi::json().map_err(|error| ApiError::internal("the OpenAPI document can't be written", error))?;
    Ok(HttpResponse::Ok().content_type("application/json").body(json))
}

/// Swagger UI's page expects to be served from a directory. Ours is at `/docs`, like FastAPI's, so its links get the
/// directory.
async fn swagger_page() -> Result<HttpResponse, ApiError> {
    let page = swagger("index.html")?;
    let html = String::from_utf8_lossy(&page.bytes).replace("\"./", "\"docs/");
    Ok(html_page(html.replace("href=\"index.css\"", "href=\"docs/index.css\"")))
}

async fn swagger_file(file: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let file = swagger(&file)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .content_type(file.content_type)
        .body(match file.bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        }))
}

fn swagger(file: &str) -> Result<SwaggerFile<'static>, ApiError> {
    // Relative to /docs, like everything on both pages: a proxy may serve them under a prefix.
    let config = utoipa_swagger_ui::Config::new(["openapi.json"])
        .validator_url("none")
        .display_operation_id(true)
        .display_request_duration(true)
        .persist_authorization(true)
        .try_it_out_enabled(true);
    match utoipa_swagger_ui::serve(file, Arc::new(config)) {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(ApiError::NotFound),
        Err(error) => Err(ApiError::internal("a file of Swagger UI can't be served", error)),
    }
}

async fn redoc_page() -> HttpResponse {
    html_page(REDOC_PAGE.to_owned())
}

async fn redoc_script() -> HttpResponse {
    HttpResponse::Ok().content_type("text/javascript; charset=utf-8").body(REDOC_JS.as_str())
}

fn html_page(html: String) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .content_type("text/html; charset=utf-8")
        .body(html)
}
