//! `/admin/events/…`: who may, what is parked, retry, skip, publish again.

use serde_json::{Value, json};

use crate::app::{PREFIXES, TestApp, eventually, with_app, without_sidecar};
use crate::client::{Answer, RequestExt};

/// Every route, with a body that is right where one is read.
fn routes(prefix: &str) -> [(&'static str, String, &'static str); 4] {
    [
        ("GET", format!("{prefix}/admin/events/parked"), "GET, HEAD"),
        ("POST", format!("{prefix}/admin/events/republish"), "POST"),
        ("POST", format!("{prefix}/admin/events/1-1/retry"), "POST"),
        ("POST", format!("{prefix}/admin/events/1-1/skip"), "POST"),
    ]
}

async fn republish(app: &TestApp, body: Value) -> Answer {
    app.post("/admin/events/republish").bearer_auth(app.token("admin")).send_json(body).await
}

async fn operate(app: &TestApp, id: &str, what: &str) -> Answer {
    app.post(&format!("/admin/events/{id}/{what}")).bearer_auth(app.token("admin")).answer().await
}

async fn parked(app: &TestApp) -> Value {
    app.get("/admin/events/parked").bearer_auth(app.token("admin")).answer().await.json()
}

/// Changes a todo `times` times.
async fn change(app: &TestApp, id: i64, times: usize) {
    for n in 0..times {
        let body = json!({"title": format!("change {n}")});
        let answer = app.put(&format!("/todos/{id}")).bearer_auth(app.token("demo")).send_json(body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

fn ids(todo: i64, versions: impl IntoIterator<Item = i64>) -> Vec<String> {
    versions.into_iter().map(|version| format!("{todo}-{version}")).collect()
}

#[actix_web::test]
async fn only_an_admin_is_let_in() {
    with_app(async |app| {
        for prefix in PREFIXES {
            for (method, path, _) in routes(prefix) {
                let body = json!({"username": "demo", "from_revision": 1});
                let answer = app.request(method, &path).send_json(body.clone()).await;
                answer.assert_refused(401, "Not authenticated");
                let answer = app.request(method, &path).bearer_auth("nonsense").send_json(body.clone()).await;
                answer.assert_refused(401, "Invalid or expired token");
                for user in ["user", "demo"] {
                    let answer = app.request(method, &path).bearer_auth(app.token(user)).send_json(body.clone()).await;
                    answer.assert_refused(403, "Not enough permissions");
                }
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn other_methods_are_405_with_allow() {
    with_app(async |app| {
        let token = app.token("admin");
        for prefix in PREFIXES {
            for (_, path, allow) in routes(prefix) {
                for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                    if allow.contains(method) {
                        continue;
                    }
                    let answer = app.request(method, &path).bearer_auth(&token).answer().await;
                    assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
                    answer.assert_refused(405, "Method Not Allowed");
                }
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn an_event_that_is_not_parked_is_404() {
    without_sidecar(&[], async |app| {
        let id = app.create(&app.token("demo"), json!({"title": "pending, not parked"})).await;
        for event in [&format!("{id}-1"), "999-1", "1", "x", "1-x", "-", "1-1-1", "99999999999999999999-1", "%E2%9C%93"]
        {
            for what in ["retry", "skip"] {
                operate(app, event, what).await.assert_refused(404, "Event not parked");
            }
        }
        assert_eq!(parked(app).await, json!([]));
    })
    .await;
}

#[actix_web::test]
async fn a_republish_body_is_checked() {
    with_app(async |app| {
        let missing = |name: &str, body: &Value| {
            json!({"type": "missing", "loc": ["body", name], "msg": "Field required", "input": body})
        };
        let no_integer = |input: Value| {
            json!({"type": "int_type", "loc": ["body", "from_revision"], "msg": "Input should be a valid integer",
                "input": input})
        };
        let too_small = |input: i64| {
            json!({"type": "greater_than_equal", "loc": ["body", "from_revision"],
                "msg": "Input should be greater than or equal to 1", "input": input, "ctx": {"ge": 1}})
        };
        let no_string = |input: Value| {
            json!({"type": "string_type", "loc": ["body", "username"], "msg": "Input should be a valid string",
                "input": input})
        };
        let with_revision = |revision: Value| json!({"username": "demo", "from_revision": revision});
        for (body, problems) in [
            (json!({}), vec![missing("username", &json!({})), missing("from_revision", &json!({}))]),
            (json!({"username": "demo"}), vec![missing("from_revision", &json!({"username": "demo"}))]),
            (json!({"from_revision": 1}), vec![missing("username", &json!({"from_revision": 1}))]),
            (with_revision(json!("1")), vec![no_integer(json!("1"))]),
            (with_revision(json!(1.5)), vec![no_integer(json!(1.5))]),
            (with_revision(json!(true)), vec![no_integer(json!(true))]),
            (with_revision(Value::Null), vec![no_integer(Value::Null)]),
            (with_revision(json!(0)), vec![too_small(0)]),
            (with_revision(json!(-1)), vec![too_small(-1)]),
            (json!({"username": 7, "from_revision": 0}), vec![no_string(json!(7)), too_small(0)]),
            (json!({"username": null, "from_revision": 1}), vec![no_string(Value::Null)]),
        ] {
            republish(app, body).await.assert_refused(422, Value::from(problems));
        }
        for (bytes, kind) in [("", "missing"), ("{", "json_invalid"), ("[]", "model_attributes_type")] {
            let call = app.post("/admin/events/republish").bearer_auth(app.token("admin")).json_bytes(bytes);
            let answer = call.answer().await;
            assert_eq!((answer.status, &answer.json()["detail"][0]["type"]), (422, &json!(kind)), "{bytes}");
        }
        let call = app.post("/admin/events/republish").bearer_auth(app.token("admin"));
        call.json_bytes(vec![b'"', 0xff, b'"']).answer().await.assert_refused(400, "There was an error parsing the body");
    }).await;
}

#[actix_web::test]
async fn republishing_for_an_unknown_user_is_404_and_of_nothing_is_0() {
    without_sidecar(&[], async |app| {
        for username in ["nobody", "", "demo "] {
            let answer = republish(app, json!({"username": username, "from_revision": 1})).await;
            answer.assert_refused(404, "User not found");
        }
        // What is not published yet is not published *again*.
        app.create(&app.token("demo"), json!({"title": "pending"})).await;
        for from_revision in [1, 2, i64::MAX] {
            let answer = republish(app, json!({"username": "demo", "from_revision": from_revision})).await;
            assert_eq!((answer.status, answer.json()), (200, json!({"events": 0})));
        }
        assert_eq!(app.metric("todo_backend_outbox_pending_events").await, Some(1.0));
    })
    .await;
}

#[actix_web::test]
async fn parked_events_are_shown_retried_and_skipped_on_both_paths() {
    without_sidecar(&[], async |app| {
        let (admin, demo) = (app.token("admin"), app.token("demo"));
        for (prefix, what, pending) in [("", "retry", 2.0), ("/v1", "skip", 3.0)] {
            let id = app.create(&demo, json!({"title": "poison"})).await;
            change(app, id, 1).await;
            let todo = app.get(&format!("/todos/{id}")).bearer_auth(&demo).answer().await.json();
            let revision = app.park(id, 1);
            app.metric_becomes("todo_backend_outbox_parked_events", 1.0).await;
            let event = json!([{
                "id": format!("{id}-1"), "event": "todo_created", "todo_id": id, "version": 1,
                "owner": app.user_id("demo"), "revision": revision, "actor": "demo", "at": todo["created_at"],
            }]);
            let listed = app.get(&format!("{prefix}/admin/events/parked")).bearer_auth(&admin).answer().await;
            assert_eq!((listed.status, listed.json()), (200, event));
            // The change behind it is not parked.
            operate(app, &format!("{id}-2"), what).await.assert_refused(404, "Event not parked");
            let path = format!("{prefix}/admin/events/{id}-1/{what}");
            let answer = app.post(&path).bearer_auth(&admin).answer().await;
            assert_eq!((answer.status, answer.json()), (200, json!({"events": 1})));
            assert_eq!(parked(app).await, json!([]));
            app.post(&path).bearer_auth(&admin).answer().await.assert_refused(404, "Event not parked");
            assert_eq!(app.metric("todo_backend_outbox_parked_events").await, Some(0.0));
            assert_eq!(app.metric("todo_backend_outbox_pending_events").await, Some(pending), "{what}");
        }
    })
    .await;
}

#[actix_web::test]
async fn events_are_published_again_past_one_that_was_skipped() {
    with_app(async |app| {
        let sidecar = app.sidecar();
        let demo = app.token("demo");
        // Two todos: one is skipped over at its second version, the other is as it should be.
        let (id, other) =
            (app.create(&demo, json!({"title": "x"})).await, app.create(&demo, json!({"title": "y"})).await);
        app.metric_becomes("todo_backend_outbox_pending_events", 0.0).await;
        sidecar.refuse(id);
        change(app, id, 3).await;
        // Each refusal counts only with another todo's success after it.
        eventually("the poison event is parked", async || {
            change(app, other, 1).await;
            parked(app).await[0]["id"] == json!(format!("{id}-2"))
        })
        .await;
        sidecar.accept(id);
        assert_eq!(operate(app, &format!("{id}-2"), "skip").await.status, 200);
        app.metric_becomes("todo_backend_outbox_pending_events", 0.0).await;
        let of = |todo: i64| -> Vec<String> {
            sidecar.accepted_ids().into_iter().filter(|event| event.starts_with(&format!("{todo}-"))).collect()
        };
        assert_eq!(of(id), ids(id, [1, 3, 4]));
        let others = of(other);

        sidecar.allow_repeats();
        let answer = republish(app, json!({"username": "demo", "from_revision": 1})).await;
        assert_eq!(answer.json(), json!({"events": 3 + others.len()}));
        assert_eq!(app.problems(), [""; 0], "events that wait again are no damage");
        app.metric_becomes("todo_backend_outbox_pending_events", 0.0).await;
        assert_eq!(of(id), ids(id, [1, 3, 4, 1, 3, 4]));
        assert_eq!(of(other), [&others[..], &others[..]].concat());
    })
    .await;
}

#[actix_web::test]
async fn events_are_published_again_while_a_later_one_is_on_its_way() {
    with_app(async |app| {
        let sidecar = app.sidecar();
        let id = app.create(&app.token("demo"), json!({"title": "x"})).await;
        change(app, id, 1).await;
        app.metric_becomes("todo_backend_outbox_pending_events", 0.0).await;
        let third = format!("{id}-3");
        sidecar.hold(&third);
        change(app, id, 2).await;
        eventually("the third is on its way", async || sidecar.is_waiting(&third)).await;
        sidecar.allow_repeats();
        let answer = republish(app, json!({"username": "demo", "from_revision": 1})).await;
        assert_eq!(answer.json(), json!({"events": 2}));
        sidecar.release(&third);
        app.metric_becomes("todo_backend_outbox_pending_events", 0.0).await;
        assert_eq!(sidecar.accepted_ids(), ids(id, [1, 2, 3, 1, 2, 4]));
    })
    .await;
}
