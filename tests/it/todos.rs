//! `/todos` and `/todos/{id}`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;

use actix_web::rt::task::spawn_blocking;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::app::{PREFIXES, TestApp, eventually, with_app};
use crate::client::{Answer, RequestExt};

const PRIVATE: &str = "private, no-cache";

fn problem(kind: &str, loc: Value, msg: &str, input: impl Into<Value>) -> Value {
    json!({"type": kind, "loc": loc, "msg": msg, "input": input.into()})
}

fn with_ctx(mut problem: Value, ctx: Value) -> Value {
    problem["ctx"] = ctx;
    problem
}

fn no_string(field: &str, input: impl Into<Value>) -> Value {
    problem("string_type", json!(["body", field]), "Input should be a valid string", input)
}

fn no_bool(input: impl Into<Value>) -> Value {
    problem("bool_type", json!(["body", "completed"]), "Input should be a valid boolean", input)
}

fn too_long(field: &str, max: usize, input: String) -> Value {
    let msg = format!("String should have at most {max} characters");
    with_ctx(problem("string_too_long", json!(["body", field]), &msg, input), json!({ "max_length": max }))
}

fn empty_title() -> Value {
    let problem = problem("string_too_short", json!(["body", "title"]), "String should have at least 1 character", "");
    with_ctx(problem, json!({"min_length": 1}))
}

fn no_title(body: Value) -> Value {
    problem("missing", json!(["body", "title"]), "Field required", body)
}

fn no_object(input: Value) -> Value {
    let msg = "Input should be a valid dictionary or object to extract fields from";
    problem("model_attributes_type", json!(["body"]), msg, input)
}

fn bad_json(offset: usize, error: &str) -> Value {
    let problem = problem("json_invalid", json!(["body", offset]), "JSON decode error", json!({}));
    with_ctx(problem, json!({ "error": error }))
}

fn bad_id(id: &str) -> Value {
    let msg = "Input should be a valid integer, unable to parse string as an integer";
    problem("int_parsing", json!(["path", "id"]), msg, id)
}

/// Whether it looks like `2025-01-15T10:30:00.123Z`.
fn is_time(value: &Value) -> bool {
    let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
    value.as_str().is_some_and(|text| text.chars().map(shape).collect::<String>() == "0000-00-00T00:00:00.000Z")
}

#[track_caller]
fn assert_private(answer: &Answer) {
    assert_eq!(answer.header("cache-control"), Some(PRIVATE));
    let vary = answer.header("vary").unwrap().to_ascii_lowercase();
    for name in ["authorization", "accept", "origin"] {
        assert!(vary.split(", ").any(|field| field == name), "{vary}");
    }
}

#[actix_web::test]
async fn a_todo_is_created_read_listed_changed_and_deleted() {
    with_app(async |app| {
        let token = app.token("demo");
        for (number, prefix) in (1..).zip(PREFIXES) {
            let list = format!("{prefix}/todos");
            let body = json!({"title": "Learn", "description": "All of it", "completed": false});
            let created = app.post(&list).bearer_auth(&token).send_json(body).await;
            assert_eq!(created.status, 201);
            let path = format!("{prefix}/todos/{number}");
            assert_eq!(created.location_from(&list), path);
            assert_eq!(created.location_from(&format!("/pre/fix{list}")), format!("/pre/fix{path}"));
            let todo = created.json();
            let keys: Vec<&String> = todo.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["id", "title", "description", "completed", "created_at", "updated_at"]);
            assert_eq!((&todo["id"], &todo["title"]), (&json!(number), &json!("Learn")));
            assert_eq!((&todo["description"], &todo["completed"]), (&json!("All of it"), &json!(false)));
            assert!(is_time(&todo["created_at"]), "{todo}");
            assert_eq!(todo["created_at"], todo["updated_at"]);
            assert_eq!(app.todo("demo", number).unwrap().title.as_ref(), "Learn");

            let read = app.get(&path).bearer_auth(&token).answer().await;
            assert_eq!((read.status, &read.body), (200, &created.body));
            assert_private(&read);
            let listed = app.get(&list).bearer_auth(&token).answer().await;
            assert_eq!((listed.status, &listed.body), (200, &format!("[{}]", created.body)));
            assert_private(&listed);

            let body = json!({"title": "Learned", "description": "Everything", "completed": true});
            let updated = app.put(&path).bearer_auth(&token).send_json(body).await;
            assert_eq!(updated.status, 200);
            assert_private(&updated);
            let changed = updated.json();
            assert_eq!((&changed["id"], &changed["created_at"]), (&todo["id"], &todo["created_at"]));
            assert_eq!((&changed["title"], &changed["description"]), (&json!("Learned"), &json!("Everything")));
            assert_eq!(changed["completed"], true);
            assert!(changed["updated_at"].as_str() >= todo["updated_at"].as_str());
            assert_eq!(app.get(&path).bearer_auth(&token).answer().await.body, updated.body);
            assert_eq!(app.todo("demo", number).unwrap().title.as_ref(), "Learned");

            let deleted = app.delete(&path).bearer_auth(&token).answer().await;
            assert_eq!((deleted.status, deleted.body.as_str(), deleted.header("content-type")), (204, "", None));
            app.get(&path).bearer_auth(&token).answer().await.assert_refused(404, "Todo not found");
            assert_eq!(app.get(&list).bearer_auth(&token).answer().await.body, "[]");
            assert_eq!(app.todo("demo", number), None);
        }
        let events = app.published().await;
        let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["todo.created", "todo.updated", "todo.deleted"].repeat(2));
        assert_eq!(events.iter().map(|event| event.data.revision).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(events.iter().map(|event| event.data.version).collect::<Vec<_>>(), [1, 2, 3, 1, 2, 3]);
    })
    .await;
}

