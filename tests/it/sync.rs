//! `GET /changes`, and the history of a todo.

use serde_json::{Value, json};

use crate::app::{PREFIXES, TestApp, with_app, with_settings};
use crate::client::{Answer, RequestExt};
use crate::follow::{catch_up, current};

async fn changes(app: &TestApp, user: &str, query: &str) -> Answer {
    app.get(&format!("/changes{query}")).bearer_auth(app.token(user)).answer().await
}

async fn history(app: &TestApp, path: &str) -> Answer {
    app.get(path).bearer_auth(app.token("demo")).answer().await
}

/// Each change of a page in short.
fn short(page: &Value) -> Vec<String> {
    let text = |entry: &Value| format!("{} {} {}", entry["revision"], entry["event"].as_str().unwrap(), entry["id"]);
    page["changes"].as_array().unwrap().iter().map(text).collect()
}

/// Makes changes 1 to 6 of todos 1 and 2.
async fn make_changes(app: &TestApp, user: &str) {
    let token = app.token(user);
    app.create(&token, json!({"title": "a"})).await;
    app.create(&token, json!({"title": "b", "tags": ["x"]})).await;
    let call = app.patch("/todos/1").bearer_auth(&token).header("Idempotency-Key", "mine");
    assert_eq!(call.send_json(json!({"title": "a2"})).await.status, 200);
    assert_eq!(app.delete("/todos/1").bearer_auth(&token).answer().await.status, 204);
    assert_eq!(app.post("/todos/1/restore").bearer_auth(&token).answer().await.status, 200);
    assert_eq!(app.delete("/todos/2").bearer_auth(&token).answer().await.status, 204);
}

#[actix_web::test]
async fn a_client_gets_the_changes_that_it_does_not_know() {
    with_app(async |app| {
        let empty = current(app, "demo").await;
        make_changes(app, "demo").await;
        let epoch = app.store().epoch();
        for prefix in PREFIXES {
            let path = format!("{prefix}/changes?since={}", empty.token);
            let answer = app.get(&path).bearer_auth(app.token("demo")).answer().await;
            assert_eq!(answer.header("sync-token"), Some(&*format!("{epoch}-6")));
            assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
            let page = answer.json();
            assert_eq!((&page["next"], &page["has_more"]), (&json!(format!("{epoch}-6")), &json!(false)));
            let all = ["1 created 1", "2 created 2", "3 updated 1", "4 deleted 1", "5 restored 1", "6 deleted 2"];
            assert_eq!(short(&page), all);
            let list = app.get("/todos?etags=true").bearer_auth(app.token("demo")).answer().await.json();
            let entry = |n: usize| page["changes"][n].clone();
            assert_eq!((entry(5)["todo"].clone(), entry(5)["etag"].clone()), (Value::Null, Value::Null));
            assert_eq!(entry(4)["etag"], list[0]["etag"]);
            assert_eq!((entry(2)["op"].clone(), entry(3).get("op")), (json!("mine"), None));
            assert_eq!(entry(1)["todo"]["tags"], json!(["x"]));
            let keys: Vec<_> = entry(2).as_object().unwrap().keys().cloned().collect();
            assert_eq!(keys, ["revision", "event", "id", "etag", "at", "op", "todo"]);
        }
        // Part by part, from anywhere, and only the last of each todo.
        let page = changes(app, "demo", &format!("?since={epoch}-1&limit=2")).await.json();
        assert_eq!(
            (short(&page), &page["next"]),
            (vec!["2 created 2".into(), "3 updated 1".into()], &json!(format!("{epoch}-3")))
        );
        assert_eq!(page["has_more"], true);
        let page = changes(app, "demo", &format!("?since={epoch}-0&net=true")).await.json();
        assert_eq!(short(&page), ["5 restored 1", "6 deleted 2"]);
        let page = changes(app, "demo", &format!("?since={epoch}-0&net=true&limit=1")).await.json();
        assert_eq!((short(&page), &page["has_more"]), (vec!["5 restored 1".to_owned()], &json!(true)));
        let page = changes(app, "demo", &format!("?since={epoch}-6")).await.json();
        assert_eq!(page, json!({"changes": [], "next": format!("{epoch}-6"), "has_more": false}));
        // Nobody else's.
        let page = changes(app, "admin", &format!("?since={epoch}-0")).await.json();
        assert_eq!(page, json!({"changes": [], "next": format!("{epoch}-0"), "has_more": false}));
    })
    .await;
}

