//! The relay against a sidecar that does not treat all todos alike.

use std::collections::HashSet;

use serde_json::json;

use crate::app::{eventually, with_app};

#[actix_web::test]
async fn events_are_published_while_those_of_other_todos_are_refused_or_get_no_answer() {
    const TODOS: i64 = 210;
    // More get no answer than there are publishes at once.
    let (refused, silent) = ((1..=TODOS).filter(|id| id % 3 == 0), (1..=TODOS).filter(|id| id % 3 == 1));
    with_app(async |app| {
        let sidecar = app.sidecar();
        refused.clone().for_each(|id| sidecar.refuse(id));
        silent.clone().for_each(|id| sidecar.hold(&format!("{id}-1")));
        let demo = app.token("demo");
        for n in 1..=TODOS {
            assert_eq!(app.create(&demo, json!({"title": format!("todo {n}")})).await, n);
        }
        let others: HashSet<String> = (1..=TODOS).filter(|id| id % 3 == 2).map(|id| format!("{id}-1")).collect();
        // Long before those without an answer are given up.
        eventually("the others are published", async || {
            sidecar.accepted_ids().into_iter().collect::<HashSet<_>>() == others
        })
        .await;
        assert_eq!(app.metric("todo_backend_publish_breaker_open").await, Some(0.0));
        assert!(app.metric("todo_backend_publish_failing_todos").await >= Some(70.0));

        refused.for_each(|id| sidecar.accept(id));
        silent.for_each(|id| sidecar.release(&format!("{id}-1")));
        app.metric_becomes("todo_backend_outbox_pending_events", 0.0).await;
        app.metric_becomes("todo_backend_publish_failing_todos", 0.0).await;
    })
    .await;
}