#[actix_web::test]
async fn both_prefixes_serve_the_same_todos() {
    with_app(async |app| {
        let token = app.token("demo");
        let id = app.create(&token, json!({"title": "x"})).await;
        let root = app.get(&format!("/todos/{id}")).bearer_auth(&token).answer().await;
        let v1 = app.get(&format!("/v1/todos/{id}")).bearer_auth(&token).answer().await;
        assert_eq!((root.status, &root.body), (v1.status, &v1.body));
        assert_eq!(app.delete(&format!("/v1/todos/{id}")).bearer_auth(&token).answer().await.status, 204);
        app.get(&format!("/todos/{id}")).bearer_auth(&token).answer().await.assert_refused(404, "Todo not found");
    })
    .await;
}

#[actix_web::test]
async fn a_title_is_enough_and_null_is_no_description() {
    with_app(async |app| {
        let token = app.token("demo");
        for body in [json!({"title": "x"}), json!({"title": "x", "description": null})] {
            let todo = app.post("/todos").bearer_auth(&token).send_json(body).await.json();
            assert_eq!((&todo["description"], &todo["completed"]), (&Value::Null, &json!(false)));
        }
        let todo =
            app.post("/todos").bearer_auth(&token).send_json(json!({"title": "x", "description": ""})).await.json();
        assert_eq!(todo["description"], "");
    })
    .await;
}

#[actix_web::test]
async fn lists_are_ordered_by_id() {
    with_app(async |app| {
        let token = app.token("demo");
        for title in ["c", "a", "b"] {
            app.create(&token, json!({ "title": title })).await;
        }
        app.put("/todos/1").bearer_auth(&token).send_json(json!({"completed": true})).await;
        let list = app.get("/todos").bearer_auth(&token).answer().await.json();
        let titles: Vec<&Value> = list.as_array().unwrap().iter().map(|todo| &todo["title"]).collect();
        assert_eq!(titles, ["c", "a", "b"]);
    })
    .await;
}

/// Makes todos with long descriptions: a list of `count` times 10 KB.
async fn create_long(app: &TestApp, token: &str, count: usize) {
    let body = json!({"title": "x", "description": "y".repeat(10_000)});
    join_all((0..count).map(|_| app.create(token, body.clone()))).await;
}

fn request_list(token: &str, start: &str, more: &str) -> String {
    format!("{start}\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{more}\r\n")
}

