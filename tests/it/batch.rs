//! `/batch`: all or none.

use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::app::{TestApp, eventually, with_app};
use crate::client::{Answer, RequestExt};

async fn batch(app: &TestApp, operations: Value) -> Answer {
    let call = app.post("/batch").bearer_auth(app.token("demo"));
    call.send_json(json!({ "operations": operations })).await
}

#[actix_web::test]
async fn all_operations_are_applied_in_one_commit() {
    with_app(async |app| {
        let token = app.token("demo");
        for title in ["a", "b", "c"] {
            app.create(&token, json!({"title": title})).await;
        }
        app.delete("/todos/3").bearer_auth(&token).answer().await;
        let epoch = app.store().epoch();
        let answer = batch(
            app,
            json!([
                {"op": "create", "ref": "new", "todo": {"title": "d", "tags": ["x"]}},
                {"op": "update", "ref": "new", "todo": {"completed": true, "tags_add": ["y"]}},
                {"op": "update", "id": 1, "if_match": format!("W/\"{epoch}-1-1\""), "todo": {"title": "a2"}},
                {"op": "update", "id": 1, "todo": {"title": "a2"}},
                {"op": "delete", "id": 2, "if_match": "*"},
                {"op": "restore", "id": 3},
                {"op": "create", "ref": "gone", "todo": {"title": "e"}},
                {"op": "delete", "ref": "gone"},
            ]),
        )
        .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("sync-token"), Some(&*format!("{epoch}-11")));
        let results = answer.json()["results"].as_array().unwrap().clone();
        let short: Vec<_> = results
            .iter()
            .map(|result| (result["status"].as_u64().unwrap(), result["etag"].as_str(), &result["todo"]["id"]))
            .collect();
        let tag = |id: i64, version: i64| format!("\"{epoch}-{id}-{version}\"");
        let (null, tags) = (json!(null), [tag(4, 1), tag(4, 2), tag(1, 2), tag(3, 3), tag(5, 1)]);
        assert_eq!(
            short,
            [
                (201, Some(tags[0].as_str()), &json!(4)),
                (200, Some(tags[1].as_str()), &json!(4)),
                (200, Some(tags[2].as_str()), &json!(1)),
                (200, Some(tags[2].as_str()), &json!(1)),
                (204, None, &null),
                (200, Some(tags[3].as_str()), &json!(3)),
                (201, Some(tags[4].as_str()), &json!(5)),
                (204, None, &null),
            ]
        );
        assert_eq!(results[1]["todo"], app.get("/todos/4").bearer_auth(&token).answer().await.json());
        let events = app.published().await;
        let last: Vec<_> = events[4..].iter().map(|event| (event.id.as_str(), event.kind.as_str())).collect();
        assert_eq!(
            last,
            [
                ("4-1", "todo.created"),
                ("4-2", "todo.updated"),
                ("1-2", "todo.updated"),
                ("2-2", "todo.deleted"),
                ("3-3", "todo.restored"),
                ("5-1", "todo.created"),
                ("5-2", "todo.deleted"),
            ]
        );
        // The log knows that they belong together.
        let batches = app.database().numbers("SELECT coalesce(batch, 0) FROM changes ORDER BY revision");
        assert_eq!(batches, [[0; 4].as_slice(), &[5; 7]].concat());
        assert_eq!(batch(app, json!([])).await.json(), json!({"results": []}));
    })
    .await;
}

#[actix_web::test]
async fn a_refusal_shows_what_there_is_and_not_what_the_batch_would_have_made() {
    with_app(async |app| {
        app.create(&app.token("demo"), json!({"title": "a"})).await;
        let current = app.get("/todos/1").bearer_auth(app.token("demo")).answer().await;
        let etag = current.header("etag").unwrap();
        let twice = json!([
            {"op": "update", "id": 1, "if_match": etag, "todo": {"title": "never"}},
            {"op": "update", "id": 1, "if_match": etag, "todo": {"title": "never"}},
        ]);
        let refused = batch(app, twice).await;
        let body = json!({"detail": "Precondition Failed", "current": current.json(), "operation": 1});
        assert_eq!((refused.status, refused.json(), refused.header("etag")), (412, body, Some(etag)));
    })
    .await;
}

