//! `/export` and `/import`.

use std::io::Write;

use serde_json::{Value, json};

use crate::app::{PREFIXES, TestApp, eventually, with_app, with_settings};
use crate::client::{Answer, RequestExt};

const NDJSON: &str = "application/x-ndjson";

async fn import(app: &TestApp, user: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
    let call = app.post("/import").bearer_auth(app.token(user)).header("Content-Type", content_type);
    call.body(body).answer().await
}

/// The lines of an export.
async fn export(app: &TestApp, user: &str) -> Vec<Value> {
    let answer = app.get("/export").bearer_auth(app.token(user)).answer().await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(NDJSON)), "{answer:?}");
    answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn lines(items: &[Value]) -> String {
    items.iter().map(|item| format!("{item}\n")).collect()
}

/// What two users have in common: todos without what names or dates them.
fn contents(app: &TestApp, user: &str) -> Vec<Value> {
    let todos = app.todos(user);
    let content = |todo: &_| {
        let mut todo = serde_json::to_value(todo).unwrap();
        for name in ["id", "updated_at"] {
            todo.as_object_mut().unwrap().shift_remove(name);
        }
        todo
    };
    todos.iter().map(|todo| content(&**todo)).collect()
}

#[actix_web::test]
async fn an_export_has_todos_trash_and_changes() {
    with_app(async |app| {
        let token = app.token("demo");
        for title in ["a", "b"] {
            app.create(&token, json!({"title": title, "tags": ["ü"]})).await;
        }
        let call = app.patch("/todos/1").bearer_auth(&token).header("Idempotency-Key", "k");
        call.send_json(json!({"title": "a\n2", "order": 1.5})).await;
        app.delete("/todos?completed=false&").bearer_auth(&token).answer().await;
        app.post("/todos/1/restore").bearer_auth(&token).answer().await;
        let list = app.get("/todos?etags=true").bearer_auth(&token).answer().await;
        let trash = app.get("/trash").bearer_auth(&token).answer().await.json();
        for prefix in PREFIXES {
            let answer = app.get(&format!("{prefix}/export")).bearer_auth(&token).answer().await;
            assert_eq!(answer.header("sync-token"), list.header("sync-token"));
            assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
            assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"todos.ndjson\""));
            assert!(answer.body.ends_with("}\n"));
        }
        let lines = export(app, "demo").await;
        assert_eq!(lines[..2], [list.json()[0].clone(), trash[0].clone()]);
        let epoch = app.store().epoch();
        let short = |line: &Value| {
            assert_eq!(line["todo"]["etag"], format!("\"{epoch}-{}-{}\"", line["id"], line["version"]));
            json!([
                line["revision"],
                line["version"],
                line["event"],
                line["id"],
                line["changed"],
                line.get("batch"),
                line.get("op")
            ])
        };
        let created = json!(["title", "description", "completed", "tags"]);
        let expected = [
            json!([1, 1, "created", 1, created, null, null]),
            json!([2, 1, "created", 2, created, null, null]),
            json!([3, 2, "updated", 1, ["title", "order"], null, "k"]),
            json!([4, 3, "deleted", 1, [], 4, null]),
            json!([5, 2, "deleted", 2, [], 4, null]),
            json!([6, 4, "restored", 1, [], null, null]),
        ];
        assert_eq!(lines[2..].iter().map(short).collect::<Vec<_>>(), expected);
        let third = &lines[4];
        assert_eq!((&third["actor"], &third["at"]), (&json!("demo"), &third["todo"]["updated_at"]));
        assert_eq!((&third["todo"]["title"], &third["todo"]["order"]), (&json!("a\n2"), &json!(1.5)));
        assert_eq!(export(app, "user").await, Vec::<Value>::new());
    })
    .await;
}

