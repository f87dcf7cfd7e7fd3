//! The seed's own examples, run as they stand in its README (seed-readme.md, a copy).

use std::process::Command;

use serde_json::{Value, json};

use crate::stack::{PORT_8000, Stack, project, tool};

/// The code blocks of `language` after `heading`, up to the next heading of the same level.
fn snippets(heading: &str, language: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(project().join("tests/e2e/seed-readme.md")).unwrap();
    let section = readme.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    let section = section.split("\n### ").next().unwrap();
    let fence = format!("```{language}\n");
    section.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// The snippets name port 8000, where the seed listens.
fn seed_like() -> Stack {
    let mut stack = Stack::new();
    stack.use_service_port(8000);
    stack.service_env = vec![("DATABASE_URL", "sqlite::memory:".into())];
    stack.start_service();
    stack
}

fn bash(script: &str) -> String {
    let output = Command::new("bash").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

// One test: both need port 8000.
// The lock is held across awaits, and meant to be: this test's runtime runs nothing else.
#[allow(clippy::await_holding_lock)]
#[actix_web::test]
async fn the_curl_and_python_snippets_run_unchanged() {
    let _port = PORT_8000.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let _stack = seed_like();
    let curl = snippets("### Using cURL", "bash");
    let [login, create, list, update, delete] = &curl[..] else { panic!("the seed has 5 curl snippets: {curl:?}") };
    let token: Value = serde_json::from_str(&bash(login)).unwrap();
    assert_eq!(token["token_type"], "bearer");
    let run = |snippet: &str| bash(&snippet.replace("{your_access_token}", token["access_token"].as_str().unwrap()));
    let todo: Value = serde_json::from_str(&run(create)).unwrap();
    assert_eq!(
        (&todo["id"], &todo["title"], &todo["description"], &todo["completed"]),
        (&json!(1), &json!("Test Todo"), &json!("Testing the API"), &json!(false))
    );
    let todos: Value = serde_json::from_str(&run(list)).unwrap();
    assert_eq!(todos, json!([todo]));
    let updated: Value = serde_json::from_str(&run(update)).unwrap();
    assert_eq!((&updated["title"], &updated["completed"]), (&json!("Updated Title"), &json!(true)));
    assert_eq!(run(delete), "");
    assert_eq!(run(list), "[]");

    let python = snippets("### Using Python Requests", "python");
    assert_eq!(python.len(), 1);
    let output = Command::new(tool("PYTHON")).args(["-c", &python[0]]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = printed.lines().collect();
    assert!(
        lines[0].starts_with("{'id': 2, 'title': 'Test', 'description': 'Test', 'completed': False, "),
        "{printed}"
    );
    assert_eq!(lines[1], format!("[{}]", lines[0]));
}
