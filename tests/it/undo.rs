//! `/changes/{revision}/undo`.

use serde_json::{Value, json};

use crate::app::{PREFIXES, TestApp, with_app, with_settings};
use crate::client::{Answer, RequestExt};

async fn undo(app: &TestApp, revision: impl std::fmt::Display) -> Answer {
    app.post(&format!("/changes/{revision}/undo")).bearer_auth(app.token("demo")).answer().await
}

/// The number that the answer to a change says.
#[track_caller]
fn revision(answer: &Answer) -> i64 {
    answer.header("change-revision").expect("a change").parse().unwrap()
}

#[actix_web::test]
async fn a_change_is_undone_and_the_undo_is_undone() {
    with_app(async |app| {
        let token = app.token("demo");
        for prefix in PREFIXES {
            let undo =
                |revision: i64| app.post(&format!("{prefix}/changes/{revision}/undo")).bearer_auth(&token).answer();
            let id = app.create(&token, json!({"title": "a", "tags": ["x"]})).await;
            let path = format!("{prefix}/todos/{id}");
            let before = app.get(&path).bearer_auth(&token).answer().await.json();
            let patched = app.patch(&path).bearer_auth(&token).send_json(json!({"title": "b", "tags": null})).await;
            let made = revision(&patched);
            assert_eq!(patched.header("sync-token"), Some(&*format!("{}-{made}", app.store().epoch())));

            let undone = undo(made).await;
            assert_eq!((undone.status, revision(&undone)), (200, made + 1), "{undone:?}");
            assert_eq!(undone.header("sync-token"), Some(&*format!("{}-{}", app.store().epoch(), made + 1)));
            let now = app.get(&path).bearer_auth(&token).answer().await;
            let expected = json!({"changes": [
                {"revision": made + 1, "event": "updated", "id": id, "etag": now.header("etag"), "todo": now.json()},
            ]});
            assert_eq!(undone.json(), expected);
            let mut restored = now.json();
            restored["updated_at"] = before["updated_at"].clone();
            assert_eq!(restored, before);

            let redone = undo(made + 1).await.json();
            assert_eq!(redone["changes"][0]["todo"]["title"], "b");
            let deleted = app.delete(&path).bearer_auth(&token).answer().await;
            assert_eq!(undo(revision(&deleted)).await.json()["changes"][0]["event"], "restored");
            let deleted = undo(revision(&deleted) + 1).await.json();
            let expected = json!([{"revision": made + 5, "event": "deleted", "id": id, "etag": null, "todo": null}]);
            assert_eq!(deleted["changes"], expected);
        }
        let events = app.published().await;
        let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
        let kinds_of_one = ["created", "updated", "updated", "updated", "deleted", "restored", "deleted"];
        let expected: Vec<String> = kinds_of_one.repeat(2).iter().map(|kind| format!("todo.{kind}")).collect();
        assert_eq!(kinds, expected);
    })
    .await;
}

#[actix_web::test]
async fn an_undo_button_goes_back_to_the_beginning_and_forward_again() {
    with_app(async |app| {
        let token = app.token("demo");
        let call = |method: &str, path: &str, body: Value| {
            let call = app.request(method, path).bearer_auth(&token);
            async move { if body.is_null() { call.answer().await } else { call.send_json(body).await } }
        };
        let mut done = Vec::new();
        for (method, path, body) in [
            ("POST", "/todos", json!({"title": "a"})),
            ("PATCH", "/todos/1", json!({"title": "b", "completed": true})),
            ("PUT", "/todos/1", json!({"title": "c"})),
            ("PATCH", "/todos/1", json!({"tags_add": ["x"]})),
            ("DELETE", "/todos?completed=true", json!(null)),
        ] {
            done.push(revision(&call(method, path, body).await));
        }
        let shown = async || {
            let todo = app.get("/todos/1").bearer_auth(&token).answer().await.json();
            (todo["title"].clone(), todo["tags"].clone())
        };
        let (end, mut undone) = (json!("c"), Vec::new());
        for made in done.into_iter().rev() {
            let answer = undo(app, made).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            undone.push(revision(&answer));
        }
        assert_eq!((app.todos("demo").len(), app.store().check().unwrap()), (0, Vec::new()));
        for made in undone.into_iter().rev().take(4) {
            assert_eq!(undo(app, made).await.status, 200);
        }
        assert_eq!(shown().await, (end, json!(["x"])));
    })
    .await;
}