#[actix_web::test]
async fn a_list_of_more_than_64_kib_is_sent_in_chunks() {
    with_app(async |app| {
        let token = app.token("demo");
        create_long(app, &token, 100).await;
        let expected = serde_json::to_string(&app.todos("demo")).unwrap();
        for prefix in PREFIXES {
            let path = format!("{prefix}/todos");
            let list = app.get(&path).bearer_auth(&token).answer().await;
            assert!((list.status, &list.body) == (200, &expected));
            assert_eq!((list.header("transfer-encoding"), list.header("content-length")), (Some("chunked"), None));
            assert_eq!(list.header("content-type"), Some("application/json"));
            assert_private(&list);
            let head = app.request("HEAD", &path).bearer_auth(&token).answer().await;
            assert_eq!(
                (head.status, head.body.as_str(), head.header("content-type")),
                (200, "", Some("application/json"))
            );
            assert_private(&head);
        }
        // The connection goes on, also after HEAD.
        let requests = ["GET /todos HTTP/1.1", "HEAD /todos HTTP/1.1", "GET /todos/1 HTTP/1.1"].map(|start| {
            let end = if start.contains("/1 ") { "Connection: close\r\n" } else { "" };
            request_list(&token, start, end)
        });
        let all = app.raw(requests.concat()).await;
        assert_eq!(all.body.matches("HTTP/1.1 200 OK").count(), 2, "those after the first");
        // HTTP/1.0 knows no chunks (RFC 9112, section 6.1): the connection's end is the list's. Also for a client that
        // has ended its half of it.
        for half_closes in [false, true] {
            let request = request_list(&token, "GET /todos HTTP/1.0", "Connection: keep-alive\r\n");
            let old = app
                .converse(move |stream| {
                    stream.write_all(request.as_bytes()).unwrap();
                    if half_closes {
                        stream.shutdown(Shutdown::Write).unwrap();
                    }
                })
                .await;
            assert_eq!((old.header("transfer-encoding"), old.header("connection")), (None, None));
            assert!(old.body == expected);
        }
    })
    .await;
}

#[actix_web::test]
async fn a_list_that_is_not_read_counts_until_its_client_goes() {
    with_app(async |app| {
        let token = app.token("demo");
        // More than the sockets hold.
        create_long(app, &token, 400).await;
        app.create(&app.token("user"), json!({"title": "x"})).await;
        let request = request_list(&token, "GET /todos HTTP/1.1", "");
        let mut unread: Vec<_> = (0..8).map(|_| app.connect()).collect();
        let ask = move || {
            for stream in &mut unread {
                stream.write_all(request.as_bytes()).unwrap();
                let mut status = [0; 12];
                stream.read_exact(&mut status).unwrap();
                assert_eq!(status, *b"HTTP/1.1 200");
            }
            unread
        };
        // Off the service's own thread.
        let mut unread = spawn_blocking(ask).await.unwrap();
        let list = async || app.get("/todos").bearer_auth(&token).answer().await;
        let refused = list().await;
        refused.assert_refused(429, "Too many large answers are being sent to this user");
        assert_eq!(refused.header("retry-after"), Some("1"));
        // Whoever needs little is not concerned.
        assert_eq!(app.request("HEAD", "/todos").bearer_auth(&token).answer().await.status, 200);
        assert_eq!(app.get("/todos/1").bearer_auth(&token).answer().await.status, 200);
        assert_eq!(app.get("/todos").bearer_auth(app.token("user")).answer().await.status, 200);
        unread.pop();
        eventually("another list may be sent", async || list().await.status == 200).await;
        drop(unread);
    })
    .await;
}

#[actix_web::test]
async fn deleting_twice_answers_404() {
    with_app(async |app| {
        let token = app.token("demo");
        let path = format!("/todos/{}", app.create(&token, json!({"title": "x"})).await);
        assert_eq!(app.delete(&path).bearer_auth(&token).answer().await.status, 204);
        app.delete(&path).bearer_auth(&token).answer().await.assert_refused(404, "Todo not found");
        app.put(&path).bearer_auth(&token).send_json(json!({})).await.assert_refused(404, "Todo not found");
        assert_eq!(app.published().await.len(), 2);
    })
    .await;
}

#[actix_web::test]
async fn an_id_is_not_used_again_after_its_todo_is_deleted() {
    with_app(async |app| {
        let token = app.token("demo");
        for id in 1..=3 {
            assert_eq!(app.create(&token, json!({"title": "x"})).await, id);
            assert_eq!(app.delete(&format!("/todos/{id}")).bearer_auth(&token).answer().await.status, 204);
        }
    })
    .await;
}

#[actix_web::test]
async fn another_owners_todo_is_404_even_for_the_admin() {
    with_app(async |app| {
        let owner = app.token("demo");
        let id = app.create(&owner, json!({"title": "mine", "description": "secret"})).await;
        let before = app.get(&format!("/todos/{id}")).bearer_auth(&owner).answer().await;
        for username in ["user", "admin"] {
            let other = app.token(username);
            for prefix in PREFIXES {
                let path = format!("{prefix}/todos/{id}");
                app.get(&path).bearer_auth(&other).answer().await.assert_refused(404, "Todo not found");
                let body = json!({"title": "stolen"});
                app.put(&path).bearer_auth(&other).send_json(body).await.assert_refused(404, "Todo not found");
                app.delete(&path).bearer_auth(&other).answer().await.assert_refused(404, "Todo not found");
                assert_eq!(app.get(&format!("{prefix}/todos")).bearer_auth(&other).answer().await.body, "[]");
            }
        }
        assert_eq!(app.get(&format!("/todos/{id}")).bearer_auth(&owner).answer().await.body, before.body);
        assert_eq!(app.published().await.len(), 1);
    })
    .await;
}

