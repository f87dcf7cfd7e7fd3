//! `Idempotency-Key`: requests that can be sent again.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::app::{TestApp, with_app};
use crate::client::{Answer, RequestExt};

/// A request that changes something, each time another todo, and what makes that possible.
struct Case {
    method: &'static str,
    path: String,
    body: Value,
    /// How many events it makes.
    events: usize,
}

impl Case {
    async fn send(&self, app: &TestApp, prefix: &str, key: &str) -> Answer {
        loop {
            let call = app.request(self.method, &format!("{prefix}{}", self.path)).bearer_auth(app.token("demo"));
            let call = call.header("Idempotency-Key", key);
            let answer =
                if self.body.is_null() { call.answer().await } else { call.send_json(self.body.clone()).await };
            // Imports of one user are served one after the other.
            if answer.status != 429 {
                return answer;
            }
        }
    }
}

/// Every route that changes todos, with requests that can be applied once each.
async fn cases(app: &TestApp) -> Vec<Case> {
    let token = app.token("demo");
    let mut ids = Vec::new();
    for title in ["put", "patch", "delete", "restore", "purge", "batch", "trash", "undo"] {
        ids.push(app.create(&token, json!({"title": title})).await);
    }
    for id in [ids[3], ids[4], ids[6]] {
        app.delete(&format!("/todos/{id}")).bearer_auth(&token).answer().await;
    }
    let case = |method, path: String, body, events| Case { method, path, body, events };
    vec![
        case("POST", "/todos".into(), json!({"title": "new"}), 1),
        case("PUT", format!("/todos/{}", ids[0]), json!({"title": "changed"}), 1),
        case("PATCH", format!("/todos/{}", ids[1]), json!({"completed": true}), 1),
        case("DELETE", format!("/todos/{}", ids[2]), json!(null), 1),
        case("POST", format!("/todos/{}/restore", ids[3]), json!(null), 1),
        case("DELETE", format!("/trash/{}", ids[4]), json!(null), 0),
        case("POST", "/batch".into(), json!({"operations": [{"op": "delete", "id": ids[5]}]}), 1),
        case("DELETE", "/trash".into(), json!(null), 0),
        // The last creation of the eight.
        case("POST", "/changes/8/undo?batch=true".into(), json!(null), 1),
        case(
            "POST",
            "/import".into(),
            json!([{"title": "imported"}, {"title": "imported, too", "completed": true}]),
            2,
        ),
        case("DELETE", "/todos?completed=true".into(), json!(null), 2),
    ]
}

fn assert_replayed(first: &Answer, again: &Answer) {
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    for name in
        ["etag", "location", "change-revision", "sync-token", "content-type", "cache-control", "preference-applied"]
    {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), (None, Some("true")));
}

#[actix_web::test]
async fn every_change_that_is_sent_twice_is_made_once() {
    with_app(async |app| {
        for case in cases(app).await {
            let before = app.published().await.len();
            let first = case.send(app, "", "\"twice\"").await;
            assert!((200..300).contains(&first.status), "{first:?}");
            // The same at the root and under /v1, with and without quotes.
            for prefix in ["", "/v1"] {
                assert_replayed(&first, &case.send(app, prefix, "twice").await);
            }
            assert_eq!(app.published().await.len(), before + case.events, "{} {}", case.method, case.path);
        }
    })
    .await;
}

#[actix_web::test]
async fn every_change_that_is_sent_by_eight_clients_at_once_is_made_once() {
    with_app(async |app| {
        for case in cases(app).await {
            let before = app.published().await.len();
            let mut answers = join_all((0..8).map(|_| case.send(app, "", "at once"))).await;
            answers.sort_by_key(|answer| answer.header("idempotent-replayed").is_some());
            for again in &answers[1..] {
                assert_replayed(&answers[0], again);
            }
            assert_eq!(app.published().await.len(), before + case.events, "{} {}", case.method, case.path);
        }
    })
    .await;
}

#[actix_web::test]
async fn a_key_is_of_one_user_one_method_and_one_path() {
    with_app(async |app| {
        let send = async |user: &str, method: &str, path: &str| {
            let call = app.request(method, path).bearer_auth(app.token(user)).header("Idempotency-Key", "k");
            call.send_json(json!({"title": "a"})).await
        };
        let firsts = [
            send("demo", "POST", "/todos").await,
            send("user", "POST", "/todos").await,
            send("demo", "PUT", "/todos/1").await,
            send("demo", "PATCH", "/todos/1").await,
            send("user", "PUT", "/v1/todos/2").await,
        ];
        for first in firsts {
            assert_eq!((first.status < 300, first.header("idempotent-replayed")), (true, None), "{first:?}");
        }
        // Whatever way an id is written.
        assert_eq!(send("demo", "PUT", "/todos/01").await.header("idempotent-replayed"), Some("true"));
    })
    .await;
}