#[actix_web::test]
async fn what_is_wrong_with_the_query_is_said() {
    with_app(async |app| {
        for (query, problems) in [
            ("", vec!["missing since"]),
            ("?since=", vec!["value_error since"]),
            ("?since=7", vec!["value_error since"]),
            ("?since=000000000000001f-007", vec!["value_error since"]),
            ("?since=x&limit=0&net=1", vec!["value_error since", "greater_than_equal limit", "bool_parsing net"]),
            ("?since=x&limit=1001", vec!["value_error since", "less_than_equal limit"]),
        ] {
            assert_eq!(changes(app, "demo", query).await.problems(), problems, "{query}");
        }
    })
    .await;
}

#[actix_web::test]
async fn who_can_not_catch_up_is_told_to_start_over() {
    with_app(async |app| {
        make_changes(app, "demo").await;
        app.published().await;
        let epoch = app.store().epoch();
        let answer = changes(app, "demo", "?since=000000000000001f-1").await;
        let detail = |answer: &Answer| (answer.status, answer.json()["reason"].clone());
        assert_eq!(detail(&answer), (410, json!("foreign")));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.json()["detail"].as_str().unwrap().contains("GET /todos"));
        let answer = changes(app, "demo", &format!("?since={epoch}-7")).await;
        assert_eq!(detail(&answer), (410, json!("ahead")));
        // As retention does.
        app.database()
            .execute("DELETE FROM changes WHERE revision <= 3; UPDATE users SET floor = 3 WHERE username = 'demo'");
        for net in [false, true] {
            let answer = changes(app, "demo", &format!("?since={epoch}-2&net={net}")).await;
            assert_eq!(detail(&answer), (410, json!("pruned")));
            assert_eq!(changes(app, "demo", &format!("?since={epoch}-3&net={net}")).await.status, 200);
        }
    })
    .await;
}

#[actix_web::test]
async fn much_comes_in_parts() {
    with_settings(&[("RATE_LIMIT_USER", "0")], async |app| {
        let (mut plain, mut net) = (current(app, "demo").await, current(app, "demo").await);
        let description = "ü".repeat(10_000);
        let operation = |_| json!({"op": "create", "todo": {"title": "long", "description": description}});
        for _ in 0..3 {
            let operations: Vec<_> = (0..50).map(operation).collect();
            let call = app.post("/batch").bearer_auth(app.token("demo"));
            assert_eq!(call.send_json(json!({"operations": operations})).await.status, 200);
        }
        let answer = changes(app, "demo", &format!("?since={}", plain.token)).await;
        assert!(answer.body.len() < 1_200_000, "{}", answer.body.len());
        assert_eq!(answer.json()["has_more"], true);
        assert_eq!(catch_up(&mut plain, app, "demo", "").await, 150);
        assert_eq!(catch_up(&mut net, app, "demo", "&net=true&limit=7").await, 150);
        assert_eq!(plain, current(app, "demo").await);
        assert_eq!(net, plain);
    })
    .await;
}

