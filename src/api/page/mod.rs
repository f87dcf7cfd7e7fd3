//! The page at `/app`, which `web/app` is built into. All of it is in this binary; it asks nobody but this service.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::guard::{self, GuardContext};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderName};
use actix_web::web::{self, Bytes};
use ring::digest::{SHA256, digest};

use super::error::ApiError;
use super::http::Endpoint;

/// Only what is served here, no inline scripts or styles.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
const SERVICE_WORKER_ALLOWED: HeaderName = HeaderName::from_static("service-worker-allowed");

const PAGE: &str = include_str!("assets/index.html");
/// A worker's address stays, so that browsers find its next version there.
const WORKER: &str = include_str!("assets/sw.js");
/// What the page refers to as `app/NAME`, and files as `NAME`: only those that stand before them.
const FILES: [(&str, &str, &str); 4] = [
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("manifest.webmanifest", "application/manifest+json", include_str!("assets/manifest.webmanifest")),
    ("main.css", "text/css; charset=utf-8", include_str!("assets/main.css")),
    ("main.js", "text/javascript; charset=utf-8", include_str!("assets/main.js")),
];

/// The page and its files, as they are served.
static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let mut assets = Assets { page: PAGE.to_owned(), files: Vec::new() };
    for (name, content_type, content) in FILES {
        let mut content = content.to_owned();
        for file in &assets.files {
            content = content.replace(&format!("\"{}\"", file.name), &format!("\"{}\"", file.hashed));
        }
        let hashed = hashed(name, &content);
        assets.page = assets.page.replace(&format!("\"app/{name}\""), &format!("\"app/{hashed}\""));
        assets.files.push(File { name, hashed, content_type, content });
    }
    assets
});

struct Assets {
    page: String,
    files: Vec<File>,
}

struct File {
    name: &'static str,
    /// With a hash of the content, so that it can be kept for ever: `main-0123456789abcdef.js`.
    hashed: String,
    content_type: &'static str,
    content: String,
}

fn hashed(name: &str, content: &str) -> String {
    let hash: String =
        digest(&SHA256, content.as_bytes()).as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    name.replacen('.', &format!("-{hash}."), 1)
}

/// The routes of the page.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        // What asks for anything else is answered by the next resource at `/`.
        .service(Endpoint::new("/").get(redirect).build().guard(guard::fn_guard(asks_for_a_page)))
        .service(Endpoint::new("/app").get(page).build())
        .service(Endpoint::new("/app/{file}").get(file).build());
}

/// Leads browsers to the page: relative, as a proxy may serve this under a prefix.
async fn redirect() -> HttpResponse {
    HttpResponse::SeeOther().insert_header((header::LOCATION, "app")).append_header((header::VARY, "Accept")).finish()
}

/// Browsers name `text/html`; others send `*/*` or nothing, and mean JSON.
fn asks_for_a_page(context: &GuardContext<'_>) -> bool {
    let head = context.head();
    let accept = head.headers().get_all(header::ACCEPT);
    matches!(head.method, Method::GET | Method::HEAD)
        && accept.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().is_some_and(|media| media.eq_ignore_ascii_case("text/html"))
                && !parts.any(|parameter| parameter.replace(' ', "").trim_end_matches(['0', '.']) == "q=")
        })
}

async fn page() -> HttpResponse {
    served("text/html; charset=utf-8", "no-cache", &ASSETS.page)
}

async fn file(name: web::Path<String>) -> Result<HttpResponse, ApiError> {
    if *name == "sw.js" {
        let mut worker = served("text/javascript; charset=utf-8", "no-cache", WORKER);
        // Its folder is below the page: it is allowed to answer for the page, too.
        worker.headers_mut().insert(SERVICE_WORKER_ALLOWED, header::HeaderValue::from_static("../app"));
        return Ok(worker);
    }
    let file = ASSETS.files.iter().find(|file| file.hashed == *name).ok_or(ApiError::NotFound)?;
    Ok(served(file.content_type, "public, max-age=31536000, immutable", &file.content))
}

fn served(content_type: &'static str, cache_control: &'static str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .insert_header((header::CACHE_CONTROL, cache_control))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .content_type(content_type)
        .body(Bytes::from_static(content.as_bytes()))
}