#[actix_web::test]
async fn a_key_is_not_for_another_request() {
    with_app(async |app| {
        let send = async |path: &str, body: &str| {
            let call = app.post(path).bearer_auth(app.token("demo")).header("Idempotency-Key", "k");
            call.json_bytes(body.to_owned()).answer().await
        };
        let first = send("/todos", r#"{"title":"a","priority":1}"#).await;
        // White space and the order of keys are no difference.
        assert_replayed(&first, &send("/todos", "{\n \"priority\": 1, \"title\": \"\\u0061\" }").await);
        assert_replayed(&first, &send("/todos?", r#"{"title":"a","priority":1}"#).await);
        for (path, body) in [
            ("/todos", r#"{"title":"b","priority":1}"#),
            ("/todos", r#"{"title":"a"}"#),
            ("/todos?x=1", r#"{"title":"a","priority":1}"#),
        ] {
            let msg = "Another request had this key: use a new key";
            let loc = ["header", "Idempotency-Key"];
            let error = json!({"type": "idempotency_key_reused", "loc": loc, "msg": msg, "input": null});
            send(path, body).await.assert_refused(422, json!([error]));
        }
        assert_eq!(app.todos("demo").len(), 1);
    })
    .await;
}

#[actix_web::test]
async fn an_answer_that_was_lost_is_no_conflict() {
    with_app(async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "a"})).await;
        let etag = app.get("/todos/1").bearer_auth(&token).answer().await.header("etag").unwrap().to_owned();
        let send = async |etag: &str| {
            let call = app.patch("/todos/1").bearer_auth(&token).header("If-Match", etag);
            call.header("Idempotency-Key", "k").header("Prefer", "merge").send_json(json!({"title": "b"})).await
        };
        let first = send(&etag).await;
        assert_eq!(first.header("preference-applied"), Some("merge"));
        // The tag is stale now, by this request's own change; what was answered does not depend on it.
        assert_replayed(&first, &send(&etag).await);
        for other in ["\"x\"", "*", "\"x\", \"y\"", ""] {
            assert_replayed(&first, &send(other).await);
        }
        // Others go on.
        app.patch("/todos/1").bearer_auth(&token).send_json(json!({"title": "c"})).await;
        assert_replayed(&first, &send(&etag).await);
        assert_eq!(&*app.todo("demo", 1).unwrap().title, "c");
    })
    .await;
}

#[actix_web::test]
async fn what_was_refused_is_tried_again() {
    with_app(async |app| {
        let send = async |title: Value| {
            let call = app.put("/todos/1").bearer_auth(app.token("demo")).header("Idempotency-Key", "k");
            call.send_json(json!({ "title": title })).await
        };
        send(json!("a")).await.assert_refused(404, "Todo not found");
        assert_eq!(send(json!(1)).await.problems(), ["string_type title"]);
        app.create(&app.token("demo"), json!({"title": "x"})).await;
        let applied = send(json!("b")).await;
        assert_eq!((applied.status, applied.header("idempotent-replayed")), (200, None));
    })
    .await;
}

#[actix_web::test]
async fn a_malformed_key_is_refused() {
    with_app(async |app| {
        let call = || app.post("/todos").bearer_auth(app.token("demo"));
        let msg = "Should be sent once, with 1 to 255 printable ASCII characters";
        let error =
            |input: &str| json!([{"type": "value_error", "loc": ["header", "Idempotency-Key"], "msg": msg, "input": input}]);
        for bad in ["", "\"\"", "\"open", "\"a\" b", &"x".repeat(256), "\u{e4}"] {
            let answer = call().header("Idempotency-Key", bad).send_json(json!({"title": "a"})).await;
            answer.assert_refused(422, error(bad));
        }
        let twice = call().header("Idempotency-Key", "a").header("Idempotency-Key", "a");
        twice.send_json(json!({"title": "a"})).await.assert_refused(422, error("a"));
        // Whoever may not, is told that first.
        let nobody = app.post("/todos").header("Idempotency-Key", "").send_json(json!({"title": "a"})).await;
        nobody.assert_refused(401, "Not authenticated");
        assert!(app.todos("demo").is_empty());
    })
    .await;
}
