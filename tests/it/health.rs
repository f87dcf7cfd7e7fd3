//! `/` and `/health`.

use crate::app::{Send, TestApp};

#[actix_web::test]
async fn the_root_and_health_answer_as_the_seed_did() {
    let app = TestApp::start();
    for (path, body) in [
        ("/", r#"{"status":"Todo backend running"}"#),
        ("/health", r#"{"status":"healthy","version":"2.0.0","app":"Todo Backend API with Auth"}"#),
    ] {
        let answer = app.get(path).answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, body));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    app.stop().await;
}

#[actix_web::test]
async fn health_needs_no_token_and_ignores_a_bad_one() {
    let app = TestApp::start();
    let answer = app.get("/health").bearer_auth("nonsense").answer().await;
    assert_eq!(answer.status, 200);
    app.stop().await;
}
