//! `todo-backend import`: what it says.

use serde_json::json;

use crate::stack::{SERVICE, Stack};

/// Runs the import of a file with these contents; returns whether it worked, and what it wrote.
fn import(stack: &Stack, contents: &[u8], user: &str) -> (bool, String) {
    std::fs::write(stack.directory.path().join("todos.json"), contents).unwrap();
    run(stack, "todos.json", user)
}

fn run(stack: &Stack, file: &str, user: &str) -> (bool, String) {
    let output = stack.service_command().args(["import", file, "--user", user]).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.lines().count() == 1 && !text.contains("panicked"), "{text}");
    assert_eq!(output.status.success(), output.stderr.is_empty(), "{text}");
    (output.status.success(), text.trim_end().replace("todo-backend: ", ""))
}

#[actix_web::test]
async fn a_file_is_imported_while_the_service_is_stopped() {
    let mut stack = Stack::new();
    let (worked, why) = import(&stack, b"[]", "demo");
    assert!(!worked && why.starts_with("there is no database at data/todos.db; check DATABASE_URL"), "{why}");
    stack.start_service();
    let (worked, why) = import(&stack, b"[]", "demo");
    assert!(!worked && why.ends_with("data/todos.db; stop it, or use POST /import"), "{why}");
    let client = stack.client("demo", "demo123").await;
    let id = client.create("first").await;
    client.send("DELETE", &format!("/todos/{id}"), None).await;
    client.create("second").await;
    let export = client.respond("GET", "/export", None, &[]).await.unwrap().bytes().await.unwrap();
    stack.service().kill();

    for (contents, why) in [
        (&b""[..], "imported 0 todos for demo"),
        (
            b"[{\"title\":\"a\"},{\"title\":7,\"priority\":9},{}]",
            "todos.json was not imported: item 2, title: Input should be a valid string, and 2 more errors",
        ),
        (b"{\"title\":\"a\"}\n{\"title\":}", "todos.json was not imported: at character 24: JSON decode error"),
        (b"\xff", "todos.json was not imported: at character 1: JSON decode error"),
        (&export, "imported 1 todos for demo; skipped 4 lines about the trash and about changes"),
        (
            &export,
            "imported 0 todos for demo; 1 were there already, from the same file; skipped 4 lines about the trash and about changes",
        ),
    ] {
        assert_eq!(import(&stack, contents, "Demo").1, why);
    }
    let (worked, why) = import(&stack, &export, "nobody");
    assert!(!worked && why == "there is no account nobody; `todo-backend user list` shows all", "{why}");
    let (worked, why) = run(&stack, "none.json", "demo");
    assert!(!worked && why.starts_with("cannot read none.json: "), "{why}");
    stack.service_env.push(("MAX_TODOS_PER_USER", "3".into()));
    let (worked, why) = import(&stack, json!([{"title": "a"}, {"title": "b"}]).to_string().as_bytes(), "demo");
    assert!(
        !worked && why.contains("0 of 2 todos are imported, then: ") && why.contains("MAX_TODOS_PER_USER"),
        "{why}"
    );
    assert!(stack.run_service(&["check"]).contains("is good"));
    // On a terminal, it shows how far it is.
    let mut command = stack.command("script");
    let line = format!("{SERVICE} import todos.json --user user");
    command.env("TERM", "xterm").args(["-qec", &line, "/dev/null"]);
    let shown = command.output().expect("util-linux's script is there").stdout;
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("importing ") && shown.contains("imported 2 todos for user"), "{shown}");

    stack.start_service();
    let client = stack.client("demo", "demo123").await;
    let titles: Vec<_> = client.send("GET", "/todos", None).await.1.as_array().unwrap().clone();
    assert_eq!(titles.iter().map(|todo| todo["title"].clone()).collect::<Vec<_>>(), ["second", "second"]);
}
