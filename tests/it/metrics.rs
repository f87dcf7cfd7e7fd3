//! `/metrics`.

use serde_json::json;

use crate::app::{TestApp, eventually, with_app, with_settings, without_sidecar};
use crate::client::RequestExt;
use crate::config_start::PRODUCTION;
use crate::database::TestDatabase;

impl TestApp {
    /// The value of a series, written as `/metrics` writes it; `None` if it is not there.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").answer().await.body;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }

    /// Waits until a series has this value.
    pub async fn metric_becomes(&self, series: &str, value: f64) {
        eventually(&format!("{series} {value}"), async || self.metric(series).await == Some(value)).await;
    }
}

fn http(method: &str, route: &str, status: u16) -> String {
    let name = "todo_backend_http_request_duration_seconds_count";
    format!(r#"{name}{{method="{method}",route="{route}",status="{status}"}}"#)
}

#[actix_web::test]
async fn metrics_are_prometheus_text_and_open_in_development() {
    with_app(async |app| {
        let answer = app.get("/metrics").answer().await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("text/plain; version=0.0.4; charset=utf-8"))
        );
        assert!(answer.body.starts_with("# HELP todo_backend_"), "{}", answer.body);
        assert!(answer.body.ends_with('\n') && !answer.body.contains("\n\n"), "{}", answer.body);
        assert_eq!(app.get("/v1/metrics").answer().await.status, 404);
        let post = app.post("/metrics").answer().await;
        assert_eq!(post.header("allow"), Some("GET, HEAD"));
        post.assert_refused(405, "Method Not Allowed");
    })
    .await;
}

// Who else may read them is tested in src/api/metrics.rs: a test has no other machine to ask from.
#[actix_web::test]
async fn in_production_this_machine_reads_metrics_without_the_token() {
    for settings in [PRODUCTION.to_vec(), [&PRODUCTION[..], &[("METRICS_TOKEN", "for-prometheus")]].concat()] {
        with_settings(&settings, async |app| {
            assert_eq!(app.get("/metrics").answer().await.status, 200);
            assert_eq!(app.get("/metrics").bearer_auth("for-prometheus").answer().await.status, 200);
        })
        .await;
    }
}

#[actix_web::test]
async fn requests_are_counted_by_route_template() {
    with_app(async |app| {
        let token = app.token("demo");
        for title in ["a", "b"] {
            let id = app.create(&token, json!({ "title": title })).await;
            assert_eq!(app.get(&format!("/todos/{id}?x=1")).bearer_auth(&token).answer().await.status, 200);
        }
        assert_eq!(app.get("/v1/todos/7").bearer_auth(&token).answer().await.status, 404);
        assert_eq!(app.get("/todos/x").answer().await.status, 401);
        for path in ["/nope", "/nope/2", "/v1/nope"] {
            assert_eq!(app.get(path).answer().await.status, 404);
        }
        assert_eq!(app.request("BREW", "/nope").answer().await.status, 404);
        for (series, count) in [
            (http("POST", "/todos", 201), Some(2.0)),
            (http("GET", "/todos/{id}", 200), Some(2.0)),
            (http("GET", "/v1/todos/{id}", 404), Some(1.0)),
            (http("GET", "/todos/{id}", 401), Some(1.0)),
            (http("GET", "/todos/7", 404), None),
            (http("GET", "none", 404), Some(3.0)),
            (http("other", "none", 404), Some(1.0)),
        ] {
            assert_eq!(app.metric(&series).await, count, "{series}");
        }
        let text = app.get("/metrics").answer().await.body;
        assert!(!text.contains("nope") && !text.contains("BREW") && !text.contains("x=1"), "{text}");
    })
    .await;
}

