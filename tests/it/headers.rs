//! Headers that keep browsers, caches and proxies from doing more with answers than they should.

use serde_json::json;

use crate::app::{with_app, with_settings};
use crate::client::RequestExt;

/// Answers of all kinds: method, path, whether with a token, status.
const ANSWERS: [(&str, &str, bool, u16); 10] = [
    ("GET", "/health", false, 200),
    ("GET", "/todos", true, 200),
    ("GET", "/todos", false, 401),
    ("GET", "/todos/9", true, 404),
    ("GET", "/nope", false, 404),
    ("PATCH", "/todos", false, 405),
    ("POST", "/auth/login", false, 422),
    ("GET", "/docs", false, 200),
    ("GET", "/app", false, 200),
    ("GET", "/openapi.json", false, 200),
];

#[actix_web::test]
async fn no_answer_is_guessed_at_or_shown_in_another_page() {
    with_app(async |app| {
        for (method, path, with_token, status) in ANSWERS {
            let call = app.request(method, path);
            let call = if with_token { call.bearer_auth(app.token("demo")) } else { call };
            let answer = call.answer().await;
            assert_eq!(answer.status, status, "{method} {path}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
            let policy = answer.header("content-security-policy").unwrap_or_default();
            assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
            assert_eq!(answer.header("strict-transport-security"), None, "nobody said that there is TLS");
        }
        // Refused before any route.
        let answer = app.raw("GET /health HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n").await;
        assert_eq!((answer.status, answer.header("x-content-type-options")), (400, Some("nosniff")));
    })
    .await;
}

#[actix_web::test]
async fn browsers_are_told_to_use_https_if_the_operator_says_so() {
    with_settings(&[("HSTS_MAX_AGE", "31536000")], async |app| {
        for (method, path, with_token, status) in ANSWERS {
            let call = app.request(method, path);
            let call = if with_token { call.bearer_auth(app.token("demo")) } else { call };
            let answer = call.answer().await;
            let hsts = answer.header("strict-transport-security");
            assert_eq!((answer.status, hsts), (status, Some("max-age=31536000")), "{path}");
        }
    })
    .await;
}

#[actix_web::test]
async fn the_documentation_can_be_switched_off() {
    with_settings(&[("DOCS", "False")], async |app| {
        for path in ["/docs", "/docs/index.css", "/redoc", "/redoc/redoc.standalone.js", "/openapi.json", "/docs/"] {
            app.get(path).answer().await.assert_refused(404, "Not Found");
        }
        assert_eq!(app.get("/health").answer().await.status, 200);
    })
    .await;
}

#[actix_web::test]
async fn a_query_has_a_limit() {
    with_app(async |app| {
        for path in ["/todos", "/nope", "/health"] {
            let call = |length| app.get(&format!("{path}?{}", "x".repeat(length))).bearer_auth(app.token("demo"));
            assert!([200, 404].contains(&call(8192).answer().await.status), "{path}");
            let answer = call(8193).header("Origin", "http://localhost:3000").answer().await;
            answer.assert_refused(414, "The query is longer than 8192 bytes");
            assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
        }
    })
    .await;
}

#[actix_web::test]
async fn no_cache_keeps_what_is_answered_about_accounts() {
    with_app(async |app| {
        let (token, admin) = (app.token("demo"), app.token("admin"));
        let form = "grant_type=password&username=demo&password=demo123";
        let account = |name: &str| json!({"username": name, "password": "a long and private sentence"});
        let answers = [
            app.post("/auth/login").send_json(json!({"username": "demo", "password": "demo123"})).await,
            app.post("/auth/token").send_form(form).await,
            app.post("/auth/register").send_json(account("alice")).await,
            app.get("/auth/me").bearer_auth(&token).answer().await,
            app.get("/auth/sessions").bearer_auth(&token).answer().await,
            app.get("/auth/tokens").bearer_auth(&token).answer().await,
            app.post("/auth/tokens").bearer_auth(&token).send_json(json!({"name": "x", "scope": "read"})).await,
            app.post("/auth/revoke").send_form("token=unknown").await,
            app.get("/admin/users").bearer_auth(&admin).answer().await,
            app.post("/admin/users").bearer_auth(&admin).send_json(account("bob")).await,
            app.get("/admin/users/1").bearer_auth(&admin).answer().await,
            app.patch("/admin/users/3").bearer_auth(&admin).send_json(json!({"role": "admin"})).await,
        ];
        for answer in answers {
            assert!(answer.status < 300 && answer.header("cache-control") == Some("no-store"), "{answer:?}");
        }
    })
    .await;
}