#[actix_web::test]
async fn only_so_many_batches_of_a_user_are_answered_at_once() {
    with_app(async |app| {
        let token = app.token("demo");
        // The answers are a thousand times as large as the request: more than the system takes for a client that does not
        // read.
        let new = json!({"title": "a", "description": "\u{1}".repeat(10_000)});
        let mut ids = Vec::new();
        for _ in 0..100 {
            ids.push(app.create(&token, new.clone()).await);
        }
        let same: Vec<Value> = ids.iter().map(|id| json!({"op": "update", "id": id, "todo": {}})).collect();
        let body = json!({ "operations": same }).to_string();
        let head = format!(
            "POST /batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body.as_bytes()].concat();
        let mut idle = Vec::new();
        for _ in 0..8 {
            let (mut connection, request) = (app.connect(), request.clone());
            let begun = actix_web::rt::task::spawn_blocking(move || {
                connection.write_all(&request).unwrap();
                let mut status = [0; 12];
                connection.read_exact(&mut status).unwrap();
                assert_eq!(status, *b"HTTP/1.1 200");
                connection
            });
            idle.push(begun.await.unwrap());
        }
        let refused = async || batch(app, json!([])).await.status == 429;
        assert!(refused().await);
        let other = app.post("/batch").bearer_auth(app.token("user")).send_json(json!({"operations": []})).await;
        assert_eq!(other.status, 200);
        drop(idle);
        eventually("they are gone", async || !refused().await).await;
    })
    .await;
}

#[actix_web::test]
async fn an_id_beyond_all_is_not_found() {
    with_app(async |app| {
        for id in ["99999999999999999999", "-1e300", "0", "9223372036854775807", "1e19", "1e18"] {
            let body = format!(r#"{{"operations":[{{"op":"delete","id":{id}}}]}}"#);
            let answer = app.post("/batch").bearer_auth(app.token("demo")).json_bytes(body).answer().await;
            assert_eq!(
                (answer.status, answer.json()),
                (404, json!({"detail": "Todo not found", "operation": 0})),
                "{id}"
            );
        }
    })
    .await;
}

#[actix_web::test]
async fn one_refusal_refuses_all_and_says_which_it_is() {
    with_app(async |app| {
        let token = app.token("demo");
        let tags: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        app.create(&token, json!({"title": "a", "tags": tags})).await;
        let current = app.get("/todos/1").bearer_auth(&token).answer().await;
        let create = json!({"op": "create", "ref": "r", "todo": {"title": "never"}});
        let not_found = json!({"detail": "Todo not found", "operation": 1});
        for (operation, status, body) in [
            (json!({"op": "update", "id": 9, "todo": {"title": "x"}}), 404, not_found.clone()),
            (json!({"op": "update", "ref": "s", "todo": {"title": "x"}}), 404, not_found.clone()),
            (json!({"op": "delete", "id": 9, "if_match": "*"}), 404, not_found.clone()),
            (json!({"op": "restore", "id": 9}), 404, not_found),
            (json!({"op": "restore", "id": 1}), 409, json!({"detail": "Todo is not deleted", "operation": 1})),
            (
                json!({"op": "update", "id": 1, "if_match": "\"x\"", "todo": {"title": "x"}}),
                412,
                json!({"detail": "Precondition Failed", "current": current.json(), "operation": 1}),
            ),
            (
                json!({"op": "update", "id": 1, "todo": {"tags_add": ["new"]}}),
                422,
                json!({
                    "detail": [{
                        "type": "too_long", "loc": ["body", "operations", 1, "todo", "tags_add"], "input": null,
                        "msg": "The todo would have more than 20 tags", "ctx": {"max_length": 20},
                    }],
                    "operation": 1,
                }),
            ),
        ] {
            let answer = batch(app, json!([create, operation])).await;
            assert_eq!((answer.status, answer.json()), (status, body), "{operation}");
            if status == 412 {
                assert_eq!(answer.header("etag"), current.header("etag"));
            }
        }
        assert_eq!((app.todos("demo").len(), app.published().await.len()), (1, 1));
    })
    .await;
}

#[actix_web::test]
async fn every_problem_of_every_operation_is_told() {
    with_app(async |app| {
        let answer = batch(
            app,
            json!([
                {"op": "create", "ref": "", "todo": {"completed": 1}},
                {"op": "create"},
                {"op": "update", "todo": {"title": ""}},
                {"op": "update", "id": "1", "todo": []},
                {"op": "update", "id": 1, "ref": "x", "if_match": "*", "todo": {}},
                {"op": "delete", "id": 1.5, "if_match": 7},
                {"op": "restore", "ref": "x"},
                {"op": "destroy"},
                {},
                7,
            ]),
        )
        .await;
        assert_eq!(answer.status, 422);
        let detail = answer.json()["detail"].as_array().unwrap().clone();
        let short: Vec<_> =
            detail.iter().map(|error| (error["type"].as_str().unwrap(), error["loc"].clone())).collect();
        let at = |rest: Value| {
            let steps = [json!("body"), json!("operations")].into_iter().chain(rest.as_array().unwrap().clone());
            steps.collect::<Value>()
        };
        assert_eq!(
            short,
            [
                ("string_too_short", at(json!([0, "ref"]))),
                ("missing", at(json!([0, "todo", "title"]))),
                ("bool_type", at(json!([0, "todo", "completed"]))),
                ("missing", at(json!([1, "todo"]))),
                ("missing", at(json!([2, "id"]))),
                ("string_too_short", at(json!([2, "todo", "title"]))),
                ("int_type", at(json!([3, "id"]))),
                ("model_attributes_type", at(json!([3, "todo"]))),
                ("value_error", at(json!([4, "id"]))),
                ("value_error", at(json!([4, "if_match"]))),
                ("int_type", at(json!([5, "id"]))),
                ("string_type", at(json!([5, "if_match"]))),
                ("missing", at(json!([6, "id"]))),
                ("enum", at(json!([7, "op"]))),
                ("missing", at(json!([8, "op"]))),
                ("model_attributes_type", at(json!([9]))),
            ]
        );
        let many = batch(app, json!(vec![json!({}); 101])).await;
        assert_eq!(many.problems(), ["too_long operations"]);
        assert_eq!(batch(app, json!({})).await.problems(), ["list_type operations"]);
        let call = app.post("/batch").bearer_auth(app.token("demo")).send_json(json!({})).await;
        assert_eq!(call.problems(), ["missing operations"]);
    })
    .await;
}

#[actix_web::test]
async fn a_batch_may_be_larger_than_other_bodies() {
    with_app(async |app| {
        let create = json!({"op": "create", "todo": {"title": "a", "description": "x".repeat(10_000)}});
        let answer = batch(app, json!(vec![create; 100])).await;
        assert_eq!(answer.status, 200, "{}", answer.body.len());
        let too_large = app.post("/batch").bearer_auth(app.token("demo")).json_bytes(vec![b' '; (1 << 20) + 1]);
        too_large.answer().await.assert_refused(413, "Request body is larger than 1048576 bytes");
    })
    .await;
}