#[actix_web::test]
async fn a_put_leaves_alone_what_it_does_not_send() {
    with_app(async |app| {
        let token = app.token("demo");
        let path = format!(
            "/todos/{}",
            app.create(&token, json!({"title": "a", "description": "b", "completed": true})).await
        );
        let mut expected = json!({"title": "a", "description": "b", "completed": true});
        for (sent, changed) in [
            (json!({}), vec![]),
            (json!({"unknown": 1}), vec![]),
            (json!({"title": "c"}), vec!["title"]),
            (json!({"completed": false}), vec!["completed"]),
            (json!({"description": "d"}), vec!["description"]),
            (json!({"description": null}), vec!["description"]),
            (json!({"description": ""}), vec!["description"]),
            (json!({"title": "c", "completed": true}), vec!["completed"]),
        ] {
            for (name, value) in sent.as_object().unwrap() {
                if name != "unknown" {
                    expected[name] = value.clone();
                }
            }
            let answer = app.put(&path).bearer_auth(&token).send_json(sent.clone()).await;
            assert_eq!(answer.status, 200, "{sent}");
            let mut todo = answer.json();
            todo.as_object_mut().unwrap().retain(|name, _| expected.get(name).is_some());
            assert_eq!(todo, expected, "{sent}");
            assert_eq!(app.published().await.last().unwrap().data.changed, changed, "{sent}");
            assert_eq!(app.get(&path).bearer_auth(&token).answer().await.body, answer.body, "{sent}");
        }
    })
    .await;
}

#[actix_web::test]
async fn what_a_todo_is_cannot_be_set_from_outside() {
    with_app(async |app| {
        let token = app.token("demo");
        let forged = json!({
            "id": 77, "owner": 1, "owner_id": 1, "version": 9, "created_at": "2000-01-01T00:00:00.000Z",
            "updated_at": "2000-01-01T00:00:00.000Z", "title": "x", "__proto__": {}, "": [],
        });
        let todo = app.post("/todos").bearer_auth(&token).send_json(forged.clone()).await.json();
        let put = app.put("/todos/1").bearer_auth(&token).send_json(forged).await.json();
        for answer in [&todo, &put] {
            assert_eq!((&answer["id"], answer.as_object().unwrap().len()), (&json!(1), 6));
            assert_eq!(answer["created_at"], todo["created_at"]);
            assert!(answer["updated_at"].as_str() > Some("2025"));
        }
        assert_eq!(app.todo("demo", 1).unwrap().version.0, 2);
    })
    .await;
}

#[actix_web::test]
async fn every_problem_of_a_new_todo_is_told_in_fastapis_words() {
    with_app(async |app| {
        let token = app.token("demo");
        let long = "x".repeat(201);
        let description = "y".repeat(10_001);
        for (body, problems) in [
            (json!({}), json!([no_title(json!({}))])),
            (json!({"completed": true, "x": [1]}), json!([no_title(json!({"completed": true, "x": [1]}))])),
            (json!({"title": null}), json!([no_string("title", Value::Null)])),
            (json!({"title": 5}), json!([no_string("title", 5)])),
            (json!({"title": ["x"]}), json!([no_string("title", json!(["x"]))])),
            (json!({"title": {"a": 1}}), json!([no_string("title", json!({"a": 1}))])),
            (json!({"title": true}), json!([no_string("title", true)])),
            (json!({"title": ""}), json!([empty_title()])),
            (json!({"title": long}), json!([too_long("title", 200, long.clone())])),
            (json!({"title": "x", "description": 1.5}), json!([no_string("description", 1.5)])),
            (
                json!({"title": "x", "description": description}),
                json!([too_long("description", 10_000, "y".repeat(1024) + "…")]),
            ),
            (json!({"title": "x", "completed": "yes"}), json!([no_bool("yes")])),
            (json!({"title": "x", "completed": "true"}), json!([no_bool("true")])),
            (json!({"title": "x", "completed": 1}), json!([no_bool(1)])),
            (json!({"title": "x", "completed": 0}), json!([no_bool(0)])),
            (json!({"title": "x", "completed": null}), json!([no_bool(Value::Null)])),
            (
                json!({"completed": "no", "description": 5, "title": ""}),
                json!([empty_title(), no_string("description", 5), no_bool("no")]),
            ),
            (
                json!({"description": 5, "completed": 1}),
                json!([no_title(json!({"description": 5, "completed": 1})), no_string("description", 5), no_bool(1)]),
            ),
            (Value::Null, json!([no_object(Value::Null)])),
            (json!([]), json!([no_object(json!([]))])),
            (json!([{"title": "x"}]), json!([no_object(json!([{"title": "x"}]))])),
            (json!("x"), json!([no_object(json!("x"))])),
            (json!(1), json!([no_object(json!(1))])),
            (json!(true), json!([no_object(json!(true))])),
        ] {
            for prefix in PREFIXES {
                let answer = app.post(&format!("{prefix}/todos")).bearer_auth(&token).send_json(body.clone()).await;
                answer.assert_refused(422, problems.clone());
            }
        }
        assert!(app.published().await.is_empty() && app.store().todo_count() == 0);
    })
    .await;
}

