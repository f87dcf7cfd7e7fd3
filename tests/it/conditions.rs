//! Entity tags: what a client has, and which version it changes.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::app::{PREFIXES, TestApp, with_app};
use crate::client::{Answer, RequestExt};

impl TestApp {
    /// The entity tag of a todo of the user demo.
    async fn etag(&self, id: i64) -> String {
        let answer = self.get(&format!("/todos/{id}")).bearer_auth(self.token("demo")).answer().await;
        answer.header("etag").expect("a tag").to_owned()
    }
}

fn assert_stale(answer: &Answer, current: &Answer) {
    let body = json!({"detail": "Precondition Failed", "current": current.json()});
    assert_eq!((answer.status, answer.json()), (412, body));
    assert_eq!(answer.header("etag"), current.header("etag"));
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
}

#[actix_web::test]
async fn every_answer_with_a_todo_says_which_version_it_is() {
    with_app(async |app| {
        let token = app.token("demo");
        let epoch = app.store().epoch();
        let tag = |version: i64| format!("\"{epoch}-1-{version}\"");
        let sync = |revision: i64| format!("{epoch}-{revision}");
        let created = app.post("/todos").bearer_auth(&token).send_json(json!({"title": "a"})).await;
        let put = app.put("/todos/1").bearer_auth(&token).send_json(json!({"title": "b"})).await;
        let patched = app.patch("/todos/1").bearer_auth(&token).send_json(json!({"title": "c"})).await;
        let deleted = app.delete("/todos/1").bearer_auth(&token).answer().await;
        let restored = app.post("/todos/1/restore").bearer_auth(&token).answer().await;
        for (answer, version, revision) in [(created, 1, 1), (put, 2, 2), (patched, 3, 3), (restored, 5, 5)] {
            assert_eq!(answer.header("etag"), Some(&*tag(version)), "{answer:?}");
            assert_eq!(answer.header("sync-token"), Some(&*sync(revision)), "{answer:?}");
            assert_eq!(answer.header("cache-control"), Some("private, no-cache"), "{answer:?}");
        }
        assert_eq!((deleted.header("etag"), deleted.header("sync-token")), (None, Some(&*sync(4))));
        let head = app.request("HEAD", "/todos/1").bearer_auth(&token).answer().await;
        assert_eq!((head.header("etag"), head.body.as_str()), (Some(&*tag(5)), ""));
    })
    .await;
}

#[actix_web::test]
async fn what_the_client_has_is_not_sent_again() {
    with_app(async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "a"})).await;
        for (path, sync) in
            [("/todos/1", false), ("/todos", true), ("/v1/todos/1", false), ("/v1/todos?etags=true", true)]
        {
            let get = || app.get(path).bearer_auth(&token);
            let full = get().answer().await;
            let etag = full.header("etag").unwrap();
            assert_eq!(etag.starts_with("W/"), sync, "{path}: the tag of a list is weak");
            let plain = etag.trim_start_matches("W/").trim_matches('"');
            for known in [
                etag.to_owned(),
                format!("W/\"{plain}\""),
                format!("\"{plain}-gzip\""),
                format!("\"x\", \"{plain}\""),
                "*".to_owned(),
            ] {
                let answer = get().header("If-None-Match", &known).answer().await;
                assert_eq!((answer.status, answer.body.as_str()), (304, ""), "{path} {known}");
                assert_eq!(answer.header("etag"), Some(etag), "{path} {known}");
                assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
                assert_eq!(answer.header("sync-token").is_some(), sync, "{path} {known}");
                assert_eq!(answer.header("vary"), full.header("vary"));
            }
            let head = app.request("HEAD", path).bearer_auth(&token).header("If-None-Match", etag).answer().await;
            assert_eq!(head.status, 304, "{path}");
            for other in ["\"x\"", "", &format!("\"{plain}0\"")] {
                assert_eq!(get().header("If-None-Match", other).answer().await.body, full.body, "{path} {other}");
            }
            // If-Match comes first.
            let both = get().header("If-Match", "\"x\"").header("If-None-Match", "*").answer().await;
            assert_eq!((both.status, both.header("etag")), (412, Some(etag)), "{path}");
            let matches = get().header("If-Match", etag).answer().await;
            assert_eq!((matches.status, matches.body), (200, full.body.clone()), "{path}");
        }
    })
    .await;
}