#[actix_web::test]
async fn what_the_store_does_is_counted() {
    without_sidecar(&[], async |app| {
        let token = app.token("demo");
        assert_eq!(app.metric("todo_backend_todos").await, Some(0.0));
        let refused = r#"todo_backend_commands_refused_total{reason="not_found"}"#;
        assert_eq!(app.metric(refused).await, Some(0.0));
        let id = app.create(&token, json!({"title": "x"})).await;
        app.create(&token, json!({"title": "y"})).await;
        for (method, path, status) in [
            ("PUT", format!("/todos/{id}"), 200),
            ("DELETE", format!("/todos/{id}"), 204),
            ("DELETE", format!("/todos/{id}"), 404),
            ("PUT", "/todos/999".to_owned(), 404),
        ] {
            let answer = app.request(method, &path).bearer_auth(&token).send_json(json!({"completed": true})).await;
            assert_eq!(answer.status, status, "{method} {path}");
        }
        for (series, value) in [
            ("todo_backend_todos", 1.0),
            ("todo_backend_trashed_todos", 1.0),
            ("todo_backend_kept_answers_bytes", 0.0),
            ("todo_backend_search_texts_bytes", 0.0),
            ("todo_backend_log_changes", 4.0),
            ("todo_backend_outbox_pending_events", 4.0),
            ("todo_backend_outbox_parked_events", 0.0),
            ("todo_backend_commit_operations_sum", 4.0),
            ("todo_backend_queue_depth", 0.0),
            ("todo_backend_relay_parts", 64.0),
            ("todo_backend_keeps_house", 1.0),
            ("todo_backend_log_age_seconds", 0.0),
            ("todo_backend_store_writable", 1.0),
            ("todo_backend_sidecar_ready", 0.0),
            (refused, 2.0),
            (r#"todo_backend_commands_refused_total{reason="busy"}"#, 0.0),
            (r#"todo_backend_task_restarts_total{task="relay"}"#, 0.0),
        ] {
            assert_eq!(app.metric(series).await, Some(value), "{series}");
        }
        assert!(app.metric("todo_backend_database_bytes").await > Some(0.0));
        // Nobody listens where the sidecar should be.
        eventually("an attempt", async || {
            app.metric(r#"todo_backend_publishes_total{result="unavailable"}"#).await > Some(0.0)
        })
        .await;
        app.metric_becomes("todo_backend_publish_breaker_open", 1.0).await;
    })
    .await;
}

#[actix_web::test]
async fn what_the_relay_does_is_counted() {
    with_app(async |app| {
        let token = app.token("demo");
        app.metric_becomes("todo_backend_sidecar_ready", 1.0).await;
        for title in ["a", "b", "c"] {
            app.create(&token, json!({ "title": title })).await;
        }
        app.metric_becomes("todo_backend_outbox_pending_events", 0.0).await;
        assert_eq!(app.metric(r#"todo_backend_publishes_total{result="stored"}"#).await, Some(3.0));
        assert_eq!(app.metric(r#"todo_backend_publishes_total{result="refused"}"#).await, Some(0.0));
        assert_eq!(app.metric("todo_backend_publish_duration_seconds_count").await, Some(3.0));
        assert_eq!(app.metric("todo_backend_outbox_oldest_age_seconds").await, Some(0.0));

        let id = app.create(&token, json!({"title": "d"})).await;
        app.sidecar().refuse(id);
        assert_eq!(app.delete(&format!("/todos/{id}")).bearer_auth(&token).answer().await.status, 204);
        eventually("a refusal", async || {
            app.metric(r#"todo_backend_publishes_total{result="refused"}"#).await > Some(0.0)
        })
        .await;
        eventually("a pending event's age", async || {
            app.metric("todo_backend_outbox_oldest_age_seconds").await >= Some(1.0)
        })
        .await;
        app.sidecar().accept(id);
        app.metric_becomes("todo_backend_outbox_pending_events", 0.0).await;
        app.metric_becomes("todo_backend_publish_breaker_open", 0.0).await;
    })
    .await;
}

#[actix_web::test]
async fn events_that_come_back_are_measured_and_what_retention_removes_is_counted() {
    let database = TestDatabase::new();
    let settings = [("HISTORY_MAX_PER_USER", "100"), ("DATABASE_URL", database.url())];
    with_settings(&settings, async |app| {
        let token = app.token("demo");
        for title in 0..103 {
            app.create(&token, json!({ "title": title.to_string() })).await;
        }
        app.published().await;
    })
    .await;
    // All of that was more than 24 hours of running time ago.
    database.execute("UPDATE changes SET uptime = uptime - 90000");
    with_settings(&settings, async |app| {
        app.metric_becomes("todo_backend_log_pruned_changes_total", 3.0).await;
        assert_eq!(app.metric("todo_backend_log_changes").await, Some(100.0));
        assert_eq!(app.metric("todo_backend_todos").await, Some(103.0));

        assert_eq!(app.metric("todo_backend_event_delivery_duration_seconds_count").await, Some(0.0));
        let event = json!({
            "specversion": "1.0", "id": "1-1", "source": "/todo-backend/000000000000001f", "type": "todo.created",
            "subject": "todos/1", "time": app.now(), "data": {"id": 1, "version": 1},
        });
        assert_eq!(app.post("/events/todos").send_json(event).await.status, 200);
        assert_eq!(app.metric("todo_backend_event_delivery_duration_seconds_count").await, Some(1.0));
    })
    .await;
}