#[actix_web::test]
async fn a_large_export_is_whole_and_in_order() {
    with_app(async |app| {
        let token = app.token("demo");
        let long = json!({"title": "x", "description": "y".repeat(2_000)});
        let operations: Vec<Value> = (0..100).map(|_| json!({"op": "create", "todo": long})).collect();
        for _ in 0..7 {
            let batch = app.post("/batch").bearer_auth(&token).send_json(json!({ "operations": operations })).await;
            assert_eq!(batch.status, 200);
        }
        let lines = export(app, "demo").await;
        let ids: Vec<i64> = lines[..700].iter().map(|line| line["id"].as_i64().unwrap()).collect();
        assert_eq!(ids, (1..=700).collect::<Vec<_>>());
        let revisions: Vec<i64> = lines[700..].iter().map(|line| line["revision"].as_i64().unwrap()).collect();
        assert_eq!(revisions, (1..=700).collect::<Vec<_>>());
        // What is large counts as a large list, until it is read.
        let open: Vec<_> = (0..8).map(|_| app.get("/export").bearer_auth(&token).send()).collect();
        let open = futures_util::future::join_all(open).await;
        let refused = app.get("/export").bearer_auth(&token).answer().await;
        refused.assert_refused(429, "Too many large answers are being sent to this user");
        drop(open);
    })
    .await;
}

#[actix_web::test]
async fn an_export_that_cannot_be_read_to_its_end_breaks_off() {
    with_app(async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "a"})).await;
        app.database().execute("UPDATE changes SET kind = 9");
        let answer = app.get("/export").bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.bytes().await.is_err(), "it does not look whole");
        app.database().execute("UPDATE changes SET kind = 0");
        assert_eq!(export(app, "demo").await.len(), 2);
    })
    .await;
}

#[actix_web::test]
async fn what_was_exported_can_be_imported_by_anybody() {
    with_app(async |app| {
        let token = app.token("demo");
        for n in 0..3 {
            let todo = json!({"title": n.to_string(), "description": "ü\n\"", "completed": n == 1, "priority": n,
                "due_at": "2025-01-31", "tags": ["a", "b"], "order": 0.1});
            app.create(&token, todo).await;
        }
        app.create(&token, json!({"title": "in the trash"})).await;
        app.delete("/todos/4").bearer_auth(&token).answer().await;
        let exported = export(app, "demo").await;
        let imported = import(app, "user", NDJSON, lines(&exported)).await;
        assert_eq!((imported.status, imported.json()), (200, json!({"imported": 3, "skipped": 6})), "{imported:?}");
        assert_eq!(imported.header("change-revision"), Some("3"));
        assert_eq!(imported.header("sync-token"), Some(&*format!("{}-3", app.store().epoch())));
        assert_eq!(contents(app, "user"), contents(app, "demo"));
        let ids: Vec<i64> = app.todos("user").iter().map(|todo| todo.id.0).collect();
        assert_eq!(ids, [5, 6, 7]);
        // As a list, too.
        let list = app.get("/todos").bearer_auth(&token).answer().await.body;
        assert_eq!(import(app, "admin", "application/json", list).await.json(), json!({"imported": 3, "skipped": 0}));
        assert_eq!(contents(app, "admin"), contents(app, "demo"));
        let events = app.published().await;
        assert_eq!(events.iter().filter(|event| event.kind == "todo.created").count(), 10);
        // They are undone one by one.
        let undone = app.post("/changes/2/undo?batch=true").bearer_auth(app.token("user")).answer().await.json();
        assert_eq!((undone["changes"].as_array().unwrap().len(), &undone["changes"][0]["id"]), (1, &json!(6)));
    })
    .await;
}