#[actix_web::test]
async fn the_tag_of_a_list_changes_with_every_change_and_with_what_is_asked() {
    with_app(async |app| {
        let token = app.token("demo");
        let tag = async |path: &str, user: &str| {
            let answer = app.get(path).bearer_auth(app.token(user)).answer().await;
            answer.header("etag").unwrap().to_owned()
        };
        let mut tags = vec![tag("/todos", "demo").await, tag("/todos", "user").await];
        app.create(&token, json!({"title": "a"})).await;
        tags.extend([tag("/todos", "demo").await, tag("/todos?etags=true", "demo").await]);
        app.delete("/todos/1").bearer_auth(&token).answer().await;
        tags.push(tag("/todos", "demo").await);
        let all = tags.len();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), all);
        assert_eq!(tag("/todos?etags=false&unknown=1", "demo").await, tag("/v1/todos", "demo").await);
        let answer = app.get("/todos?etags=1").bearer_auth(&token).answer().await;
        let msg = "Input should be a valid boolean, unable to interpret input";
        answer.assert_refused(
            422,
            json!([{"type": "bool_parsing", "loc": ["query", "etags"], "msg": msg, "input": "1"}]),
        );
    })
    .await;
}

#[actix_web::test]
async fn a_list_can_have_the_tag_of_each_todo() {
    with_app(async |app| {
        let token = app.token("demo");
        for title in ["a", "b"] {
            app.create(&token, json!({"title": title})).await;
        }
        let plain = app.get("/todos").bearer_auth(&token).answer().await.json();
        let mut tagged = app.get("/todos?etags=true").bearer_auth(&token).answer().await.json();
        for todo in tagged.as_array_mut().unwrap() {
            let id = todo["id"].as_i64().unwrap();
            assert_eq!(todo.as_object_mut().unwrap().shift_remove("etag"), Some(json!(app.etag(id).await)));
        }
        assert_eq!(tagged, plain);
    })
    .await;
}

#[actix_web::test]
async fn a_stale_change_is_refused_with_what_there_is() {
    with_app(async |app| {
        let token = app.token("demo");
        for prefix in PREFIXES {
            let id = app.create(&token, json!({"title": "a"})).await;
            let stale = app.etag(id).await;
            let path = format!("{prefix}/todos/{id}");
            app.patch(&path).bearer_auth(&token).send_json(json!({"title": "b"})).await;
            let current = app.get(&path).bearer_auth(&token).answer().await;
            let fresh = current.header("etag").unwrap();
            for method in ["PUT", "PATCH", "DELETE"] {
                let call = || app.request(method, &path).bearer_auth(&token);
                for (name, value) in [
                    ("If-Match", stale.as_str()),
                    ("If-Match", "\"nonsense\""),
                    ("If-Match", ""),
                    ("If-None-Match", "*"),
                    ("If-None-Match", fresh),
                ] {
                    let answer = call().header(name, value).send_json(json!({"title": "c"})).await;
                    assert_stale(&answer, &current);
                }
                // Nobody's todo is not found, whatever the condition; a body that is not valid comes first.
                let missing = app.request(method, "/todos/999").bearer_auth(&token).header("If-Match", &stale);
                missing.send_json(json!({"title": "c"})).await.assert_refused(404, "Todo not found");
                if method != "DELETE" {
                    let bad = call().header("If-Match", &stale).send_json(json!({"title": 1})).await;
                    assert_eq!(bad.problems(), ["string_type title"]);
                }
            }
            // Compressing proxies rename tags.
            let renamed = format!("W/{}-gzip\"", fresh.trim_end_matches('"'));
            let answer = app.put(&path).bearer_auth(&token).header("If-Match", renamed);
            let answer = answer.send_json(json!({"title": "c"})).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let list = format!("\"x\", {}", answer.header("etag").unwrap());
            assert_eq!(app.delete(&path).bearer_auth(&token).header("If-Match", list).answer().await.status, 204);
            let restore = |condition: &str| {
                app.post(&format!("{path}/restore")).bearer_auth(&token).header("If-Match", condition).answer()
            };
            assert_eq!(restore(fresh).await.status, 412);
            assert_eq!(restore("*").await.status, 200);
        }
    })
    .await;
}