#[actix_web::test]
async fn every_problem_of_an_update_is_told_the_path_first() {
    with_app(async |app| {
        let token = app.token("demo");
        let id = app.create(&token, json!({"title": "a", "description": "b"})).await.to_string();
        for (id, body, problems) in [
            (id.as_str(), json!({"title": null}), json!([no_string("title", Value::Null)])),
            (&id, json!({"title": ""}), json!([empty_title()])),
            (&id, json!({"title": "x".repeat(201)}), json!([too_long("title", 200, "x".repeat(201))])),
            (&id, json!({"completed": null}), json!([no_bool(Value::Null)])),
            (
                &id,
                json!({"title": "ok", "completed": 1, "description": []}),
                json!([no_string("description", json!([])), no_bool(1)]),
            ),
            (&id, Value::Null, json!([no_object(Value::Null)])),
            (&id, json!([]), json!([no_object(json!([]))])),
            ("abc", json!({"title": "ok"}), json!([bad_id("abc")])),
            ("abc", json!({"title": 5, "completed": 1}), json!([bad_id("abc"), no_string("title", 5), no_bool(1)])),
            ("1.5", json!(null), json!([bad_id("1.5"), no_object(Value::Null)])),
            ("99", json!({"completed": "x"}), json!([no_bool("x")])),
            ("99999999999999999999", json!({"completed": "x"}), json!([no_bool("x")])),
        ] {
            let answer = app.put(&format!("/todos/{id}")).bearer_auth(&token).send_json(body).await;
            answer.assert_refused(422, problems);
        }
        let empty = app.put(&format!("/todos/{id}")).bearer_auth(&token).answer().await;
        empty.assert_refused(422, json!([problem("missing", json!(["body"]), "Field required", Value::Null)]));
        let empty = app.put("/todos/abc").bearer_auth(&token).answer().await;
        empty.assert_refused(
            422,
            json!([bad_id("abc"), problem("missing", json!(["body"]), "Field required", Value::Null)]),
        );
        let alone = app.put("/todos/abc").bearer_auth(&token).json_bytes("{x}").answer().await;
        alone.assert_refused(422, json!([bad_json(1, "key must be a string")]));
        let todo = app.todo("demo", 1).unwrap();
        assert_eq!((todo.title.as_ref(), todo.description.as_deref(), todo.version.0), ("a", Some("b"), 1));
        assert_eq!(app.published().await.len(), 1);
    })
    .await;
}

#[actix_web::test]
async fn bad_json_says_where_and_why() {
    with_app(async |app| {
        let token = app.token("demo");
        for (body, offset, error) in [
            ("{", 1, "EOF while parsing an object"),
            ("{\"title\": x}", 10, "expected value"),
            ("{\"title\": \"a\",}", 14, "trailing comma"),
            ("{\"title\": \"a\"} x", 15, "trailing characters"),
            ("{\"title\": \"a\"}{}", 14, "trailing characters"),
            ("{'title': 'a'}", 1, "key must be a string"),
            ("{\"title\": NaN}", 10, "expected value"),
            ("{\"title\": Infinity}", 10, "expected value"),
            ("{\"title\": 1e999}", 14, "number out of range"),
            ("{\"title\": \"a\", \"x\": -1e999}", 25, "number out of range"),
            ("{\"title\": \"\\ud800\"}", 17, "unexpected end of hex escape"),
            ("{\"title\": \"\\udc00\"}", 16, "lone leading surrogate in hex escape"),
            ("{\"title\": \"a\nb\"}", 12, "control character (\\u0000-\\u001F) found while parsing a string"),
            ("{\"title\": \"\u{0}\"}", 11, "control character (\\u0000-\\u001F) found while parsing a string"),
            ("x=1", 0, "expected value"),
            (" \n\t ", 4, "EOF while parsing a value"),
            ("{\"ü\": \"é\", x}", 11, "key must be a string"),
        ] {
            let answer = app.post("/todos").bearer_auth(&token).json_bytes(body).answer().await;
            assert_eq!((answer.status, answer.json()), (422, json!({"detail": [bad_json(offset, error)]})), "{body}");
        }
        let empty = app.post("/todos").bearer_auth(&token).answer().await;
        empty.assert_refused(422, json!([problem("missing", json!(["body"]), "Field required", Value::Null)]));
        assert!(app.published().await.is_empty());
    })
    .await;
}

