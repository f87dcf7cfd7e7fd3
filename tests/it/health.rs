//! `/`, `/health`, `/health/live` and `/health/ready`.

use serde_json::json;

use crate::app::{eventually, with_app, without_sidecar};
use crate::client::RequestExt;

#[actix_web::test]
async fn the_root_and_health_answer_as_the_seed_did() {
    with_app(async |app| {
        for (path, body) in [
            ("/", r#"{"status":"Todo backend running"}"#),
            ("/health", r#"{"status":"healthy","version":"2.0.0","app":"Todo Backend API with Auth"}"#),
        ] {
            let answer = app.get(path).answer().await;
            assert_eq!((answer.status, answer.body.as_str()), (200, body));
            assert_eq!(answer.header("content-type"), Some("application/json"));
        }
    })
    .await;
}

#[actix_web::test]
async fn health_needs_no_token_and_ignores_a_bad_one() {
    with_app(async |app| {
        let answer = app.get("/health").bearer_auth("nonsense").answer().await;
        assert_eq!(answer.status, 200);
    })
    .await;
}

#[actix_web::test]
async fn liveness_answers_without_sidecar_and_token() {
    with_app(async |app| {
        let answer = app.get("/health/live").answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"status":"alive"}"#));
    })
    .await;
}

#[actix_web::test]
async fn without_its_sidecar_the_service_is_degraded_and_ready_with_it() {
    without_sidecar(&[], async |app| {
        app.create(&app.token("demo"), json!({"title": "waits"})).await;
        let answer = app.get("/health/ready").answer().await;
        let degraded = json!({"status": "degraded", "store": "writable", "sidecar": "away", "pending_events": 1});
        assert_eq!((answer.status, answer.json()), (200, degraded));
    })
    .await;

    with_app(async |app| {
        let ready = json!({"status": "ready", "store": "writable", "sidecar": "ready", "pending_events": 0});
        eventually("ready", async || app.get("/health/ready").answer().await.json() == ready).await;
        app.sidecar().stop().await;
        // A sidecar that was there is looked at every 5 s.
        eventually("degraded", async || app.get("/health/ready").answer().await.json()["sidecar"] == "away").await;
        assert_eq!(app.get("/health/ready").answer().await.status, 200);
    })
    .await;
}

#[actix_web::test]
async fn a_store_that_cannot_write_is_unavailable_until_it_can() {
    without_sidecar(&[], async |app| {
        let token = app.token("demo");
        // For longer than the writer waits.
        let lock = app.database().lock();
        let refused = app.post("/todos").bearer_auth(&token).send_json(json!({"title": "x"})).await;
        assert_eq!(refused.header("retry-after"), Some("5"));
        refused.assert_refused(503, "The change could not be stored; nothing was changed, try again later");
        let answer = app.get("/health/ready").answer().await;
        let failing = json!({"status": "unavailable", "store": "failing", "sidecar": "away", "pending_events": 0});
        assert_eq!((answer.status, answer.json()), (503, failing));
        assert_eq!(app.get("/health/live").answer().await.status, 200);
        assert_eq!(app.metric("todo_backend_store_writable").await, Some(0.0));
        assert_eq!(app.metric(r#"todo_backend_commands_refused_total{reason="not_applied"}"#).await, Some(1.0));
        assert_eq!(app.get("/todos").bearer_auth(&token).answer().await.body, "[]");

        drop(lock);
        app.metric_becomes("todo_backend_store_writable", 1.0).await;
        assert_eq!(app.get("/health/ready").answer().await.status, 200);
        app.create(&token, json!({"title": "x"})).await;
    })
    .await;
}