#[actix_web::test]
async fn of_eight_clients_that_read_and_write_back_none_loses_an_update() {
    with_app(async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "a", "order": 0})).await;
        let client = async |_| {
            for _ in 0..10 {
                loop {
                    let read = app.get("/todos/1").bearer_auth(&token).answer().await;
                    let order = read.json()["order"].as_f64().unwrap() + 1.0;
                    let put = app.put("/todos/1").bearer_auth(&token).header("If-Match", read.header("etag").unwrap());
                    match put.send_json(json!({ "order": order })).await.status {
                        200 => break,
                        412 => {}
                        other => panic!("{other}"),
                    }
                }
            }
        };
        join_all((0..8).map(client)).await;
        let todo = app.todo("demo", 1).unwrap();
        assert_eq!((todo.order, todo.version.0), (Some(80.0), 81));
    })
    .await;
}

#[actix_web::test]
async fn edits_of_different_fields_are_merged() {
    with_app(async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "a"})).await;
        let known = app.etag(1).await;
        let merge = async |body: Value, known: &str| {
            let call = app.patch("/todos/1").bearer_auth(&token).header("If-Match", known);
            call.header("Prefer", "return=minimal, Merge; x=1").send_json(body).await
        };
        // Each of these clients knows only the first version.
        let edits =
            [json!({"title": "b"}), json!({"completed": true}), json!({"priority": 2}), json!({"tags_add": ["x"]})];
        for answer in join_all(edits.iter().map(|edit| merge(edit.clone(), &known))).await {
            assert_eq!((answer.status, answer.header("preference-applied")), (200, Some("merge")), "{answer:?}");
        }
        let current = app.get("/todos/1").bearer_auth(&token).answer().await;
        let todo = current.json();
        assert_eq!(
            (&todo["title"], &todo["completed"], &todo["priority"], &todo["tags"]),
            (&json!("b"), &json!(true), &json!(2), &json!(["x"]))
        );
        let answer = merge(json!({"title": "c", "tags_add": ["y"], "order": 1}), &known).await;
        let body = json!({"detail": "Precondition Failed", "current": todo, "conflict": ["title", "tags"]});
        assert_eq!((answer.status, answer.json()), (412, body));
        assert_eq!(answer.header("preference-applied"), None);
        // Without the preference, any change is one.
        let plain = app.patch("/todos/1").bearer_auth(&token).header("If-Match", &known);
        assert_stale(&plain.send_json(json!({"order": 1})).await, &current);
        // A tag that never was ours has no fields to compare.
        assert_stale(&merge(json!({"order": 1}), "\"x\"").await, &current);
        // Without a tag, there is nothing to merge with.
        let blind = app.patch("/todos/1").bearer_auth(&token).header("Prefer", "merge");
        let blind = blind.send_json(json!({"order": 1})).await;
        assert_eq!((blind.status, blind.header("preference-applied")), (200, None));
        for many in ["*", &format!("{known}, \"x\""), ""] {
            let answer = merge(json!({"order": 2}), many).await;
            let msg = "With Prefer: merge, If-Match should be the one entity tag that the client knows";
            let error = json!({"type": "value_error", "loc": ["header", "If-Match"], "msg": msg, "input": null});
            answer.assert_refused(422, json!([error]));
        }
    })
    .await;
}