#[actix_web::test]
async fn deep_nesting_is_refused_and_does_no_harm() {
    with_app(async |app| {
        let token = app.token("demo");
        let unclosed = format!("{{\"title\":\"x\",\"a\":{}", "[".repeat(200_000));
        let closed = format!("{{\"title\":\"x\",\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let objects = "{\"a\":".repeat(40_000);
        for body in [unclosed, closed, objects, "[".repeat(250_000)] {
            let answer = app.post("/todos").bearer_auth(&token).json_bytes(body).answer().await;
            assert_eq!((answer.status, &answer.json()["detail"][0]["type"]), (422, &json!("json_invalid")));
        }
        let shallow = format!("{{\"title\":\"x\",\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert_eq!(app.post("/todos").bearer_auth(&token).json_bytes(shallow).answer().await.status, 201);
    })
    .await;
}

#[actix_web::test]
async fn a_large_body_that_is_refused_is_shown_only_by_its_beginning() {
    with_app(async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "x"})).await;
        let long = |length: usize| "x".repeat(length);
        let nested =
            json!({"title": [long(100_000)], "description": {"x": vec![1; 30_000]}, "completed": long(90_000)});
        let no_title = json!({"a": long(80_000), "description": vec![1; 40_000], "completed": {"y": long(90_000)}});
        let path = format!("/todos/{}", "x".repeat(30_000));
        for (method, path, content_type, body) in [
            ("POST", "/todos", "application/json", nested.to_string()),
            ("POST", "/todos", "application/json", no_title.to_string()),
            ("POST", "/todos", "application/json", json!([nested]).to_string()),
            ("POST", "/todos", "application/json", json!({"title": long(250_000)}).to_string()),
            ("POST", "/todos", "text/plain", "\u{1}".repeat(262_144)),
            ("PUT", "/todos/1", "application/json", nested.to_string()),
            ("PUT", &path, "application/json", nested.to_string()),
        ] {
            let call = app.request(method, path).bearer_auth(&token).header("Content-Type", content_type);
            let answer = call.body(body).answer().await;
            assert_eq!(answer.status, 422);
            assert!(answer.body.len() < 8 << 10, "{method} {content_type}: {} bytes", answer.body.len());
            assert!(
                answer.json()["detail"][0]["input"].as_str().is_some_and(|input| input.ends_with('…')),
                "{answer:?}"
            );
        }
    })
    .await;
}

#[actix_web::test]
async fn bytes_that_are_no_utf8_are_400() {
    with_app(async |app| {
        let token = app.token("demo");
        for body in
            [&b"{\"title\":\"\xff\"}"[..], b"\xff\xfe", b"{\"title\":\"\xed\xa0\x80\"}", b"{\"title\":\"\xc0\xaf\"}"]
        {
            let answer = app.post("/todos").bearer_auth(&token).json_bytes(body).answer().await;
            answer.assert_refused(400, "There was an error parsing the body");
            let answer = app.put("/v1/todos/1").bearer_auth(&token).json_bytes(body).answer().await;
            answer.assert_refused(400, "There was an error parsing the body");
        }
    })
    .await;
}