#[actix_web::test]
async fn a_later_change_of_the_same_is_409_and_says_what() {
    with_app(async |app| {
        let token = app.token("demo");
        let id = app.create(&token, json!({"title": "a"})).await;
        let path = format!("/todos/{id}");
        let change = async |body: Value| revision(&app.patch(&path).bearer_auth(&token).send_json(body).await);
        let first = change(json!({"title": "b", "priority": 1})).await;
        change(json!({"priority": 2, "order": 1})).await;
        let now = app.get(&path).bearer_auth(&token).answer().await;
        let refused = undo(app, first).await;
        assert_eq!((refused.status, refused.header("etag")), (409, now.header("etag")));
        assert_eq!(refused.header("cache-control"), Some("private, no-cache"));
        let detail = "Not undone: what conflict names was changed again since";
        assert_eq!(refused.json(), json!({"detail": detail, "current": now.json(), "conflict": ["priority"]}));
        let refused = undo(app, 1).await.json();
        assert_eq!(refused["conflict"], json!(["title", "priority", "order"]));
        app.delete(&path).bearer_auth(&token).answer().await;
        let trashed = app.get("/trash").bearer_auth(&token).answer().await.json()[0].clone();
        let mut refused = undo(app, 3).await.json();
        refused["current"]["etag"] = trashed["etag"].clone();
        assert_eq!((&refused["conflict"], &refused["current"]), (&json!(["deleted_at"]), &trashed));
        app.post(&format!("{path}/restore")).bearer_auth(&token).answer().await;
        let undone = undo(app, 3).await.json();
        assert_eq!(
            (&undone["changes"][0]["todo"]["priority"], undone["changes"][0]["todo"].get("order")),
            (&json!(1), None)
        );
        assert_eq!(app.todo("demo", id).unwrap().version.0, 6);
    })
    .await;
}

#[actix_web::test]
async fn what_was_done_together_is_undone_together_if_asked_to() {
    with_app(async |app| {
        let token = app.token("demo");
        for title in ["a", "b"] {
            app.create(&token, json!({"title": title, "completed": true})).await;
        }
        let operations = json!([
            {"op": "create", "ref": "c", "todo": {"title": "c", "completed": true}},
            {"op": "update", "id": 1, "todo": {"title": "a2"}},
            {"op": "delete", "id": 2},
        ]);
        let batch = app.post("/batch").bearer_auth(&token).send_json(json!({ "operations": operations })).await;
        assert_eq!(revision(&batch), 5);
        let all = app.post("/changes/3/undo?batch=true").bearer_auth(&token).answer().await;
        let short = |answer: &Answer| -> Vec<(i64, String, i64)> {
            let changes = answer.json()["changes"].as_array().unwrap().clone();
            let short = |change: &Value| {
                let number = |name: &str| change[name].as_i64().unwrap();
                (number("revision"), change["event"].as_str().unwrap().to_owned(), number("id"))
            };
            changes.iter().map(short).collect()
        };
        let event = |revision, event: &str, id| (revision, event.to_owned(), id);
        assert_eq!(short(&all), [event(6, "deleted", 3), event(7, "restored", 2), event(8, "updated", 1)]);
        assert_eq!(revision(&all), 8);
        let etag = format!("\"{}-2-3\"", app.store().epoch());
        let restored = json!({"revision": 7, "event": "restored", "id": 2, "etag": etag});
        assert_eq!(all.json()["changes"][1], restored, "without the todo: they can be many");

        let cleared = app.delete("/todos?completed=true").bearer_auth(&token).answer().await;
        assert_eq!((cleared.json(), revision(&cleared)), (json!({"deleted": 2, "has_more": false}), 10));
        let one = app.post("/changes/10/undo?batch=false").bearer_auth(&token).answer().await;
        assert_eq!(short(&one), [event(11, "restored", 2)]);
        // What is back already is left alone.
        let rest = app.post("/changes/9/undo?batch=true").bearer_auth(&token).answer().await;
        assert_eq!(short(&rest), [event(12, "restored", 1)]);
        let again = app.post("/changes/9/undo?batch=true").bearer_auth(&token).answer().await;
        assert_eq!((again.status, &again.json()["conflict"]), (409, &json!(["deleted_at"])));
    })
    .await;
}