#[actix_web::test]
async fn todos_of_the_original_are_imported_with_their_dates() {
    with_app(async |app| {
        let original = json!([
            {"id": 1, "title": "Learn", "description": null, "completed": true,
             "created_at": "2025-01-15T10:30:00.123456", "updated_at": "2025-01-16T10:30:00.123456"},
            {"title": "of a clock that is wrong", "created_at": "2999-01-01T00:00:00+01:00"},
        ]);
        let imported = import(app, "demo", "application/json", original.to_string()).await;
        assert_eq!((imported.status, imported.json()["imported"].as_u64()), (200, Some(2)), "{imported:?}");
        let todos = app.todos("demo");
        assert_eq!(todos[0].created_at.to_string(), "2025-01-15T10:30:00.123Z");
        assert!(todos[0].completed && todos[0].updated_at > todos[0].created_at);
        assert_eq!(todos[1].created_at, todos[1].updated_at);
        // No other route takes it.
        let created = app.create(&app.token("demo"), json!({"title": "x", "created_at": "2025-01-15T10:30:00Z"})).await;
        let created = app.todo("demo", created).unwrap();
        assert_eq!(created.created_at, created.updated_at);
    })
    .await;
}

#[actix_web::test]
async fn all_of_it_is_valid_or_nothing_is_imported() {
    with_app(async |app| {
        let long = format!("[{}{{}}]", "{\"title\":\"a\"},".repeat(10_000));
        let many = lines(&vec![json!({"title": "a"}); 10_001]);
        let bad = vec![json!({"title": ""}); 300];
        for (content_type, body, problems) in [
            (NDJSON, String::new(), vec!["missing body"]),
            (NDJSON, "{\"title\":\"a\"}\n{\"title\":".to_owned(), vec!["json_invalid 23"]),
            (
                NDJSON,
                "{\"title\":\"a\"}\n7\n[]\n{}".to_owned(),
                vec!["model_attributes_type 1", "model_attributes_type 2", "missing title"],
            ),
            (
                "application/json",
                "[{\"title\":\"a\"},{\"title\":\"\",\"priority\":9}]".to_owned(),
                vec!["string_too_short title", "less_than_equal priority"],
            ),
            ("application/json", "{\"a\":1}".to_owned(), vec!["missing title"]),
            ("application/json", "null".to_owned(), vec!["model_attributes_type 0"]),
            ("application/json", long, vec!["missing title"]),
            (NDJSON, many, vec!["too_long body"]),
            (NDJSON, lines(&bad), vec!["string_too_short title"; 100]),
        ] {
            let refused = import(app, "demo", content_type, body).await;
            assert_eq!(refused.problems(), problems);
        }
        let shown = import(app, "demo", NDJSON, "{\"title\":\"a\"}\n{\"title\":7}").await.json();
        let expected = json!({"detail": [
            {"type": "string_type", "loc": ["body", 1, "title"], "msg": "Input should be a valid string", "input": 7,
             "ctx": {"line": 2}},
        ]});
        assert_eq!(shown, expected);
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "", "application/xml"] {
            let refused = import(app, "demo", content_type, "[]").await;
            refused.assert_refused(415, "Content-Type must be application/x-ndjson or application/json");
            assert_eq!(refused.header("accept"), Some("application/x-ndjson, application/json"));
        }
        let too_large = import(app, "demo", NDJSON, vec![b' '; (16 << 20) + 1]).await;
        too_large.assert_refused(413, "Request body is larger than 16777216 bytes");
        // The same without a length that is said before.
        let token = app.token("demo");
        let chunked = app.converse(move |stream| {
            let head = format!(
                "POST /import HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {NDJSON}\r\n\
                 Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
            for _ in 0..17 {
                // It may be refused before its end.
                let _ = stream.write_all(chunk.as_bytes());
            }
        });
        chunked.await.assert_refused(413, "Request body is larger than 16777216 bytes");
        assert_eq!(app.todos("demo").len(), 0);
        for nothing in ["[]", " \n\n"] {
            assert_eq!(import(app, "demo", NDJSON, nothing).await.json(), json!({"imported": 0, "skipped": 0}));
        }
    })
    .await;
}

