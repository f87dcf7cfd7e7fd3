//! `X-Request-Id` and the line that each request leaves in the log.

use std::sync::{Mutex, Once};

use log::kv::{Key, Value, VisitSource};
use serde_json::json;
use todo_backend::telemetry::logging::names::logger;

use crate::app::{eventually, with_app, with_settings, without_sidecar};
use crate::client::RequestExt;

/// What all tests of this binary log: each finds its own by a request's id.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut line = format!("{} {} {}", logger(record.target()), record.level(), record.args());
        // Never fails: the visitor doesn't.
        let _ = record.key_values().visit(&mut Pairs(&mut line));
        LINES.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

struct Pairs<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        self.0.push_str(&format!(" [{key}={value}]"));
        Ok(())
    }
}

/// From now on, lines are kept.
pub fn capture() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        log::set_logger(&Capture).unwrap();
        // More than a service logs by default.
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// All lines so far that contain `text`.
pub fn lines_with(text: &str) -> Vec<String> {
    LINES.lock().unwrap().iter().filter(|line| line.contains(text)).cloned().collect()
}

/// The access log's line of a request.
async fn line_of(request_id: &str) -> String {
    line_in("access_log", request_id).await
}

/// The one line of a logger about a request.
pub async fn line_in(logger: &str, request_id: &str) -> String {
    let start = format!("todo_backend::{logger} ");
    let own = || -> Vec<String> {
        let lines = lines_with(&format!("[request_id={request_id}]")).into_iter();
        lines.filter(|line| line.starts_with(&start)).collect()
    };
    eventually(&format!("the line of {request_id}"), async || !own().is_empty()).await;
    let lines = own();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].clone()
}

#[actix_web::test]
async fn a_request_id_is_taken_or_made() {
    with_app(async |app| {
        let longest = "a".repeat(128);
        for id in ["abc-123", "a", "A_b.c:d/e+f=", &longest] {
            for path in ["/health", "/nope", "/todos"] {
                let answer = app.get(path).header("X-Request-Id", id).answer().await;
                assert_eq!(answer.header("x-request-id"), Some(id), "{path}");
            }
        }
        let too_long = "a".repeat(129);
        let mut made = Vec::new();
        for sent in [None, Some(""), Some("a b"), Some("a\"b"), Some("{}"), Some("é"), Some(&*too_long)] {
            let call = app.get("/health");
            let call = if let Some(id) = sent { call.header("X-Request-Id", id) } else { call };
            let answer = call.answer().await;
            let id = answer.header("x-request-id").unwrap().to_owned();
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{sent:?} became {id}");
            made.push(id);
        }
        let count = made.len();
        made.sort();
        made.dedup();
        assert_eq!(made.len(), count, "made ids differ");
    })
    .await;
}

#[actix_web::test]
async fn a_request_leaves_a_line_with_its_route_status_user_and_id() {
    capture();
    with_app(async |app| {
        let id = app.create(&app.token("demo"), json!({"title": "x"})).await;
        let call = app.get(&format!("/v1/todos/{id}")).bearer_auth(app.token("demo"));
        assert_eq!(call.header("X-Request-Id", "line-of-a-get").answer().await.status, 200);
        let line = line_of("line-of-a-get").await;
        assert!(line.starts_with("todo_backend::access_log INFO GET /v1/todos/{id} 200 "), "{line}");
        assert!(line.contains("ms user=demo request_id=line-of-a-get "), "{line}");
        for pair in ["[method=GET]", "[route=/v1/todos/{id}]", "[status=200]", "[user=demo]"] {
            assert!(line.contains(pair), "{pair} is not in {line}");
        }
        assert_eq!(app.get("/nope").header("X-Request-Id", "line-of-a-404").answer().await.status, 404);
        let line = line_of("line-of-a-404").await;
        assert!(line.contains(" GET - 404 ") && line.contains("user=- ") && !line.contains("nope"), "{line}");
        let call = app.request(&"A".repeat(10_000), "/health").header("X-Request-Id", "line-of-a-method");
        assert_eq!(call.answer().await.status, 405);
        let line = line_of("line-of-a-method").await;
        assert!(line.contains(" other /health 405 ") && line.len() < 500, "{}", line.len());
    })
    .await;
}