#[actix_web::test]
async fn a_change_that_is_not_there_is_404_and_one_that_is_gone_is_410() {
    with_settings(&[("MAX_TODOS_PER_USER", "2")], async |app| {
        let token = app.token("demo");
        for n in ["0", "-1", "1", "99", "9223372036854775807", "-9223372036854775808", "99999999999999999999"] {
            undo(app, n).await.assert_refused(404, "Change not found");
        }
        for (path, problems) in [
            ("/changes/x/undo", &["int_parsing revision"][..]),
            ("/changes/1.5/undo?batch=yes", &["int_parsing revision", "bool_parsing batch"]),
            ("/changes/1/undo?batch=", &["bool_parsing batch"]),
            ("/changes/1/undo?bacth=true", &["extra_forbidden bacth"]),
        ] {
            assert_eq!(app.post(path).bearer_auth(&token).answer().await.problems(), problems, "{path}");
        }
        let id = app.create(&token, json!({"title": "a"})).await;
        app.delete(&format!("/todos/{id}")).bearer_auth(&token).answer().await;
        app.delete("/trash").bearer_auth(&token).answer().await;
        let gone = "The change is too old, or its todo was removed: it can't be undone";
        undo(app, 2).await.assert_refused(410, gone);
        // Nothing was changed by a PATCH that changed nothing.
        for title in ["b", "c"] {
            app.create(&token, json!({"title": title})).await;
        }
        let same = app.patch("/todos/2").bearer_auth(&token).send_json(json!({"title": "b"})).await;
        assert_eq!((same.status, same.header("change-revision")), (200, None));
        let put = app.put("/todos/2").bearer_auth(&token).send_json(json!({"title": "b"})).await;
        let undone = undo(app, revision(&put)).await;
        assert_eq!((undone.json(), undone.header("change-revision")), (json!({"changes": []}), None));
        // A todo that comes back needs room.
        let deleted = app.delete("/todos/2").bearer_auth(&token).answer().await;
        app.create(&token, json!({"title": "in its place"})).await;
        undo(app, revision(&deleted)).await.assert_refused(409, TOO_MANY);
    })
    .await;
}

const TOO_MANY: &str = "This user would have more than 2 todos, the most allowed: delete some first";

#[actix_web::test]
async fn a_user_has_only_so_many_todos() {
    with_settings(&[("MAX_TODOS_PER_USER", "2")], async |app| {
        let token = app.token("demo");
        let create = || app.post("/todos").bearer_auth(&token).send_json(json!({"title": "a"}));
        for _ in 0..2 {
            assert_eq!(create().await.status, 201);
        }
        create().await.assert_refused(409, TOO_MANY);
        let operations =
            json!([{"op": "delete", "id": 1}, {"op": "create", "todo": {"title": "b"}}, {"op": "restore", "id": 1}]);
        let batch = app.post("/batch").bearer_auth(&token).send_json(json!({ "operations": operations })).await;
        assert_eq!((batch.status, batch.json()), (409, json!({"detail": TOO_MANY, "operation": 2})));
        app.delete("/todos/1").bearer_auth(&token).answer().await;
        assert_eq!(create().await.status, 201);
        let restore = app.post("/todos/1/restore").bearer_auth(&token).answer().await;
        restore.assert_refused(409, TOO_MANY);
        // Others have room of their own.
        assert_eq!(app.create(&app.token("user"), json!({"title": "a"})).await, 4);
    })
    .await;
}
