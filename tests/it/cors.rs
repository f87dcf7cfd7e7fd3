//! Pages on other origins.

use serde_json::json;

use crate::app::{with_app, with_settings};
use crate::client::{Answer, RequestExt};
use crate::config_start::PRODUCTION;

const PAGE: &str = "https://app.example.org";
const EXPOSED: [&str; 14] = [
    "accept-patch",
    "change-revision",
    "etag",
    "idempotent-replayed",
    "link",
    "location",
    "preference-applied",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "sync-token",
    "www-authenticate",
    "x-request-id",
    "x-total-count",
];

/// A header that is a list, in lower case and sorted.
fn list(answer: &Answer, name: &str) -> Vec<String> {
    let value = answer.header(name).unwrap_or_default().to_ascii_lowercase();
    let mut list: Vec<String> = value.split(',').map(|item| item.trim().to_owned()).collect();
    list.sort();
    list
}

fn assert_readable_from(answer: &Answer, origin: &str) {
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{answer:?}");
    assert_eq!(list(answer, "access-control-expose-headers"), EXPOSED, "{answer:?}");
    assert!(list(answer, "vary").contains(&"origin".to_owned()), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-credentials"), None, "{answer:?}");
}

#[actix_web::test]
async fn a_preflight_from_an_allowed_origin_says_what_is_allowed() {
    with_settings(&[("CORS_ALLOWED_ORIGINS", "https://other.example, https://app.example.org")], async |app| {
        for path in ["/todos", "/v1/todos/1", "/auth/login", "/nope"] {
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
                let preflight = app.request("OPTIONS", path).header("Origin", PAGE);
                let preflight = preflight.header("Access-Control-Request-Method", method);
                let headers = "authorization, content-type, if-match, if-none-match, idempotency-key, prefer, traceparent, \
                    tracestate, baggage";
                let answer = preflight.header("Access-Control-Request-Headers", headers).answer().await;
                assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{method} {path}");
                assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
                let methods = list(&answer, "access-control-allow-methods");
                assert_eq!(methods, ["delete", "get", "head", "patch", "post", "put"]);
                let allowed = list(&answer, "access-control-allow-headers");
                assert!(headers.split(", ").all(|header| allowed.contains(&header.to_owned())), "{allowed:?}");
                assert_eq!(answer.header("access-control-max-age"), Some("600"));
                let vary = list(&answer, "vary");
                assert_eq!(vary, ["access-control-request-headers", "access-control-request-method", "origin"]);
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn a_preflight_for_what_is_not_allowed_gets_no_permission() {
    with_settings(&[("CORS_ALLOWED_ORIGINS", PAGE)], async |app| {
        for (origin, method, headers) in [
            ("https://evil.example", "GET", "authorization"),
            ("http://app.example.org", "GET", "authorization"),
            ("https://app.example.org:8443", "GET", "authorization"),
            ("https://app.example.org.evil.example", "GET", "authorization"),
            ("null", "GET", "authorization"),
            (PAGE, "TRACE", "authorization"),
            (PAGE, "GET", "x-unknown"),
        ] {
            let preflight = app.request("OPTIONS", "/todos").header("Origin", origin);
            let preflight = preflight.header("Access-Control-Request-Method", method);
            let answer = preflight.header("Access-Control-Request-Headers", headers).answer().await;
            assert_eq!(answer.status, 400, "{origin} {method} {headers}");
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin} {method} {headers}");
            assert_eq!(answer.header("access-control-allow-methods"), None, "{origin} {method} {headers}");
        }
    })
    .await;
}

#[actix_web::test]
async fn answers_to_an_allowed_origin_can_be_read_errors_too() {
    with_settings(&[("CORS_ALLOWED_ORIGINS", PAGE)], async |app| {
        let token = app.token("demo");
        let big = format!("{{\"title\":\"{}\"}}", "x".repeat(256 << 10));
        for (method, path, token, body, status) in [
            ("GET", "/", None, "", 200),
            ("GET", "/todos", Some(&token), "", 200),
            ("POST", "/todos", Some(&token), r#"{"title":"x"}"#, 201),
            ("DELETE", "/todos/1", Some(&token), "", 204),
            ("GET", "/todos/", None, "", 307),
            ("POST", "/auth/token", None, "", 400),
            ("GET", "/todos", None, "", 401),
            ("GET", "/v1/todos", Some(&"bad".to_owned()), "", 401),
            ("POST", "/auth/login?username=demo&password=no", None, "", 401),
            ("GET", "/todos/99", Some(&token), "", 404),
            ("GET", "/nope", None, "", 404),
            ("GET", "/v1/nope", None, "", 404),
            ("PATCH", "/todos", None, "", 405),
            ("POST", "/todos", Some(&token), big.as_str(), 413),
            ("POST", "/v1/todos", Some(&token), "{}", 422),
            ("GET", "/todos/x", Some(&token), "", 422),
        ] {
            let call = app.request(method, path).header("Origin", PAGE).json_bytes(body.to_owned());
            let call = if let Some(token) = token { call.bearer_auth(token) } else { call };
            let answer = call.answer().await;
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
            assert_readable_from(&answer, PAGE);
        }
    })
    .await;
}

#[actix_web::test]
async fn another_origin_is_answered_but_its_page_cannot_read_it() {
    with_settings(&[("CORS_ALLOWED_ORIGINS", PAGE)], async |app| {
        for origin in ["https://evil.example", "null", "https://APP.example.org", "https://app.example.org/", "\u{e4}"]
        {
            let answer = app.get("/health").header("Origin", origin).answer().await;
            assert_eq!(answer.status, 200, "{origin}");
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
            assert!(list(&answer, "vary").contains(&"origin".to_owned()), "{origin}");
        }
    })
    .await;
}

#[actix_web::test]
async fn in_development_any_page_of_this_machine_is_allowed() {
    with_app(async |app| {
        for origin in ["http://localhost:3000", "http://127.0.0.1:5173", "http://[::1]:8080", "http://app.localhost"] {
            let answer = app.get("/health").header("Origin", origin).answer().await;
            assert_readable_from(&answer, origin);
        }
        for origin in ["http://localhost.evil.example", "http://evil.example", "http://127.0.0.1.evil.example", "null"]
        {
            let answer = app.get("/health").header("Origin", origin).answer().await;
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        }
    })
    .await;
}

#[actix_web::test]
async fn in_production_localhost_is_an_origin_like_any_other() {
    with_settings(&PRODUCTION, async |app| {
        for origin in ["http://localhost:3000", PAGE] {
            let answer = app.get("/health").header("Origin", origin).answer().await;
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None), "{origin}");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_wildcard_allows_every_origin() {
    with_settings(&[("CORS_ALLOWED_ORIGINS", "*")], async |app| {
        let token = app.token("demo");
        let call = app.post("/todos").header("Origin", "https://any.example").bearer_auth(&token);
        let answer = call.send_json(json!({"title": "x"})).await;
        assert_eq!(answer.status, 201);
        assert_readable_from(&answer, "https://any.example");
    })
    .await;
}

#[actix_web::test]
async fn without_an_origin_there_is_no_cors_but_caches_know_of_it() {
    with_app(async |app| {
        let answer = app.get("/todos").bearer_auth(app.token("demo")).answer().await;
        assert_eq!(answer.header("access-control-allow-origin"), None);
        let vary = list(&answer, "vary");
        assert!(["accept", "authorization", "origin"].iter().all(|&name| vary.contains(&name.to_owned())), "{vary:?}");
    })
    .await;
}
