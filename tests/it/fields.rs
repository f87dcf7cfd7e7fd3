//! The fields of a todo beyond the original's, and PATCH.

use serde_json::{Value, json};

use crate::app::{PREFIXES, TestApp, with_app};
use crate::client::{Answer, RequestExt};

async fn patch(app: &TestApp, path: &str, body: Value) -> Answer {
    let call = app.patch(path).bearer_auth(app.token("demo")).header("Content-Type", "application/merge-patch+json");
    call.body(body.to_string()).answer().await
}

/// A todo without what every todo has.
fn optional(todo: &Value) -> Value {
    let of_every_todo = ["id", "title", "description", "completed", "created_at", "updated_at"];
    let others = todo.as_object().unwrap().iter().filter(|(name, _)| !of_every_todo.contains(&name.as_str()));
    others.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[actix_web::test]
async fn a_field_that_is_not_set_is_not_there() {
    with_app(async |app| {
        let token = app.token("demo");
        let nothing = json!({"title": "a", "due_at": null, "priority": null, "tags": [], "order": null});
        let answer = app.post("/todos").bearer_auth(&token).send_json(nothing).await;
        assert_eq!(optional(&answer.json()), json!({}));
        let set = json!({
            "due_at": "2025-01-31T12:00:00.1234+01:00", "priority": 0, "tags": ["b", " a ", "b"], "order": -0.5,
        });
        let shown = json!({"due_at": "2025-01-31T11:00:00.123Z", "priority": 0, "tags": ["b", "a"], "order": -0.5});
        assert_eq!(optional(&patch(app, "/todos/1", set).await.json()), shown);
        let stored = app.get("/todos").bearer_auth(&token).answer().await.json();
        assert_eq!(optional(&stored[0]), shown);
        // They come after those that every todo has.
        let keys: Vec<String> = stored[0].as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys[6..], ["due_at", "priority", "tags", "order"]);
        let cleared = json!({"due_at": null, "priority": null, "tags": null, "order": null});
        let answer = app.put("/todos/1").bearer_auth(&token).send_json(cleared).await;
        assert_eq!(optional(&answer.json()), json!({}));

        let events = app.published().await;
        let names = ["due_at", "priority", "tags", "order"];
        let of_event = |index: usize| names.map(|name| events[index].data.others.get(name).cloned());
        assert_eq!(of_event(0), [const { None }; 4]);
        assert_eq!(events[0].data.changed, ["title", "description", "completed"]);
        let set = [json!("2025-01-31T11:00:00.123Z"), json!(0), json!(["b", "a"]), json!(-0.5)];
        assert_eq!(of_event(1), set.map(Some));
        assert_eq!(
            (&events[1].data.changed[..], &events[2].data.changed[..]),
            (&names.map(str::to_owned)[..], &names.map(str::to_owned)[..])
        );
        assert_eq!(of_event(2), [const { None }; 4]);
        assert!(events.iter().all(|event| event.data.others["schema"] == 1));
    })
    .await;
}

#[actix_web::test]
async fn a_creation_lists_what_it_has_set() {
    with_app(async |app| {
        app.create(&app.token("demo"), json!({"title": "a", "due_at": "2025-01-31", "tags": ["x"]})).await;
        let data = &app.published().await[0].data;
        assert_eq!(data.changed, ["title", "description", "completed", "due_at", "tags"]);
        let others = &data.others;
        assert_eq!(
            (&others["due_at"], &others["tags"], others.get("order")),
            (&json!("2025-01-31"), &json!(["x"]), None)
        );
    })
    .await;
}

