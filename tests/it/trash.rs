//! Deleted todos: `/trash` and `/todos/{id}/restore`.

use serde_json::{Value, json};

use crate::app::{PREFIXES, with_app};
use crate::client::RequestExt;

#[actix_web::test]
async fn what_is_deleted_can_be_seen_and_restored() {
    with_app(async |app| {
        let token = app.token("demo");
        for prefix in PREFIXES {
            let new = json!({"title": "a", "description": "b", "completed": true, "priority": 1, "tags": ["x"]});
            let id = app.create(&token, new).await;
            let path = format!("{prefix}/todos/{id}");
            let before = app.get(&path).bearer_auth(&token).answer().await.json();
            assert_eq!(app.delete(&path).bearer_auth(&token).answer().await.status, 204);
            app.get(&path).bearer_auth(&token).answer().await.assert_refused(404, "Todo not found");

            let trash = app.get(&format!("{prefix}/trash")).bearer_auth(&token).answer().await;
            assert_eq!(trash.header("cache-control"), Some("private, no-cache"));
            assert_eq!(
                trash.header("sync-token"),
                app.get("/todos").bearer_auth(&token).answer().await.header("sync-token")
            );
            let mut trashed = trash.json()[0].clone();
            let (deleted_at, etag) = (trashed["deleted_at"].take(), trashed["etag"].take());
            assert_eq!(
                (&deleted_at, &etag),
                (&trashed["updated_at"], &json!(format!("\"{}-{id}-2\"", app.store().epoch())))
            );
            let mut expected = before.clone();
            expected["updated_at"] = deleted_at;
            for taken in ["etag", "deleted_at"] {
                expected[taken] = Value::Null;
            }
            assert_eq!(trashed, expected);

            let restore =
                app.post(&format!("{path}/restore")).bearer_auth(&token).header("If-Match", etag.as_str().unwrap());
            let restored = restore.answer().await;
            assert_eq!((restored.status, &restored.json()["title"]), (200, &json!("a")));
            assert_eq!(restored.body, app.get(&path).bearer_auth(&token).answer().await.body);
            let again = app.post(&format!("{path}/restore")).bearer_auth(&token).answer().await;
            again.assert_refused(409, "Todo is not deleted");
            let empty = app.get("/trash").bearer_auth(&token).answer().await.json();
            assert_eq!(empty, json!([]));
        }
        let events = app.published().await;
        let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["todo.created", "todo.deleted", "todo.restored"].repeat(2));
    })
    .await;
}

#[actix_web::test]
async fn what_is_removed_for_good_cannot_be_restored() {
    with_app(async |app| {
        let token = app.token("demo");
        for title in ["a", "b", "c", "d"] {
            let id = app.create(&token, json!({"title": title})).await;
            if title != "d" {
                app.delete(&format!("/todos/{id}")).bearer_auth(&token).answer().await;
            }
        }
        let restore = |id: i64| app.post(&format!("/todos/{id}/restore")).bearer_auth(&token).answer();
        let purge = |id: &str| app.delete(&format!("/v1/trash/{id}")).bearer_auth(&token);
        assert_eq!(purge("1").header("If-Match", "\"x\"").answer().await.status, 412);
        let purged = purge("1").answer().await;
        assert_eq!((purged.status, purged.body.as_str()), (204, ""));
        for id in ["1", "4", "99", "99999999999999999999"] {
            purge(id).answer().await.assert_refused(404, "Todo not found");
        }
        assert_eq!(purge("x").answer().await.problems(), ["int_parsing id"]);
        restore(1).await.assert_refused(404, "Todo not found");
        restore(99).await.assert_refused(404, "Todo not found");
        for (name, value) in [("If-Match", "\"x\""), ("If-Match", "\"\""), ("If-Match", ""), ("If-None-Match", "*")] {
            let refused = app.delete("/trash").bearer_auth(&token).header(name, value).answer().await;
            refused.assert_refused(412, "Precondition Failed");
        }
        let emptied = app.delete("/trash").bearer_auth(&token).header("If-Match", "*").answer().await;
        assert_eq!((emptied.status, emptied.json()), (200, json!({"deleted": 2, "has_more": false})));
        let again = app.delete("/trash").bearer_auth(&token).answer().await;
        assert_eq!(again.json(), json!({"deleted": 0, "has_more": false}));
        restore(2).await.assert_refused(404, "Todo not found");
        assert_eq!(app.published().await.len(), 7, "no events but of creations and deletions");
    })
    .await;
}

#[actix_web::test]
async fn a_full_trash_is_emptied_bit_by_bit() {
    with_app(async |app| {
        let token = app.token("demo");
        for from in (0..700).step_by(100) {
            let create = json!({"op": "create", "todo": {"title": "a"}});
            let delete = |n: i64| json!({"op": "delete", "id": from + n});
            for operations in [vec![create; 100], (1..=100).map(delete).collect()] {
                let batch = app.post("/batch").bearer_auth(&token).send_json(json!({ "operations": operations })).await;
                assert_eq!(batch.status, 200);
            }
        }
        for (deleted, has_more) in [(500, true), (200, false), (0, false)] {
            let emptied = app.delete("/trash").bearer_auth(&token).answer().await;
            assert_eq!(emptied.json(), json!({"deleted": deleted, "has_more": has_more}));
        }
    })
    .await;
}
