//! The page, with a real sidecar and Kafka: what it shows of events, and what becomes of edits while all of them are killed.

use std::collections::BTreeMap;
use std::process::Command;

use crate::process::Process;
use crate::stack::{PATIENCE, Stack, project, tool};

#[actix_web::test]
async fn the_page_shows_the_way_of_each_event_and_loses_none() {
    let mut stack = Stack::started();
    let screenshots = project().join(std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into())).join("web");
    let mut command = Command::new("node");
    let address = format!("http://127.0.0.1:{}", stack.service_port());
    command.arg(project().join("tests/web/events.mjs")).arg(address).arg(screenshots).env("CHROMIUM", tool("CHROMIUM"));
    let page = Process::start("node", &mut command);
    page.wait_for("delivered", 2 * PATIENCE);
    stack.sidecar().kill();
    page.wait_for("waiting for the sidecar", 2 * PATIENCE);
    stack.start_sidecar();
    page.wait_for("editing", 3 * PATIENCE);
    stack.service().kill();
    stack.start_service();
    page.wait_for("settled", 3 * PATIENCE);

    let client = stack.client("demo", "demo123").await;
    let (_, todos) = client.send("GET", "/todos", None).await;
    let titles = || todos.as_array().unwrap().iter().map(|todo| todo["title"].as_str().unwrap().to_owned());
    assert_eq!(titles().filter(|title| title.starts_with("edit ")).count(), 30);
    let count = titles().count();
    assert_eq!(count, 35, "{todos}");
    // What is delivered twice has the same id.
    let created = |events: &[crate::stack::Event]| {
        let created = events.iter().filter(|event| event.text("type") == "todo.created");
        created.map(|event| (event.text("id").to_owned(), event.text("subject").to_owned())).collect::<BTreeMap<_, _>>()
    };
    let events = stack.events_until(|events| created(events).len() >= count).await;
    assert_eq!(created(&events).len(), count);
}