#[actix_web::test]
async fn a_patch_changes_what_it_sends() {
    with_app(async |app| {
        for prefix in PREFIXES {
            let new = json!({"title": "a", "description": "b", "tags": ["x", "y"]});
            let id = app.create(&app.token("demo"), new).await;
            let path = format!("{prefix}/todos/{id}");
            let todo = patch(app, &path, json!({"completed": true, "tags_add": ["z"], "tags_remove": ["x"]})).await;
            let shown = todo.json();
            assert_eq!((&shown["title"], &shown["description"]), (&json!("a"), &json!("b")));
            assert_eq!((&shown["completed"], &shown["tags"]), (&json!(true), &json!(["y", "z"])));
            let cleared = patch(app, &path, json!({"description": null, "unknown": [{}]})).await.json();
            assert_eq!((&cleared["description"], &cleared["tags"]), (&json!(null), &json!(["y", "z"])));
        }
    })
    .await;
}

#[actix_web::test]
async fn a_patch_that_changes_nothing_makes_no_event() {
    with_app(async |app| {
        app.create(&app.token("demo"), json!({"title": "a", "order": 1})).await;
        let before = app.get("/todos/1").bearer_auth(app.token("demo")).answer().await;
        for same in [json!({}), json!({"title": "a"}), json!({"order": 1.0, "tags_remove": ["x"], "priority": null})] {
            let answer = patch(app, "/todos/1", same).await;
            assert_eq!((answer.status, &answer.body), (200, &before.body));
            assert_eq!(answer.header("etag"), before.header("etag"));
            assert!(answer.header("sync-token").unwrap().ends_with("-1"), "{answer:?}");
        }
        // The original's PUT makes one, and so does this.
        let put = app.put("/todos/1").bearer_auth(app.token("demo")).send_json(json!({"title": "a"})).await;
        assert_ne!(put.header("etag"), before.header("etag"));
        let events = app.published().await;
        assert_eq!((events.len(), events[1].data.changed.len()), (2, 0));
    })
    .await;
}

#[actix_web::test]
async fn every_problem_of_a_patch_is_told() {
    with_app(async |app| {
        app.create(&app.token("demo"), json!({"title": "a"})).await;
        let bad = json!({
            "title": null, "completed": null, "due_at": "2025-01-31T10:00:00", "priority": -1, "tags": ["", 7],
            "tags_add": ["x"], "order": true,
        });
        let answer = patch(app, "/todos/x", bad).await;
        let due = "Input should be a date (2025-01-31) or a time with its offset from UTC (2025-01-31T10:30:00+01:00)";
        answer.assert_refused(
            422,
            json!([
                {
                    "type": "int_parsing", "loc": ["path", "id"], "input": "x",
                    "msg": "Input should be a valid integer, unable to parse string as an integer",
                },
                {"type": "string_type", "loc": ["body", "title"], "msg": "Input should be a valid string", "input": null},
                {"type": "bool_type", "loc": ["body", "completed"], "msg": "Input should be a valid boolean", "input": null},
                {"type": "datetime_parsing", "loc": ["body", "due_at"], "msg": due, "input": "2025-01-31T10:00:00"},
                {
                    "type": "greater_than_equal", "loc": ["body", "priority"], "input": -1, "ctx": {"ge": 0},
                    "msg": "Input should be greater than or equal to 0",
                },
                {
                    "type": "string_too_short", "loc": ["body", "tags", 0], "input": "", "ctx": {"min_length": 1},
                    "msg": "String should have at least 1 character",
                },
                {"type": "string_type", "loc": ["body", "tags", 1], "msg": "Input should be a valid string", "input": 7},
                {"type": "float_type", "loc": ["body", "order"], "msg": "Input should be a valid number", "input": true},
                {
                    "type": "value_error", "loc": ["body", "tags"], "input": null,
                    "msg": "Send either tags, or tags_add and tags_remove",
                },
            ]),
        );
    })
    .await;
}