#[actix_web::test]
async fn the_last_of_two_equal_keys_wins() {
    with_app(async |app| {
        let token = app.token("demo");
        let body = r#"{"title":5,"title":"a","completed":true,"title":"b","completed":false}"#;
        let todo = app.post("/todos").bearer_auth(&token).json_bytes(body).answer().await.json();
        assert_eq!((&todo["title"], &todo["completed"]), (&json!("b"), &json!(false)));
        let refused = app.post("/todos").bearer_auth(&token).json_bytes(r#"{"title":"a","title":""}"#).answer().await;
        refused.assert_refused(422, json!([empty_title()]));
    })
    .await;
}

#[actix_web::test]
async fn huge_numbers_in_unknown_fields_are_ignored() {
    with_app(async |app| {
        let token = app.token("demo");
        let digits = "9".repeat(10_000);
        for number in ["123456789012345678901234567890", "1e300", "-0", "1E-999"] {
            let body = format!(r#"{{"title":"x","n":{number}}}"#);
            assert_eq!(app.post("/todos").bearer_auth(&token).json_bytes(body).answer().await.status, 201, "{number}");
        }
        let body = format!(r#"{{"title":"x","n":{digits}}}"#);
        let answer = app.post("/todos").bearer_auth(&token).json_bytes(body).answer().await;
        assert_eq!((answer.status, &answer.json()["detail"][0]["type"]), (422, &json!("json_invalid")));
    })
    .await;
}

#[actix_web::test]
async fn texts_come_back_as_they_were_sent() {
    with_app(async |app| {
        let token = app.token("demo");
        for text in [
            "\u{0}",
            "a\u{0}b",
            "\u{1}\u{7f}\u{80}",
            " spaces ",
            "\t\r\n",
            "\"\\/",
            "<script>alert(1)</script>",
            "'; DROP TABLE todos; --",
            "\u{202e}right to left",
            "\u{feff}",
            "e\u{301}",
            "👨‍👩‍👧‍👦",
            "\u{10ffff}\u{fffe}",
            "日本語",
        ] {
            let body = json!({"title": text, "description": text});
            let created = app.post("/todos").bearer_auth(&token).send_json(body).await;
            assert_eq!(created.status, 201, "{text:?}");
            let todo = created.json();
            assert_eq!((&todo["title"], &todo["description"]), (&json!(text), &json!(text)));
            let sent = app.published().await.pop().unwrap().data;
            assert_eq!((sent.title.as_str(), sent.description.as_deref()), (text, Some(text)), "to the sidecar");
        }
        let escaped = r#"{"title":"\ud83d\ude00\u0000\u00e9"}"#;
        let todo = app.post("/todos").bearer_auth(&token).json_bytes(escaped).answer().await.json();
        assert_eq!(todo["title"], "😀\u{0}é");
    })
    .await;
}

#[actix_web::test]
async fn lengths_are_counted_in_characters() {
    with_app(async |app| {
        let token = app.token("demo");
        // A family is seven characters: four people and three joiners.
        let families = "👨‍👩‍👧‍👦".repeat(29);
        assert_eq!(families.chars().count(), 203);
        for (title, status) in [
            ("x".repeat(200), 201),
            ("😀".repeat(200), 201),
            ("😀".repeat(201), 422),
            ("é".repeat(200), 201),
            ("e\u{301}".repeat(101), 422),
            ("👨‍👩‍👧‍👦".repeat(28), 201),
            (families, 422),
            ("\u{0}".repeat(200), 201),
            (" ".to_owned(), 201),
        ] {
            let answer = app.post("/todos").bearer_auth(&token).send_json(json!({ "title": title })).await;
            assert_eq!(answer.status, status, "{title}");
            if status == 422 {
                answer.assert_refused(422, json!([too_long("title", 200, title)]));
            }
        }
        for (description, status) in
            [("😀".repeat(10_000), 201), ("😀".repeat(10_001), 422), ("\u{0}".repeat(10_000), 201)]
        {
            let body = json!({"title": "x", "description": description});
            assert_eq!(app.post("/todos").bearer_auth(&token).send_json(body).await.status, status);
        }
    })
    .await;
}

#[actix_web::test]
async fn ids_that_are_no_integers_are_422() {
    with_app(async |app| {
        let token = app.token("demo");
        for (sent, id) in [
            ("abc", "abc"),
            ("1.5", "1.5"),
            ("1e3", "1e3"),
            ("0x1", "0x1"),
            ("1,2", "1,2"),
            ("-", "-"),
            ("1%202", "1 2"),
            ("1%2F2", "1/2"),
            ("%C3%BC", "ü"),
            ("%F0%9F%98%80", "😀"),
            ("%D9%A1", "\u{661}"),
            ("%00", "\u{0}"),
        ] {
            for prefix in PREFIXES {
                let path = format!("{prefix}/todos/{sent}");
                app.get(&path).bearer_auth(&token).answer().await.assert_refused(422, json!([bad_id(id)]));
                app.delete(&path).bearer_auth(&token).answer().await.assert_refused(422, json!([bad_id(id)]));
                let put = app.put(&path).bearer_auth(&token).send_json(json!({})).await;
                put.assert_refused(422, json!([bad_id(id)]));
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn ids_that_nobody_has_are_404_however_large() {
    with_app(async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "x"})).await;
        let digits = "9".repeat(1000);
        for id in
            ["0", "2", "-1", "9223372036854775807", "9223372036854775808", "-9223372036854775809", digits.as_str()]
        {
            let path = format!("/todos/{id}");
            app.get(&path).bearer_auth(&token).answer().await.assert_refused(404, "Todo not found");
            app.delete(&path).bearer_auth(&token).answer().await.assert_refused(404, "Todo not found");
            let put = app.put(&path).bearer_auth(&token).send_json(json!({"title": "y"})).await;
            put.assert_refused(404, "Todo not found");
        }
        assert_eq!(app.published().await.len(), 1);
    })
    .await;
}

#[actix_web::test]
async fn concurrent_creates_get_distinct_ids_in_commit_order() {
    with_app(async |app| {
        let tokens = [app.token("demo"), app.token("user")];
        let create = |number: usize| app.create(&tokens[number % 2], json!({"title": number.to_string()}));
        let ids = join_all((0..60).map(create)).await;
        assert_eq!(ids.iter().copied().collect::<BTreeSet<_>>(), (1..=60).collect());
        let events = app.published().await;
        assert!(events.iter().map(|event| event.data.id).eq(1..=60));
        for username in ["demo", "user"] {
            let owner = app.user_id(username);
            let own = events.iter().filter(|event| event.data.owner == owner);
            assert!(own.map(|event| event.data.revision).eq(1..=30), "{username}");
            assert_eq!(app.todos(username).len(), 30);
        }
        for id in 61..=63 {
            assert_eq!(app.create(&tokens[0], json!({"title": "x"})).await, id);
        }
    })
    .await;
}

#[actix_web::test]
async fn concurrent_updates_of_one_todo_lose_nothing() {
    with_app(async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "a", "description": "b"})).await;
        let put = |number: usize| {
            let body = if number.is_multiple_of(2) {
                json!({"title": number.to_string()})
            } else {
                json!({"completed": true})
            };
            app.put("/todos/1").bearer_auth(&token).send_json(body)
        };
        let answers = join_all((0..20).map(put)).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        let todo = app.todo("demo", 1).unwrap();
        assert_eq!((todo.version.0, todo.completed, todo.description.as_deref()), (21, true, Some("b")));
        assert!(app.published().await.iter().map(|event| event.data.version).eq(1..=21));
    })
    .await;
}

