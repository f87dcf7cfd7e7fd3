//! `DELETE /todos`.

use serde_json::json;

use crate::app::{PREFIXES, TestApp, with_app};
use crate::client::{Answer, RequestExt};

async fn delete(app: &TestApp, query: &str) -> Answer {
    app.delete(&format!("/todos{query}")).bearer_auth(app.token("demo")).answer().await
}

async fn fill(app: &TestApp, count: usize) {
    let create = |n: usize| json!({"op": "create", "todo": {"title": n.to_string(), "completed": n % 2 == 1}});
    for from in (0..count).step_by(100) {
        let operations: Vec<_> = (from..count.min(from + 100)).map(create).collect();
        let batch =
            app.post("/batch").bearer_auth(app.token("demo")).send_json(json!({ "operations": operations })).await;
        assert_eq!(batch.status, 200, "{batch:?}");
    }
}

#[actix_web::test]
async fn only_what_is_asked_for_goes_to_the_trash() {
    with_app(async |app| {
        let token = app.token("demo");
        for prefix in PREFIXES {
            fill(app, 5).await;
            let other = app.create(&app.token("user"), json!({"title": "another user's", "completed": true})).await;
            for (query, deleted) in
                [("completed=true", 2), ("completed=false", 3), ("completed=false", 0), ("all=true", 0)]
            {
                let answer = app.delete(&format!("{prefix}/todos?{query}")).bearer_auth(&token).answer().await;
                let expected = json!({"deleted": deleted, "has_more": false});
                assert_eq!((answer.status, answer.json()), (200, expected), "{query}");
                assert_eq!(answer.header("change-revision").is_some(), deleted > 0);
            }
            assert!(app.todo("user", other).is_some());
        }
        let trash = app.get("/trash").bearer_auth(&token).answer().await.json();
        assert_eq!((trash.as_array().unwrap().len(), app.todos("demo").len()), (10, 0));
        app.published().await;
    })
    .await;
}

#[actix_web::test]
async fn many_go_500_at_a_time() {
    with_app(async |app| {
        fill(app, 1_101).await;
        for (query, deleted, has_more) in
            [("completed=true", 500, true), ("all=true", 500, true), ("all=true", 101, false), ("all=true", 0, false)]
        {
            let answer = delete(app, &format!("?{query}")).await;
            assert_eq!(answer.json(), json!({"deleted": deleted, "has_more": has_more}));
        }
    })
    .await;
}

#[actix_web::test]
async fn of_long_ones_fewer_go_at_a_time() {
    with_app(async |app| {
        let token = app.token("demo");
        let long = json!({"op": "create", "todo": {"title": "a", "description": "d".repeat(9_999)}});
        for _ in 0..3 {
            let body = json!({ "operations": vec![&long; 100] });
            assert_eq!(app.post("/batch").bearer_auth(&token).send_json(body).await.status, 200);
        }
        for (deleted, has_more) in [(210, true), (90, false)] {
            assert_eq!(delete(app, "?all=true").await.json(), json!({"deleted": deleted, "has_more": has_more}));
        }
    })
    .await;
}

#[actix_web::test]
async fn nothing_goes_unless_it_is_said_what() {
    with_app(async |app| {
        fill(app, 2).await;
        for (query, problems) in [
            ("", &["missing completed"][..]),
            ("?", &["missing completed"]),
            ("?all=false", &["enum all"]),
            ("?all=yes", &["bool_parsing all"]),
            ("?completed=1", &["bool_parsing completed"]),
            ("?completed=", &["bool_parsing completed"]),
            ("?complete=true", &["extra_forbidden complete", "missing completed"]),
            ("?completed=true&q=x&%20=1", &["extra_forbidden q", "extra_forbidden  "]),
            ("?completed=true&completed=false", &["value_error completed"]),
            ("?all=true&completed=true", &["value_error all"]),
            ("?All=true", &["extra_forbidden All", "missing completed"]),
            ("?all=true&limit=1", &["extra_forbidden limit"]),
        ] {
            assert_eq!(delete(app, query).await.problems(), problems, "{query}");
        }
        let shown = delete(app, "?complete=true").await.json();
        let expected = json!({"detail": [
            {"type": "extra_forbidden", "loc": ["query", "complete"], "msg": "Extra inputs are not permitted", "input": "true"},
            {"type": "missing", "loc": ["query", "completed"], "msg": "Field required", "input": null},
        ]});
        assert_eq!(shown, expected);
        // A missing id is no request for all of them.
        delete(app, "/").await.assert_refused(404, "Not Found");
        delete(app, "/?all=true").await.assert_refused(404, "Not Found");
        assert_eq!(app.todos("demo").len(), 2);
    })
    .await;
}

#[actix_web::test]
async fn the_tag_of_a_list_guards_it() {
    with_app(async |app| {
        fill(app, 4).await;
        let token = app.token("demo");
        let tag = async |query: &str| {
            let list = app.get(&format!("/todos{query}")).bearer_auth(&token).answer().await;
            list.header("etag").unwrap().to_owned()
        };
        let delete = async |name: &str, tag: &str| {
            app.delete("/todos?completed=true").bearer_auth(&token).header(name, tag).answer().await
        };
        let (seen, of_all) = (tag("?completed=true&etags=true").await, tag("").await);
        app.create(&token, json!({"title": "meanwhile"})).await;
        let todo = app.get("/todos/1").bearer_auth(&token).answer().await.header("etag").unwrap().to_owned();
        for stale in [&seen, &of_all, &todo, "\"\"", "", "\"x\""] {
            delete("If-Match", stale).await.assert_refused(412, "Precondition Failed");
        }
        let now = tag("?completed=true").await;
        for present in [&now, "*"] {
            delete("If-None-Match", present).await.assert_refused(412, "Precondition Failed");
        }
        let other = app.get("/todos").bearer_auth(app.token("user")).answer().await.header("etag").unwrap().to_owned();
        delete("If-Match", &other).await.assert_refused(412, "Precondition Failed");
        let gzipped = now.strip_suffix('"').map(|tag| format!("{tag}-gzip\"")).unwrap();
        assert_eq!(delete("If-Match", &format!("{seen}, {gzipped}")).await.json()["deleted"], 2);
        assert_eq!(delete("If-Match", "*").await.json()["deleted"], 0);
    })
    .await;
}