#[actix_web::test]
async fn a_todo_has_at_most_20_tags_however_it_gets_them() {
    with_app(async |app| {
        let tags: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        app.create(&app.token("demo"), json!({"title": "a", "tags": tags})).await;
        let error = |name: &str, msg: &str, input: Value, ctx: Value| {
            json!([{"type": "too_long", "loc": ["body", name], "msg": msg, "input": input, "ctx": ctx}])
        };
        let answer = patch(app, "/todos/1", json!({"tags_add": ["7", "new"]})).await;
        let msg = "The todo would have more than 20 tags";
        answer.assert_refused(422, error("tags_add", msg, json!(null), json!({"max_length": 20})));
        let many = vec!["x"; 21];
        let answer = patch(app, "/todos/1", json!({ "tags": many })).await;
        let ctx = json!({"field_type": "List", "max_length": 20, "actual_length": 21});
        answer.assert_refused(422, error("tags", "List should have at most 20 items", json!(many), ctx));
        let answer = patch(app, "/todos/1", json!({"tags_add": ["new"], "tags_remove": ["7"]})).await;
        assert_eq!(answer.json()["tags"].as_array().unwrap().len(), 20);
    })
    .await;
}

#[actix_web::test]
async fn another_kind_of_patch_is_415_and_says_which_are_understood() {
    with_app(async |app| {
        app.create(&app.token("demo"), json!({"title": "a"})).await;
        let call = || app.patch("/todos/1").bearer_auth(app.token("demo")).body("{}");
        for other in ["application/json-patch+json", "text/plain", "application/merge-patch", "multipart/form-data"] {
            let answer = call().header("Content-Type", other).answer().await;
            let accepted = "application/merge-patch+json, application/json";
            assert_eq!(answer.header("accept-patch"), Some(accepted), "{other}");
            answer.assert_refused(415, "Content-Type must be application/merge-patch+json or application/json");
        }
        assert_eq!(call().answer().await.status, 415, "without a Content-Type");
        for ours in ["application/json", "Application/Merge-Patch+JSON; charset=utf-8"] {
            assert_eq!(call().header("Content-Type", ours).answer().await.status, 200, "{ours}");
        }
        // Whoever may not, learns nothing about formats.
        app.patch("/todos/1").body("{}").answer().await.assert_refused(401, "Not authenticated");
    })
    .await;
}

#[actix_web::test]
async fn an_order_is_kept_to_the_last_bit() {
    with_app(async |app| {
        app.create(&app.token("demo"), json!({"title": "a"})).await;
        for order in
            [0.908_647_794_112_518_1, 0.410_535_033_353_769_23, 5e-324, 1.797_693_134_862_315_7e308, 1e23, -0.1]
        {
            let answer = patch(app, "/todos/1", json!({ "order": order })).await;
            assert_eq!(answer.json()["order"].as_f64(), Some(order));
            assert_eq!(app.todo("demo", 1).unwrap().order, Some(order));
        }
    })
    .await;
}

#[actix_web::test]
async fn texts_of_any_script_can_be_tags() {
    with_app(async |app| {
        let long = "🏷️".chars().next().unwrap().to_string().repeat(50);
        let tags = ["日本語", "ﬁ", "ẞ", "a,b", "\"", "שלום", &long];
        app.create(&app.token("demo"), json!({"title": "a", "tags": tags})).await;
        let stored = app.get("/todos/1").bearer_auth(app.token("demo")).answer().await.json();
        assert_eq!(stored["tags"], json!(tags));
        // Decomposed and composed are the same.
        let answer = patch(app, "/todos/1", json!({"tags": ["caf\u{65}\u{301}", "caf\u{e9}"]})).await;
        assert_eq!(answer.json()["tags"], json!(["caf\u{e9}"]));
        // What is answered can be sent back, also where it became longer.
        let longer = patch(app, "/todos/1", json!({"tags": ["\u{958}".repeat(25)]})).await.json();
        assert_eq!(longer["tags"][0].as_str().unwrap().chars().count(), 50);
        assert_eq!(patch(app, "/todos/1", json!({"tags": longer["tags"]})).await.json()["tags"], longer["tags"]);
    })
    .await;
}