#[actix_web::test]
async fn a_request_that_is_limited_leaves_a_line_with_the_limit_and_the_address() {
    capture();
    with_settings(&[("TRUSTED_PROXIES", "127.0.0.1"), ("RATE_LIMIT_ADDRESS", "1")], async |app| {
        let call =
            |id: String| app.get("/nope").header("X-Forwarded-For", "203.0.113.9").header("X-Request-Id", id).answer();
        let mut n = 0;
        while call(format!("line-of-a-flood-{n}")).await.status != 429 {
            n += 1;
        }
        let line = line_of(&format!("line-of-a-flood-{n}")).await;
        assert!(line.contains("limit=requests-from-address address=203.0.113.9 "), "{line}");
        let line = line_of("line-of-a-flood-0").await;
        assert!(!line.contains("203.0.113.9"), "{line}");
    })
    .await;
}

#[actix_web::test]
async fn a_500_is_logged_once_with_its_cause_and_the_client_learns_nothing() {
    capture();
    without_sidecar(&[], async |app| {
        app.create(&app.token("demo"), json!({"title": "x"})).await;
        let database = app.database();
        let trace = database.rows("SELECT trace FROM changes")[0][0].clone().unwrap();
        database.execute("UPDATE changes SET trace = 'damaged'");
        database.set_state(2, "revision = 1");
        let call = app.get("/v1/admin/events/parked").bearer_auth(app.token("admin"));
        let answer = call.header("X-Request-Id", "line-of-a-500").answer().await;
        answer.assert_refused(500, "Internal Server Error");
        line_of("line-of-a-500").await;
        let lines: Vec<_> = lines_with("line-of-a-500").into_iter().filter(|line| line.contains(" ERROR ")).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let start = "todo_backend::error ERROR GET /v1/admin/events/parked failed: parked events can't be read: ";
        assert!(lines[0].starts_with(start) && lines[0].contains("changes.trace"), "{lines:?}");
        database.execute(&format!("UPDATE changes SET trace = '{trace}'"));
        database.set_state(0, "revision = 1");
    })
    .await;
}

#[actix_web::test]
async fn no_line_of_any_level_has_a_query_or_a_password() {
    capture();
    with_app(async |app| {
        for (path, id, status) in [
            ("/auth/login?username=admin&password=swordfish-wrong-1", "login-1", 401),
            ("/v1/auth/login?username=swordfish-nobody&password=swordfish-wrong-2", "login-2", 401),
            ("/auth/login?password=swordfish-wrong-3", "login-3", 422),
            ("/auth/login/?username=admin&password=swordfish-wrong-4", "login-4", 404),
            ("/nope?password=swordfish-wrong-5", "login-5", 404),
            ("/auth/login?username=demo&password=demo123", "login-6", 200),
        ] {
            let answer = app.post(path).header("X-Request-Id", id).answer().await;
            assert_eq!(answer.status, status, "{path}");
            let line = line_of(id).await;
            assert!(!line.contains('?') && !line.contains("password"), "{line}");
        }
        let form = "username=admin&password=swordfish-form&grant_type=password";
        assert_eq!(app.post("/auth/token").header("X-Request-Id", "form").send_form(form).await.status, 400);
        line_of("form").await;
    })
    .await;
    for secret in ["swordfish-wrong", "swordfish-form", "password=demo123", "username=demo"] {
        let lines: Vec<String> =
            lines_with(secret).into_iter().filter(|line| line.starts_with("todo_backend")).collect();
        assert!(lines.is_empty(), "{lines:?}");
    }
}