#[actix_web::test]
async fn of_concurrent_deletes_one_wins() {
    with_app(async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "x"})).await;
        let answers = join_all((0..8).map(|_| app.delete("/todos/1").bearer_auth(&token).answer())).await;
        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [&[204][..], &[404; 7]].concat());
        assert_eq!(app.published().await.len(), 2);
    })
    .await;
}

#[actix_web::test]
async fn a_change_carries_who_did_it_and_the_requests_trace() {
    with_app(async |app| {
        let token = app.token("admin");
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let call = app.post("/todos").bearer_auth(&token).header("traceparent", trace);
        assert_eq!(call.send_json(json!({"title": "x"})).await.status, 201);
        let call = app.put("/todos/1").bearer_auth(&token).header("traceparent", "nonsense");
        assert_eq!(call.send_json(json!({"title": "y"})).await.status, 200);
        let events = app.published().await;
        assert_eq!((events[0].data.actor.as_str(), events[0].data.owner), ("admin", app.user_id("admin")));
        assert!(events[0].traceparent.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{}", events[0].traceparent);
        assert_ne!(events[1].traceparent, "nonsense");
    })
    .await;
}

#[actix_web::test]
async fn a_body_that_is_not_said_to_be_json_is_a_string() {
    with_app(async |app| {
        let token = app.token("demo");
        let body = r#"{"title":"x"}"#;
        for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("json")] {
            let call = app.post("/todos").bearer_auth(&token).body(body);
            let call = if let Some(value) = content_type { call.header("Content-Type", value) } else { call };
            call.answer().await.assert_refused(
                422,
                json!([{
                    "type": "model_attributes_type", "loc": ["body"],
                    "msg": "Input should be a valid dictionary or object to extract fields from", "input": body,
                }]),
            );
        }
        let patch = app.post("/todos").bearer_auth(&token).header("Content-Type", "application/merge-patch+json; x=y");
        assert_eq!(patch.body(body).answer().await.status, 201);
        assert_eq!(app.todos("demo").len(), 1);
    })
    .await;
}