#[actix_web::test]
async fn the_history_of_a_todo_says_who_changed_what() {
    with_app(async |app| {
        make_changes(app, "demo").await;
        let token = app.token("demo");
        let put = app.put("/todos/1").bearer_auth(&token);
        put.send_json(json!({"title": "a2", "priority": 3, "tags": ["y", "z"]})).await;
        let put = app.put("/todos/1").bearer_auth(&token);
        put.send_json(json!({"title": "a2", "tags": null})).await;
        let put = app.put("/todos/1").bearer_auth(&token);
        put.send_json(json!({"title": "a2"})).await;
        let all = history(app, "/todos/1/history").await;
        let entries = all.json();
        let short = |entry: &Value| json!([entry["revision"], entry["version"], entry["event"], entry["changes"]]);
        let expected = json!([
            [1, 1, "created", {"title": [null, "a"], "completed": [null, false]}],
            [3, 2, "updated", {"title": ["a", "a2"]}],
            [4, 3, "deleted", {}],
            [5, 4, "restored", {}],
            [7, 5, "updated", {"priority": [null, 3], "tags": [[], ["y", "z"]]}],
            [8, 6, "updated", {"tags": [["y", "z"], []]}],
            [9, 7, "updated", {}],
        ]);
        assert_eq!(Value::from_iter(entries.as_array().unwrap().iter().map(short)), expected);
        assert_eq!(entries[1]["actor"], "demo");
        assert!(entries[1]["at"].as_str().unwrap().ends_with('Z'));
        assert_eq!(all.header("link"), None);
        // Part by part.
        let (mut path, mut parts) = ("/v1/todos/1/history?limit=2".to_owned(), Vec::new());
        loop {
            let answer = history(app, &path).await;
            parts.extend(answer.json().as_array().unwrap().clone());
            match answer.next_from(&path) {
                Some(next) => path = next,
                None => break,
            }
        }
        assert_eq!(Value::from(parts), entries);
        for (query, versions) in
            [("limit=1", vec![1]), ("limit=2", vec![1, 2]), ("limit=2&after=3", vec![4, 5]), ("after=6", vec![7])]
        {
            let part = history(app, &format!("/todos/1/history?{query}")).await.json();
            let part: Vec<_> = part.as_array().unwrap().iter().map(|it| it["version"].as_i64().unwrap()).collect();
            assert_eq!(part, versions, "{query}");
        }
        // Also of what is in the trash, and of what was removed from it.
        assert_eq!(history(app, "/todos/2/history").await.json().as_array().unwrap().len(), 2);
        app.delete("/trash/2").bearer_auth(&token).answer().await;
        assert_eq!(history(app, "/todos/2/history").await.json().as_array().unwrap().len(), 2);
        history(app, "/todos/3/history").await.assert_refused(404, "Todo not found");
        let of_another = app.get("/todos/1/history").bearer_auth(app.token("admin")).answer().await;
        of_another.assert_refused(404, "Todo not found");
        assert_eq!(
            history(app, "/todos/x/history?limit=0&after=-1").await.problems(),
            ["int_parsing id", "greater_than_equal limit", "greater_than_equal after"]
        );
    })
    .await;
}

#[actix_web::test]
async fn what_an_older_version_has_logged_is_told_as_far_as_it_is_known() {
    with_app(async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "a"})).await;
        for title in ["b", "c", "d"] {
            app.put("/todos/1").bearer_auth(&token).send_json(json!({"title": title})).await;
        }
        app.published().await;
        let database = app.database();
        database.execute("UPDATE changes SET before = NULL; DELETE FROM changes WHERE revision = 1");
        database.execute("UPDATE users SET floor = 1 WHERE username = 'demo'");
        let changes = |answer: Answer| {
            Value::from_iter(answer.json().as_array().unwrap().iter().map(|entry| entry["changes"].clone()))
        };
        let known = json!([null, {"title": ["b", "c"]}, {"title": ["c", "d"]}]);
        assert_eq!(changes(history(app, "/todos/1/history").await), known);
        let known = json!([{"title": ["c", "d"]}]);
        assert_eq!(changes(history(app, "/todos/1/history?after=3").await), known);
        // Of nothing that is known.
        database.execute("DELETE FROM changes; UPDATE users SET floor = 4 WHERE username = 'demo'");
        assert_eq!(history(app, "/todos/1/history").await.json(), json!([]));
        app.expect_problems(&[]);
        app.delete("/todos/1").bearer_auth(&token).answer().await;
    })
    .await;
}