#[actix_web::test]
async fn the_most_that_is_allowed_is_imported_in_groups_and_again_only_without_the_key() {
    with_app(async |app| {
        let token = app.token("demo");
        let todo = |n: usize| json!({"title": format!("todo {n}"), "description": "d".repeat(1_450)});
        let body = lines(&(0..10_000).map(todo).collect::<Vec<_>>());
        assert!(body.len() > 14 << 20);
        let send = async |key: Option<&str>, body: &str| {
            let call = app.post("/import").bearer_auth(&token).header("Content-Type", NDJSON).body(body.to_owned());
            key.into_iter().fold(call, |call, key| call.header("Idempotency-Key", key)).answer().await
        };
        let first = send(Some("k"), &body).await;
        assert_eq!((first.status, first.json()), (200, json!({"imported": 10_000, "skipped": 0})));
        let again = send(Some("k"), &body).await;
        assert_eq!(
            (again.status, &again.body, again.header("sync-token")),
            (200, &first.body, first.header("sync-token"))
        );
        assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), (None, Some("true")));
        // White space and the order of keys make no difference; content does, wherever it is.
        let as_array = format!("[{}]", body.trim_end().replace('\n', ",\n"));
        assert_eq!(send(Some("k"), &as_array).await.header("idempotent-replayed"), Some("true"));
        for other in [body.replacen("todo 0", "x", 1), body.replace("todo 9999", "x"), lines(&[todo(0)])] {
            assert_eq!(send(Some("k"), &other).await.problems(), ["idempotency_key_reused Idempotency-Key"]);
        }
        assert_eq!(app.todos("demo").len(), 10_000);
        assert_eq!(send(None, &lines(&[todo(0)])).await.status, 200);
        assert_eq!(app.todos("demo").len(), 10_001);
    })
    .await;
}

#[actix_web::test]
async fn an_import_that_is_too_much_is_refused_before_its_first_group() {
    with_settings(&[("MAX_TODOS_PER_USER", "1000")], async |app| {
        let of = |count: usize| lines(&vec![json!({"title": "a"}); count]);
        import(app, "demo", NDJSON, of(1001)).await.assert_refused(409, TOO_MANY);
        assert_eq!(app.todos("demo").len(), 0);
        assert_eq!(import(app, "demo", NDJSON, of(999)).await.status, 200);
        import(app, "demo", NDJSON, of(2)).await.assert_refused(409, TOO_MANY);
        assert_eq!(import(app, "demo", NDJSON, of(1)).await.status, 200);
    })
    .await;
}

const TOO_MANY: &str = "This user would have more than 1000 todos, the most allowed: delete some first";

#[actix_web::test]
async fn one_import_at_a_time_is_served_for_each_user() {
    with_app(async |app| {
        let head = format!(
            "POST /import HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: {NDJSON}\r\n\
             Content-Length: 14\r\nConnection: close\r\n\r\n{{\"title\":",
            app.token("demo")
        );
        let (go_on, waiting) = std::sync::mpsc::channel();
        let first = app.converse(move |stream| {
            stream.write_all(head.as_bytes()).unwrap();
            waiting.recv().unwrap();
            stream.write_all(b"\"a\"}\n").unwrap();
        });
        let meanwhile = async {
            let is_served = async || import(app, "demo", NDJSON, "").await.status == 429;
            eventually("the first import to be read", is_served).await;
            let second = import(app, "demo", NDJSON, "").await;
            second.assert_refused(429, "Todos are being imported for this user already");
            assert_eq!(second.header("retry-after"), Some("1"));
            assert_eq!(import(app, "user", NDJSON, "[]").await.status, 200);
            go_on.send(()).unwrap();
        };
        let (first, ()) = futures_util::future::join(first, meanwhile).await;
        assert_eq!((first.status, first.body.as_str()), (200, r#"{"imported":1,"skipped":0}"#));
        assert_eq!(import(app, "demo", NDJSON, "[]").await.status, 200);
    })
    .await;
}
